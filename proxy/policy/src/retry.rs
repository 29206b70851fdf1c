//! Whether a try is repeated: transparent retries, retries by policy, and what
//! stands against both.
//!
//! Asked after every try that was not simply a success. One [`Attempts`] per
//! request. It does not wait, pick or send: it answers with a verb.
//!
//! *Transparent*: the request cannot have reached the application, so it may
//! be sent again whatever it is; at most [`TRANSPARENT_LIMIT`] times, at once.
//! *By policy*: the policy lists the failure, and the method or the gRPC call
//! may be repeated. A status in the list also matches what this proxy would
//! answer itself: who lists 503 means the 503 that callers see.
//!
//! Both kinds spend the service's budget, since both are load that the callers
//! did not send. It is spent when the retry is decided, before its wait: a
//! thousand waiting retries cannot all wake to the same last coin. Neither
//! kind goes past the deadline, and no body is sent again but whole.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderName, Method, StatusCode};

use crate::budget::Budget;
use crate::classify::{Class, Outcome, TransportFailure};
use crate::ewma::RETRY_AFTER_LIMIT;
use crate::flag::Flag;
use crate::hedge::HedgePolicy;
use crate::snapshot::{BackoffPolicy, RetryOn, RetryPolicy, TrafficPolicy};

/// Transparent retries of one request.
pub const TRANSPARENT_LIMIT: u32 = 2;
/// Bytes of a body kept for replay where no policy says otherwise.
pub const REPLAY_BYTES: usize = 64 * 1024;
/// Endpoints remembered as tried; the latest ones.
const REMEMBERED: usize = 8;
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// What an upstream says about being called again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pushback {
    /// Nothing.
    #[default]
    None,
    /// Not sooner than this.
    AtLeast(Duration),
    /// Not at all.
    Never,
}

impl Pushback {
    /// Reads `grpc-retry-pushback-ms` (negative or malformed: never, as gRPC
    /// has it), else `Retry-After` in seconds. A `Retry-After` that is a date
    /// is read as nothing: there is no wall clock here.
    #[must_use]
    pub fn parse(headers: &HeaderMap) -> Self {
        if let Some(value) = headers.get(GRPC_PUSHBACK) {
            let millis = value
                .to_str()
                .ok()
                .and_then(|text| text.parse::<u32>().ok());
            return millis.map_or(Self::Never, |ms| {
                Self::AtLeast(Duration::from_millis(ms.into()))
            });
        }
        let value = headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        let seconds = value.and_then(|text| text.trim().parse::<u32>().ok());
        seconds.map_or(Self::None, |s| Self::AtLeast(Duration::from_secs(s.into())))
    }

    /// The wait it asks for.
    #[must_use]
    pub const fn at_least(self) -> Option<Duration> {
        match self {
            Self::AtLeast(wait) => Some(wait),
            Self::None | Self::Never => None,
        }
    }
}

/// How one try ended, and what is left of the request.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// The body can be sent again whole (or there is none).
    pub replayable: bool,
    /// The try took no byte of the body, so that what is there is still whole.
    pub untouched: bool,
    /// What the upstream says about being called again.
    pub pushback: Pushback,
    /// An authenticated peer says that it retried in vain already (`x-selvage-retried: exhausted`).
    pub exhausted_below: bool,
}

/// What to do after a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Give the caller this outcome.
    Return(WhyReturned),
    /// Send the request again, to another endpoint where there is one.
    RetryAfter {
        /// After this long.
        wait: Duration,
        /// The request was not processed; no policy was needed.
        transparent: bool,
    },
}

/// Why an outcome is final.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhyReturned {
    /// Nothing that would be repeated: a success, or a failure that no rule repeats.
    NotRetryable,
    /// Its body cannot be sent again whole.
    NotReplayable,
    /// All retries are used up.
    LimitReached,
    /// The service's budget is.
    BudgetExhausted,
    /// The retry would begin past the deadline.
    DeadlineTooClose,
    /// The upstream asked not to be called again, or not for longer than is ever waited.
    PushedBack,
    /// The hop below retried in vain already: repeating it here multiplies.
    ExhaustedBelow,
}

impl WhyReturned {
    /// The outcome that is counted, where a retry was wanted and not sent.
    #[must_use]
    pub const fn outcome(self) -> Option<RetryOutcome> {
        match self {
            Self::LimitReached => Some(RetryOutcome::Limit),
            Self::BudgetExhausted => Some(RetryOutcome::Budget),
            Self::DeadlineTooClose => Some(RetryOutcome::Deadline),
            Self::ExhaustedBelow => Some(RetryOutcome::ExhaustedBelow),
            Self::NotRetryable | Self::NotReplayable | Self::PushedBack => None,
        }
    }

    /// Whether the answer is marked, so that the hop above does not repeat it by policy.
    #[must_use]
    pub const fn marks_exhausted(self) -> bool {
        matches!(
            self,
            Self::LimitReached | Self::BudgetExhausted | Self::ExhaustedBelow
        )
    }
}

/// The label `outcome` of `selvage_http_retries_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryOutcome {
    /// A retry was sent and did not fail.
    Success,
    /// A retry was sent and failed.
    Failure,
    /// Not sent: the budget.
    Budget,
    /// Not sent: the number of retries.
    Limit,
    /// Not sent: the deadline.
    Deadline,
    /// Not sent: the hop below retried in vain already.
    ExhaustedBelow,
}

impl RetryOutcome {
    /// The outcome of a retry that was sent.
    #[must_use]
    pub const fn of(class: Class) -> Self {
        if class.is_failure() {
            Self::Failure
        } else {
            Self::Success
        }
    }

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Budget => "budget",
            Self::Limit => "limit",
            Self::Deadline => "deadline",
            Self::ExhaustedBelow => "exhausted-below",
        }
    }
}

/// The tries of one request.
#[derive(Debug)]
pub struct Attempts {
    policy: Arc<TrafficPolicy>,
    /// The method may be repeated once the application has seen it (RFC 9110 §9.2.2).
    idempotent: bool,
    /// The policy repeats this kind of request.
    permitted: bool,
    /// A try of it may still be hedged.
    hedgeable: bool,
    tries: u32,
    transparent: u32,
    by_policy: u32,
    tried: [usize; REMEMBERED],
}

impl Attempts {
    /// Before the first try.
    #[must_use]
    pub fn begin(policy: &Arc<TrafficPolicy>, method: &Method, is_grpc: bool) -> Self {
        let permits = |retry: &RetryPolicy| match is_grpc {
            true => !retry.on.grpc_statuses.is_empty(),
            false => retry.methods.contains(method),
        };
        Self {
            policy: Arc::clone(policy),
            idempotent: method.is_idempotent(),
            permitted: policy.retry.as_ref().is_some_and(permits),
            hedgeable: !is_grpc
                && policy
                    .hedge
                    .as_ref()
                    .is_some_and(|hedge| hedge.methods.contains(method)),
            tries: 0,
            transparent: 0,
            by_policy: 0,
            tried: [0; REMEMBERED],
        }
    }

    /// Counts a try of the endpoint at `index`, before it is sent.
    pub fn sent_to(&mut self, index: usize) {
        self.tried[self.tries as usize % REMEMBERED] = index;
        self.tries = self.tries.saturating_add(1);
    }

    /// The endpoints tried, by index; the latest where there were many.
    #[must_use]
    pub fn tried(&self) -> &[usize] {
        &self.tried[..REMEMBERED.min(self.tries as usize)]
    }

    /// Tries so far.
    #[must_use]
    pub const fn tries(&self) -> u32 {
        self.tries
    }

    /// Retries among them that were decided here: a hedge is a try and no retry.
    #[must_use]
    pub const fn retries(&self) -> u32 {
        self.transparent + self.by_policy
    }

    /// How the next try may be hedged, if it may: once in a request.
    #[must_use]
    pub fn hedge(&self) -> Option<&HedgePolicy> {
        self.policy.hedge.as_ref().filter(|_| self.hedgeable)
    }

    /// Counts the hedge, sent to the endpoint at `index`.
    pub fn hedged_to(&mut self, index: usize) {
        self.hedgeable = false;
        self.sent_to(index);
    }

    /// Whether the policy could still repeat this request whatever became of
    /// it: such a request is the better one to probe with.
    #[must_use]
    pub fn retryable(&self) -> bool {
        self.retry_policy()
            .is_some_and(|retry| self.by_policy < retry.attempts)
    }

    /// Whether keeping the body could pay: some retry is left.
    #[must_use]
    pub fn wants_replay(&self) -> bool {
        self.transparent < TRANSPARENT_LIMIT || self.retryable()
    }

    /// Bytes of the body worth keeping.
    #[must_use]
    pub fn buffer_limit(&self) -> usize {
        self.policy
            .retry
            .as_ref()
            .map_or(REPLAY_BYTES, |retry| retry.buffer_limit)
    }

    /// Decides what follows a try. A retry that is decided is counted, and spent from `budget`.
    pub fn after(
        &mut self,
        ended: &Ended,
        deadline: Option<Instant>,
        budget: &Budget,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Next {
        let (wait, transparent) = match self.wanted(ended, rng) {
            Ok(wanted) => wanted,
            Err(why) => return Next::Return(why),
        };
        let late = |deadline: Instant| now.checked_add(wait).is_none_or(|begin| begin >= deadline);
        if !ended.replayable && !ended.untouched {
            Next::Return(WhyReturned::NotReplayable)
        } else if wait > RETRY_AFTER_LIMIT {
            Next::Return(WhyReturned::PushedBack)
        } else if deadline.is_some_and(late) {
            Next::Return(WhyReturned::DeadlineTooClose)
        } else if !budget.try_spend(now) {
            Next::Return(WhyReturned::BudgetExhausted)
        } else {
            *(if transparent {
                &mut self.transparent
            } else {
                &mut self.by_policy
            }) += 1;
            Next::RetryAfter { wait, transparent }
        }
    }

    /// Which kind of retry the outcome asks for, if any is left: its wait, and whether it is transparent.
    fn wanted(
        &self,
        ended: &Ended,
        rng: &mut fastrand::Rng,
    ) -> Result<(Duration, bool), WhyReturned> {
        let not_processed = self.not_processed(&ended.outcome);
        if not_processed && self.transparent < TRANSPARENT_LIMIT {
            return Ok((Duration::ZERO, true));
        }
        let listed = self
            .retry_policy()
            .filter(|retry| lists(&retry.on, &ended.outcome));
        let Some(retry) = listed else {
            let used_up = not_processed;
            return Err(if used_up {
                WhyReturned::LimitReached
            } else {
                WhyReturned::NotRetryable
            });
        };
        if ended.exhausted_below {
            return Err(WhyReturned::ExhaustedBelow);
        }
        if self.by_policy >= retry.attempts {
            return Err(WhyReturned::LimitReached);
        }
        let least = match ended.pushback {
            Pushback::None => Duration::ZERO,
            Pushback::AtLeast(least) => least,
            Pushback::Never => return Err(WhyReturned::PushedBack),
        };
        Ok((
            backoff(retry.backoff, self.by_policy, rng).max(least),
            false,
        ))
    }

    fn retry_policy(&self) -> Option<&RetryPolicy> {
        self.policy
            .retry
            .as_ref()
            .filter(|retry| self.permitted && retry.attempts > 0)
    }

    fn not_processed(&self, outcome: &Outcome) -> bool {
        match *outcome {
            Outcome::Transport(failure) => match failure {
                TransportFailure::Connect
                | TransportFailure::Tls
                | TransportFailure::Unprocessed => true,
                TransportFailure::ReusedClosed => self.idempotent,
                TransportFailure::Reset
                | TransportFailure::BadResponse
                | TransportFailure::Timeout => false,
            },
            Outcome::Response { flag, .. } => flag == Some(Flag::ConnectFailure),
            Outcome::Cancelled | Outcome::CallerDeadline => false,
        }
    }
}

/// Whether the policy lists an outcome.
fn lists(on: &RetryOn, outcome: &Outcome) -> bool {
    let (flag, status, grpc_status) = match *outcome {
        Outcome::Cancelled | Outcome::CallerDeadline => return false,
        Outcome::Transport(failure) => {
            let flag = failure.flag();
            (Some(flag), flag.status(), Some(flag.grpc_status()))
        }
        Outcome::Response {
            status,
            grpc_status,
            flag,
        } => (flag, status, grpc_status),
    };
    let transport = match flag {
        Some(Flag::ConnectFailure | Flag::TlsFailure) => on.connect_failure,
        Some(Flag::Reset) => on.reset,
        Some(Flag::Timeout) => on.timeout,
        _ => false,
    };
    let by_grpc = |number: u32| number != 0 && on.grpc_statuses.contains(&number);
    let by_status = |status: StatusCode| on.statuses.contains(&status);
    transport || by_status(status) || grpc_status.is_some_and(by_grpc)
}

/// Full jitter: anything from nothing to `base·2ⁿ`, at most `max`.
fn backoff(policy: BackoffPolicy, n: u32, rng: &mut fastrand::Rng) -> Duration {
    let factor = 1u32.checked_shl(n).unwrap_or(u32::MAX);
    policy
        .base
        .saturating_mul(factor)
        .min(policy.max)
        .mul_f64(rng.f64())
}

#[cfg(test)]
mod tests;
