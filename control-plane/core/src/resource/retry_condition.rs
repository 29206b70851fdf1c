//! The conditions of `retry.on`: words of the transport, HTTP status codes,
//! and names of gRPC statuses. Refuses to know when they occur.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::nearest::nearest;

/// One entry of `retry.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RetryCondition {
    /// The upstream could not be reached.
    ConnectFailure,
    /// It went away before response headers.
    Reset,
    /// It did not answer within `timeouts.backendRequest`.
    Timeout,
    /// An HTTP status code from 400 to 599.
    Status(u16),
    /// A gRPC status code from 1 to 16.
    GrpcStatus(u8),
}

const TRANSPORT: [(&str, RetryCondition); 3] = [
    ("connect-failure", RetryCondition::ConnectFailure),
    ("reset", RetryCondition::Reset),
    ("timeout", RetryCondition::Timeout),
];

/// Names by number, from 1 (gRPC, `statuscodes.md`).
pub(super) const GRPC: [&str; 16] = [
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// A text is not a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown condition `{found}`: expected `connect-failure`, `reset`, `timeout`, an HTTP status from 400 to 599, or the name of a gRPC status{hint}"
)]
pub struct InvalidRetryCondition {
    found: String,
    hint: String,
}

impl FromStr for RetryCondition {
    type Err = InvalidRetryCondition;

    fn from_str(text: &str) -> Result<Self, InvalidRetryCondition> {
        if let Some((_, condition)) = TRANSPORT.iter().find(|(word, _)| *word == text) {
            return Ok(*condition);
        }
        if let Some(index) = GRPC.iter().position(|name| *name == text) {
            // 16 names: an index is never past 255.
            return Ok(Self::GrpcStatus(u8::try_from(index + 1).unwrap_or(u8::MAX)));
        }
        if text.len() == 3
            && let Ok(status) = text.parse()
            && (400..=599).contains(&status)
        {
            return Ok(Self::Status(status));
        }
        let words = TRANSPORT.iter().map(|(word, _)| *word).chain(GRPC);
        let hint = nearest(text, words).map(|near| format!("; did you mean `{near}`?"));
        let found = text.chars().take(40).collect();
        Err(InvalidRetryCondition {
            found,
            hint: hint.unwrap_or_default(),
        })
    }
}

impl fmt::Display for RetryCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectFailure => f.write_str("connect-failure"),
            Self::Reset => f.write_str("reset"),
            Self::Timeout => f.write_str("timeout"),
            Self::Status(status) => status.fmt(f),
            Self::GrpcStatus(status) => match GRPC.get(usize::from(*status).wrapping_sub(1)) {
                Some(name) => f.write_str(name),
                None => write!(f, "gRPC status {status}"),
            },
        }
    }
}

impl<'de> Deserialize<'de> for RetryCondition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Condition;
        impl Visitor<'_> for Condition {
            type Value = RetryCondition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a condition such as `connect-failure`, `503` or `UNAVAILABLE`")
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<RetryCondition, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<RetryCondition, E> {
                Err(E::invalid_value(Unexpected::Signed(value), &self))
            }

            fn visit_str<E: Error>(self, value: &str) -> Result<RetryCondition, E> {
                value.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Condition)
    }
}

#[cfg(test)]
mod tests {
    use super::RetryCondition;

    #[test]
    fn conditions_are_words_codes_and_names() {
        let table = [
            ("connect-failure", Some(RetryCondition::ConnectFailure)),
            ("reset", Some(RetryCondition::Reset)),
            ("timeout", Some(RetryCondition::Timeout)),
            ("503", Some(RetryCondition::Status(503))),
            ("UNAVAILABLE", Some(RetryCondition::GrpcStatus(14))),
            ("CANCELLED", Some(RetryCondition::GrpcStatus(1))),
            ("5xx", None),
            ("200", None),
            ("600", None),
            ("+50", None),
            ("unavailable", None),
            ("OK", None),
            ("", None),
        ];
        for (text, expected) in table {
            let parsed = text.parse::<RetryCondition>();
            assert_eq!(parsed.as_ref().ok().copied(), expected, "{text}");
            if let Ok(condition) = parsed {
                assert_eq!(condition.to_string(), text);
            }
        }
    }
}
