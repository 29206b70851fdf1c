//! What the rest of the proxy hears of a breaker: its state, and each change
//! of it with its reason. It knows no rules.

use std::fmt;
use std::time::Duration;

/// The state of a breaker, without what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BreakerState {
    /// In rotation.
    Closed,
    /// Out of rotation.
    Open,
    /// One request at a time may try.
    HalfOpen,
}

impl BreakerState {
    /// The name in metrics and `/clusters`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// A change of state, for counters, log and journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    /// The state it left.
    pub from: BreakerState,
    /// The state it is in.
    pub to: BreakerState,
    /// Why.
    pub reason: Reason,
    /// For how long it is open; `None` in other states.
    pub open_for: Option<Duration>,
}

/// Why a breaker changed its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Opened by hard failures in a row.
    ConsecutiveFailures {
        /// How many.
        count: u32,
    },
    /// Opened by its success rate.
    SuccessRate {
        /// Requests in the window that succeeded.
        successes: u64,
        /// Requests in the window that were judged.
        requests: u64,
        /// The share of successes it has to have, in per cent.
        threshold_percent: u32,
    },
    /// The backoff is over and a request is let through.
    BackoffOver,
    /// A bare connect succeeded.
    ConnectProbeSucceeded,
    /// The probing request succeeded.
    ProbeSucceeded,
    /// The probing request failed.
    ProbeFailed,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConsecutiveFailures { count } => write!(f, "{count} hard failures in a row"),
            Self::SuccessRate {
                successes,
                requests,
                threshold_percent,
            } => {
                // Rounded down: under 80 % never reads as 80 %.
                let rate = successes * 100 / requests.max(&1);
                write!(
                    f,
                    "success rate {rate} % of {requests} under {threshold_percent} %"
                )
            }
            Self::BackoffOver => f.write_str("backoff is over"),
            Self::ConnectProbeSucceeded => f.write_str("a connect succeeded"),
            Self::ProbeSucceeded => f.write_str("the probe succeeded"),
            Self::ProbeFailed => f.write_str("the probe failed"),
        }
    }
}
