//! When the caller stops waiting: the shorter of what the route allows and
//! what the caller asked for, and the forms in which it travels.
//!
//! Meets a request once its route is known. It knows no timers; who waits
//! until the returned instant is the proxy.

use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};

use crate::snapshot::Timeouts;

/// The deadline of a gRPC call, relative (gRPC over HTTP/2, `Timeout`).
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The deadline of any request, in milliseconds from now.
pub const DEADLINE_MS: HeaderName = HeaderName::from_static("x-selvage-deadline-ms");

/// A number in either header has at most this many digits (gRPC over HTTP/2, `TimeoutValue`).
const DIGITS: usize = 8;
const LARGEST: u128 = 99_999_999;
/// At most this much a deadline loses at a hop, of those that anybody waits for.
pub const ROUNDING: Duration = Duration::from_millis(1);

/// Whose deadline it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeadlineOwner {
    /// The route's `request` timeout, or nobody's.
    Route,
    /// The caller's own, shorter one: if it passes, that says nothing of the endpoint.
    Caller,
}

/// The instant by which the whole exchange must end, and whose limit it is.
/// `None`: no limit. `asked`: when the caller stops waiting, by its own word or
/// by that of its trace.
#[must_use]
pub fn deadline(
    timeouts: &Timeouts,
    asked: Option<Instant>,
    now: Instant,
) -> (Option<Instant>, DeadlineOwner) {
    let route = timeouts.request.and_then(|limit| now.checked_add(limit));
    match (route, asked) {
        (Some(route), Some(asked)) if asked < route => (Some(asked), DeadlineOwner::Caller),
        (None, Some(asked)) => (Some(asked), DeadlineOwner::Caller),
        (route, _) => (route, DeadlineOwner::Route),
    }
}

/// Whether a `timeout` that the next hop says now is of the deadline it was
/// given. That one is earlier than `deadline`, by what [`ROUNDING`] took off.
#[must_use]
pub fn is_as_good_as_over(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| deadline.saturating_duration_since(now) <= ROUNDING)
}

/// What is left until `deadline`; `None` once it has passed.
#[must_use]
pub fn remaining(deadline: Instant, now: Instant) -> Option<Duration> {
    deadline
        .checked_duration_since(now)
        .filter(|left| !left.is_zero())
}

/// Parses `grpc-timeout`: one to eight digits and a unit of `H M S m u n`.
#[must_use]
pub fn parse_grpc_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    let count = parse_digits(digits)?;
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// Parses `x-selvage-deadline-ms`: one to eight digits.
#[must_use]
pub fn parse_deadline_ms(value: &HeaderValue) -> Option<Duration> {
    parse_digits(value.as_bytes()).map(Duration::from_millis)
}

fn parse_digits(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > DIGITS {
        return None;
    }
    digits.iter().try_fold(0, |sum: u64, byte| {
        byte.is_ascii_digit()
            .then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

/// Writes `grpc-timeout` in the finest unit that fits eight digits, rounded
/// down so that a deadline never grows on its way.
#[must_use]
pub fn encode_grpc_timeout(left: Duration) -> HeaderValue {
    let units = [
        (left.as_nanos(), 'n'),
        (left.as_micros(), 'u'),
        (left.as_millis(), 'm'),
        (u128::from(left.as_secs()), 'S'),
        (u128::from(left.as_secs() / 60), 'M'),
    ];
    let fitting = units.into_iter().find(|(count, _)| *count <= LARGEST);
    let (count, unit) = fitting.unwrap_or((u128::from(left.as_secs() / 3600).min(LARGEST), 'H'));
    HeaderValue::try_from(format!("{count}{unit}")).expect("digits and a letter are a header value")
}

/// Writes `x-selvage-deadline-ms`, rounded down, at most eight digits.
#[must_use]
pub fn encode_deadline_ms(left: Duration) -> HeaderValue {
    let count = left.as_millis().min(LARGEST);
    HeaderValue::try_from(count.to_string()).expect("digits are a header value")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{millis, seconds, start};

    #[test]
    fn parses_what_grpc_allows() {
        let table = [
            ("1H", Some(seconds(3600))),
            ("2M", Some(seconds(120))),
            ("3S", Some(seconds(3))),
            ("4m", Some(millis(4))),
            ("5u", Some(Duration::from_micros(5))),
            ("6n", Some(Duration::from_nanos(6))),
            ("0m", Some(Duration::ZERO)),
            ("99999999H", Some(seconds(99_999_999 * 3600))),
            ("100000000n", None),
            ("1", None),
            ("m", None),
            ("", None),
            ("1h", None),
            ("-1m", None),
            ("+1m", None),
            ("1.5S", None),
            (" 1S", None),
        ];
        for (text, expected) in table {
            assert_eq!(
                parse_grpc_timeout(&HeaderValue::from_static(text)),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn the_shorter_limit_wins() {
        use DeadlineOwner::{Caller, Route};
        let now = start();
        let table = [
            (None, None, None, Route),
            (Some(500), None, Some(500), Route),
            (None, Some(100), Some(100), Caller),
            (Some(500), Some(100), Some(100), Caller),
            (Some(500), Some(500), Some(500), Route),
            (Some(500), Some(1000), Some(500), Route),
            (Some(500), Some(0), Some(0), Caller),
        ];
        for (route, asked, expected, owner) in table {
            let timeouts = Timeouts {
                request: route.map(millis),
                ..Timeouts::default()
            };
            let at = |ms: Option<u64>| ms.map(|ms| now + millis(ms));
            assert_eq!(
                deadline(&timeouts, at(asked), now),
                (at(expected), owner),
                "{route:?} {asked:?}"
            );
        }
    }

    #[test]
    fn what_is_rounded_off_is_no_fault_of_the_next_hop() {
        let now = start();
        let table = [
            (Some(0), true),
            (Some(1), true),
            (Some(2), false),
            (Some(300), false),
            (None, false),
        ];
        for (left, over) in table {
            let deadline = left.map(|left| now + millis(left));
            assert_eq!(is_as_good_as_over(deadline, now), over, "{left:?}");
        }
        assert!(is_as_good_as_over(Some(now), now + millis(9)));
    }

    #[test]
    fn nothing_remains_at_the_deadline() {
        let now = start();
        assert_eq!(remaining(now + millis(3), now), Some(millis(3)));
        assert_eq!(remaining(now, now), None);
        assert_eq!(remaining(now, now + millis(1)), None);
    }

    #[test]
    fn the_largest_is_saturated() {
        assert_eq!(encode_grpc_timeout(Duration::MAX), "99999999H");
        assert_eq!(encode_deadline_ms(Duration::MAX), "99999999");
        assert_eq!(encode_grpc_timeout(Duration::ZERO), "0n");
    }

    proptest! {
        #[test]
        fn a_deadline_never_grows_on_its_way(nanos in 0u64..u64::MAX / 2) {
            let left = Duration::from_nanos(nanos);
            let read = parse_grpc_timeout(&encode_grpc_timeout(left)).expect("what is written parses");
            prop_assert!(read <= left);
            prop_assert!(left.as_secs_f64() - read.as_secs_f64() <= left.as_secs_f64() / 1e4);
        }

        #[test]
        fn no_more_is_rounded_off_than_is_allowed_for(millis in 0u64..86_400_000, nanos in 0u64..1_000_000) {
            let left = Duration::from_millis(millis) + Duration::from_nanos(nanos);
            let own = parse_deadline_ms(&encode_deadline_ms(left)).expect("what is written parses");
            let grpc = parse_grpc_timeout(&encode_grpc_timeout(left)).expect("what is written parses");
            prop_assert!(own <= left && left - own <= ROUNDING);
            prop_assert!(grpc <= left && left - grpc <= ROUNDING);
        }

        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(0x20u8..0x7f, 0..12)) {
            let value = HeaderValue::from_bytes(&bytes).expect("visible bytes are a header value");
            let _ = parse_grpc_timeout(&value);
            let _ = parse_deadline_ms(&value);
        }
    }
}
