//! Where tries go: what is never picked, and how the rest is shared.

use proptest::prelude::*;

use std::sync::Arc;

use super::*;
use crate::breaker::BreakerState;
use crate::classify::Class;
use crate::endpoint::Report;
use crate::rotation::Layout;
use crate::snapshot::{BackoffPolicy, Balancer, BreakerPolicy, Endpoint};
use crate::table::LivePort;
use crate::testing::{endpoint, millis, seconds, seeded, service_port, start};

mod algorithms;
mod bent;
mod model;
mod scale;
mod simulation;
mod threads;

struct Bench {
    endpoints: Vec<Arc<Endpoint>>,
    states: Vec<Arc<EndpointState>>,
    rotation: Arc<Rotation>,
    balancer: Balancer,
    turns: Turns,
    key: Option<u64>,
    now: Instant,
    rng: fastrand::Rng,
}

impl Bench {
    /// One endpoint for each `(weight, healthy)`.
    fn new(kinds: &[(u32, bool)]) -> Self {
        Self::by(Balancer::default(), kinds)
    }

    /// The same with a policy; the caller stands in zone `here`.
    fn by(balancer: Balancer, kinds: &[(u32, bool)]) -> Self {
        let endpoints = (0..)
            .zip(kinds)
            .map(|(n, (weight, healthy))| endpoint(n, *weight, *healthy));
        Self::of(balancer, endpoints.collect())
    }

    fn of(balancer: Balancer, endpoints: Vec<Arc<Endpoint>>) -> Self {
        let now = start();
        let layout = Layout {
            balancer: &balancer,
            zone: Some("here"),
            before: None,
            now,
        };
        let live = LivePort::laid_out(service_port(80, endpoints), now, &layout);
        Self {
            endpoints: live.port.endpoints.clone(),
            states: live.states,
            rotation: live.rotation,
            balancer,
            turns: Turns::default(),
            key: None,
            now,
            rng: seeded(),
        }
    }

    fn pick(&mut self, tried: &[usize], retryable: bool) -> Result<Picked, NoHealthyEndpoint> {
        let ask = Ask {
            tried,
            retryable,
            key: self.key,
        };
        let turns = Some(&mut self.turns);
        pick_for(&self.rotation, ask, turns, self.now, &mut self.rng)
    }

    fn index(&mut self, tried: &[usize], retryable: bool) -> Option<usize> {
        self.pick(tried, retryable).ok().map(|picked| picked.index)
    }

    fn break_endpoint(&mut self, index: usize) {
        self.break_for(index, BreakerPolicy::default().backoff.base);
    }

    /// For half to all of `backoff`, as chance will have it.
    fn break_for(&mut self, index: usize, backoff: Duration) {
        let policy = BreakerPolicy {
            backoff: BackoffPolicy {
                base: backoff,
                max: backoff,
            },
            ..BreakerPolicy::default()
        };
        let report = Report {
            class: Class::HardFailure,
            could_not_connect: false,
            retry_after: None,
        };
        for _ in 0..5 {
            let mut in_flight = self.states[index].admit(self.now).expect("closed");
            in_flight.observe(&report, &policy, self.now, &mut self.rng);
        }
    }

    fn succeed(&mut self, mut in_flight: InFlight) -> Option<Transition> {
        let report = Report {
            class: Class::Success,
            could_not_connect: false,
            retry_after: None,
        };
        in_flight.observe(&report, &BreakerPolicy::default(), self.now, &mut self.rng)
    }

    /// As when a Snapshot is swapped in.
    fn another(&self) -> Arc<Rotation> {
        let layout = Layout {
            balancer: &self.balancer,
            zone: Some("here"),
            before: Some(&self.rotation),
            now: self.now,
        };
        let crowd = self.rotation.crowd();
        Arc::new(Rotation::begin(
            &self.endpoints,
            &self.states,
            crowd,
            &layout,
        ))
    }

    /// How `tries` tries are shared, each answered before the next.
    fn shares(&mut self, tries: usize) -> Vec<usize> {
        let mut shares = vec![0; self.states.len()];
        for _ in 0..tries {
            shares[self.index(&[], true).expect("an endpoint")] += 1;
        }
        shares
    }
}

#[test]
fn a_session_stays_while_its_endpoint_is_well() {
    let mut bench = Bench::new(&[(1, true), (0, true), (1, false), (1, true)]);
    bench.break_endpoint(3);
    let pinned = |index: usize| {
        let (endpoint, state) = (&bench.endpoints[index], &bench.states[index]);
        pick_pinned(endpoint, state, index, bench.now).map(|picked| picked.index)
    };
    let picked: Vec<_> = (0..4).map(pinned).collect();
    // A weight of 0 takes no new sessions; unhealthy and open take none at all.
    assert_eq!(picked, [Some(0), Some(1), None, None]);
}

#[test]
fn nothing_to_pick_fails_fast() {
    for kinds in [
        &[][..],
        &[(1, false)],
        &[(0, true)],
        &[(0, true), (1, false)],
    ] {
        assert_eq!(Bench::new(kinds).index(&[], true), None, "{kinds:?}");
    }
    let mut bench = Bench::new(&[(1, true), (1, true)]);
    bench.break_endpoint(0);
    bench.break_endpoint(1);
    assert!(bench.pick(&[], true).is_err());
}

#[test]
fn idle_endpoints_share_by_weight() {
    let shares = Bench::new(&[(1, true); 4]).shares(4000);
    assert!(
        shares.iter().all(|share| (850..1150).contains(share)),
        "{shares:?}"
    );
    let shares = Bench::new(&[(9, true), (1, true)]).shares(4000);
    assert!((300..500).contains(&shares[1]), "{shares:?}");
}

#[test]
fn busy_endpoints_share_by_weight() {
    let mut bench = Bench::new(&[(3, true), (1, true)]);
    let guards: Vec<_> = (0..400)
        .filter_map(|_| bench.pick(&[], true).ok())
        .collect();
    let light = guards.iter().filter(|picked| picked.index == 1).count();
    assert!((90..=110).contains(&light), "{light} of 400");
}

#[test]
fn load_stays_level() {
    let mut bench = Bench::new(&[(1, true); 5]);
    let guards: Vec<_> = (0..500)
        .filter_map(|_| bench.pick(&[], true).ok())
        .collect();
    assert_eq!(guards.len(), 500);
    let pending: Vec<_> = bench.states.iter().map(|state| state.pending()).collect();
    assert!(
        pending.iter().all(|n| (97..=103).contains(n)),
        "{pending:?}"
    );
}

#[test]
fn the_slow_one_gets_less() {
    let mut bench = Bench::new(&[(1, true), (1, true)]);
    let mut slow = bench.states[0].admit(bench.now).expect("closed");
    bench.now += seconds(2);
    slow.first_byte(bench.now);
    drop(slow);
    assert_eq!(bench.shares(100), [0, 100]);
}

#[test]
fn one_failure_steers_away_and_is_forgotten() {
    let mut bench = Bench::new(&[(1, true), (1, true)]);
    let mut failed = bench.states[0].admit(bench.now).expect("closed");
    let report = Report {
        class: Class::Failure,
        could_not_connect: false,
        retry_after: None,
    };
    failed.observe(
        &report,
        &BreakerPolicy::default(),
        bench.now,
        &mut bench.rng,
    );
    drop(failed);
    assert_eq!(bench.shares(100), [0, 100]);
    let mut other = bench.states[1].admit(bench.now).expect("closed");
    bench.now += millis(60);
    other.first_byte(bench.now);
    drop(other);
    bench.now += seconds(10);
    assert!(bench.shares(100)[0] > 0);
}

#[test]
fn tried_endpoints_come_last() {
    let mut bench = Bench::new(&[(1, true), (1, true), (1, true)]);
    for _ in 0..50 {
        assert_eq!(bench.index(&[0, 2], true), Some(1));
        assert!(bench.index(&[0, 1, 2], true).is_some());
    }
    bench.break_endpoint(1);
    for _ in 0..50 {
        assert_eq!(bench.index(&[0, 1], true), Some(2));
        assert!(bench.index(&[0, 2], true).is_some_and(|index| index != 1));
    }
}

#[test]
fn a_vacant_probe_comes_first_for_what_can_be_retried() {
    let mut bench = Bench::new(&[(1, true), (1, true)]);
    bench.break_endpoint(0);
    for _ in 0..20 {
        assert_eq!(bench.index(&[], true), Some(1), "open");
    }
    bench.now += millis(1001);
    let probe = bench.pick(&[], true).expect("a probe");
    assert_eq!((probe.index, probe.in_flight.is_probe()), (0, true));
    assert_eq!(probe.transition.map(|t| t.to), Some(BreakerState::HalfOpen));
    for _ in 0..20 {
        assert_eq!(bench.index(&[], true), Some(1), "the slot is taken");
    }
    drop(probe);
    let again = bench.pick(&[], true).expect("a probe");
    assert!(again.in_flight.is_probe() && again.transition.is_none());
}

#[test]
fn what_cannot_be_retried_probes_only_out_of_need() {
    let mut bench = Bench::new(&[(1, true), (1, true)]);
    bench.break_endpoint(0);
    bench.now += millis(1001);
    assert_eq!(bench.index(&[], false), Some(1));
    bench.now += PROBE_PATIENCE;
    assert_eq!(bench.index(&[], false), Some(0), "nobody else came");

    let mut bench = Bench::new(&[(1, true)]);
    bench.break_endpoint(0);
    bench.now += millis(1001);
    assert_eq!(bench.index(&[], false), Some(0), "nothing else is there");
}

#[test]
fn a_request_is_risked_once() {
    let mut bench = Bench::new(&[(1, true); 3]);
    (0..2).for_each(|index| bench.break_endpoint(index));
    bench.now += millis(1001);
    let probe = bench.pick(&[], true).expect("a probe");
    assert!(probe.in_flight.is_probe() && probe.index < 2);
    // Another waits, and yet another retry would be left.
    assert_eq!(bench.index(&[probe.index], true), Some(2));
    assert_eq!(bench.index(&[], true), Some(1 - probe.index));
    bench.now += PROBE_PATIENCE;
    let other = bench.index(&[probe.index], true);
    assert_eq!(other, Some(1 - probe.index), "nobody else came");
}

#[test]
fn a_request_older_than_the_snapshot_still_finds_what_closed() {
    let mut bench = Bench::new(&[(1, true), (1, true)]);
    (0..2).for_each(|index| bench.break_for(index, seconds(60)));
    let of_now = bench.another();
    bench.now += seconds(60);
    bench.succeed(
        of_now.seats()[1]
            .state
            .admit_probe(bench.now)
            .expect("vacant")
            .0,
    );
    let taken = bench.states[0].admit_probe(bench.now);
    assert_eq!(bench.index(&[], true), Some(1));
    drop(taken);
    assert_eq!(bench.index(&[], true), Some(0), "a vacant slot comes first");
}

proptest! {
    #[test]
    fn never_picks_what_is_out(
        kinds in proptest::collection::vec((0u32..4, any::<bool>(), any::<bool>()), 0..8),
        tried in proptest::collection::vec(0usize..8, 0..4),
        retryable: bool,
        seed: u64,
    ) {
        let offered: Vec<_> = kinds.iter().map(|(weight, healthy, _)| (*weight, *healthy)).collect();
        let mut bench = Bench::new(&offered);
        bench.rng = fastrand::Rng::with_seed(seed);
        for (index, (_, _, broken)) in kinds.iter().enumerate() {
            if *broken {
                bench.break_endpoint(index);
            }
        }
        let good = |index: usize| kinds[index].0 > 0 && kinds[index].1 && !kinds[index].2;
        let fresh = (0..kinds.len()).any(|index| good(index) && !tried.contains(&index));
        match bench.index(&tried, retryable) {
            Some(index) => prop_assert!(good(index) && (!fresh || !tried.contains(&index))),
            None => prop_assert!(!(0..kinds.len()).any(good)),
        }
        prop_assert!(bench.states.iter().all(|state| state.pending() == 0));
    }
}
