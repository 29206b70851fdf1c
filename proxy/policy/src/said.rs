//! What the hop before says of a request beside the request itself: when it
//! stops waiting, and which of its tries this is.
//!
//! Met at the door, before anything is taken off the head. One pass over the
//! names finds all of it: most requests say nothing. A field that carries
//! nonsense is as if it were not there, and is named, so that it can be
//! counted. Whose word is believed is for the proxy to know.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::deadline::{DEADLINE_MS, GRPC_TIMEOUT, parse_deadline_ms, parse_grpc_timeout};
use crate::trace;

/// Which try of the hop before a request is, from 2 on; between sidecars only.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-selvage-attempt");
/// On a response: its sender retried in vain already; between sidecars only.
pub const RETRIED: HeaderName = HeaderName::from_static("x-selvage-retried");

/// The one value of [`RETRIED`].
const EXHAUSTED: &str = "exhausted";
/// A number of tries has at most this many digits.
const ATTEMPT_DIGITS: usize = 3;

/// A field that said nonsense: the label `header` of `selvage_headers_ignored_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ignored {
    /// `grpc-timeout`.
    GrpcTimeout,
    /// `x-selvage-deadline-ms`.
    DeadlineMs,
    /// `x-selvage-attempt`.
    Attempt,
    /// `x-selvage-retried`.
    Retried,
    /// `x-selvage-criticality`.
    Criticality,
}

impl Ignored {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 5] = [
        Self::GrpcTimeout,
        Self::DeadlineMs,
        Self::Attempt,
        Self::Retried,
        Self::Criticality,
    ];

    /// The field's name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::GrpcTimeout => "grpc-timeout",
            Self::DeadlineMs => "x-selvage-deadline-ms",
            Self::Attempt => "x-selvage-attempt",
            Self::Retried => "x-selvage-retried",
            Self::Criticality => "x-selvage-criticality",
        }
    }
}

/// What a request's head says beside the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Said {
    /// How long the caller waits: the shortest of what it says.
    pub waits: Option<Duration>,
    /// Which try this is of the hop before, from 2 on.
    pub attempt: Option<u32>,
    /// Whether there is a trace to be read.
    pub traced: bool,
    /// A bit for each field that said nonsense.
    ignored: u8,
}

impl Said {
    /// Reads a head.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let mut said = Self::default();
        for (name, value) in headers {
            if *name == GRPC_TIMEOUT {
                said.waits(parse_grpc_timeout(value), Ignored::GrpcTimeout);
            } else if *name == DEADLINE_MS {
                said.waits(parse_deadline_ms(value), Ignored::DeadlineMs);
            } else if *name == ATTEMPT {
                said.attempt = parse_attempt(value);
                if said.attempt.is_none() {
                    said.ignores(Ignored::Attempt);
                }
            } else if trace::names_a_trace(name) {
                said.traced = true;
            }
        }
        said
    }

    /// The fields that said nonsense.
    pub fn ignored(self) -> impl Iterator<Item = Ignored> {
        let has = move |field: &Ignored| self.ignored >> *field as u8 & 1 == 1;
        Ignored::ALL.into_iter().filter(has)
    }

    fn waits(&mut self, waits: Option<Duration>, field: Ignored) {
        match waits {
            Some(waits) => {
                self.waits = Some(self.waits.map_or(waits, |known| known.min(waits)));
            }
            None => self.ignores(field),
        }
    }

    const fn ignores(&mut self, field: Ignored) {
        self.ignored |= 1 << field as u8;
    }
}

/// Whether a response says that its sender retried in vain.
///
/// # Errors
/// Where it says something else.
pub fn says_exhausted(headers: &HeaderMap) -> Result<bool, Ignored> {
    match headers.get(RETRIED) {
        None => Ok(false),
        Some(value) if value == EXHAUSTED => Ok(true),
        Some(_) => Err(Ignored::Retried),
    }
}

/// Says on a response that its sender retried in vain.
pub fn say_exhausted(headers: &mut HeaderMap) {
    headers.insert(RETRIED, HeaderValue::from_static(EXHAUSTED));
}

/// Parses `x-selvage-attempt`: a number of up to three digits. A first try is
/// nothing to speak of, and no number of a try.
fn parse_attempt(value: &HeaderValue) -> Option<u32> {
    let digits = value.as_bytes();
    let plain = digits.len() <= ATTEMPT_DIGITS && digits.iter().all(u8::is_ascii_digit);
    let number: u32 = value.to_str().ok().filter(|_| plain)?.parse().ok()?;
    (number >= 2).then_some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{millis, seconds};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    fn read(fields: &[(&'static str, &'static str)]) -> (Said, Vec<&'static str>) {
        let said = Said::read(&headers(fields));
        (said, said.ignored().map(Ignored::as_str).collect())
    }

    #[test]
    fn nonsense_is_as_if_it_were_not_there_and_is_named() {
        const GRPC: &str = "grpc-timeout";
        const OWN: &str = "x-selvage-deadline-ms";
        const ATTEMPT: &str = "x-selvage-attempt";
        type Fields = &'static [(&'static str, &'static str)];
        type Row = (Fields, Option<u64>, Option<u32>, &'static [&'static str]);
        let table: [Row; 14] = [
            (&[("accept", "*/*")], None, None, &[]),
            (&[(GRPC, "100m")], Some(100), None, &[]),
            (&[(OWN, "70"), (GRPC, "1S")], Some(70), None, &[]),
            (&[(OWN, "70"), (OWN, "60")], Some(60), None, &[]),
            (&[(OWN, "0")], Some(0), None, &[]),
            (&[(OWN, "soon")], None, None, &[OWN]),
            (&[(OWN, "-1")], None, None, &[OWN]),
            (&[(OWN, "")], None, None, &[OWN]),
            (&[(OWN, "999999999")], None, None, &[OWN]),
            (&[(OWN, "9"), (GRPC, "1h")], Some(9), None, &[GRPC]),
            (&[(ATTEMPT, "2")], None, Some(2), &[]),
            (&[(ATTEMPT, "999")], None, Some(999), &[]),
            (
                &[(ATTEMPT, "1000"), (GRPC, "")],
                None,
                None,
                &[GRPC, ATTEMPT],
            ),
            (&[(ATTEMPT, "1")], None, None, &[ATTEMPT]),
        ];
        for (fields, waits, attempt, ignored) in table {
            let (said, named) = read(fields);
            assert_eq!(said.waits, waits.map(millis), "{fields:?}");
            assert_eq!(said.attempt, attempt, "{fields:?}");
            assert_eq!(named, ignored, "{fields:?}");
        }
        assert_eq!(read(&[(GRPC, "1H")]).0.waits, Some(seconds(3600)));
    }

    #[test]
    fn a_trace_is_looked_for_where_one_is_named() {
        for (name, traced) in [
            ("traceparent", true),
            ("b3", true),
            ("x-b3-traceid", true),
            ("tracestate", false),
            ("x-b3-sampled", false),
        ] {
            assert_eq!(read(&[(name, "x")]).0.traced, traced, "{name}");
        }
    }

    #[test]
    fn exhausted_is_one_word() {
        for (fields, expected) in [
            (&[][..], Ok(false)),
            (&[("x-selvage-retried", "exhausted")], Ok(true)),
            (&[("x-selvage-retried", "yes")], Err(Ignored::Retried)),
        ] {
            assert_eq!(says_exhausted(&headers(fields)), expected, "{fields:?}");
        }
        let mut said = HeaderMap::new();
        say_exhausted(&mut said);
        assert_eq!(says_exhausted(&said), Ok(true));
    }

    #[test]
    fn fields_stand_by_their_numbers() {
        for (number, field) in Ignored::ALL.into_iter().enumerate() {
            assert_eq!(field as usize, number);
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(name in 0..4usize, bytes in proptest::collection::vec(0x20u8..=0xff, 0..12)) {
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
            let mut map = HeaderMap::new();
            map.insert(Ignored::ALL[name].as_str(), value);
            let _ = (Said::read(&map), says_exhausted(&map));
        }
    }
}
