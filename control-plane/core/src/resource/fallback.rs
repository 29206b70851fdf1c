//! `fallback`: what stands in where a service fails. Refuses to know when it
//! does: that is the proxy's.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::backend::{BackendRef, Header, check_headers};
use super::check_dns_label;
use super::retry_condition::RetryCondition;
use crate::config::Checker;
use crate::nearest::nearest;
use crate::scalar::ByteSize;

/// Conditions of one fallback.
pub const MAX_CONDITIONS: usize = 32;

/// Bytes of a static answer's body.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// Exactly one of `service` and `response`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Fallback {
    /// Told to the caller, and counted by.
    pub name: String,
    /// For which outcomes, once no retry follows.
    pub on: Vec<FallbackCondition>,
    /// Another service.
    pub service: Option<BackendRef>,
    /// An answer known beforehand.
    pub response: Option<StaticResponse>,
}

/// An answer known beforehand.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StaticResponse {
    /// Its status.
    pub status: u16,
    /// Its headers.
    #[serde(default)]
    pub headers: Vec<Header>,
    /// Its body.
    #[serde(default)]
    pub body: String,
}

/// One entry of `fallback.on`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackCondition {
    /// What the proxy says went wrong.
    Flag(&'static str),
    /// An HTTP status code from 400 to 599.
    Status(u16),
    /// A gRPC status code from 1 to 16.
    GrpcStatus(u8),
}

/// The flags of what can go wrong once the service is known.
const FLAGS: [&str; 12] = [
    "no-healthy-endpoint",
    "overflow",
    "rate-limited",
    "overloaded",
    "denied",
    "connect-failure",
    "tls-failure",
    "reset",
    "bad-response",
    "timeout",
    "loop",
    "fault",
];

/// A text is not a condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown condition `{found}`: expected a flag such as `no-healthy-endpoint` or `timeout`, an HTTP status from 400 to 599, or the name of a gRPC status{hint}"
)]
pub struct InvalidFallbackCondition {
    found: String,
    hint: String,
}

impl FromStr for FallbackCondition {
    type Err = InvalidFallbackCondition;

    fn from_str(text: &str) -> Result<Self, InvalidFallbackCondition> {
        if let Some(flag) = FLAGS.iter().find(|flag| **flag == text) {
            return Ok(Self::Flag(flag));
        }
        match text.parse() {
            Ok(RetryCondition::Status(status)) => return Ok(Self::Status(status)),
            Ok(RetryCondition::GrpcStatus(status)) => return Ok(Self::GrpcStatus(status)),
            // The words of the transport are flags, and found above.
            Ok(_) | Err(_) => {}
        }
        let hint = nearest(text, FLAGS).map(|near| format!("; did you mean `{near}`?"));
        Err(InvalidFallbackCondition {
            found: text.chars().take(40).collect(),
            hint: hint.unwrap_or_default(),
        })
    }
}

impl fmt::Display for FallbackCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Status(status) => RetryCondition::Status(*status).fmt(f),
            Self::GrpcStatus(status) => RetryCondition::GrpcStatus(*status).fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for FallbackCondition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Fallback {
    /// The same with the namespace of its service spelt out.
    #[must_use]
    pub fn within(&self, own_namespace: &str) -> Self {
        let service = self.service.as_ref();
        Self {
            service: service.map(|service| service.within(own_namespace)),
            ..self.clone()
        }
    }

    pub(crate) fn check(&self, base: &str, check: &mut Checker<'_>) {
        check_dns_label(check, format!("{base}.name"), &self.name);
        let count = self.on.len();
        check.require(
            (1..=MAX_CONDITIONS).contains(&count),
            format!("{base}.on"),
            format!("expected 1 to {MAX_CONDITIONS} conditions, found {count}"),
        );
        match (&self.service, &self.response) {
            (Some(service), None) => service.check(&format!("{base}.service"), check),
            (None, Some(response)) => {
                response.check(&format!("{base}.response"), check);
                let only_grpc =
                    |on: &FallbackCondition| matches!(on, FallbackCondition::GrpcStatus(_));
                check.require(
                    count == 0 || !self.on.iter().all(only_grpc),
                    format!("{base}.on"),
                    "a static response is never given to a gRPC call, and only gRPC statuses are listed",
                );
            }
            _ => check.error(base, "expected exactly one of `service` and `response`"),
        }
    }
}

/// What the proxy alone says of a message: how long it is, and how it travels.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl StaticResponse {
    pub(crate) fn check(&self, base: &str, check: &mut Checker<'_>) {
        check.require(
            (200..=599).contains(&self.status),
            format!("{base}.status"),
            format!("expected a status from 200 to 599, found `{}`", self.status),
        );
        check.require(
            self.body.is_empty() || ![204, 205, 304].contains(&self.status),
            format!("{base}.body"),
            format!("an answer of status {} has no body", self.status),
        );
        check.require(
            self.body.len() <= MAX_BODY_BYTES,
            format!("{base}.body"),
            format!("expected at most {}", ByteSize(MAX_BODY_BYTES as u64)),
        );
        let path = format!("{base}.headers");
        check_headers(&self.headers, &path, check);
        for (index, Header { name, .. }) in self.headers.iter().enumerate() {
            let lower = name.to_ascii_lowercase();
            let is_ours = lower.replace('_', "-").starts_with("x-selvage-");
            check.require(
                !FRAMING.contains(&lower.as_str()) && !is_ours,
                format!("{path}[{index}].name"),
                format!("`{name}` is the proxy's own to set"),
            );
        }
    }
}
