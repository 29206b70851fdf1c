//! Health checks beside breakers: whoever comes first, an endpoint that is out
//! for two reasons is counted once, and listed by both.

use std::sync::Arc;
use std::time::Instant;

use selvage_policy::breaker::BreakerState;
use selvage_policy::classify::Class;
use selvage_policy::endpoint::{EndpointState, Report};
use selvage_policy::exposed::is_true;
use selvage_policy::health::{Checked, Pace};
use selvage_policy::snapshot::{BreakerPolicy, SuccessRate};

use crate::endpoint::{ends, policy, take};
use crate::roll::Port;
use crate::{at_once, every_order, millis, most_orders, start};

/// One check decides.
fn check(state: &EndpointState, checked: &Checked, now: Instant) -> bool {
    let pace = Pace {
        interval: millis(1000),
        jitter_percent: 0,
        timeout: millis(1000),
        unhealthy_threshold: 1,
        healthy_threshold: 1,
    };
    state.checked(checked, &pace, now).is_some()
}

fn failed() -> Checked {
    Checked::Failed("status 503".into())
}

#[test]
fn it_opens_while_a_check_fails() {
    let start = start();
    every_order(move || {
        let live = Arc::new(Port::new(1, start));
        let sent = take(&live.rotation, start).expect("closed");
        let other = Arc::clone(&live);
        let (left, opened) = at_once(
            move || check(&other.states[0], &failed(), start),
            || ends(sent, Class::HardFailure, false, start),
        );
        // What fails after it has left says nothing new.
        let state = live.states[0].state(start);
        assert_eq!(opened.is_some(), state == BreakerState::Open);
        assert!(left && !live.states[0].is_healthy());
        assert_eq!(live.crowd.open(), 1);
        assert!(is_true(&live.rotation));
    });
}

#[test]
fn it_opens_by_its_success_rate_while_a_check_fails() {
    let start = start();
    let by_rate = BreakerPolicy {
        consecutive_failures: 0,
        success_rate: Some(SuccessRate {
            threshold_percent: 50,
            window: millis(10_000),
            minimum_requests: 1,
        }),
        ..policy()
    };
    most_orders(move || {
        // Of four two may be out: the place is granted though it has left already.
        let live = Arc::new(Port::new(4, start));
        let mut sent = take(&live.rotation, start).expect("closed");
        let (other, state) = (Arc::clone(&live), Arc::clone(sent.endpoint()));
        let checked = Arc::clone(&state);
        let (left, _) = at_once(
            move || check(&checked, &failed(), start),
            || {
                let report = Report {
                    class: Class::Failure,
                    could_not_connect: false,
                    retry_after: None,
                };
                sent.observe(&report, &by_rate, start, &mut fastrand::Rng::with_seed(7))
            },
        );
        assert!(left);
        assert_eq!(
            other.crowd.open(),
            1,
            "the place it was promised is given back"
        );
        assert!(is_true(&live.rotation));
    });
}

#[test]
fn a_probe_closes_while_a_check_passes() {
    let start = start();
    every_order(move || {
        let live = Arc::new(Port::new(1, start));
        let sent = take(&live.rotation, start).expect("closed");
        ends(sent, Class::HardFailure, false, start).expect("it opens");
        let later = start + millis(1002);
        let probe = take(&live.rotation, later).expect("a vacant slot");
        assert!(check(&live.states[0], &failed(), later));
        let other = Arc::clone(&live);
        let (back, closed) = at_once(
            move || check(&other.states[0], &Checked::Passed, later),
            || ends(probe, Class::Success, false, later),
        );
        assert!(back && closed.is_some());
        assert_eq!(live.crowd.open(), 0);
        assert!(is_true(&live.rotation));
        assert!(take(&live.rotation, later).is_some());
    });
}
