//! The endpoints of one service port that its registry offers, laid out once
//! per Snapshot so that a pick need not go over them.
//!
//! Made beside the live state, read by every pick of every worker. A seat for
//! each endpoint that is healthy and has a weight; where weights differ, a
//! draw by weight is one look at a table (the alias method of Walker, in
//! integers and so exact). Which seats are closed and who waits for a probe
//! changes meanwhile: the [`Crowd`] knows, until the next rotation begins. It
//! decides nothing.

use std::sync::Arc;

#[cfg(any(test, feature = "loom"))]
use crate::crowd::Listing;
use crate::crowd::{Crowd, Seating};
use crate::endpoint::EndpointState;
use crate::snapshot::Endpoint;

/// See the module.
#[derive(Debug)]
pub struct Rotation {
    seats: Box<[Seat]>,
    /// Beside the seats; empty where all weigh the same.
    columns: Box<[Column]>,
    weight: u64,
    crowd: Arc<Crowd>,
    seating: Seating,
}

/// One endpoint that is offered.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) state: Arc<EndpointState>,
    /// Into the endpoints of the port.
    index: u32,
    pub(crate) weight: u32,
}

/// Draws are spread evenly over columns; in each, those below a mark are its
/// own seat's, the rest another's.
#[derive(Debug, Clone, Copy)]
struct Column {
    below: u64,
    other: u32,
}

impl Seat {
    /// Into the endpoints of the port.
    pub(crate) const fn index(&self) -> usize {
        self.index as usize
    }
}

impl Rotation {
    /// Seats those of `endpoints` that are offered, and tells their `crowd`:
    /// from then on it is the crowd's rotation of now. `states` are those of
    /// `endpoints`, in their order, and all of that crowd.
    #[must_use]
    pub fn begin(
        endpoints: &[Arc<Endpoint>],
        states: &[Arc<EndpointState>],
        crowd: &Arc<Crowd>,
    ) -> Self {
        debug_assert_eq!(
            endpoints.len(),
            states.len(),
            "states stand beside their endpoints"
        );
        let offered = (0u32..)
            .zip(endpoints.iter().zip(states))
            .filter(|(_, (endpoint, _))| endpoint.healthy && endpoint.weight > 0);
        let seats: Box<[Seat]> = offered
            .map(|(index, (endpoint, state))| Seat {
                state: Arc::clone(state),
                index,
                weight: endpoint.weight,
            })
            .collect();
        let weight = seats.iter().map(|seat| u64::from(seat.weight)).sum();
        let is_even = seats.windows(2).all(|two| two[0].weight == two[1].weight);
        let seating = crowd.begin_rotation(seats.len(), |seat| {
            let state = &seats[seat].state;
            (state.place(), state.listing())
        });
        Self {
            columns: if is_even {
                Box::default()
            } else {
                columns(&seats, weight)
            },
            seats,
            weight,
            crowd: Arc::clone(crowd),
            seating,
        }
    }

    pub(crate) const fn seats(&self) -> &[Seat] {
        &self.seats
    }

    pub(crate) const fn crowd(&self) -> &Arc<Crowd> {
        &self.crowd
    }

    pub(crate) const fn seating(&self) -> &Seating {
        &self.seating
    }

    /// Whether the crowd still keeps [`Rotation::seating`] true.
    pub(crate) fn is_current(&self) -> bool {
        self.crowd.is_current(self.seating.rotation)
    }

    /// Whether what the crowd lists and counts, and the verdicts it was told of,
    /// are what the breakers of all seats are. When nothing goes on.
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn is_true(&self) -> bool {
        let is_true = |(seat, Seat { state, .. }): (usize, &Seat)| {
            let listing = state.listing();
            let waits = self
                .crowd
                .longest_waiting(self.seating.rotation, u64::MAX, |other| other == seat)
                .is_some();
            state.is_published()
                && waits == matches!(listing, Listing::Waits { .. })
                && self.seating.closed.has(seat) == (listing == Listing::Closed)
        };
        let is_out = |seat: &&Seat| seat.state.listing() != Listing::Closed;
        let out = self.seats.iter().filter(is_out).count();
        self.seats.iter().enumerate().all(is_true) && self.crowd.open() as usize == out
    }

    /// Whether all weigh the same.
    pub(crate) const fn is_even(&self) -> bool {
        self.columns.is_empty()
    }

    /// The mean weight.
    pub(crate) fn mean(&self) -> f64 {
        self.weight as f64 / self.seats.len() as f64
    }

    /// A seat by chance, in proportion to weight. There is at least one.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> usize {
        let seat = rng.usize(..self.seats.len());
        match self.columns.get(seat) {
            Some(column) if rng.u64(..self.weight) >= column.below => column.other as usize,
            _ => seat,
        }
    }

    /// A seat by chance that is not `one`, each alike. There are at least two.
    pub(crate) fn draw_other(&self, one: usize, rng: &mut fastrand::Rng) -> usize {
        let seat = rng.usize(..self.seats.len() - 1);
        seat + usize::from(seat >= one)
    }
}

/// Weights are scaled by the number of seats, so that the mean is `weight` and
/// every column holds just that much: what a light seat leaves of its column
/// is filled by a heavy one, until nothing is left over.
fn columns(seats: &[Seat], weight: u64) -> Box<[Column]> {
    let scaled = |seat: &Seat| u64::from(seat.weight) * seats.len() as u64;
    let own = |(other, seat): (u32, &Seat)| Column {
        below: scaled(seat),
        other,
    };
    let mut columns: Box<[Column]> = (0..).zip(seats).map(own).collect();
    let (mut light, mut heavy): (Vec<_>, Vec<_>) =
        (0..seats.len()).partition(|seat| columns[*seat].below < weight);
    while let Some(small) = light.pop()
        && let Some(&large) = heavy.last()
    {
        columns[small].other = large as u32;
        columns[large].below -= weight - columns[small].below;
        if columns[large].below < weight {
            heavy.pop();
            light.push(large);
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{endpoint, key, seeded, start};

    fn rotation(kinds: &[(u32, bool)]) -> Rotation {
        let crowd = Arc::new(Crowd::new(start()));
        let with = |(n, (weight, healthy)): (u16, &(u32, bool))| {
            let state = EndpointState::new(key(n), Arc::clone(&crowd));
            (endpoint(n, *weight, *healthy), Arc::new(state))
        };
        let (endpoints, states): (Vec<_>, Vec<_>) = (0..).zip(kinds).map(with).unzip();
        Rotation::begin(&endpoints, &states, &crowd)
    }

    #[test]
    fn seats_only_what_is_offered() {
        let rotation = rotation(&[(0, true), (2, true), (1, false), (5, true)]);
        let seats: Vec<_> = rotation
            .seats()
            .iter()
            .map(|s| (s.index(), s.weight))
            .collect();
        assert_eq!(seats, [(1, 2), (3, 5)]);
        assert!(!rotation.is_even());
        assert!((rotation.mean() - 3.5).abs() < 1e-9);
    }

    #[test]
    fn the_other_is_another() {
        let rotation = rotation(&[(1, true); 3]);
        let mut rng = seeded();
        let mut seen = [0; 9];
        for _ in 0..900 {
            let one = rotation.draw(&mut rng);
            seen[one * 3 + rotation.draw_other(one, &mut rng)] += 1;
        }
        assert!(seen[0] + seen[4] + seen[8] == 0, "{seen:?}");
        let pairs = [1, 2, 3, 5, 6, 7];
        assert!(
            pairs.iter().all(|pair| (110..190).contains(&seen[*pair])),
            "{seen:?}"
        );
    }

    proptest! {
        #[test]
        fn a_draw_is_exactly_by_weight(
            weights in proptest::collection::vec(prop_oneof![1u32..5, Just(u32::MAX), 1u32..1000], 1..50),
        ) {
            let kinds: Vec<_> = weights.iter().map(|weight| (*weight, true)).collect();
            let rotation = rotation(&kinds);
            prop_assume!(!rotation.is_even());
            let mut shares = vec![0; weights.len()];
            for (seat, column) in rotation.columns.iter().enumerate() {
                let own = column.below.min(rotation.weight);
                shares[seat] += own;
                shares[column.other as usize] += rotation.weight - own;
            }
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert_eq!(*share, u64::from(*weight) * weights.len() as u64);
            }
        }
    }
}
