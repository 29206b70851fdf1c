//! `healthCheck` of a policy: how callers ask the endpoints of a service for
//! their health. One policy replaces another's as a whole, so that what
//! contradicts itself stands in one document. Refuses to know who asks.

use serde::Deserialize;

use super::status::StatusRange;
use crate::config::Checker;
use crate::scalar::{Duration, Percent};

/// Shortest interval of checks.
pub const MIN_INTERVAL: Duration = Duration(std::time::Duration::from_millis(100));
const MAX_INTERVAL: Duration = Duration(std::time::Duration::from_secs(3600));
const ZERO: Duration = Duration(std::time::Duration::ZERO);
/// Checks in a row that may be asked for.
const MAX_THRESHOLD: u32 = 100;
/// Chance may take away half of an interval.
const MAX_JITTER: Percent = Percent(50);
/// Bytes of a path, a host or a gRPC service.
const MAX_TEXT: usize = 1024;

/// One of `http`, `grpc`, `tcp` and `off`, and how often.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HealthCheck {
    /// By what it answers to a GET.
    pub http: Option<HttpCheck>,
    /// By `grpc.health.v1`.
    pub grpc: Option<GrpcCheck>,
    /// By connecting.
    pub tcp: Option<Nothing>,
    /// Not at all, whatever a wider policy says.
    pub off: Option<Nothing>,
    /// Between two checks, at most.
    pub interval: Option<Duration>,
    /// No answer by then is a failure.
    pub timeout: Option<Duration>,
    /// How much of the interval chance may take away.
    pub jitter: Option<Percent>,
    /// Failures in a row that take an endpoint out.
    pub unhealthy_threshold: Option<u32>,
    /// Checks passed in a row that bring it back.
    pub healthy_threshold: Option<u32>,
}

/// A mapping without keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

/// A GET.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpCheck {
    /// Of this path.
    pub path: String,
    /// With this `Host`.
    pub host: Option<String>,
    /// The answers of one that is well.
    pub expected_statuses: Option<Vec<StatusRange>>,
}

/// A call of `grpc.health.v1.Health/Check`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrpcCheck {
    /// Of this service; empty: of the server as a whole.
    pub service: String,
}

impl HealthCheck {
    /// Between two checks.
    #[must_use]
    pub fn interval(&self) -> Duration {
        self.interval
            .unwrap_or(Duration(std::time::Duration::from_secs(5)))
    }

    /// For an answer: a second, or the interval where that is shorter.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        let second = Duration(std::time::Duration::from_secs(1));
        self.timeout.unwrap_or(second.min(self.interval()))
    }

    pub(crate) fn check(&self, base: &str, check: &mut Checker<'_>) {
        let base = format!("{base}.healthCheck");
        let asked = self.kinds() > 0;
        check.require(
            asked,
            base.clone(),
            "expected one of `http`, `grpc`, `tcp` and `off`",
        );
        for (field, message) in self.contradictions() {
            let dot = if field.is_empty() { "" } else { "." };
            check.error(format!("{base}{dot}{field}"), message);
        }
    }

    fn kinds(&self) -> usize {
        let kinds = [
            self.http.is_some(),
            self.grpc.is_some(),
            self.tcp.is_some(),
            self.off.is_some(),
        ];
        kinds.into_iter().filter(|given| *given).count()
    }

    /// What contradicts itself: the field, empty for the mapping itself, and
    /// what is wrong with it.
    #[must_use]
    pub fn contradictions(&self) -> Vec<(String, String)> {
        let mut found = Found(Vec::new());
        let one = "give one of `http`, `grpc`, `tcp` and `off`";
        found.unless(self.kinds() <= 1, "", one);
        let paced = self.interval.is_some()
            || self.timeout.is_some()
            || self.jitter.is_some()
            || self.unhealthy_threshold.is_some()
            || self.healthy_threshold.is_some();
        let alone = "nothing else has a meaning beside `off`";
        found.unless(self.off.is_none() || !paced, "off", alone);
        self.look_at_pace(&mut found);
        if let Some(http) = &self.http {
            http.look_at(&mut found);
        }
        if let Some(GrpcCheck { service }) = &self.grpc {
            let printable = service.bytes().all(|byte| byte.is_ascii_graphic());
            found.unless(
                printable && service.len() <= MAX_TEXT,
                "grpc.service",
                "expected the name of a gRPC service such as `shop.Ratings`",
            );
        }
        found.0
    }

    fn look_at_pace(&self, found: &mut Found) {
        let (interval, timeout) = (self.interval(), self.timeout());
        found.unless(
            (MIN_INTERVAL..=MAX_INTERVAL).contains(&interval),
            "interval",
            format!("expected {MIN_INTERVAL} to {MAX_INTERVAL}"),
        );
        let endless = "expected more than 0s: a check has to end";
        found.unless(timeout > ZERO, "timeout", endless);
        found.unless(
            timeout <= interval,
            "timeout",
            format!("a check ({timeout}) cannot take longer than the interval ({interval})"),
        );
        found.unless(
            self.jitter.is_none_or(|jitter| jitter <= MAX_JITTER),
            "jitter",
            format!("expected at most {MAX_JITTER} (per cent)"),
        );
        for (name, threshold) in [
            ("unhealthyThreshold", self.unhealthy_threshold),
            ("healthyThreshold", self.healthy_threshold),
        ] {
            found.unless(
                threshold.is_none_or(|count| (1..=MAX_THRESHOLD).contains(&count)),
                name,
                format!("expected 1 to {MAX_THRESHOLD}"),
            );
        }
    }
}

impl HttpCheck {
    fn look_at(&self, found: &mut Found) {
        let path = "expected a path such as `/healthz`";
        found.unless(is_path(&self.path), "http.path", path);
        found.unless(
            self.host.as_deref().is_none_or(is_host),
            "http.host",
            "expected a host such as `ratings.example` or `ratings.example:8080`",
        );
        found.unless(
            self.expected_statuses
                .as_ref()
                .is_none_or(|list| !list.is_empty()),
            "http.expectedStatuses",
            "expected at least one status; leave the key out for `2xx` and `3xx`",
        );
        for (index, range) in self.expected_statuses.iter().flatten().enumerate() {
            found.unless(
                range.first >= 200,
                format!("http.expectedStatuses[{index}]"),
                format!("`{range}` is not a final answer"),
            );
        }
    }
}

/// Fields, and what is wrong with them.
struct Found(Vec<(String, String)>);

impl Found {
    fn unless(&mut self, holds: bool, field: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.0.push((field.into(), message.into()));
        }
    }
}

/// Whether a text is a path as a request line has it, without a fragment.
fn is_path(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_graphic() && !b"#<>`\"{}\\".contains(&byte);
    text.starts_with('/') && text.len() <= MAX_TEXT && text.bytes().all(sound)
}

/// Whether a text is a host, with or without a port.
fn is_host(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !text.is_empty() && text.len() <= MAX_TEXT && text.bytes().all(sound)
}
