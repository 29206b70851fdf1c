//! Retries as tables: how a try ended → what follows.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;
use crate::flag::Grpc;
use crate::snapshot::BudgetPolicy;
use crate::testing::{millis, seconds, seeded, start};

fn traffic(retry: Option<RetryPolicy>) -> Arc<TrafficPolicy> {
    Arc::new(TrafficPolicy {
        retry,
        ..TrafficPolicy::default()
    })
}

fn policy(on: RetryOn) -> RetryPolicy {
    RetryPolicy {
        attempts: 2,
        on,
        methods: vec![Method::GET, Method::PUT],
        backoff: BackoffPolicy {
            base: millis(20),
            max: millis(50),
        },
        buffer_limit: 1024,
    }
}

fn everything() -> RetryOn {
    RetryOn {
        connect_failure: true,
        reset: true,
        timeout: true,
        statuses: vec![StatusCode::SERVICE_UNAVAILABLE],
        grpc_statuses: vec![Grpc::Unavailable.number()],
    }
}

fn response(status: u16, grpc_status: Option<u32>, flag: Option<Flag>) -> Outcome {
    let status = StatusCode::from_u16(status).expect("a status");
    Outcome::Response {
        status,
        grpc_status,
        flag,
    }
}

fn ended(outcome: Outcome) -> Ended {
    Ended {
        outcome,
        replayable: true,
        untouched: false,
        pushback: Pushback::None,
        exhausted_below: false,
    }
}

fn rich(now: Instant) -> Budget {
    Budget::new(
        BudgetPolicy {
            min_per_second: 1000,
            ..BudgetPolicy::default()
        },
        now,
    )
}

fn after(attempts: &mut Attempts, ended: &Ended) -> Next {
    let now = start();
    attempts.sent_to(0);
    attempts.after(ended, None, &rich(now), now, &mut seeded())
}

const AT_ONCE: Next = Next::RetryAfter {
    wait: Duration::ZERO,
    transparent: true,
};

fn is_by_policy(next: Next) -> bool {
    matches!(
        next,
        Next::RetryAfter {
            transparent: false,
            ..
        }
    )
}

#[test]
fn a_request_is_hedged_once_by_its_method_and_that_is_no_retry() {
    let policy = Arc::new(TrafficPolicy {
        hedge: Some(HedgePolicy {
            delay: crate::hedge::HedgeDelay::Percentile(95),
            max_percent: 5,
            methods: vec![Method::GET],
        }),
        ..TrafficPolicy::default()
    });
    let hedgeable = |method, is_grpc| Attempts::begin(&policy, &method, is_grpc).hedge().is_some();
    assert!(hedgeable(Method::GET, false));
    assert!(!hedgeable(Method::PUT, false));
    assert!(!hedgeable(Method::GET, true));
    let plain = Attempts::begin(&traffic(None), &Method::GET, false);
    assert!(plain.hedge().is_none());
    let mut attempts = Attempts::begin(&policy, &Method::GET, false);
    attempts.sent_to(3);
    attempts.hedged_to(5);
    assert!(attempts.hedge().is_none());
    assert_eq!(
        (attempts.tried(), attempts.tries(), attempts.retries()),
        (&[3, 5][..], 2, 0)
    );
}

#[test]
fn what_was_not_processed_is_sent_again_whatever_it_is() {
    use TransportFailure::{BadResponse, Connect, Reset, ReusedClosed, Timeout, Tls, Unprocessed};
    let table = [
        (Outcome::Transport(Connect), true),
        (Outcome::Transport(Tls), true),
        (Outcome::Transport(Unprocessed), true),
        (response(503, None, Some(Flag::ConnectFailure)), true),
        (response(200, Some(14), Some(Flag::ConnectFailure)), true),
        (Outcome::Transport(ReusedClosed), false),
        (Outcome::Transport(Reset), false),
        (Outcome::Transport(BadResponse), false),
        (Outcome::Transport(Timeout), false),
        (response(503, None, None), false),
        (response(503, None, Some(Flag::Overloaded)), false),
        (response(200, None, None), false),
        (Outcome::Cancelled, false),
        (Outcome::CallerDeadline, false),
    ];
    for is_grpc in [false, true] {
        for (outcome, again) in &table {
            let mut attempts = Attempts::begin(&traffic(None), &Method::POST, is_grpc);
            let expected = if *again {
                AT_ONCE
            } else {
                Next::Return(WhyReturned::NotRetryable)
            };
            assert_eq!(
                after(&mut attempts, &ended(*outcome)),
                expected,
                "{outcome:?}"
            );
        }
    }
}

#[test]
fn a_connection_closed_on_reuse_is_tried_again_only_where_repeating_is_harmless() {
    let outcome = ended(Outcome::Transport(TransportFailure::ReusedClosed));
    for (method, again) in [
        (Method::GET, true),
        (Method::PUT, true),
        (Method::DELETE, true),
        (Method::POST, false),
        (Method::PATCH, false),
    ] {
        let mut attempts = Attempts::begin(&traffic(None), &method, false);
        assert_eq!(after(&mut attempts, &outcome) == AT_ONCE, again, "{method}");
    }
}

#[test]
fn at_most_two_transparent_retries_then_the_policy() {
    let refused = ended(Outcome::Transport(TransportFailure::Connect));
    let mut attempts = Attempts::begin(&traffic(None), &Method::GET, false);
    assert_eq!(
        [
            after(&mut attempts, &refused),
            after(&mut attempts, &refused)
        ],
        [AT_ONCE; 2]
    );
    assert_eq!(
        after(&mut attempts, &refused),
        Next::Return(WhyReturned::LimitReached)
    );
    assert!(!attempts.wants_replay());

    let mut attempts = Attempts::begin(&traffic(Some(policy(everything()))), &Method::GET, false);
    assert_eq!(
        [
            after(&mut attempts, &refused),
            after(&mut attempts, &refused)
        ],
        [AT_ONCE; 2]
    );
    assert!(is_by_policy(after(&mut attempts, &refused)));
    assert!(is_by_policy(after(&mut attempts, &refused)));
    assert_eq!(
        after(&mut attempts, &refused),
        Next::Return(WhyReturned::LimitReached)
    );
    assert_eq!(attempts.tries(), 5);
}

#[test]
fn the_policy_names_failures() {
    use TransportFailure::{BadResponse, Reset, Timeout};
    let only = |change: fn(&mut RetryOn)| {
        let mut on = RetryOn::default();
        change(&mut on);
        on
    };
    let reset = only(|on| on.reset = true);
    let timeout = only(|on| on.timeout = true);
    let unavailable = only(|on| on.statuses.push(StatusCode::SERVICE_UNAVAILABLE));
    let bad_gateway = only(|on| on.statuses.push(StatusCode::BAD_GATEWAY));
    let table = [
        (&reset, Outcome::Transport(Reset), true),
        (&reset, response(503, None, Some(Flag::Reset)), true),
        (&reset, Outcome::Transport(Timeout), false),
        (&reset, response(503, None, None), false),
        (&timeout, Outcome::Transport(Timeout), true),
        (&timeout, response(504, None, None), false),
        (&unavailable, response(503, None, None), true),
        (&unavailable, response(500, None, None), false),
        (&unavailable, Outcome::Transport(Reset), true),
        (&bad_gateway, Outcome::Transport(BadResponse), true),
        (&unavailable, Outcome::Cancelled, false),
        (&unavailable, Outcome::CallerDeadline, false),
    ];
    for (on, outcome, again) in table {
        let mut attempts = Attempts::begin(&traffic(Some(policy(on.clone()))), &Method::GET, false);
        assert_eq!(
            is_by_policy(after(&mut attempts, &ended(outcome))),
            again,
            "{on:?} {outcome:?}"
        );
    }
}

#[test]
fn only_what_may_be_repeated_is_repeated_by_policy() {
    let unavailable = ended(response(503, None, None));
    for (method, again) in [
        (Method::GET, true),
        (Method::PUT, true),
        (Method::POST, false),
        (Method::DELETE, false),
    ] {
        let mut attempts = Attempts::begin(&traffic(Some(policy(everything()))), &method, false);
        assert_eq!(attempts.retryable(), again);
        assert_eq!(
            is_by_policy(after(&mut attempts, &unavailable)),
            again,
            "{method}"
        );
    }
}

#[test]
fn grpc_calls_only_where_grpc_statuses_are_listed() {
    let without = RetryOn {
        grpc_statuses: Vec::new(),
        ..everything()
    };
    let table = [
        (everything(), response(200, Some(14), None), true),
        (everything(), response(200, Some(13), None), false),
        (everything(), response(200, Some(0), None), false),
        (
            everything(),
            Outcome::Transport(TransportFailure::Reset),
            true,
        ),
        (without.clone(), response(200, Some(14), None), false),
        (without, Outcome::Transport(TransportFailure::Reset), false),
    ];
    for (on, outcome, again) in table {
        let mut attempts = Attempts::begin(&traffic(Some(policy(on))), &Method::POST, true);
        assert_eq!(
            is_by_policy(after(&mut attempts, &ended(outcome))),
            again,
            "{outcome:?}"
        );
    }
}

#[test]
fn bodies_are_replayed_only_whole() {
    let table = [
        (false, false, false),
        (true, false, true),
        (false, true, true),
        (true, true, true),
    ];
    for (replayable, untouched, again) in table {
        let refused = Ended {
            replayable,
            untouched,
            ..ended(Outcome::Transport(TransportFailure::Connect))
        };
        let mut attempts = Attempts::begin(&traffic(None), &Method::POST, false);
        let expected = if again {
            AT_ONCE
        } else {
            Next::Return(WhyReturned::NotReplayable)
        };
        assert_eq!(after(&mut attempts, &refused), expected);
    }
}

#[test]
fn upstreams_may_push_back() {
    let table = [
        (Pushback::AtLeast(seconds(2)), Ok(seconds(2))),
        (Pushback::AtLeast(seconds(61)), Err(WhyReturned::PushedBack)),
        (Pushback::Never, Err(WhyReturned::PushedBack)),
    ];
    for (pushback, expected) in table {
        let unavailable = Ended {
            pushback,
            ..ended(response(503, None, None))
        };
        let mut attempts =
            Attempts::begin(&traffic(Some(policy(everything()))), &Method::GET, false);
        let expected = match expected {
            Ok(wait) => Next::RetryAfter {
                wait,
                transparent: false,
            },
            Err(why) => Next::Return(why),
        };
        assert_eq!(after(&mut attempts, &unavailable), expected, "{pushback:?}");
    }
}

#[test]
fn pushback_is_read_as_grpc_and_http_have_it() {
    let table = [
        (
            "grpc-retry-pushback-ms",
            "250",
            Pushback::AtLeast(millis(250)),
        ),
        ("grpc-retry-pushback-ms", "-1", Pushback::Never),
        ("grpc-retry-pushback-ms", "soon", Pushback::Never),
        ("retry-after", "3", Pushback::AtLeast(seconds(3))),
        (
            "retry-after",
            "Wed, 21 Oct 2026 07:28:00 GMT",
            Pushback::None,
        ),
        ("retry-after", "-3", Pushback::None),
        ("other", "3", Pushback::None),
    ];
    for (name, value, expected) in table {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        assert_eq!(Pushback::parse(&headers), expected, "{name}: {value}");
    }
}

#[test]
fn never_past_the_deadline() {
    let now = start();
    let budget = rich(now);
    let unavailable = Ended {
        pushback: Pushback::AtLeast(millis(100)),
        ..ended(response(503, None, None))
    };
    let refused = ended(Outcome::Transport(TransportFailure::Connect));
    let table = [
        (&unavailable, 100, false),
        (&unavailable, 101, true),
        (&refused, 0, false),
        (&refused, 1, true),
    ];
    for (ended, left, again) in table {
        let mut attempts =
            Attempts::begin(&traffic(Some(policy(everything()))), &Method::GET, false);
        let next = attempts.after(ended, Some(now + millis(left)), &budget, now, &mut seeded());
        assert_eq!(
            next != Next::Return(WhyReturned::DeadlineTooClose),
            again,
            "{left} ms left"
        );
    }
}

#[test]
fn never_past_the_budget() {
    let now = start();
    let poor = Budget::new(
        BudgetPolicy {
            min_per_second: 0,
            ..BudgetPolicy::default()
        },
        now,
    );
    for outcome in [
        response(503, None, None),
        Outcome::Transport(TransportFailure::Connect),
    ] {
        let mut attempts =
            Attempts::begin(&traffic(Some(policy(everything()))), &Method::GET, false);
        let next = attempts.after(&ended(outcome), None, &poor, now, &mut seeded());
        assert_eq!(next, Next::Return(WhyReturned::BudgetExhausted));
    }
    (0..5).for_each(|_| poor.request(now));
    let mut attempts = Attempts::begin(&traffic(None), &Method::GET, false);
    let refused = ended(Outcome::Transport(TransportFailure::Connect));
    assert_eq!(
        attempts.after(&refused, None, &poor, now, &mut seeded()),
        AT_ONCE
    );
}

#[test]
fn what_was_retried_in_vain_below_is_not_multiplied() {
    let exhausted = Ended {
        exhausted_below: true,
        ..ended(response(503, None, None))
    };
    let mut attempts = Attempts::begin(&traffic(Some(policy(everything()))), &Method::GET, false);
    assert_eq!(
        after(&mut attempts, &exhausted),
        Next::Return(WhyReturned::ExhaustedBelow)
    );
    // What did not reach the application may be sent again all the same.
    for outcome in [
        response(503, None, Some(Flag::ConnectFailure)),
        Outcome::Transport(TransportFailure::Unprocessed),
    ] {
        let unsent = Ended {
            outcome,
            ..exhausted
        };
        assert_eq!(after(&mut attempts, &unsent), AT_ONCE);
    }
    assert!(WhyReturned::ExhaustedBelow.marks_exhausted());
    assert!(!WhyReturned::NotRetryable.marks_exhausted());
}

#[test]
fn outcomes_are_counted_by_name() {
    let table = [
        (WhyReturned::LimitReached.outcome(), Some("limit")),
        (WhyReturned::BudgetExhausted.outcome(), Some("budget")),
        (WhyReturned::DeadlineTooClose.outcome(), Some("deadline")),
        (
            WhyReturned::ExhaustedBelow.outcome(),
            Some("exhausted-below"),
        ),
        (WhyReturned::NotRetryable.outcome(), None),
        (Some(RetryOutcome::of(Class::HardFailure)), Some("failure")),
        (Some(RetryOutcome::of(Class::Success)), Some("success")),
    ];
    for (outcome, expected) in table {
        assert_eq!(outcome.map(RetryOutcome::as_str), expected);
    }
}

#[test]
fn remembers_the_endpoints_it_tried() {
    let mut attempts = Attempts::begin(&traffic(None), &Method::GET, false);
    assert!(attempts.tried().is_empty());
    attempts.sent_to(3);
    attempts.sent_to(1);
    assert_eq!(attempts.tried(), [3, 1]);
    (0..40).for_each(|_| attempts.sent_to(7));
    assert_eq!(attempts.tried(), [7; REMEMBERED]);
    assert_eq!(attempts.buffer_limit(), REPLAY_BYTES);
}

#[test]
fn backoff_doubles_and_all_of_it_is_chance() {
    let policy = BackoffPolicy {
        base: millis(100),
        max: millis(3_000),
    };
    let mut rng = seeded();
    for (n, full) in [(0, 100), (1, 200), (4, 1_600), (5, 3_000), (70, 3_000)] {
        let full = millis(full).as_secs_f64();
        let mut share = |_| backoff(policy, n, &mut rng).as_secs_f64() / full;
        let mut shares = [0; 1000].map(&mut share);
        shares.sort_by(f64::total_cmp);
        let (least, middle, most) = (shares[0], shares[500], shares[999]);
        assert!(least < 0.02 && (0.98..=1.0).contains(&most), "{n}");
        assert!((0.44..0.56).contains(&middle), "evenly: {middle}");
    }
}

proptest! {
    #[test]
    fn backoff_stays_in_its_bounds(n in 0u32..100, seed: u64) {
        let policy = BackoffPolicy { base: millis(20), max: seconds(1) };
        let mut rng = fastrand::Rng::with_seed(seed);
        let most = millis(20 * 2u64.saturating_pow(n.min(20))).min(seconds(1));
        prop_assert!(backoff(policy, n, &mut rng) <= most);
    }

    #[test]
    fn retries_always_end(attempts in 0u32..20, seed: u64) {
        let now = start();
        let retry = RetryPolicy { attempts, ..policy(everything()) };
        let mut tries = Attempts::begin(&traffic(Some(retry)), &Method::GET, false);
        let mut rng = fastrand::Rng::with_seed(seed);
        let budget = rich(now);
        loop {
            tries.sent_to(0);
            let outcome = match rng.bool() {
                true => response(503, None, None),
                false => Outcome::Transport(TransportFailure::Connect),
            };
            if let Next::Return(_) = tries.after(&ended(outcome), None, &budget, now, &mut rng) {
                break;
            }
        }
        prop_assert!(tries.tries() <= 1 + attempts + TRANSPARENT_LIMIT);
    }
}
