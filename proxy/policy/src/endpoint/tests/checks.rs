//! An endpoint that checks found unhealthy is out of rotation, whatever its breaker says.

use super::*;
use crate::balance::{NoHealthyEndpoint, pick};
use crate::rotation::{Layout, Rotation};
use crate::snapshot::Balancer;
use crate::table::LivePort;
use crate::testing::{endpoint as known, service_port};

const PACE: Pace = Pace {
    interval: seconds(1),
    jitter_percent: 0,
    timeout: seconds(1),
    unhealthy_threshold: 2,
    healthy_threshold: 1,
};

fn port(count: u16, epoch: Instant) -> LivePort {
    let endpoints = (0..count).map(|n| known(n, 1, true)).collect();
    LivePort::alone(service_port(80, endpoints), epoch)
}

fn fail(state: &EndpointState, now: Instant) {
    let failed = Checked::Failed("status 503".into());
    assert_eq!(state.checked(&failed, &PACE, now), None);
    let change = state
        .checked(&failed, &PACE, now)
        .expect("the second decides");
    assert!(!change.healthy && !state.is_healthy());
}

fn pass(state: &EndpointState, now: Instant) {
    let change = state.checked(&Checked::Passed, &PACE, now);
    assert!(change.is_some_and(|change| change.healthy) && state.is_healthy());
}

#[test]
fn it_is_not_picked_until_it_is_well() {
    let start = start();
    let port = port(3, start);
    let mut rng = seeded();
    let mut picked = |now| {
        let mut index = |_| pick(&port.rotation, &[], true, now, &mut rng).map(|it| it.index);
        let mut indices: Vec<_> = (0..60).filter_map(|n| index(n).ok()).collect();
        indices.sort_unstable();
        indices.dedup();
        indices
    };
    fail(&port.states[1], start);
    assert_eq!(picked(start), [0, 2]);
    fail(&port.states[0], start);
    fail(&port.states[2], start);
    assert!(picked(start).is_empty(), "callers hear it at once");
    pass(&port.states[1], start);
    assert_eq!(picked(start), [1]);
    port.states[0].unchecked();
    assert_eq!(picked(start), [0, 1]);
    pass(&port.states[2], start);
    assert_eq!(picked(start), [0, 1, 2]);
    assert_eq!(port.rotation.crowd().open(), 0);
}

#[test]
fn a_swap_forgets_no_check() {
    let start = start();
    let port = port(2, start);
    fail(&port.states[0], start);
    let crowd = port.rotation.crowd();
    let balancer = Balancer::default();
    let layout = Layout::new(&balancer, start);
    let next = Rotation::begin(&port.port.endpoints, &port.states, crowd, &layout);
    for rotation in [&port.rotation, &Arc::new(next)] {
        for _ in 0..20 {
            let index = pick(rotation, &[], true, start, &mut seeded()).map(|it| it.index);
            assert_eq!(index, Ok::<_, NoHealthyEndpoint>(1));
        }
    }
}

#[test]
fn its_breaker_goes_on_beside() {
    let start = start();
    let (state, crowd) = endpoint(start);
    break_it(&state, start);
    fail(&state, start);
    assert_eq!((crowd.open(), state.state(start)), (1, BreakerState::Open));
    let later = start + seconds(2);
    assert_eq!(state.state(later), BreakerState::HalfOpen);
    assert_eq!(state.standing(later), Standing::Out, "no request probes it");
    pass(&state, later);
    assert_eq!(crowd.open(), 1, "its breaker is still open");
    let (mut probe, _) = state.admit_probe(later).expect("vacant");
    fail(&state, later);
    let policy = BreakerPolicy::default();
    let closed = probe.observe(&report(Class::Success), &policy, later, &mut seeded());
    assert_eq!(closed.map(|it| it.to), Some(BreakerState::Closed));
    assert_eq!((crowd.open(), state.admit(later).is_some()), (1, false));
    pass(&state, later);
    assert_eq!((crowd.open(), state.admit(later).is_some()), (0, true));
}

#[test]
fn those_that_are_unhealthy_count_as_out_for_the_rule_by_rate() {
    let start = start();
    let port = port(2, start);
    fail(&port.states[0], start);
    for _ in 0..40 {
        assert_eq!(
            call(&port.states[1], Class::Failure, start),
            None,
            "the last one"
        );
    }
    pass(&port.states[0], start);
    let opened = call(&port.states[1], Class::Failure, start).expect("another is there");
    assert!(matches!(
        opened.reason,
        crate::breaker::Reason::SuccessRate { .. }
    ));
    assert_eq!(port.rotation.crowd().open(), 1);
}

#[test]
fn what_was_sent_before_says_nothing() {
    let start = start();
    let (state, _) = endpoint(start);
    let mut sent: Vec<_> = (0..5)
        .map(|_| state.admit(start).expect("closed"))
        .collect();
    fail(&state, start);
    let policy = BreakerPolicy::default();
    for in_flight in &mut sent {
        let report = report(Class::HardFailure);
        assert_eq!(
            in_flight.observe(&report, &policy, start, &mut seeded()),
            None
        );
    }
    assert_eq!(state.state(start), BreakerState::Closed);
    let standings = state.standings(start);
    assert_eq!((standings.successes, standings.requests), (0, 0));
    assert!(!standings.health.is_healthy());
    drop(sent);
    assert_eq!(state.pending(), 0);
}

#[test]
fn an_unhealthy_endpoint_that_leaves_is_not_counted() {
    let start = start();
    let (state, crowd) = endpoint(start);
    fail(&state, start);
    assert_eq!(crowd.open(), 1);
    drop(state);
    assert_eq!(crowd.open(), 0);
}

#[test]
fn why_and_since_when_it_is_open_is_known() {
    let start = start();
    let (state, _) = endpoint(start);
    assert!(state.standings(start).last_transition.is_none());
    assert_eq!(call(&state, Class::Success, start), None);
    let opened = break_it(&state, start + millis(5));
    let standings = state.standings(start + millis(9));
    assert_eq!(standings.last_transition, Some((start + millis(5), opened)));
    assert_eq!(opened.reason.to_string(), "5 hard failures in a row");
    let open_for = opened.open_for.expect("open");
    assert_eq!(standings.open_until, Some(start + millis(5) + open_for));
    assert_eq!((standings.successes, standings.requests), (1, 6));
}
