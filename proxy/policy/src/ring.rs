//! Counts over a sliding span of time, without a lock: what budgets and
//! breakers stand on.
//!
//! A ring of `N` slots, each the count of one slice of time. A slot is one
//! atomic of a tick (upper half) and a count (lower half), so that taking over
//! a slot of an earlier turn and counting in it are one step. It knows nothing
//! of what it counts.

use std::time::{Duration, Instant};

use crate::since;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Counts events in slices of equal width. What every count reads comes before the slots.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Ring<const N: usize> {
    start: Instant,
    /// Of one slice, in nanoseconds; at least 1.
    width: AtomicU64,
    slots: [AtomicU64; N],
}

const COUNT_BITS: u32 = 32;

fn split(slot: u64) -> (u32, u32) {
    ((slot >> COUNT_BITS) as u32, slot as u32)
}

fn join(tick: u32, count: u32) -> u64 {
    u64::from(tick) << COUNT_BITS | u64::from(count)
}

fn nanos(width: Duration) -> u64 {
    since::nanos(width).max(1)
}

impl<const N: usize> Ring<N> {
    /// How many slices a worker may be late. What seems farther ahead is none
    /// of this time: it was counted by another width, or before ticks wrapped.
    const FARTHEST_AHEAD: i32 = 4 * N as i32;

    pub(crate) fn new(start: Instant, width: Duration) -> Self {
        Self {
            start,
            width: AtomicU64::new(nanos(width)),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Changes the width of a slice. If it differs, counting begins anew.
    pub(crate) fn set_width(&self, width: Duration) {
        let width = nanos(width);
        // It hardly ever does, and is set with every event: looked at before it is written.
        if self.width.load(Ordering::Relaxed) != width
            && self.width.swap(width, Ordering::Relaxed) != width
        {
            self.clear();
        }
    }

    pub(crate) fn clear(&self) {
        for slot in &self.slots {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// Counts one event.
    pub(crate) fn add(&self, now: Instant) {
        self.add_in(self.tick(now));
    }

    fn add_in(&self, tick: u32) {
        let slot = &self.slots[tick as usize % N];
        let counted = |old: u64| {
            let (held, count) = split(old);
            // A worker whose `now` is older than a colleague's counts in the later slice.
            let ahead = held.wrapping_sub(tick) as i32;
            Some(match (0..=Self::FARTHEST_AHEAD).contains(&ahead) {
                true => join(held, count.saturating_add(1)),
                false => join(tick, 1),
            })
        };
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }

    /// The events of the last `slices` slices, the current one included. It
    /// covers between `slices - 1` and `slices` widths of time.
    pub(crate) fn sum(&self, now: Instant, slices: i32) -> u64 {
        let tick = self.tick(now);
        let within = |slot: &AtomicU64| {
            let (held, count) = split(slot.load(Ordering::Relaxed));
            let age = tick.wrapping_sub(held) as i32;
            (-Self::FARTHEST_AHEAD..slices)
                .contains(&age)
                .then_some(u64::from(count))
        };
        self.slots.iter().filter_map(within).sum()
    }

    fn tick(&self, now: Instant) -> u32 {
        let elapsed = since::nanos(now.saturating_duration_since(self.start));
        (elapsed / self.width.load(Ordering::Relaxed)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{millis, seconds, start};

    #[test]
    fn forgets_what_is_older_than_its_span() {
        let start = start();
        let ring = Ring::<11>::new(start, seconds(1));
        ring.add(start);
        ring.add(start + millis(999));
        ring.add(start + seconds(5));
        let table = [
            (5_000, 3),
            (9_999, 3),
            (10_000, 1),
            (14_999, 1),
            (15_000, 0),
        ];
        for (at, expected) in table {
            assert_eq!(ring.sum(start + millis(at), 10), expected, "at {at} ms");
        }
        assert_eq!(
            ring.sum(start + millis(10_999), 11),
            3,
            "the eleventh slice is still held"
        );
    }

    #[test]
    fn takes_over_slots_of_an_earlier_turn() {
        let start = start();
        let ring = Ring::<10>::new(start, seconds(1));
        ring.add(start);
        ring.add(start + seconds(10));
        assert_eq!(ring.sum(start + seconds(10), 10), 1);
    }

    #[test]
    fn another_width_begins_anew() {
        let start = start();
        let ring = Ring::<10>::new(start, seconds(1));
        ring.add(start);
        ring.set_width(seconds(1));
        assert_eq!(ring.sum(start, 10), 1);
        ring.set_width(seconds(2));
        assert_eq!(ring.sum(start, 10), 0);
    }

    #[test]
    fn forgets_also_after_more_slices_than_half_a_word_counts() {
        let start = start();
        let ring = Ring::<10>::new(start, millis(1));
        let month = seconds(30 * 24 * 3600);
        ring.add(start + month);
        assert_eq!(ring.sum(start + month, 10), 1);
        assert_eq!(ring.sum(start + month + seconds(1), 10), 0);
        ring.add(start);
        assert_eq!(ring.sum(start + 2 * month, 10), 0);
    }

    #[test]
    fn what_was_counted_by_the_width_before_does_not_stay() {
        let start = start();
        let ring = Ring::<10>::new(start, millis(1));
        let hour = start + seconds(3600);
        // As by a worker that had read the width just before it changed.
        let late = ring.tick(hour);
        ring.set_width(seconds(1));
        ring.add_in(late);
        assert_eq!(ring.sum(hour, 10), 0);
        ring.add(hour);
        assert_eq!(ring.sum(hour, 10), 1);
        assert_eq!(ring.sum(hour + seconds(10), 10), 0);
    }
}
