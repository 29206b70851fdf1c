//! What workers see of an endpoint, and what its guards promise.

mod checks;

use super::*;
use crate::breaker::PROBE_DECIDES_WITHIN;
use crate::classify::{Class, Outcome, TransportFailure};
use crate::failures::Failures;
use crate::testing::{key, millis, seconds, seeded, start};

fn endpoint(epoch: Instant) -> (Arc<EndpointState>, Arc<Crowd>) {
    let crowd = Arc::new(Crowd::new(epoch));
    crowd.set_offered(4);
    (
        Arc::new(EndpointState::new(key(1), Arc::clone(&crowd))),
        crowd,
    )
}

fn report(class: Class) -> Report {
    Report {
        class,
        could_not_connect: false,
        retry_after: None,
    }
}

fn call(state: &Arc<EndpointState>, class: Class, now: Instant) -> Option<Transition> {
    let mut in_flight = state.admit(now).expect("closed");
    in_flight.observe(
        &report(class),
        &BreakerPolicy::default(),
        now,
        &mut seeded(),
    )
}

fn break_it(state: &Arc<EndpointState>, now: Instant) -> Transition {
    for _ in 0..4 {
        assert_eq!(call(state, Class::HardFailure, now), None);
    }
    call(state, Class::HardFailure, now).expect("the fifth opens")
}

#[test]
fn pending_counts_guards() {
    let start = start();
    let (state, _) = endpoint(start);
    let first = state.admit(start).expect("closed");
    let second = state.admit(start).expect("closed");
    assert_eq!(state.pending(), 2);
    drop(first);
    drop(second);
    assert_eq!(state.pending(), 0);
}

#[test]
fn the_verdict_follows_the_machine() {
    let start = start();
    let (state, crowd) = endpoint(start);
    assert_eq!(state.state(start), BreakerState::Closed);
    let open_for = break_it(&state, start).open_for.expect("open");
    assert_eq!((state.state(start), crowd.open()), (BreakerState::Open, 1));
    assert!(state.admit(start).is_none());
    assert!(state.admit_probe(start).is_none());

    let later = start + open_for + millis(2);
    assert_eq!(state.state(later), BreakerState::HalfOpen);
    assert!(matches!(state.standing(later), Standing::Vacant { .. }));
    let (mut probe, transition) = state.admit_probe(later).expect("a vacant slot");
    assert_eq!(transition.map(|t| t.to), Some(BreakerState::HalfOpen));
    assert_eq!(probe.probe_deadline(), Some(later + PROBE_DECIDES_WITHIN));
    assert_eq!(state.standing(later), Standing::Out);
    assert_eq!(
        (state.state(later), crowd.open()),
        (BreakerState::HalfOpen, 1)
    );

    let closed = probe.observe(
        &report(Class::Success),
        &BreakerPolicy::default(),
        later,
        &mut seeded(),
    );
    assert_eq!(closed.map(|t| t.to), Some(BreakerState::Closed));
    assert_eq!(
        (state.state(later), crowd.open()),
        (BreakerState::Closed, 0)
    );
    assert_eq!(probe.probe_deadline(), None);
}

#[test]
fn a_probe_whose_body_breaks_opens_again_while_it_is_young() {
    for (after, expected) in [(4_999, BreakerState::Open), (5_000, BreakerState::Closed)] {
        let start = start();
        let (state, crowd) = endpoint(start);
        break_it(&state, start);
        let later = start + seconds(2);
        let mut probe = state.admit_probe(later).expect("a vacant slot").0;
        let policy = BreakerPolicy::default();
        let head = probe.observe(&report(Class::Success), &policy, later, &mut seeded());
        assert_eq!(head.map(|t| t.to), Some(BreakerState::Closed));
        let end = later + millis(after);
        let broken = report(Class::HardFailure);
        for _ in 0..2 {
            let _ = probe.observe(&broken, &policy, end, &mut seeded());
            assert_eq!(state.state(end), expected, "{after} ms");
        }
        let open = u32::from(expected == BreakerState::Open);
        assert_eq!(crowd.open(), open, "counted once");
    }
}

#[test]
fn never_tried_before_its_time() {
    let start = start();
    let (state, _) = endpoint(start);
    let open_for = break_it(&state, start).open_for.expect("open");
    let just_before = start
        + open_for
            .checked_sub(Duration::from_nanos(1))
            .expect("some time");
    assert_eq!(state.standing(just_before), Standing::Out);
    assert!(state.admit_probe(just_before).is_none());
}

#[test]
fn a_dropped_probe_frees_its_slot() {
    let start = start();
    let (state, crowd) = endpoint(start);
    break_it(&state, start);
    let later = start + seconds(2);
    let probe = state.admit_probe(later).expect("a vacant slot").0;
    assert!(state.admit_probe(later).is_none());
    drop(probe);
    assert!(matches!(state.standing(later), Standing::Vacant { .. }));
    assert!(state.admit_probe(later).is_some());
    assert_eq!(crowd.open(), 1);
}

#[test]
fn a_cancelled_probe_frees_its_slot() {
    let start = start();
    let (state, _) = endpoint(start);
    break_it(&state, start);
    let later = start + seconds(2);
    let mut probe = state.admit_probe(later).expect("a vacant slot").0;
    let report = Report::of(&Failures::USUAL, &Outcome::Cancelled, None);
    assert_eq!(
        probe.observe(&report, &BreakerPolicy::default(), later, &mut seeded()),
        None
    );
    let next = state.admit_probe(later).expect("vacant again").0;
    drop(probe);
    assert_eq!(
        state.standing(later),
        Standing::Out,
        "the first holder frees nothing twice"
    );
    drop(next);
}

#[test]
fn failures_make_it_costly_and_closing_forgives() {
    let start = start();
    let (state, _) = endpoint(start);
    let before = state.cost(1.0, start);
    call(&state, Class::Failure, start);
    assert!(state.cost(1.0, start) > before + 0.9);
    let (other, _) = endpoint(start);
    call(&other, Class::Throttled, start);
    assert!(other.cost(1.0, start) > before + 0.9, "a throttle too");
    assert_eq!(other.state(start), BreakerState::Closed);

    let (state, _) = endpoint(start);
    break_it(&state, start);
    let later = start + seconds(1);
    let mut probe = state.admit_probe(later).expect("a vacant slot").0;
    probe.first_byte(later + millis(1));
    probe.observe(
        &report(Class::Success),
        &BreakerPolicy::default(),
        later + millis(1),
        &mut seeded(),
    );
    drop(probe);
    let after = state.cost(1.0, later + millis(1));
    assert!((after - 0.001).abs() < 1e-6, "what the probe took: {after}");
}

#[test]
fn answers_to_what_was_sent_before_opening_change_nothing() {
    let start = start();
    let (state, crowd) = endpoint(start);
    let mut old = state.admit(start).expect("closed");
    break_it(&state, start);
    let cost = state.cost(1.0, start + seconds(2));
    let none = old.observe(
        &report(Class::HardFailure),
        &BreakerPolicy::default(),
        start + seconds(2),
        &mut seeded(),
    );
    assert_eq!(none, None);
    assert!((state.cost(1.0, start + seconds(2)) - cost).abs() < 1e-9);
    assert_eq!(crowd.open(), 1);
}

#[test]
fn what_an_answer_from_before_took_does_not_weigh_on_what_came_back() {
    let start = start();
    let (state, _) = endpoint(start);
    let mut hung = state.admit(start).expect("closed");
    break_it(&state, start);
    let later = start + seconds(1);
    let mut probe = state.admit_probe(later).expect("a vacant slot").0;
    probe.first_byte(later + millis(1));
    let closed = probe.observe(
        &report(Class::Success),
        &BreakerPolicy::default(),
        later + millis(1),
        &mut seeded(),
    );
    assert_eq!(closed.map(|t| t.to), Some(BreakerState::Closed));
    drop(probe);
    hung.first_byte(later + seconds(20));
    assert_eq!(hung.latency(), Some(seconds(21)), "the log has it");
    drop(hung);
    let cost = state.cost(1.0, later + seconds(20));
    assert!(cost <= 0.001, "what the probe took, decayed: {cost}");
}

#[test]
fn only_the_first_observation_counts() {
    let start = start();
    let (state, _) = endpoint(start);
    let mut in_flight = state.admit(start).expect("closed");
    for _ in 0..10 {
        let none = in_flight.observe(
            &report(Class::HardFailure),
            &BreakerPolicy::default(),
            start,
            &mut seeded(),
        );
        assert_eq!(none, None);
    }
    assert_eq!(state.state(start), BreakerState::Closed);
}

#[test]
fn a_heavier_endpoint_bears_more() {
    let start = start();
    let (state, _) = endpoint(start);
    let guards: Vec<_> = (0..8).filter_map(|_| state.admit(start)).collect();
    assert!(state.cost(2.0, start) < state.cost(1.0, start));
    assert_eq!(guards.len(), 8);
}

#[test]
fn what_leaves_is_no_longer_counted_out() {
    let start = start();
    let (state, crowd) = endpoint(start);
    break_it(&state, start);
    assert_eq!(crowd.open(), 1);
    drop(state);
    assert_eq!(crowd.open(), 0);
}

#[test]
fn a_healed_partition_is_seen_by_connecting() {
    let start = start();
    let (state, _) = endpoint(start);
    let refused = Report::of(
        &Failures::USUAL,
        &Outcome::Transport(TransportFailure::Connect),
        None,
    );
    let policy = BreakerPolicy {
        backoff: crate::snapshot::BackoffPolicy {
            base: seconds(60),
            max: seconds(60),
        },
        ..BreakerPolicy::default()
    };
    for _ in 0..5 {
        let mut in_flight = state.admit(start).expect("closed");
        in_flight.observe(&refused, &policy, start, &mut seeded());
    }
    assert!(!state.wants_connect_probe(start));
    let later = start + seconds(1);
    assert!(state.wants_connect_probe(later));
    assert!(!state.wants_connect_probe(later), "one worker connects");
    let transition = state.connect_probe_succeeded(later).expect("half-open");
    assert_eq!(transition.to, BreakerState::HalfOpen);
    assert!(matches!(state.standing(later), Standing::Vacant { .. }));
}

#[test]
fn where_nobody_stands_in_the_backoff_hardly_grows() {
    let start = start();
    let crowd = Arc::new(Crowd::new(start));
    crowd.set_offered(2);
    let [one, other] = [1, 2].map(|n| Arc::new(EndpointState::new(key(n), Arc::clone(&crowd))));
    let mut now = start;
    let mut probes = |state: &Arc<EndpointState>, class| {
        now += seconds(60);
        let (mut probe, _) = state.admit_probe(now).expect("the backoff is over");
        let policy = BreakerPolicy::default();
        let decided = probe.observe(&report(class), &policy, now, &mut seeded());
        decided.expect("a probe decides").open_for
    };
    let mut fails_again = |state| probes(state, Class::HardFailure).expect("open");
    break_it(&one, start);
    let beside = [0; 4].map(|_| fails_again(&one));
    assert!(beside.is_sorted() && beside[3] > seconds(8), "{beside:?}");
    break_it(&other, start);
    for state in [&one, &other] {
        for _ in 0..4 {
            let alone = fails_again(state);
            assert!(alone >= seconds(1) / 2 && alone <= seconds(2), "{alone:?}");
        }
    }
    // The other is well again: from there on it doubles as after the second opening.
    assert_eq!(probes(&other, Class::Success), None);
    let beside = probes(&one, Class::HardFailure).expect("open");
    assert!(beside >= seconds(2) && beside <= seconds(4), "{beside:?}");
}
