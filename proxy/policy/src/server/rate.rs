//! A rate limit: the generic cell rate algorithm (ITU-T I.371), a token bucket
//! kept as one number.
//!
//! What is kept is when the next request would arrive if all came evenly: the
//! *theoretical arrival time*. A request passes if it comes no earlier than
//! `tolerance` before it, and moves it on by one `interval`. That is exactly a
//! bucket of `burst` tokens of which one drips in every interval, but needs no
//! clockwork and no two fields that must change together: one atomic word,
//! shared by the workers. (A window that is counted and cleared lets twice the
//! rate through around its edge.)
//!
//! A request that is refused takes nothing: who hammers is let in at the rate,
//! neither more nor less.

use crate::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::since;

/// The figures of one limit, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    interval: u64,
    tolerance: u64,
}

impl Rate {
    /// `requests` in every `per`, and `burst` of them at once after a calm.
    /// Zeros count as ones. An interval that is no whole number of nanoseconds
    /// is rounded up: never more than configured.
    #[must_use]
    pub fn new(requests: u32, per: Duration, burst: u32) -> Self {
        let interval = since::nanos(per).div_ceil(requests.max(1).into()).max(1);
        Self {
            interval,
            tolerance: interval.saturating_mul(burst.max(1).saturating_sub(1).into()),
        }
    }

    /// From one request to the next.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// How many may come at once after a calm.
    #[must_use]
    pub const fn burst(&self) -> u64 {
        self.tolerance / self.interval + 1
    }

    /// Lets a request pass at `now`, in nanoseconds since the `arrival` 0, or
    /// says how long until one would.
    pub(super) fn take(&self, arrival: &AtomicU64, now: u64) -> Result<(), Duration> {
        let next = |arrival: u64| {
            (arrival.saturating_sub(now) <= self.tolerance)
                .then(|| arrival.max(now).saturating_add(self.interval))
        };
        // Ordered for `keyed`, where a bucket changes hands beside this.
        match arrival.fetch_update(Ordering::AcqRel, Ordering::Relaxed, next) {
            Ok(_) => Ok(()),
            Err(arrival) => {
                let early = arrival.saturating_sub(now).saturating_sub(self.tolerance);
                Err(Duration::from_nanos(early))
            }
        }
    }

    /// As [`Rate::take`], where no token is missing; else nothing is taken.
    pub(super) fn take_first(&self, arrival: &AtomicU64, now: u64) -> bool {
        let first = |arrival: u64| (arrival <= now).then(|| now.saturating_add(self.interval));
        arrival
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, first)
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{millis, seconds};

    const MILLI: u64 = 1_000_000;

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = Rate::new(10, seconds(1), 3);
        let arrival = AtomicU64::new(0);
        let wait = |ms| Err(millis(ms));
        let table = [
            (1_000, Ok(())),
            (1_000, Ok(())),
            (1_000, Ok(())),
            (1_000, wait(100)),
            (1_040, wait(60)),
            (1_100, Ok(())),
            (1_100, wait(100)),
            (1_300, Ok(())),
            (1_300, Ok(())),
            (1_300, wait(100)),
            (9_000, Ok(())),
            (9_000, Ok(())),
            (9_000, Ok(())),
            (9_000, wait(100)),
        ];
        for (row, (at, expected)) in table.into_iter().enumerate() {
            assert_eq!(rate.take(&arrival, at * MILLI), expected, "row {row}");
        }
    }

    #[test]
    fn extremes_neither_overflow_nor_let_everything_through() {
        let slow = Rate::new(1, Duration::MAX, u32::MAX);
        let arrival = AtomicU64::new(0);
        assert_eq!(slow.take(&arrival, 0), Ok(()));
        let fast = Rate::new(u32::MAX, Duration::from_nanos(1), 1);
        let arrival = AtomicU64::new(0);
        assert_eq!(fast.take(&arrival, 5), Ok(()));
        assert_eq!(fast.take(&arrival, 5), Err(Duration::from_nanos(1)));
        let none = Rate::new(0, seconds(1), 0);
        let arrival = AtomicU64::new(0);
        assert_eq!(none.take(&arrival, 0), Ok(()));
        assert!(none.take(&arrival, 0).is_err());
    }

    /// The bucket itself: tokens as an exact fraction, filled as time goes by.
    struct Bucket {
        /// Of one interval each.
        nanos: u64,
        full: u64,
        interval: u64,
        at: u64,
    }

    impl Bucket {
        fn take(&mut self, now: u64) -> bool {
            self.nanos = (self.nanos + (now - self.at)).min(self.full);
            self.at = now;
            let enough = self.nanos >= self.interval;
            if enough {
                self.nanos -= self.interval;
            }
            enough
        }
    }

    proptest! {
        #![proptest_config(crate::testing::sequences())]

        #[test]
        fn equals_a_bucket_of_tokens(
            requests in 1u32..50,
            burst in 1u32..20,
            steps in proptest::collection::vec(0u64..60, 1..40),
        ) {
            let rate = Rate::new(requests, seconds(1), burst);
            let full = rate.interval * u64::from(burst);
            let mut bucket = Bucket { nanos: full, full, interval: rate.interval, at: 0 };
            let arrival = AtomicU64::new(0);
            let mut now = 0;
            for step in steps {
                now += step * MILLI;
                let expected = bucket.take(now);
                match rate.take(&arrival, now) {
                    Ok(()) => prop_assert!(expected),
                    Err(wait) => {
                        prop_assert!(!expected);
                        let missing = bucket.interval - bucket.nanos;
                        prop_assert_eq!(wait, Duration::from_nanos(missing));
                    }
                }
            }
        }
    }
}
