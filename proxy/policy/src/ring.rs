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

/// Counts events in slices of equal width.
#[derive(Debug)]
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
    pub(crate) fn new(start: Instant, width: Duration) -> Self {
        Self {
            start,
            width: AtomicU64::new(nanos(width)),
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Changes the width of a slice. If it differs, counting begins anew.
    pub(crate) fn set_width(&self, width: Duration) {
        if self.width.swap(nanos(width), Ordering::Relaxed) != nanos(width) {
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
        let tick = self.tick(now);
        let slot = &self.slots[tick as usize % N];
        let counted = |old: u64| {
            let (held, count) = split(old);
            // A worker whose `now` is older than a colleague's counts in the later slice.
            let later = held.wrapping_sub(tick) as i32 > 0;
            Some(match held == tick || later {
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
            (age < slices).then_some(u64::from(count))
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
}
