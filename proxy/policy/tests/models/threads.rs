//! The shared forms under real threads, two seconds for all: what loom shows
//! of a few steps, seen over a million of them. While they run, what holds at
//! every moment is asserted; afterwards, what holds in quiet.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use selvage_policy::balance::pick;
use selvage_policy::breaker::BreakerState;
use selvage_policy::budget::Budget;
use selvage_policy::classify::Class;
use selvage_policy::crowd::Crowd;
use selvage_policy::endpoint::{EndpointState, Report};
use selvage_policy::ewma::PeakEwma;
use selvage_policy::rotation::{Layout, Rotation};
use selvage_policy::service::ServiceState;
use selvage_policy::snapshot::{
    BackoffPolicy, Balancer, BreakerPolicy, BudgetPolicy, Endpoint, EndpointKey, Limits,
    ServiceName,
};

use crate::{millis, start};

const WORKERS: usize = 4;
const ENDPOINTS: usize = 6;
const FOR: Duration = Duration::from_millis(500);

/// Runs `work` on every worker, again and again, each with a random source of its own.
fn all_at_once(work: impl Fn(usize, &mut fastrand::Rng) + Sync) {
    let begun = start();
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let work = &work;
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(worker as u64);
                while start() - begun < FOR {
                    (0..100).for_each(|_| work(worker, &mut rng));
                }
            });
        }
    });
}

fn endpoint(number: usize) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        key: EndpointKey {
            service: ServiceName::new("shop", "ratings"),
            port: 80,
            address: SocketAddr::from(([10, 0, 0, 1], number as u16)),
            identity: None,
        },
        id: "".into(),
        weight: 1,
        labels: BTreeMap::new(),
        healthy: true,
    })
}

fn report(class: Class) -> Report {
    Report {
        class,
        could_not_connect: false,
        retry_after: None,
    }
}

#[test]
fn one_probe_at_a_time_and_never_too_many_open() {
    let begun = start();
    let crowd = Arc::new(Crowd::new(begun));
    let endpoints: Vec<_> = (0..ENDPOINTS).map(endpoint).collect();
    let fresh =
        |endpoint: &Arc<Endpoint>| EndpointState::new(endpoint.key.clone(), Arc::clone(&crowd));
    let states: Vec<_> = endpoints.iter().map(fresh).map(Arc::new).collect();
    let rotation = Rotation::begin(
        &endpoints,
        &states,
        &crowd,
        &Layout::new(&Balancer::default(), begun),
    );
    // By success rate alone: then at most half of them are open.
    let policy = BreakerPolicy {
        consecutive_failures: 0,
        backoff: BackoffPolicy {
            base: millis(1),
            max: millis(4),
        },
        ..BreakerPolicy::default()
    };
    let probed: Vec<_> = (0..ENDPOINTS).map(|_| AtomicBool::new(false)).collect();
    let [picks, lost, probes, openings] = [0; 4].map(AtomicU32::new);
    all_at_once(|_, rng| {
        let now = start();
        assert!(crowd.open() as usize <= ENDPOINTS / 2, "too many are open");
        picks.fetch_add(1, Ordering::Relaxed);
        let Ok(mut picked) = pick(&rotation, &[], rng.bool(), now, rng) else {
            // Whoever was looked at had just opened: seen by a worker that
            // stood still between two looks, and only then.
            lost.fetch_add(1, Ordering::Relaxed);
            return;
        };
        if picked.in_flight.is_probe() {
            probes.fetch_add(1, Ordering::Relaxed);
            let before = probed[picked.index].swap(true, Ordering::SeqCst);
            assert!(!before, "two probes at a time");
            // Before it is decided: from then on there may be another.
            probed[picked.index].store(false, Ordering::SeqCst);
        }
        let class = match rng.u8(..8) {
            0..4 => Class::Failure,
            4..6 => Class::Success,
            6 => Class::Neutral,
            _ => return,
        };
        let transition = picked.in_flight.observe(&report(class), &policy, now, rng);
        if transition.is_some_and(|transition| transition.to == BreakerState::Open) {
            openings.fetch_add(1, Ordering::Relaxed);
        }
    });
    let now = start();
    let open = |state: &&Arc<EndpointState>| state.state(now) != BreakerState::Closed;
    assert_eq!(crowd.open() as usize, states.iter().filter(open).count());
    assert!(states.iter().all(|state| state.pending() == 0));
    let [picks, lost, probes, openings] =
        [picks, lost, probes, openings].map(AtomicU32::into_inner);
    println!("{picks} picks, {lost} in vain, {openings} openings, {probes} probes");
    assert!(openings >= 10 && probes >= 10);
    assert!(u64::from(lost) * 1_000 <= u64::from(picks));
}

#[test]
fn a_budget_is_spent_once() {
    let begun = start();
    let policy = BudgetPolicy {
        percent: 20,
        interval: millis(1000),
        min_per_second: 10,
    };
    let budget = Budget::new(policy, begun);
    let (requests, retries) = (AtomicU32::new(0), AtomicU32::new(0));
    // One moment: nothing leaves the interval, and the sums are exact.
    all_at_once(|worker, _| {
        if worker == 0 && requests.load(Ordering::Relaxed) < 100_000 {
            budget.request(begun);
            requests.fetch_add(1, Ordering::Relaxed);
        }
        if budget.try_spend(begun) {
            retries.fetch_add(1, Ordering::Relaxed);
        }
    });
    while budget.try_spend(begun) {
        retries.fetch_add(1, Ordering::Relaxed);
    }
    let (requests, retries) = (requests.into_inner(), retries.into_inner());
    println!("{requests} requests, {retries} retries");
    assert!(requests > 1_000);
    assert_eq!(retries, requests / 5 + 10);
}

#[test]
fn permits_are_as_many_as_the_limit() {
    let name = ServiceName::new("shop", "ratings");
    let service = Arc::new(ServiceState::new(name, BudgetPolicy::default(), start()));
    let limits = Limits {
        max_requests: 3,
        ..Limits::default()
    };
    let (inside, most, admitted) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    all_at_once(|_, _| {
        let Some(permit) = service.admit_request(&limits) else {
            return;
        };
        let now_inside = inside.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now_inside, Ordering::Relaxed);
        admitted.fetch_add(1, Ordering::Relaxed);
        inside.fetch_sub(1, Ordering::SeqCst);
        drop(permit);
    });
    assert!(most.into_inner() <= 3);
    assert!(admitted.into_inner() > 1_000);
    assert_eq!(service.in_use(), (0, 0, 0));
}

#[test]
fn an_average_is_never_torn() {
    let begun = start();
    let ewma = PeakEwma::new(begun);
    // Half a word of one sample and half of another would be no latency that anybody saw.
    all_at_once(|_, rng| {
        let now: Instant = begun + millis(rng.u64(..1_000));
        ewma.sample(millis(rng.u64(1..=900)), now);
        let cost = ewma.cost(now);
        assert!((0.0..=0.901).contains(&cost), "{cost}");
    });
}
