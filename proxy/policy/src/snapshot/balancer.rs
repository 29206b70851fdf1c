//! How an endpoint is chosen, as policy says it: the algorithm, what a key is
//! read from, and what bends the choice (slow start, zones). Only values; who
//! decides by them stands in [`crate::balance`].

use std::sync::Arc;
use std::time::Duration;

/// The label of a workload and of an endpoint that names its zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// How an endpoint is chosen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Balancer {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// For those that newly came or came back; `None`: they get their share at once.
    pub slow_start: Option<SlowStart>,
    /// Prefers endpoints of the caller's zone; `None`: zones are not looked at.
    pub locality: Option<Locality>,
}

/// The algorithms, each in a file of its own below [`crate::balance`].
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Algorithm {
    /// Power of two choices over peak EWMA.
    #[default]
    PeakEwma,
    /// Power of two choices over requests in flight.
    LeastRequest,
    /// In turn, by weight.
    RoundRobin,
    /// By chance, by weight.
    Random,
    /// By a key, on a ring of `virtual_nodes` points for each share of weight.
    RingHash {
        /// What the key is.
        hashing: Hashing,
        /// Points of an endpoint, for each unit of weight.
        virtual_nodes: u32,
    },
    /// By a key, in a table.
    Maglev(Hashing),
}

impl Algorithm {
    /// What a key is, for those that want one.
    #[must_use]
    pub const fn hashing(&self) -> Option<&Hashing> {
        match self {
            Self::RingHash { hashing, .. } | Self::Maglev(hashing) => Some(hashing),
            Self::PeakEwma | Self::LeastRequest | Self::RoundRobin | Self::Random => None,
        }
    }
}

/// Where a key comes from, and how much of the load it may command.
#[derive(Debug, Clone, PartialEq)]
pub struct Hashing {
    /// The first that the request has is its key.
    pub on: Vec<HashOn>,
    /// No endpoint takes more in flight than this share of the mean, in per
    /// cent above 100; `None`: no bound.
    pub bounded_load: Option<u32>,
}

/// What a key is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// The first value of a header.
    Header(http::HeaderName),
    /// A cookie; a request without it is given one.
    Cookie(AffinityCookie),
    /// The caller's IP address.
    SourceIp,
    /// The first value of a query parameter, as it is written.
    Query(Arc<str>),
}

/// A cookie that keeps a caller at its endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffinityCookie {
    /// Its name.
    pub name: Arc<str>,
    /// How long it is kept; `None`: as long as the browser's session.
    pub ttl: Option<Duration>,
    /// Where it is sent along; `None`: the folder of the first request.
    pub path: Option<Arc<str>>,
}

/// A share that grows over `window`: see `crate::slow_start`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// Until the whole share.
    pub window: Duration,
    /// 1: linear; above: sooner.
    pub aggression: f64,
    /// The least share, in per cent.
    pub min_weight_percent: u32,
}

/// The caller's zone first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locality {
    /// While at least this share of the zone's endpoints is healthy, in per
    /// cent, all requests stay; below, in proportion.
    pub min_healthy_percent: u32,
}
