//! When a second try is sent beside one that has not answered yet, so that one
//! slow answer in many is not waited for: hedged requests, after Dean and
//! Barroso, "The Tail at Scale".
//!
//! Met by a try that takes long. It knows neither endpoints nor timers: the
//! proxy waits for [`Hedging::delay`], finds another endpoint, and asks
//! [`Hedging::spend`] before it sends.
//!
//! The delay is a quantile of what tries of the same service took (`p95`), so
//! that by its very meaning one request in twenty is hedged, however fast or
//! slow the service is; or it is a fixed time. (Sending two at once doubles the
//! load; a fixed delay alone hedges nothing or everything once latencies
//! change.) Only first tries are measured, those that were given up too: leaving
//! out the slow ones, which lose, would draw the quantile down with each hedge.
//!
//! A hedge is load that the callers did not send. It spends the retry budget of
//! the service, and beside that no more than `max_percent` of the requests that
//! could be hedged, over [`SHARE_INTERVAL`]: where every answer gets slower at
//! once, hedges stay few and leave the budget to retries.

use std::time::{Duration, Instant};

use http::Method;

use crate::budget::Budget;
use crate::quantile::Quantile;
use crate::retry::Attempts;
use crate::snapshot::BudgetPolicy;

/// What `max_percent` is counted over.
pub const SHARE_INTERVAL: Duration = Duration::from_secs(60);

/// Which requests are hedged, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HedgePolicy {
    /// How long a try is waited for.
    pub delay: HedgeDelay,
    /// Share of the requests that could be hedged, in per cent.
    pub max_percent: u32,
    /// Idempotent ones; gRPC calls are POST and none of them.
    pub methods: Vec<Method>,
}

/// How long a try is waited for before another is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeDelay {
    /// As long as this share of tries takes, in per cent.
    Percentile(u8),
    /// Always the same.
    After(Duration),
}

/// The label `outcome` of `selvage_hedges_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeOutcome {
    /// The hedge answered first.
    Won,
    /// The try before it did.
    Lost,
    /// Sent, and neither answered well.
    Failed,
    /// Sent, and the caller went away before either answered.
    Cancelled,
    /// Not sent: the retry budget, or `max_percent`.
    Budget,
    /// Not sent: no other endpoint could take it.
    NoEndpoint,
}

impl HedgeOutcome {
    /// Every outcome.
    pub const ALL: [Self; 6] = [
        Self::Won,
        Self::Lost,
        Self::Failed,
        Self::Cancelled,
        Self::Budget,
        Self::NoEndpoint,
    ];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Budget => "budget",
            Self::NoEndpoint => "no-endpoint",
        }
    }
}

/// What is known of the requests of one service that could be hedged. Shared by the workers.
#[derive(Debug)]
pub struct Hedging {
    latencies: Quantile,
    share: Budget,
}

impl Hedging {
    /// Nothing measured, nothing spent.
    #[must_use]
    pub fn new(policy: &HedgePolicy, now: Instant) -> Self {
        Self {
            latencies: Quantile::new(now),
            share: Budget::new(share(policy), now),
        }
    }

    /// Changes the policy in place; what was measured stays.
    pub fn set_policy(&self, policy: &HedgePolicy) {
        self.share.set_policy(share(policy));
    }

    /// A try that could be hedged begins. Its request is counted at the first
    /// of them; answers whether this is the one, which is measured too.
    #[must_use]
    pub fn begins(&self, attempts: &Attempts, now: Instant) -> bool {
        let is_first = attempts.tries() == 0;
        if is_first {
            self.request(now);
        }
        is_first
    }

    /// Counts a request that could be hedged.
    fn request(&self, now: Instant) {
        self.share.request(now);
    }

    /// How long to wait for a try before it is hedged; `None` while too little is known.
    #[must_use]
    pub fn delay(&self, policy: &HedgePolicy) -> Option<Duration> {
        match policy.delay {
            HedgeDelay::Percentile(_) => self.latencies.estimate(),
            HedgeDelay::After(delay) => Some(delay),
        }
    }

    /// Takes how long a first try took to answer, or was waited for in vain.
    pub fn measured(&self, policy: &HedgePolicy, latency: Duration, now: Instant) {
        if let HedgeDelay::Percentile(percent) = policy.delay {
            self.latencies.sample(latency, percent, now);
        }
    }

    /// Takes a hedge from what the service can bear, if it can: from its share
    /// first, then from the `retries` of the service.
    #[must_use]
    pub fn spend(&self, retries: &Budget, now: Instant) -> bool {
        self.share.try_spend(now) && retries.try_spend(now)
    }
}

const fn share(policy: &HedgePolicy) -> BudgetPolicy {
    BudgetPolicy {
        percent: policy.max_percent,
        interval: SHARE_INTERVAL,
        min_per_second: 0,
    }
}

#[cfg(test)]
mod tests;
