//! Rings, budgets, permits and averages: nothing is lost, nothing is spent
//! twice, nothing is torn.

use std::sync::Arc;

use selvage_policy::budget::Budget;
use selvage_policy::ewma::PeakEwma;
use selvage_policy::exposed::Counts;
use selvage_policy::service::ServiceState;
use selvage_policy::snapshot::{BudgetPolicy, Limits, ServiceName};

use crate::{at_once, every_order, millis, start};

#[test]
fn a_ring_loses_no_count_within_a_slice() {
    let start = start();
    every_order(move || {
        let ring = Arc::new(Counts::new(start, millis(1)));
        let other = Arc::clone(&ring);
        at_once(
            move || (0..2).for_each(|_| other.add(start)),
            || (0..2).for_each(|_| ring.add(start)),
        );
        assert_eq!(ring.sum(start), 4);
    });
}

#[test]
fn a_slot_of_an_earlier_turn_is_taken_over_once() {
    let start = start();
    every_order(move || {
        let ring = Arc::new(Counts::new(start, millis(1)));
        ring.add(start);
        let (other, later) = (Arc::clone(&ring), start + millis(2));
        at_once(move || other.add(later), || ring.add(later));
        assert_eq!(ring.sum(later), 2, "not the one of the earlier turn");
    });
}

#[test]
fn a_late_worker_loses_nobody_s_count() {
    let start = start();
    every_order(move || {
        let ring = Arc::new(Counts::new(start, millis(1)));
        let (other, later) = (Arc::clone(&ring), start + millis(2));
        // A whole turn late: either it came first and is over, or it counts now.
        at_once(move || other.add(start), || ring.add(later));
        assert!((1..=2).contains(&ring.sum(later)));
    });
}

#[test]
fn a_count_by_an_earlier_width_does_not_stay() {
    let start = start();
    every_order(move || {
        let ring = Arc::new(Counts::new(start, millis(1)));
        let (other, hour) = (Arc::clone(&ring), start + millis(3_600_000));
        at_once(move || other.add(hour), || ring.set_width(millis(1000)));
        assert!(ring.sum(hour) <= 1);
        assert_eq!(ring.sum(hour + millis(2000)), 0);
    });
}

#[test]
fn the_last_coin_is_spent_once() {
    let start = start();
    every_order(move || {
        let policy = BudgetPolicy {
            percent: 0,
            interval: millis(1000),
            min_per_second: 1,
        };
        let budget = Arc::new(Budget::new(policy, start));
        let other = Arc::clone(&budget);
        let (one, two) = at_once(move || other.try_spend(start), || budget.try_spend(start));
        assert!(one != two, "{one} and {two}");
    });
}

#[test]
fn a_request_pays_for_one_retry_at_most() {
    let start = start();
    every_order(move || {
        let policy = BudgetPolicy {
            percent: 100,
            interval: millis(1000),
            min_per_second: 0,
        };
        let budget = Arc::new(Budget::new(policy, start));
        let other = Arc::clone(&budget);
        let requested = move || {
            other.request(start);
            other.try_spend(start)
        };
        let (one, two) = at_once(requested, || budget.try_spend(start));
        assert!(one != two, "its own, or the other's");
        assert!(!budget.try_spend(start));
    });
}

#[test]
fn one_permit_is_held_by_one() {
    every_order(|| {
        let name = ServiceName::new("shop", "ratings");
        let service = Arc::new(ServiceState::new(name, BudgetPolicy::default(), start()));
        let limits = Limits {
            max_requests: 1,
            ..Limits::default()
        };
        let inside = Arc::new(loom::sync::atomic::AtomicUsize::new(0));
        let enter = |service: Arc<ServiceState>, inside: Arc<loom::sync::atomic::AtomicUsize>| {
            move || {
                let permit = service.admit_request(&limits)?;
                let order = loom::sync::atomic::Ordering::SeqCst;
                assert_eq!(inside.fetch_add(1, order), 0, "two hold one permit");
                inside.fetch_sub(1, order);
                drop(permit);
                Some(())
            }
        };
        let other = enter(Arc::clone(&service), Arc::clone(&inside));
        let (one, two) = at_once(other, enter(Arc::clone(&service), inside));
        assert!(one.or(two).is_some(), "one is let in");
        assert_eq!(service.in_use(), (0, 0, 0));
        assert!(service.admit_request(&limits).is_some());
    });
}

#[test]
fn an_average_is_that_of_some_order() {
    let start = start();
    let (soon, later) = (start + millis(10), start + millis(4_000));
    let samples = [(millis(200), soon), (millis(700), later)];
    every_order(move || {
        let in_order = |order: [usize; 2]| {
            let ewma = PeakEwma::new(start);
            for (latency, now) in order.map(|at| samples[at]) {
                ewma.sample(latency, now);
            }
            ewma.cost(later)
        };
        let orders = [in_order([0, 1]), in_order([1, 0])];
        let ewma = Arc::new(PeakEwma::new(start));
        let other = Arc::clone(&ewma);
        at_once(
            move || other.sample(samples[0].0, samples[0].1),
            || ewma.sample(samples[1].0, samples[1].1),
        );
        let found = ewma.cost(later);
        assert!(orders.contains(&found), "{found} of {orders:?}");
    });
}

#[test]
fn the_longer_penalty_stands() {
    let start = start();
    every_order(move || {
        let ewma = Arc::new(PeakEwma::new(start));
        let other = Arc::clone(&ewma);
        at_once(
            move || other.penalize(Some(millis(5_000)), start),
            || ewma.penalize(None, start),
        );
        assert!(ewma.cost(start + millis(4_999)) >= 1.0);
    });
}
