//! `loadBalancer` of a `TrafficPolicy`: how an endpoint is chosen, with every
//! leaf optional. Says what contradicts itself within one document; defaults,
//! and what becomes of leaves from several documents, stand in the view.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::call_policy::Merge;
use crate::config::Checker;
use crate::scalar::{Duration, Percent};

/// What one request's key may be read from, at most.
const MAX_HASH: usize = 8;
/// Bytes of the name of a header, a cookie or a parameter, and of a cookie's path.
const MAX_NAME_BYTES: usize = 256;
const MAX_BOUNDED_LOAD: u32 = 10_000;
const VIRTUAL_NODES: std::ops::RangeInclusive<u32> = 16..=16_384;
const AGGRESSION: std::ops::RangeInclusive<f64> = 0.1..=100.0;
const MAX_WINDOW: Duration = Duration(std::time::Duration::from_secs(3600));
const SECOND: Duration = Duration(std::time::Duration::from_secs(1));
/// Browsers take these only over TLS and with an attribute that a sidecar
/// cannot promise.
const RESERVED_COOKIES: [&str; 2] = ["__secure-", "__host-"];

/// How an endpoint is chosen.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancer {
    /// The algorithm.
    pub algorithm: Option<Algorithm>,
    /// What the key is read from: the first that a request has. Of `ring-hash` and `maglev`.
    pub hash: Option<Vec<HashOn>>,
    /// What an endpoint may have in flight, relative to the mean. Of `ring-hash` and `maglev`.
    pub bounded_load: Option<BoundedLoad>,
    /// Points of an endpoint on the ring. Of `ring-hash`.
    pub virtual_nodes: Option<u32>,
    /// A share that grows, for endpoints that come or come back.
    pub slow_start: SlowStart,
    /// The caller's zone.
    pub locality: Locality,
}

/// The algorithms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// Two choices, by latency and requests in flight.
    #[default]
    PeakEwma,
    /// Two choices, by requests in flight.
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// By a key, on a ring.
    RingHash,
    /// By a key, in a table.
    Maglev,
}

impl Algorithm {
    /// Whether it goes by a key.
    #[must_use]
    pub const fn hashes(self) -> bool {
        matches!(self, Self::RingHash | Self::Maglev)
    }
}

/// What a key is read from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum HashOn {
    /// A header, by its name.
    Header(String),
    /// A cookie; a caller without it is given one.
    Cookie(Cookie),
    /// The caller's IP address; `true`.
    SourceIp(bool),
    /// A parameter of the query, by its name.
    Query(String),
}

/// A cookie that keeps a caller at its endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cookie {
    /// Its name.
    pub name: String,
    /// How long it is kept; without one as long as the browser's session.
    #[serde(default)]
    pub ttl: Option<Duration>,
    /// Where it is sent along.
    #[serde(default)]
    pub path: Option<String>,
}

/// `125`, `125%`, `off` or `0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BoundedLoad {
    /// No bound.
    Off,
    /// Per cent of the mean.
    Percent(u32),
}

/// A text is no bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a whole number of per cent above 100, such as `125`, or `off`, found `{0}`")]
pub struct InvalidBoundedLoad(String);

impl FromStr for BoundedLoad {
    type Err = InvalidBoundedLoad;

    fn from_str(text: &str) -> Result<Self, InvalidBoundedLoad> {
        let number = text.strip_suffix('%').unwrap_or(text);
        match number.parse::<u32>() {
            _ if text == "off" => Ok(Self::Off),
            Ok(0) => Ok(Self::Off),
            Ok(percent) if (101..=MAX_BOUNDED_LOAD).contains(&percent) => {
                Ok(Self::Percent(percent))
            }
            _ => Err(InvalidBoundedLoad(text.chars().take(40).collect())),
        }
    }
}

impl<'de> Deserialize<'de> for BoundedLoad {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A share that grows over `window`; `0s` turns it off.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SlowStart {
    /// Until the whole share.
    pub window: Option<Duration>,
    /// 1 is linear; above, most of the share comes sooner.
    pub aggression: Option<f64>,
    /// The least share.
    pub min_weight_percent: Option<Percent>,
}

/// The caller's zone; on once either is set.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Locality {
    /// Whom to prefer.
    pub prefer: Option<Prefer>,
    /// All requests stay while this share of the zone's endpoints is healthy.
    pub min_healthy_percent: Option<Percent>,
}

/// Whom to prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prefer {
    /// Endpoints of the caller's zone.
    Zone,
    /// Nobody.
    None,
}

impl Merge for LoadBalancer {
    fn over(&self, below: &Self) -> Self {
        Self {
            algorithm: self.algorithm.over(&below.algorithm),
            hash: self.hash.over(&below.hash),
            bounded_load: self.bounded_load.over(&below.bounded_load),
            virtual_nodes: self.virtual_nodes.over(&below.virtual_nodes),
            slow_start: SlowStart {
                window: self.slow_start.window.over(&below.slow_start.window),
                aggression: (self.slow_start.aggression).over(&below.slow_start.aggression),
                min_weight_percent: (self.slow_start.min_weight_percent)
                    .over(&below.slow_start.min_weight_percent),
            },
            locality: Locality {
                prefer: self.locality.prefer.over(&below.locality.prefer),
                min_healthy_percent: (self.locality.min_healthy_percent)
                    .over(&below.locality.min_healthy_percent),
            },
        }
    }
}

impl LoadBalancer {
    /// Reports what contradicts itself. `base` is the path of the policy.
    pub(crate) fn check(&self, base: &str, check: &mut Checker<'_>) {
        let base = format!("{base}.loadBalancer");
        let hashes = self.algorithm.is_some_and(Algorithm::hashes);
        let only = "only of `algorithm: ring-hash` and `maglev`";
        if hashes {
            self.check_hashing(&base, check);
        } else {
            check.require(self.hash.is_none(), format!("{base}.hash"), only);
            let path = format!("{base}.boundedLoad");
            check.require(self.bounded_load.is_none(), path, only);
        }
        if let Some(nodes) = self.virtual_nodes {
            let path = format!("{base}.virtualNodes");
            let is_ring = self.algorithm == Some(Algorithm::RingHash);
            check.require(is_ring, path.as_str(), "only of `algorithm: ring-hash`");
            let (least, most) = (VIRTUAL_NODES.start(), VIRTUAL_NODES.end());
            let expected = format!("expected {least} to {most}, found `{nodes}`");
            check.require(VIRTUAL_NODES.contains(&nodes), path, expected);
        }
        self.slow_start
            .check(&format!("{base}.slowStart"), hashes, check);
        self.locality
            .check(&format!("{base}.locality"), hashes, check);
    }

    fn check_hashing(&self, base: &str, check: &mut Checker<'_>) {
        let base = format!("{base}.hash");
        let Some(hash) = &self.hash else {
            let help = "such as `hash: [{header: x-user}]`";
            check.error_with_help(base, "what is the key? This algorithm needs `hash`", help);
            return;
        };
        check.require(
            (1..=MAX_HASH).contains(&hash.len()),
            base.as_str(),
            format!("expected 1 to {MAX_HASH} entries, found {}", hash.len()),
        );
        let mut always = None;
        for (index, on) in hash.iter().enumerate() {
            let path = format!("{base}[{index}]");
            if let Some(before) = always {
                let message = format!("never asked: every request has what hash[{before}] names");
                check.error(path.as_str(), message);
            }
            on.check(&path, check);
            if matches!(on, HashOn::Cookie(_) | HashOn::SourceIp(_)) {
                always = always.or(Some(index));
            }
        }
    }
}

impl HashOn {
    fn check(&self, path: &str, check: &mut Checker<'_>) {
        match self {
            Self::Header(name) => {
                let path = format!("{path}.header");
                let is_ours = name.to_ascii_lowercase().starts_with("x-selvage-");
                let gone = "an application cannot set `x-selvage-` headers: no request has it";
                check.require(!is_ours, path.as_str(), gone);
                let message = format!("expected the name of a header, found `{name}`");
                check.require(is_token(name), path, message);
            }
            Self::Cookie(cookie) => cookie.check(&format!("{path}.cookie"), check),
            Self::SourceIp(is_on) => {
                let message = "expected `true`; leave the entry out for the other";
                check.require(*is_on, format!("{path}.sourceIp"), message);
            }
            Self::Query(name) => {
                let plain = |b: u8| b.is_ascii_graphic() && !b"&=#".contains(&b);
                let fits = (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(plain);
                let message = format!("expected the name of a parameter, found `{name}`");
                check.require(fits, format!("{path}.query"), message);
            }
        }
    }
}

impl Cookie {
    fn check(&self, path: &str, check: &mut Checker<'_>) {
        let name = &self.name;
        let at = format!("{path}.name");
        let message = format!("expected the name of a cookie, found `{name}`");
        check.require(is_token(name), at.as_str(), message);
        let lower = name.to_ascii_lowercase();
        if let Some(prefix) = RESERVED_COOKIES
            .iter()
            .find(|prefix| lower.starts_with(**prefix))
        {
            check.error(
                at,
                format!("browsers take `{prefix}` cookies only with `Secure`"),
            );
        }
        check.require(
            self.ttl.is_none_or(|ttl| ttl >= SECOND),
            format!("{path}.ttl"),
            "expected at least 1s; leave it out for the browser's session",
        );
        let plain = |b: u8| b.is_ascii_graphic() && b != b';';
        let fits = |path: &String| {
            path.starts_with('/') && path.len() <= MAX_NAME_BYTES && path.bytes().all(plain)
        };
        check.require(
            self.path.as_ref().is_none_or(fits),
            format!("{path}.path"),
            "expected a path such as `/`",
        );
    }
}

impl SlowStart {
    fn check(&self, base: &str, hashes: bool, check: &mut Checker<'_>) {
        let Some(window) = self.window else {
            let alone = self.aggression.is_some() || self.min_weight_percent.is_some();
            let message =
                "expected `window`, such as `window: 30s`: without it nothing starts slowly";
            check.require(!alone, base, message);
            return;
        };
        let is_on = !window.0.is_zero();
        let message = format!("expected at most {MAX_WINDOW}");
        check.require(window <= MAX_WINDOW, format!("{base}.window"), message);
        if hashes && is_on {
            let message = "not of an algorithm that hashes: a key has one home, or it has none";
            check.error(base, message);
        }
        let (least, most) = (AGGRESSION.start(), AGGRESSION.end());
        check.require(
            self.aggression.is_none_or(|it| AGGRESSION.contains(&it)),
            format!("{base}.aggression"),
            format!("expected {least} to {most}"),
        );
        check.require(
            self.min_weight_percent != Some(Percent(0)),
            format!("{base}.minWeightPercent"),
            "expected at least 1, found `0`",
        );
    }
}

impl Locality {
    fn check(&self, base: &str, hashes: bool, check: &mut Checker<'_>) {
        let is_off = self.prefer == Some(Prefer::None);
        let is_set = self.prefer.is_some() || self.min_healthy_percent.is_some();
        if hashes && is_set && !is_off {
            let message = "not of an algorithm that hashes: a key has one home, whatever the zone";
            check.error(base, message);
        }
        let path = format!("{base}.minHealthyPercent");
        let message = "of no use with `prefer: none`";
        check.require(!is_off || self.min_healthy_percent.is_none(), path, message);
    }
}

/// As RFC 9110 §5.6.2 has it, and short.
fn is_token(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(token)
}
