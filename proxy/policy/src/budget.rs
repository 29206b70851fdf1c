//! How many retries a service can bear: a share of its requests, and a few
//! besides.
//!
//! Asked by every retry, after everything else spoke for it. One per service
//! and proxy, shared by the workers. It knows neither why something is
//! retried nor when.
//!
//! Over the interval that ends with a retry, retries ≤ `percent` of requests
//! plus `min_per_second` for each of its seconds. That is never exceeded:
//! requests are counted over the ten slices that lie wholly in the interval,
//! retries over the eleven that touch it. (A token bucket, the usual way, lets
//! a burst through after a calm; a share of the requests *in flight* grows
//! just when requests hang.) Counting a request is one atomic; only who wants
//! to retry takes the lock, which makes asking and spending one step.

use std::time::Instant;

use crate::ring::Ring;
use crate::snapshot::BudgetPolicy;
use crate::sync::Mutex;

/// Slices in an interval.
const SLICES: u32 = 10;
const REQUEST_SLICES: i32 = SLICES as i32;
const RETRY_SLICES: i32 = SLICES as i32 + 1;
const SLOTS: usize = SLICES as usize + 1;

/// The retry budget of one service.
#[derive(Debug)]
pub struct Budget {
    requests: Ring<SLOTS>,
    spending: Mutex<Spending>,
}

#[derive(Debug)]
struct Spending {
    policy: BudgetPolicy,
    retries: Ring<SLOTS>,
}

impl Budget {
    /// An unspent budget.
    #[must_use]
    pub fn new(policy: BudgetPolicy, now: Instant) -> Self {
        let width = policy.interval / SLICES;
        Self {
            requests: Ring::new(now, width),
            spending: Mutex::new(Spending {
                policy,
                retries: Ring::new(now, width),
            }),
        }
    }

    /// Changes the policy in place. What was counted stays, unless the interval changes.
    pub fn set_policy(&self, policy: BudgetPolicy) {
        let mut spending = self.spending.lock();
        if spending.policy == policy {
            return;
        }
        let width = policy.interval / SLICES;
        self.requests.set_width(width);
        spending.retries.set_width(width);
        spending.policy = policy;
    }

    /// Counts a request; not its retries.
    pub fn request(&self, now: Instant) {
        self.requests.add(now);
    }

    /// Takes a retry from the budget, if there is one.
    #[must_use]
    pub fn try_spend(&self, now: Instant) -> bool {
        let spending = self.spending.lock();
        let requests = u128::from(self.requests.sum(now, REQUEST_SLICES));
        let retries = u128::from(spending.retries.sum(now, RETRY_SLICES));
        let policy = spending.policy;
        // Everything times 100 (per cent) and 1000 (milliseconds), to stay exact.
        let share = requests * u128::from(policy.percent) * 1000;
        let least = u128::from(policy.min_per_second) * policy.interval.as_millis() * 100;
        let granted = (retries + 1) * 100_000 <= share + least;
        if granted {
            spending.retries.add(now);
        }
        granted
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Barrier;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::{millis, seconds, start};

    #[test]
    fn an_idle_service_has_one_retry_per_second() {
        let start = start();
        let budget = Budget::new(BudgetPolicy::default(), start);
        let granted = (0..50).filter(|_| budget.try_spend(start)).count();
        assert_eq!(granted, 10);
        assert!(
            !budget.try_spend(start + seconds(10)),
            "the interval has not passed wholly"
        );
        assert!(budget.try_spend(start + seconds(11)));
    }

    #[test]
    fn grows_by_a_fifth_of_the_requests() {
        let start = start();
        let budget = Budget::new(BudgetPolicy::default(), start);
        (0..1000).for_each(|_| budget.request(start));
        assert_eq!((0..500).filter(|_| budget.try_spend(start)).count(), 210);
    }

    #[test]
    fn nothing_at_all_when_set_to_nothing() {
        let start = start();
        let budget = Budget::new(BudgetPolicy::default(), start);
        (0..1000).for_each(|_| budget.request(start));
        assert!(budget.try_spend(start));
        let none = BudgetPolicy {
            percent: 0,
            min_per_second: 0,
            ..BudgetPolicy::default()
        };
        budget.set_policy(none);
        assert!(!budget.try_spend(start));
        budget.set_policy(BudgetPolicy::default());
        assert!(budget.try_spend(start), "what was counted stays");
    }

    #[test]
    fn workers_together_stay_within_the_share_of_any_interval() {
        const WORKERS: usize = 4;
        const TICKS: usize = 300;
        let start = start();
        let tick = millis(100);
        let budget = Budget::new(BudgetPolicy::default(), start);
        let together = Barrier::new(WORKERS);
        let worker = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut now = start;
            let mut counts = Vec::with_capacity(TICKS);
            for _ in 0..TICKS {
                together.wait();
                let (mut requests, mut retries) = (0, 0);
                // Calm and bursts: whoever asks more often than it may is refused.
                for _ in 0..rng.u64(0..20) {
                    budget.request(now);
                    requests += 1;
                    retries += (0..3).filter(|_| budget.try_spend(now)).count();
                }
                counts.push((requests, retries));
                now += tick;
            }
            counts
        };
        let counts = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..WORKERS)
                .map(|seed| scope.spawn(move || worker(seed as u64)))
                .collect();
            let counted = workers.into_iter().map(|worker| worker.join());
            let counted: Vec<_> = counted.map(|counts| counts.expect("no panic")).collect();
            (0..TICKS)
                .map(|tick| {
                    let of = counted
                        .iter()
                        .map(|counts: &Vec<(usize, usize)>| counts[tick]);
                    of.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
                })
                .collect::<Vec<_>>()
        });
        for (end, window) in counts.windows(100).enumerate() {
            let (requests, retries) = (window.iter()).fold((0, 0), |(requests, retries), one| {
                (requests + one.0, retries + one.1)
            });
            assert!(
                retries * 100 <= requests * 20 + 1000,
                "{end}: {retries} of {requests}"
            );
        }
        let (requests, retries) = counts[..100]
            .iter()
            .fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert!(
            retries * 100 >= requests * 15,
            "what may be spent is spent: {retries} of {requests}"
        );
    }

    #[derive(Debug, Clone)]
    enum Event {
        Wait(u64),
        Requests(u16),
        Retry,
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            (0u64..4000).prop_map(Event::Wait),
            (0u16..40).prop_map(Event::Requests),
            Just(Event::Retry),
            Just(Event::Retry),
        ];
        proptest::collection::vec(event, 0..300)
    }

    proptest! {
        #[test]
        fn never_over_the_share_of_any_interval(events in events(), percent in 0u32..150, least in 0u32..3) {
            let mut now = start();
            let interval = seconds(10);
            let policy = BudgetPolicy { percent, interval, min_per_second: least };
            let budget = Budget::new(policy, now);
            let (mut requests, mut retries) = (VecDeque::new(), VecDeque::new());
            let count = |times: &VecDeque<Instant>, now: Instant, span| {
                times.iter().filter(|at| now - **at < span).count() as u64
            };
            for event in events {
                match event {
                    Event::Wait(ms) => now += millis(ms),
                    Event::Requests(n) => (0..n).for_each(|_| {
                        budget.request(now);
                        requests.push_back(now);
                    }),
                    Event::Retry => {
                        let spent = count(&retries, now, interval) + 1;
                        let allowed = count(&requests, now, interval) * u64::from(percent)
                            + u64::from(least) * 10 * 100;
                        let surely = count(&requests, now, seconds(9)) * u64::from(percent)
                            + u64::from(least) * 10 * 100
                            >= (count(&retries, now, seconds(11)) + 1) * 100;
                        if budget.try_spend(now) {
                            prop_assert!(spent * 100 <= allowed, "{spent} of {allowed}/100");
                            retries.push_back(now);
                        } else {
                            prop_assert!(!surely, "refused what the narrowest reading grants");
                        }
                    }
                }
            }
        }
    }
}
