//! One breaker between workers: one probe, one opening, one count, and a
//! verdict that is the machine's.

use std::sync::Arc;
use std::time::Instant;

use selvage_policy::balance::pick;
use selvage_policy::breaker::{BreakerState, Transition};
use selvage_policy::classify::Class;
use selvage_policy::endpoint::{InFlight, Report};
use selvage_policy::exposed::is_true;
use selvage_policy::rotation::Rotation;
use selvage_policy::snapshot::{BackoffPolicy, BreakerPolicy};

use crate::roll::Port;
use crate::{all_at_once, at_once, every_order, millis, most_orders, start};

/// One hard failure opens, for a second at most; nothing opens by its success rate.
pub(crate) fn policy() -> BreakerPolicy {
    BreakerPolicy {
        consecutive_failures: 1,
        success_rate: None,
        backoff: BackoffPolicy {
            base: millis(1000),
            max: millis(1000),
        },
        max_open_percent: 50,
    }
}

pub(crate) fn ends(
    mut in_flight: InFlight,
    class: Class,
    could_not_connect: bool,
    now: Instant,
) -> Option<Transition> {
    let report = Report {
        class,
        could_not_connect,
        retry_after: None,
    };
    let mut rng = fastrand::Rng::with_seed(7);
    in_flight.observe(&report, &policy(), now, &mut rng)
}

pub(crate) fn take(rotation: &Rotation, now: Instant) -> Option<InFlight> {
    let mut rng = fastrand::Rng::with_seed(7);
    let picked = pick(rotation, &[], true, now, &mut rng).ok()?;
    Some(picked.in_flight)
}

/// A port with one endpoint that has failed, to connect or otherwise; and when its backoff is over.
fn broken(could_not_connect: bool, start: Instant) -> (Arc<Port>, Instant) {
    let live = Arc::new(Port::new(1, start));
    let sent = take(&live.rotation, start).expect("closed");
    ends(sent, Class::HardFailure, could_not_connect, start).expect("it opens");
    (live, start + millis(1002))
}

#[test]
fn one_probe_is_taken() {
    let start = start();
    every_order(move || {
        let (live, later) = broken(false, start);
        let other = Arc::clone(&live);
        let (one, two) = at_once(
            move || take(&other.rotation, later),
            || take(&live.rotation, later),
        );
        assert!(one.is_some() != two.is_some(), "one and only one");
        assert!(
            one.as_ref()
                .or(two.as_ref())
                .is_some_and(InFlight::is_probe)
        );
        assert!(is_true(&live.rotation));
        // Whoever held it, dropped: the next may try.
        drop((one, two));
        assert!(is_true(&live.rotation));
        assert!(take(&live.rotation, later).is_some_and(|sent| sent.is_probe()));
    });
}

#[test]
fn of_three_one_probes() {
    let start = start();
    most_orders(move || {
        let (live, later) = broken(false, start);
        let (one, two) = (Arc::clone(&live), Arc::clone(&live));
        let (one, two, three) = all_at_once(
            move || take(&one.rotation, later),
            move || take(&two.rotation, later),
            || take(&live.rotation, later),
        );
        let sent = [one, two, three];
        assert_eq!(sent.iter().flatten().count(), 1);
        assert!(sent.iter().flatten().all(InFlight::is_probe));
        assert!(is_true(&live.rotation));
    });
}

#[test]
fn two_wait_for_one_slot() {
    let start = start();
    most_orders(move || {
        let (live, later) = broken(false, start);
        let probe = take(&live.rotation, later).expect("a vacant slot");
        let (one, two) = (Arc::clone(&live), Arc::clone(&live));
        let (one, two, ()) = all_at_once(
            move || take(&one.rotation, later),
            move || take(&two.rotation, later),
            || drop(probe),
        );
        assert!(one.is_none() || two.is_none(), "two hold one slot");
        assert!(is_true(&live.rotation));
        // Whoever holds it drops it now, undecided.
        drop((one, two));
        assert_eq!(live.states[0].pending(), 0);
        assert!(take(&live.rotation, later).is_some());
    });
}

#[test]
fn a_probe_that_is_dropped_makes_room_for_another() {
    let start = start();
    every_order(move || {
        let (live, later) = broken(false, start);
        let probe = take(&live.rotation, later).expect("a vacant slot");
        let other = Arc::clone(&live);
        let (next, ()) = at_once(move || take(&other.rotation, later), || drop(probe));
        assert!(next.as_ref().is_none_or(InFlight::is_probe));
        assert!(is_true(&live.rotation));
        let is_held = next.is_some();
        assert_eq!(take(&live.rotation, later).is_none(), is_held);
    });
}

#[test]
fn a_probe_decides_while_others_ask() {
    let start = start();
    for (class, state) in [
        (Class::Success, BreakerState::Closed),
        (Class::HardFailure, BreakerState::Open),
    ] {
        every_order(move || {
            let (live, later) = broken(false, start);
            let probe = take(&live.rotation, later).expect("a vacant slot");
            let other = Arc::clone(&live);
            let (sent, transition) = at_once(
                move || take(&other.rotation, later),
                || ends(probe, class, false, later),
            );
            assert_eq!(transition.map(|transition| transition.to), Some(state));
            assert!(sent.as_ref().is_none_or(|sent| !sent.is_probe()));
            assert!(sent.is_none() || state == BreakerState::Closed);
            assert_eq!(live.states[0].state(later), state);
            assert!(is_true(&live.rotation));
        });
    }
}

#[test]
fn it_opens_once_whoever_fails() {
    let start = start();
    every_order(move || {
        let live = Arc::new(Port::new(1, start));
        let sent = [0; 2].map(|_| take(&live.rotation, start).expect("closed"));
        let [one, two] = sent;
        let (one, two) = at_once(
            move || ends(one, Class::HardFailure, false, start),
            || ends(two, Class::HardFailure, false, start),
        );
        assert!(one.is_some() != two.is_some(), "{one:?} and {two:?}");
        assert_eq!(live.states[0].pending(), 0);
        assert!(is_true(&live.rotation));
    });
}

#[test]
fn what_succeeds_late_changes_no_verdict() {
    let start = start();
    every_order(move || {
        let live = Arc::new(Port::new(1, start));
        let [one, two] = [0; 2].map(|_| take(&live.rotation, start).expect("closed"));
        let (opened, none) = at_once(
            move || ends(one, Class::HardFailure, false, start),
            || ends(two, Class::Success, false, start),
        );
        assert!(opened.is_some() && none.is_none());
        assert_eq!(live.states[0].state(start), BreakerState::Open);
        assert!(is_true(&live.rotation));
    });
}

#[test]
fn a_connect_and_the_end_of_the_backoff_give_one_probe() {
    let start = start();
    every_order(move || {
        let (live, later) = broken(true, start);
        let other = Arc::clone(&live);
        let (sent, _) = at_once(
            move || take(&other.rotation, later),
            || live.states[0].connect_probe_succeeded(later),
        );
        assert!(sent.as_ref().is_some_and(InFlight::is_probe));
        assert!(take(&live.rotation, later).is_none(), "it is taken");
        assert!(is_true(&live.rotation));
    });
}

#[test]
fn a_connect_that_succeeds_just_as_it_opens_is_seen_or_not() {
    let start = start();
    every_order(move || {
        let live = Arc::new(Port::new(1, start));
        let sent = take(&live.rotation, start).expect("closed");
        let other = Arc::clone(&live);
        let (opened, half_opened) = at_once(
            move || ends(sent, Class::HardFailure, true, start),
            || other.states[0].connect_probe_succeeded(start),
        );
        assert!(opened.is_some());
        let is_out = take(&live.rotation, start).is_none();
        assert_eq!(half_opened.is_none(), is_out);
        assert!(is_true(&live.rotation));
    });
}

#[test]
fn one_worker_connects() {
    let start = start();
    every_order(move || {
        let live = Arc::new(Port::new(1, start));
        let policy = BreakerPolicy {
            backoff: BackoffPolicy {
                base: millis(60_000),
                max: millis(60_000),
            },
            ..policy()
        };
        let mut sent = take(&live.rotation, start).expect("closed");
        let refused = Report {
            class: Class::HardFailure,
            could_not_connect: true,
            retry_after: None,
        };
        sent.observe(&refused, &policy, start, &mut fastrand::Rng::with_seed(7));
        let (other, later) = (Arc::clone(&live), start + millis(1000));
        let (one, two) = at_once(
            move || other.states[0].wants_connect_probe(later),
            || live.states[0].wants_connect_probe(later),
        );
        assert!(one != two, "{one} and {two}");
    });
}
