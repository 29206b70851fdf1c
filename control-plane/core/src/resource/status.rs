//! HTTP statuses as lists name them, one (`503`) or a class (`5xx`), and gRPC
//! statuses by name. Refuses to know what the lists are for.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::retry_condition::GRPC;
use crate::nearest::nearest;

/// An HTTP status, or all of a class: from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusRange {
    /// The first.
    pub first: u16,
    /// The last; the same one where there is only one.
    pub last: u16,
}

/// A text names no status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an HTTP status from 100 to 599 or a class such as `5xx`, found `{0}`")]
pub struct InvalidStatus(String);

impl FromStr for StatusRange {
    type Err = InvalidStatus;

    fn from_str(text: &str) -> Result<Self, InvalidStatus> {
        let class = text.strip_suffix("xx").filter(|class| class.len() == 1);
        let (number, width) = match class {
            Some(class) => (format!("{class}00"), 99),
            None => (text.to_owned(), 0),
        };
        match number.parse::<u16>() {
            Ok(first) if number.len() == 3 && (100..=599).contains(&first) => Ok(Self {
                first,
                last: first + width,
            }),
            _ => Err(InvalidStatus(text.chars().take(40).collect())),
        }
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}xx", self.first / 100)
        }
    }
}

/// A gRPC status that is an error, by its number from 1 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrpcStatus(pub u8);

/// A text names no gRPC status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected the name of a gRPC status that is an error, such as `UNAVAILABLE`, found `{found}`{hint}"
)]
pub struct InvalidGrpcStatus {
    found: String,
    hint: String,
}

impl FromStr for GrpcStatus {
    type Err = InvalidGrpcStatus;

    fn from_str(text: &str) -> Result<Self, InvalidGrpcStatus> {
        if let Some((number, _)) = (1..).zip(GRPC).find(|(_, name)| *name == text) {
            return Ok(Self(number));
        }
        let hint = nearest(text, GRPC).map(|near| format!("; did you mean `{near}`?"));
        Err(InvalidGrpcStatus {
            found: text.chars().take(40).collect(),
            hint: hint.unwrap_or_default(),
        })
    }
}

struct Written<T>(std::marker::PhantomData<T>, &'static str);

impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Written<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<T, E> {
        Err(E::invalid_value(Unexpected::Signed(value), &self))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<T, E> {
        value.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "an HTTP status or a class such as `5xx`";
        deserializer.deserialize_any(Written(std::marker::PhantomData, expected))
    }
}

impl<'de> Deserialize<'de> for GrpcStatus {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "the name of a gRPC status such as `UNAVAILABLE`";
        deserializer.deserialize_any(Written(std::marker::PhantomData, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::{GrpcStatus, StatusRange};

    #[test]
    fn one_status_or_a_class() {
        let table = [
            ("503", Some((503, 503))),
            ("5xx", Some((500, 599))),
            ("1xx", Some((100, 199))),
            ("599", Some((599, 599))),
            ("6xx", None),
            ("0xx", None),
            ("99", None),
            ("600", None),
            ("+50", None),
            ("50x", None),
            ("xx", None),
            ("5XX", None),
            ("5éxx", None),
            ("", None),
        ];
        for (text, expected) in table {
            let parsed = text.parse::<StatusRange>().ok();
            let ends = parsed.map(|range| (range.first, range.last));
            assert_eq!(ends, expected, "{text}");
            if let Some(range) = parsed {
                assert_eq!(range.to_string(), text);
            }
        }
    }

    #[test]
    fn a_grpc_status_goes_by_its_name() {
        assert_eq!("CANCELLED".parse(), Ok(GrpcStatus(1)));
        assert_eq!("UNAUTHENTICATED".parse(), Ok(GrpcStatus(16)));
        let refused = "UNAVAILBLE"
            .parse::<GrpcStatus>()
            .map_err(|it| it.to_string());
        let refused = refused.expect_err("no such name");
        assert!(
            refused.ends_with("did you mean `UNAVAILABLE`?"),
            "{refused}"
        );
        assert!("OK".parse::<GrpcStatus>().is_err());
    }
}
