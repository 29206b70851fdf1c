//! `fault`: what is injected into requests on purpose. Refuses to know into
//! which ones chance has it.

use serde::{Deserialize, Deserializer};

use super::backend::{Header, check_headers};
use super::retry_condition::RetryCondition;
use crate::config::Checker;
use crate::scalar::{Duration, Fraction};

/// Longest delay.
const MAX_DELAY: Duration = Duration(std::time::Duration::from_secs(3600));

/// At least one of `delay` and `abort`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Fault {
    /// Requests wait.
    pub delay: Option<FaultDelay>,
    /// Requests fail.
    pub abort: Option<FaultAbort>,
    /// Only these requests.
    #[serde(default, rename = "match")]
    pub matching: FaultMatch,
}

/// Requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct FaultDelay {
    /// How many of them.
    pub percent: Fraction,
    /// How long.
    pub duration: Duration,
}

/// Requests fail, in exactly one way.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultAbort {
    /// How many of them.
    pub percent: Fraction,
    /// With this HTTP status.
    pub status: Option<u16>,
    /// With this gRPC status.
    #[serde(default, deserialize_with = "grpc_status")]
    pub grpc_status: Option<u8>,
    /// Without an answer.
    #[serde(default)]
    pub reset: bool,
}

/// Which requests.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct FaultMatch {
    /// Those with all of these headers.
    pub headers: Vec<Header>,
}

fn grpc_status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
    use serde::de::Error;
    let text = String::deserialize(deserializer)?;
    match text.parse() {
        Ok(RetryCondition::GrpcStatus(status)) => Ok(Some(status)),
        _ => Err(D::Error::custom(format!(
            "expected the name of a gRPC status such as `UNAVAILABLE`, found `{text}`"
        ))),
    }
}

impl Fault {
    pub(crate) fn check(&self, base: &str, check: &mut Checker<'_>) {
        check.require(
            self.delay.is_some() || self.abort.is_some(),
            base,
            "expected `delay`, `abort`, or both",
        );
        if let Some(FaultDelay { duration, .. }) = self.delay {
            check.require(
                duration > Duration::default() && duration <= MAX_DELAY,
                format!("{base}.delay.duration"),
                format!("expected more than 0s and at most {MAX_DELAY}"),
            );
        }
        if let Some(abort) = &self.abort {
            abort.check(&format!("{base}.abort"), check);
        }
        check_headers(
            &self.matching.headers,
            &format!("{base}.match.headers"),
            check,
        );
    }
}

impl FaultAbort {
    fn check(&self, base: &str, check: &mut Checker<'_>) {
        let ways = [
            self.status.is_some(),
            self.grpc_status.is_some(),
            self.reset,
        ];
        check.require(
            ways.into_iter().filter(|way| *way).count() == 1,
            base,
            "expected exactly one of `status`, `grpcStatus` and `reset: true`",
        );
        check.require(
            self.status
                .is_none_or(|status| (400..=599).contains(&status)),
            format!("{base}.status"),
            "expected a status from 400 to 599",
        );
    }
}
