//! Decisions on requests as tables, and overload in virtual time.

mod network;
mod overload;

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue};

use super::*;
use crate::testing::{millis, seconds, start};

fn id(name: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://mesh.local/ns/shop/sa/{name}")).expect("an id")
}

fn state(policy: &ServerPolicy, now: Instant) -> Arc<ServerState> {
    let server = Arc::new(ServerState::new(now, 7));
    server.set_policy(Some(policy));
    server
}

/// One request of a caller, with a value of the header `x-user` if it has one.
fn ask(
    server: &Arc<ServerState>,
    policy: &ServerPolicy,
    (name, user): (Option<&str>, Option<&'static str>),
    now: Instant,
) -> Result<Admission, Shed> {
    let identity = name.map(id);
    let mut headers = HeaderMap::new();
    if let Some(user) = user {
        headers.insert("x-user", HeaderValue::from_static(user));
    }
    let asking = Asking {
        caller: &|| server.caller(identity.as_ref()),
        identity: identity.as_ref(),
        source: None,
        headers: Some(&headers),
        criticality: Criticality::Default,
    };
    let admitted = server.admit(policy, &asking, now);
    admitted.map_err(|refused| refused.why)
}

fn limited_by(key: RateKey) -> ServerPolicy {
    ServerPolicy {
        rate_limit: Some(RateLimit {
            rate: Rate::new(1, seconds(1), 1),
            key,
        }),
        ..ServerPolicy::default()
    }
}

#[test]
fn whose_requests_are_counted_together() {
    let user = HeaderName::from_static("x-user");
    let asked = [
        (Some("a"), Some("ann")),
        (Some("a"), Some("bob")),
        (Some("b"), Some("ann")),
        (Some("b"), None),
        (None, None),
        (None, None),
    ];
    let table = [
        (RateKey::None, [true, false, false, false, false, false]),
        (RateKey::Identity, [true, false, true, false, true, false]),
        (
            RateKey::Header(user),
            [true, true, false, true, false, false],
        ),
    ];
    for (key, expected) in table {
        let now = start();
        let policy = limited_by(key);
        let server = state(&policy, now);
        let passed = asked.map(|asked| ask(&server, &policy, asked, now).is_ok());
        assert_eq!(passed, expected, "{:?}", policy.rate_limit);
        let limited = server.shed(Shed::RateLimited, Criticality::Default);
        let refused = expected.iter().filter(|passed| !**passed).count() as u64;
        assert_eq!(limited, refused);
    }
}

#[test]
fn what_is_over_its_rate_is_told_when_to_come_again() {
    let now = start();
    let policy = limited_by(RateKey::None);
    let server = state(&policy, now);
    let asking = Asking {
        caller: &|| unreachable!("no policy bounds callers"),
        identity: None,
        source: None,
        headers: None,
        criticality: Criticality::Critical,
    };
    assert!(server.admit(&policy, &asking, now).is_ok());
    let refused = server
        .admit(&policy, &asking, now + millis(400))
        .expect_err("the second within a second");
    assert_eq!(refused.retry_after, Some(millis(600)));
    assert_eq!(refused.why.flag(), Flag::RateLimited);
    assert_eq!(server.shed(Shed::RateLimited, Criticality::Critical), 1);
}

#[test]
fn a_request_over_its_compartment_takes_no_token() {
    let now = start();
    let policy = ServerPolicy {
        per_caller: Some(1),
        ..limited_by(RateKey::None)
    };
    let server = state(&policy, now);
    let held = ask(&server, &policy, (Some("a"), None), now);
    let later = now + seconds(1);
    let again = ask(&server, &policy, (Some("a"), None), later);
    assert_eq!(again.expect_err("its second"), Shed::PerCaller);
    assert!(ask(&server, &policy, (Some("b"), None), later).is_ok());
    drop(held);
    assert!(ask(&server, &policy, (Some("a"), None), later + seconds(1)).is_ok());
}

#[test]
fn one_that_waits_counts_for_its_caller() {
    let now = start();
    let policy = ServerPolicy {
        concurrency: Concurrency::Fixed { max: 1 },
        per_caller: Some(2),
        ..ServerPolicy::default()
    };
    let server = state(&policy, now);
    let first = ask(&server, &policy, (Some("a"), None), now).expect("a place");
    let Ok(Admission::Waits(mut waits)) = ask(&server, &policy, (Some("a"), None), now) else {
        panic!("the place is taken");
    };
    let third = ask(&server, &policy, (Some("a"), None), now);
    assert_eq!(third.expect_err("it has two"), Shed::PerCaller);
    let refused = waits.give_up(waits.until()).expect_err("nobody left");
    assert_eq!(refused.why, Shed::QueueTimeout);
    drop(waits);
    assert!(ask(&server, &policy, (Some("a"), None), now).is_ok());
    drop(first);
}

#[test]
fn opaque_connections_have_places_of_a_fixed_limit_and_tunnels_none_of_an_adaptive() {
    let now = start();
    let adaptive = AdaptivePolicy {
        min: 1,
        max: 1,
        start: 1,
    };
    let table = [
        (Concurrency::Fixed { max: 1 }, 1, 1),
        (Concurrency::Adaptive(adaptive), 0, 0),
        (Concurrency::Off, 0, 0),
    ];
    for (concurrency, opaque, tunnel) in table {
        let policy = ServerPolicy {
            concurrency,
            ..ServerPolicy::default()
        };
        let server = state(&policy, now);
        let asking = Asking {
            caller: &|| unreachable!("no policy bounds callers"),
            identity: None,
            source: None,
            headers: None,
            criticality: Criticality::Default,
        };
        let held = server.admit(&policy, &asking, now);
        assert_eq!(server.load().in_flight, opaque, "{concurrency:?}");
        drop(held);
        let Ok(Admission::Admitted(mut upgraded)) = ask(&server, &policy, (None, None), now) else {
            panic!("there is a place");
        };
        upgraded.tunnels();
        assert_eq!(server.load().in_flight, tunnel, "{concurrency:?}");
        drop(upgraded);
        assert_eq!(server.load().in_flight, 0);
    }
}

#[test]
fn the_port_that_is_named_counts_before_the_others() {
    let named = limited_by(RateKey::None);
    let policies = ServerPolicies {
        ports: vec![(80, named.clone())],
        others: Some(ServerPolicy::default()),
    };
    assert_eq!(policies.of(80), Some(&named));
    assert_eq!(policies.of(81), Some(&ServerPolicy::default()));
    assert_eq!(ServerPolicies::default().of(80), None);
}
