//! `ServerPolicy`: how a service protects itself. What contradicts itself, and
//! what would do nothing, is refused. Refuses to know which of several
//! policies wins.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::reference::{TargetRef, check_ports};
use crate::config::Checker;
use crate::nearest::nearest;
use crate::scalar::Duration;

/// The most an adaptive limit grows to, where no policy says it.
pub const DEFAULT_MAX: u32 = 1000;
/// The least it shrinks to, and where it starts.
pub const DEFAULT_MIN: u32 = 20;
/// How long one waits for a place.
pub const DEFAULT_QUEUE_TIMEOUT: Duration = Duration(std::time::Duration::from_millis(50));
/// Places, and those who wait for one.
pub const MAX_CONCURRENT: u32 = 1_000_000;
/// The shortest interval between two requests of a rate.
pub const MIN_INTERVAL: std::time::Duration = std::time::Duration::from_nanos(100);

const MAX_PER: Duration = Duration(std::time::Duration::from_secs(3600));
const MAX_QUEUE_TIMEOUT: Duration = Duration(std::time::Duration::from_secs(60));
const ZERO: Duration = Duration(std::time::Duration::ZERO);

/// `spec` of a `ServerPolicy`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerPolicySpec {
    /// The services meant, of the policy's own namespace, or one `port` of each;
    /// and the routes, or one rule of each, for what gateways let through.
    pub target_refs: Vec<TargetRef>,
    /// Requests over time.
    pub rate_limit: Option<RateLimit>,
    /// Requests at a time.
    pub concurrency: Option<Concurrency>,
}

/// Requests over time.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RateLimit {
    /// How many …
    pub requests: u32,
    /// … in this time.
    #[serde(default = "one_second")]
    pub per: Duration,
    /// At once, after a calm; as many as `requests` if left out.
    pub burst: Option<u32>,
    /// Whose.
    #[serde(default)]
    pub key: RateKey,
}

const fn one_second() -> Duration {
    Duration(std::time::Duration::from_secs(1))
}

/// Whose requests are counted together: `none`, `identity`, `sourceIp` or `header:<name>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RateKey {
    /// All.
    #[default]
    None,
    /// Those of one caller.
    Identity,
    /// Those with one value of this header, which is in lower case.
    Header(String),
    /// Those of one client's address.
    SourceIp,
}

impl<'de> Deserialize<'de> for RateKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "none" => Ok(Self::None),
            "identity" => Ok(Self::Identity),
            "sourceIp" => Ok(Self::SourceIp),
            _ => match text.strip_prefix("header:") {
                Some(name) => Ok(Self::Header(name.to_ascii_lowercase())),
                None => {
                    let near = nearest(&text, ["none", "identity", "sourceIp", "header:"]);
                    let help = near.map(|near| format!("; did you mean `{near}`?"));
                    Err(D::Error::custom(format!(
                        "expected `none`, `identity`, `sourceIp` or `header:<name>`, found `{text}`{}",
                        help.unwrap_or_default()
                    )))
                }
            },
        }
    }
}

/// Requests at a time.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Concurrency {
    /// How the limit is found.
    pub mode: Option<Mode>,
    /// The limit of `fixed`, and the most of `adaptive`.
    pub max: Option<u32>,
    /// The least of `adaptive`.
    pub min: Option<u32>,
    /// Where `adaptive` begins.
    pub start: Option<u32>,
    /// How many may wait for a place.
    pub queue: Option<u32>,
    /// How long one waits.
    pub queue_timeout: Option<Duration>,
    /// A bulkhead for each caller.
    pub per_caller: Option<PerCaller>,
}

/// How the limit is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// There is none.
    Off,
    /// It is given.
    Fixed,
    /// By the time that requests take.
    Adaptive,
}

/// A bulkhead for each caller.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PerCaller {
    /// Requests of one caller at a time, with those of it that wait.
    pub max_concurrent: u32,
}

impl ServerPolicySpec {
    pub(crate) fn check(&self, own_namespace: &str, check: &mut Checker<'_>) {
        check_ports(&self.target_refs, own_namespace, check);
        for (index, target) in self.target_refs.iter().enumerate() {
            check.require(
                target.target(own_namespace).namespace == own_namespace,
                format!("spec.targetRefs[{index}].namespace"),
                format!("a policy protects its own namespace, which is `{own_namespace}`"),
            );
        }
        let of_route = |it: &TargetRef| it.route(own_namespace).is_some();
        let by_identity = |limit: &RateLimit| limit.key == RateKey::Identity;
        check.require(
            !self.rate_limit.as_ref().is_some_and(by_identity)
                || !self.target_refs.iter().any(of_route),
            "spec.rateLimit.key",
            "the clients of a gateway have no identity: `sourceIp` or a header tells them apart",
        );
        let mut targets = self.target_refs.iter();
        let concurrency = self.concurrency.as_ref();
        check.require(
            concurrency.is_none() || targets.all(|it| it.route(own_namespace).is_none()),
            "spec.concurrency",
            "of a route only `rateLimit` can be said: places are those of a service",
        );
        let empty = concurrency.is_none_or(|given| *given == Concurrency::default());
        check.require(
            self.rate_limit.is_some() || !empty,
            "spec",
            "expected `rateLimit` or `concurrency`: a policy without them protects nothing",
        );
        if let Some(limit) = &self.rate_limit {
            limit.check("spec.rateLimit", check);
        }
        if let Some(concurrency) = concurrency {
            concurrency.check("spec.concurrency", check);
        }
    }
}

impl RateLimit {
    fn check(&self, base: &str, check: &mut Checker<'_>) {
        check.require(
            self.requests > 0,
            format!("{base}.requests"),
            "expected at least 1, found `0`",
        );
        check.require(
            self.per > ZERO && self.per <= MAX_PER,
            format!("{base}.per"),
            format!("expected more than 0s and at most {MAX_PER}"),
        );
        check.require(
            self.per == ZERO || self.per.0 / self.requests.max(1) >= MIN_INTERVAL,
            format!("{base}.requests"),
            "expected at most ten million per second",
        );
        check.require(
            self.burst != Some(0),
            format!("{base}.burst"),
            "expected at least 1, found `0`",
        );
        if let RateKey::Header(name) = &self.key {
            check_header(name, format!("{base}.key"), check);
        }
    }
}

fn check_header(name: &str, path: String, check: &mut Checker<'_>) {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || name.len() > 128 || !name.bytes().all(token) {
        let message = format!("expected the name of a header after `header:`, found `{name}`");
        check.error(path, message);
    } else if name.starts_with("x-selvage-") || name == "x-forwarded-client-cert" {
        check.error_with_help(
            path,
            format!("`{name}` is never a caller's own word"),
            "`identity` counts each caller",
        );
    }
}

impl Concurrency {
    fn check(&self, base: &str, check: &mut Checker<'_>) {
        let figures = [("max", self.max), ("min", self.min), ("start", self.start)];
        for (name, figure) in figures {
            check.require(
                figure.is_none_or(|figure| (1..=MAX_CONCURRENT).contains(&figure)),
                format!("{base}.{name}"),
                format!("expected 1 to {MAX_CONCURRENT}"),
            );
        }
        self.check_mode(base, check);
        self.check_order(base, check);
        self.check_queue(base, check);
        if let Some(PerCaller { max_concurrent }) = self.per_caller {
            let path = format!("{base}.perCaller.maxConcurrent");
            check.require(
                (1..=MAX_CONCURRENT).contains(&max_concurrent),
                path.clone(),
                format!("expected 1 to {MAX_CONCURRENT}"),
            );
            if let Some(max) = self.max.filter(|max| max_concurrent > *max) {
                let message =
                    format!("one caller ({max_concurrent}) cannot have more than all ({max})");
                check.error(path, message);
            }
        }
    }

    /// Reports keys that the mode does not look at.
    fn check_mode(&self, base: &str, check: &mut Checker<'_>) {
        let given = [
            ("max", self.max.is_some()),
            ("min", self.min.is_some()),
            ("start", self.start.is_some()),
            ("queue", self.queue.is_some()),
            ("queueTimeout", self.queue_timeout.is_some()),
        ];
        let refused: &[&str] = match self.mode {
            Some(Mode::Adaptive) => &[],
            Some(Mode::Fixed) => &["min", "start"],
            Some(Mode::Off) | None => &["max", "min", "start", "queue", "queueTimeout"],
        };
        for (name, _) in given
            .iter()
            .filter(|(name, given)| *given && refused.contains(name))
        {
            let message = match self.mode {
                Some(Mode::Fixed) => "a fixed limit has only `max`".to_owned(),
                Some(_) => "with `mode: off` there is no limit".to_owned(),
                None => "expected `mode: fixed` or `mode: adaptive` beside it".to_owned(),
            };
            check.error(format!("{base}.{name}"), message);
        }
        check.require(
            self.mode != Some(Mode::Fixed) || self.max.is_some(),
            format!("{base}.mode"),
            "a fixed limit needs `max`",
        );
    }

    fn check_order(&self, base: &str, check: &mut Checker<'_>) {
        if let (Some(min), Some(max)) = (self.min, self.max)
            && min > max
        {
            let message = format!("the minimum ({min}) is above the maximum ({max})");
            check.error(format!("{base}.min"), message);
        }
        let Some(start) = self.start else { return };
        let below = self.min.is_some_and(|min| start < min);
        let above = self.max.is_some_and(|max| start > max);
        check.require(
            !below && !above,
            format!("{base}.start"),
            "expected a figure from `min` to `max`",
        );
    }

    fn check_queue(&self, base: &str, check: &mut Checker<'_>) {
        check.require(
            self.queue.is_none_or(|queue| queue <= MAX_CONCURRENT),
            format!("{base}.queue"),
            format!("expected at most {MAX_CONCURRENT}"),
        );
        let Some(timeout) = self.queue_timeout else {
            return;
        };
        let path = format!("{base}.queueTimeout");
        check.require(
            timeout > ZERO && timeout <= MAX_QUEUE_TIMEOUT,
            path.clone(),
            format!(
                "expected more than 0s and at most {MAX_QUEUE_TIMEOUT}; `queue: 0` lets nobody wait"
            ),
        );
        check.require(self.queue != Some(0), path, "with `queue: 0` nobody waits");
    }
}
