//! Deadlines as they travel: what is read is what the grammar says, the
//! shortest one holds, and from hop to hop none grows.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use selvage_policy::deadline::{
    DEADLINE_MS, DeadlineOwner, GRPC_TIMEOUT, deadline, encode_deadline_ms, encode_grpc_timeout,
    parse_deadline_ms, parse_grpc_timeout, remaining,
};
use selvage_policy::said::Said;
use selvage_policy::snapshot::Timeouts;

use crate::chance::{Word, sequence, sequences};
use crate::{millis, start};

const UNITS: [(char, u128); 6] = [
    ('H', 3_600_000_000_000),
    ('M', 60_000_000_000),
    ('S', 1_000_000_000),
    ('m', 1_000_000),
    ('u', 1_000),
    ('n', 1),
];

/// Mostly a number with a unit; sometimes with too many digits, or with what does not belong there.
fn some_text(word: &mut Word) -> String {
    let (unit, _) = word.one_of(&UNITS);
    let number = match word.below(8) {
        0 => String::new(),
        1 => "+5".to_owned(),
        2 => "1 0".to_owned(),
        3 => "999999999".to_owned(),
        4 => format!("{:08}", word.below(1_000)),
        _ => word.below(200_000_000).to_string(),
    };
    match word.below(4) {
        0 => number,
        1 => format!("{number}{}", unit.to_ascii_lowercase()),
        _ => format!("{number}{unit}"),
    }
}

/// One to eight digits.
fn number(text: &str) -> Option<u128> {
    let is_number = (1..=8).contains(&text.len()) && text.chars().all(|c| c.is_ascii_digit());
    is_number.then(|| text.parse().expect("digits are a number"))
}

fn grpc_nanos(text: &str) -> Option<u128> {
    UNITS.iter().find_map(|(unit, nanos)| {
        let count = text.strip_suffix(*unit)?;
        Some(number(count)? * nanos)
    })
}

fn header(text: &str) -> HeaderValue {
    HeaderValue::try_from(text).expect("visible text is a header value")
}

proptest! {
    #![proptest_config(sequences())]

    #[test]
    fn the_shortest_that_can_be_read_holds((mut policy, _, events) in sequence(4)) {
        let now = start();
        let route = (!policy.one_in(2)).then(|| millis(policy.below(100_000)));
        let timeouts = Timeouts { request: route, ..Timeouts::default() };
        for mut event in events {
            let texts = [0; 2].map(|_| (!event.one_in(3)).then(|| some_text(&mut event)));
            let mut headers = HeaderMap::new();
            for (name, text) in [GRPC_TIMEOUT, DEADLINE_MS].iter().zip(&texts) {
                headers.extend(text.as_ref().map(|text| (name.clone(), header(text))));
            }
            let grpc = texts[0].as_deref().and_then(grpc_nanos);
            let own = texts[1].as_deref().and_then(number).map(|ms| ms * 1_000_000);
            let shortest = grpc.into_iter().chain(own).min();
            let shorter = shortest.filter(|asked| route.is_none_or(|route| *asked < route.as_nanos()));
            let owner = if shorter.is_some() { DeadlineOwner::Caller } else { DeadlineOwner::Route };
            let nanos = shorter.or(route.map(|route| route.as_nanos()));
            let asked = Said::read(&headers).waits.map(|waits| now + waits);
            let (found, found_owner) = deadline(&timeouts, asked, now);
            prop_assert_eq!(found.map(|at| (at - now).as_nanos()), nanos, "{:?}", texts);
            prop_assert_eq!(found_owner, owner);
        }
    }

    #[test]
    fn from_hop_to_hop_it_never_grows((mut first, _, events) in sequence(8)) {
        let mut now = start();
        let mut left = Duration::from_nanos(first.below(1 << 60));
        let ends = now + left;
        for mut event in events {
            let (value, read) = if event.one_in(2) {
                let value = encode_grpc_timeout(left);
                (value.clone(), parse_grpc_timeout(&value))
            } else {
                let value = encode_deadline_ms(left);
                (value.clone(), parse_deadline_ms(&value))
            };
            let read = read.expect("what was written can be read");
            prop_assert!(read <= left, "{value:?} of {left:?}");
            // As many digits as there may be: no more is lost than what they cannot say.
            let large = Duration::from_secs(99_999);
            prop_assert!(left > large || left - read < millis(1).max(left / 10_000), "{value:?}");
            let at = now + read;
            now += event.wait();
            match remaining(at, now) {
                Some(rest) => {
                    prop_assert!(!rest.is_zero() && now + rest <= ends);
                    left = rest;
                }
                None => {
                    prop_assert!(now >= at);
                    break;
                }
            }
        }
    }
}
