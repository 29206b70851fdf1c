//! A ring of points, many for each endpoint; a key belongs to the next point.
//!
//! Consistent hashing after Karger et al. (1997) with points by weight, as
//! Ketama made it known. The number of points of an endpoint depends on its own
//! weight (relative to the heaviest) and not on how many endpoints there are:
//! where one comes or goes, the others' points stay, and only the keys next to
//! the points that came or went move. Envoy's ring has a least size for all
//! together, and so moves more. Shares scatter by one over the root of the
//! points: 4096 of them keep ten equal endpoints within some three per cent.
//! Maglev's table is more even and smaller, and moves a few keys more.

use std::sync::Arc;

use crate::hash;

/// Points of one ring, 4 MiB of them; where there would be more, each endpoint has half as many.
pub(super) const MOST_POINTS: u64 = 1 << 19;
/// Of a point: whose it is. The rest is where it lies.
const SEAT_BITS: u32 = 24;
const SEATS: u64 = 1 << SEAT_BITS;

/// The points in their order. At most [`SEATS`] of those `seated` have any.
pub(super) fn points(seated: &[(Arc<str>, u32)], virtual_nodes: u32) -> Box<[u64]> {
    let heaviest = seated.iter().map(|(_, weight)| *weight).max().unwrap_or(1);
    let whole = |weight: u32| u64::from(virtual_nodes) * u64::from(weight) / u64::from(heaviest);
    let all: u64 = seated.iter().map(|(_, weight)| whole(*weight)).sum();
    let halvings = (all.div_ceil(MOST_POINTS)).next_power_of_two().ilog2();
    let mut points = Vec::new();
    for (seat, (id, weight)) in (0..SEATS).zip(seated) {
        let own = hash::hash(id.as_bytes());
        let count = (whole(*weight) >> halvings).max(1);
        points.extend((0..count).map(|nth| hash::nth(own, nth) & !(SEATS - 1) | seat));
    }
    points.sort_unstable();
    points.into()
}

/// Where a key comes to lie: the index of its point.
pub(super) fn place(points: &[u64], key: u64) -> usize {
    points.partition_point(|point| *point < key & !(SEATS - 1))
}

/// Whose a point is.
pub(super) const fn seat(point: u64) -> usize {
    (point & (SEATS - 1)) as usize
}
