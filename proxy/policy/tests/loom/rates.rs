//! Rates and compartments of a port: no token is spent twice, a key has no
//! more than its own, and a caller no more than its compartment holds.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue};
use selvage_policy::server::{Criticality, Rate, RateKey, RateLimit, ServerPolicy};

use crate::server::Port;
use crate::{all_at_once, at_once, every_order, millis, most_orders, start};
use Criticality::Default as Usual;

const USER: HeaderName = HeaderName::from_static("x-user");

/// From one token to the next.
const INTERVAL_MS: u64 = 60_000;

/// `burst` at once, and one more in every interval.
fn limited(burst: u32, key: RateKey) -> ServerPolicy {
    ServerPolicy {
        rate_limit: Some(RateLimit {
            rate: Rate::new(1, millis(INTERVAL_MS), burst),
            key,
        }),
        ..ServerPolicy::default()
    }
}

/// Whether a request with this value of `x-user` passes, `ms` after the start.
fn passes(port: &Port, user: &'static str, ms: u64) -> bool {
    let headers = HeaderMap::from_iter([(USER, HeaderValue::from_static(user))]);
    let asked = port.decide(&headers, Usual, port.start + millis(ms));
    asked.is_ok()
}

/// How many of so many pass.
fn passing(port: &Port, user: &'static str, asking: usize, ms: u64) -> usize {
    (0..asking).filter(|_| passes(port, user, ms)).count()
}

#[test]
fn a_burst_is_granted_whole_and_once() {
    let start = start();
    every_order(move || {
        let port = Port::new(limited(3, RateKey::None), start);
        let other = Arc::clone(&port);
        let (one, two) = at_once(
            move || passing(&other, "", 2, 0),
            || passing(&port, "", 2, 0),
        );
        assert_eq!(one + two, 3);
        assert_eq!(passing(&port, "", 2, INTERVAL_MS), 1, "then the rate");
    });
}

#[test]
fn of_three_one_takes_the_last_token() {
    let start = start();
    most_orders(move || {
        let port = Port::new(limited(1, RateKey::None), start);
        let (one, two) = (Arc::clone(&port), Arc::clone(&port));
        let (one, two, three) = all_at_once(
            move || passes(&one, "", 0),
            move || passes(&two, "", 0),
            || passes(&port, "", 0),
        );
        assert_eq!(
            [one, two, three].iter().filter(|passed| **passed).count(),
            1
        );
    });
}

/// A port that limits the values of a header apart, and when ann and eve, who
/// have the two places of the table, have all their tokens again, but those who
/// find no place have none. The first request makes the table, behind a lock
/// that loom does not know.
fn keyed(burst: u32, start: Instant) -> (Arc<Port>, u64) {
    let port = Port::new(limited(burst, RateKey::Header(USER)), start);
    assert!(passes(&port, "ann", 0) && passes(&port, "eve", 0));
    let others = passing(&port, "others", 9, INTERVAL_MS - 1);
    assert_eq!(others, burst as usize);
    (port, INTERVAL_MS)
}

#[test]
fn two_workers_share_the_tokens_of_a_key() {
    let start = start();
    every_order(move || {
        let (port, later) = keyed(3, start);
        let other = Arc::clone(&port);
        let (one, two) = at_once(
            move || passing(&other, "ann", 2, later),
            || passing(&port, "ann", 2, later),
        );
        assert_eq!(one + two, 3);
    });
}

#[test]
fn two_workers_share_the_tokens_of_a_key_that_is_new_to_both() {
    let start = start();
    most_orders(move || {
        let (port, later) = keyed(2, start);
        let other = Arc::clone(&port);
        let (one, two) = at_once(
            move || passing(&other, "bob", 2, later),
            || passing(&port, "bob", 2, later),
        );
        assert_eq!(one + two + passing(&port, "bob", 2, later), 2);
    });
}

#[test]
fn who_spends_its_tokens_as_its_place_is_taken_gets_no_others() {
    let start = start();
    every_order(move || {
        let (port, later) = keyed(2, start);
        let other = Arc::clone(&port);
        let (bob, ann) = at_once(
            move || passes(&other, "bob", later),
            || passing(&port, "ann", 2, later),
        );
        let passed = ann + passing(&port, "ann", 2, later);
        // One of them bob's, if ann had found the place before he did.
        assert!((2..=3).contains(&passed), "{passed}");
        assert!(bob, "the first of his own");
    });
}

fn compartments(most: u32) -> ServerPolicy {
    ServerPolicy {
        per_caller: Some(most),
        ..ServerPolicy::default()
    }
}

#[test]
fn a_caller_has_no_more_than_it_may_over_all_workers() {
    let start = start();
    most_orders(move || {
        let port = Port::new(compartments(2), start);
        let (one, two) = (Arc::clone(&port), Arc::clone(&port));
        let (one, two, three) = all_at_once(
            move || one.ask(Usual),
            move || two.ask(Usual),
            || port.ask(Usual),
        );
        let held: Vec<_> = [one, two, three].into_iter().flatten().collect();
        assert_eq!(held.len(), 2);
        drop(held);
        let again: Vec<_> = (0..3).filter_map(|_| port.ask(Usual).ok()).collect();
        assert_eq!(again.len(), 2, "all was given back");
    });
}

#[test]
fn a_compartment_that_empties_is_filled_once() {
    let start = start();
    most_orders(move || {
        let port = Port::new(compartments(1), start);
        let held = port.ask(Usual).expect("it is empty");
        let (one, two) = (Arc::clone(&port), Arc::clone(&port));
        let (one, two, ()) = all_at_once(
            move || one.ask(Usual),
            move || two.ask(Usual),
            || drop(held),
        );
        let held: Vec<_> = [one, two].into_iter().flatten().collect();
        assert!(held.len() <= 1, "two in one place");
        assert_eq!(port.ask(Usual).is_ok(), held.is_empty());
        drop(held);
        assert!(port.ask(Usual).is_ok(), "all was given back");
    });
}
