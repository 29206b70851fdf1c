//! How callers treat a service, with every leaf optional: the shape that
//! `TrafficPolicy` and `MeshConfig.defaults` share, and that merging works on
//! leaf by leaf. Refuses to know whose policy it is; the defaults of what no
//! policy sets stand in the view.

use serde::Deserialize;

use super::check_method;
use super::failures::Failures;
use super::fallback::Fallback;
use super::fault::Fault;
use super::health_check::HealthCheck;
use super::hedge::Hedge;
use super::load_balancer::LoadBalancer;
use super::mirror::Mirror;
use super::retry_condition::RetryCondition;
use crate::config::Checker;
use crate::scalar::{ByteSize, Duration, Percent};

/// Retries of one request, beyond its first try.
pub const MAX_ATTEMPTS: u32 = 10;

/// Bytes of one request that can be kept for replay.
pub const MAX_BUFFER_BYTES: u64 = 16 * 1024 * 1024;

/// Longest span that is looked back over, and longest backoff.
const MAX_WINDOW: Duration = Duration(std::time::Duration::from_secs(3600));
const MIN_WINDOW: Duration = Duration(std::time::Duration::from_secs(1));
const ZERO: Duration = Duration(std::time::Duration::ZERO);

/// Leaf by leaf, one policy over another.
pub(crate) trait Merge {
    /// What is set here, else what is set below.
    fn over(&self, below: &Self) -> Self;
}

impl<T: Clone> Merge for Option<T> {
    fn over(&self, below: &Self) -> Self {
        self.clone().or_else(|| below.clone())
    }
}

macro_rules! leaves {
    ($(
        $(#[$about:meta])* $name:ident { $( $(#[$field_about:meta])* $field:ident: $type:ty, )* }
    )*) => {$(
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name { $( $(#[$field_about])* pub $field: $type, )* }

        impl Merge for $name {
            fn over(&self, below: &Self) -> Self {
                Self { $( $field: self.$field.over(&below.$field), )* }
            }
        }
    )*};
}

leaves! {
    /// All of it.
    CallPolicy {
        /// Time limits.
        timeouts: Timeouts,
        /// Retries by policy, and the budget of all retries.
        retry: Retry,
        /// When an endpoint is taken out of rotation.
        circuit_breaker: CircuitBreaker,
        /// Bounds per service and proxy.
        limits: Limits,
        /// How an endpoint is chosen.
        load_balancer: LoadBalancer,
        /// Which answers are failures.
        failures: Failures,
        /// How endpoints are asked for their health.
        health_check: Option<Box<HealthCheck>>,
        /// Which requests are sent twice when their first try takes long.
        hedge: Hedge,
        /// What stands in where the service fails.
        fallback: Option<Fallback>,
        /// What is injected on purpose.
        fault: Option<Fault>,
        /// Who gets copies.
        mirror: Option<Mirror>,
    }
    /// `0s` disables a limit.
    Timeouts {
        /// The whole exchange, with retries, to the last byte.
        request: Option<Duration>,
        /// One try.
        backend_request: Option<Duration>,
        /// Establishing a connection.
        connect: Option<Duration>,
        /// Without a byte in either direction.
        idle: Option<Duration>,
    }
    /// Retries by policy are on once `attempts`, `on` or `methods` is set.
    Retry {
        /// Retries beyond the first try; 0 turns them off.
        attempts: Option<u32>,
        /// What is retried.
        on: Option<Vec<RetryCondition>>,
        /// Which methods.
        methods: Option<Vec<String>>,
        /// The wait before a retry.
        backoff: Backoff,
        /// Bytes of a body that are kept for replay.
        buffer_limit: Option<ByteSize>,
        /// Bounds what retries add to the load.
        budget: RetryBudget,
    }
    /// Exponential.
    Backoff {
        /// First step.
        base: Option<Duration>,
        /// Upper bound.
        max: Option<Duration>,
    }
    /// Retries ≤ `percent` of requests over `interval`, plus `min_per_second`.
    RetryBudget {
        /// Share of requests.
        percent: Option<Percent>,
        /// The sliding window.
        interval: Option<Duration>,
        /// Granted whatever the load.
        min_per_second: Option<u32>,
    }
    /// When an endpoint is taken out of rotation.
    CircuitBreaker {
        /// Hard failures in a row; 0 turns this rule off.
        consecutive_failures: Option<u32>,
        /// The rule by success rate.
        success_rate: SuccessRate,
        /// How long it stays open.
        backoff: Backoff,
        /// By success rate at most this share of endpoints is open.
        max_open_percent: Option<Percent>,
    }
    /// A threshold of 0 turns this rule off.
    SuccessRate {
        /// Opens below this share of successes.
        threshold: Option<Percent>,
        /// Looked back over.
        window: Option<Duration>,
        /// Not judged with fewer.
        minimum_requests: Option<u32>,
    }
    /// Bounds per service and proxy.
    Limits {
        /// Upstream connections.
        max_connections: Option<u32>,
        /// Requests in flight.
        max_requests: Option<u32>,
        /// Requests that wait for a connection.
        max_pending: Option<u32>,
    }
}

impl CallPolicy {
    /// Reports what contradicts itself. `base` is the path of this policy.
    pub(crate) fn check(&self, base: &str, check: &mut Checker<'_>) {
        self.timeouts.check(base, check);
        self.retry.check(base, check);
        self.circuit_breaker.check(base, check);
        self.hedge.check(base, &self.timeouts, check);
        if let Some(fallback) = &self.fallback {
            fallback.check(&format!("{base}.fallback"), check);
        }
        if let Some(fault) = &self.fault {
            fault.check(&format!("{base}.fault"), check);
        }
        if let Some(mirror) = &self.mirror {
            mirror.check(&format!("{base}.mirror"), check);
        }
        for (name, limit) in [
            ("maxConnections", self.limits.max_connections),
            ("maxRequests", self.limits.max_requests),
            ("maxPending", self.limits.max_pending),
        ] {
            let path = format!("{base}.limits.{name}");
            check.require(limit != Some(0), path, "expected at least 1, found `0`");
        }
        self.load_balancer.check(base, check);
        self.failures.check(base, check);
        if let Some(health_check) = &self.health_check {
            health_check.check(base, check);
        }
    }
}

impl Timeouts {
    pub(crate) fn check(&self, base: &str, check: &mut Checker<'_>) {
        if let (Some(request), Some(each)) = (self.request, self.backend_request)
            && request > ZERO
            && each > request
        {
            check.error(
                format!("{base}.timeouts.backendRequest"),
                format!("one try ({each}) cannot take longer than the whole request ({request})"),
            );
        }
    }
}

impl Retry {
    pub(crate) fn check_attempts(&self, base: &str, check: &mut Checker<'_>) {
        check.require(
            self.attempts
                .is_none_or(|attempts| attempts <= MAX_ATTEMPTS),
            format!("{base}.attempts"),
            format!("expected at most {MAX_ATTEMPTS} retries"),
        );
    }

    fn check(&self, base: &str, check: &mut Checker<'_>) {
        let base = format!("{base}.retry");
        self.check_attempts(&base, check);
        for (index, method) in self.methods.iter().flatten().enumerate() {
            check_method(check, format!("{base}.methods[{index}]"), method);
        }
        let empty = self.methods.as_ref().is_some_and(Vec::is_empty);
        check.require(
            !empty,
            format!("{base}.methods"),
            "expected at least one method; leave the key out for the idempotent ones",
        );
        let empty = self.on.as_ref().is_some_and(Vec::is_empty);
        check.require(
            !empty || self.attempts == Some(0),
            format!("{base}.on"),
            "expected at least one condition; `attempts: 0` turns retries off",
        );
        check.require(
            self.buffer_limit
                .is_none_or(|limit| limit.0 <= MAX_BUFFER_BYTES),
            format!("{base}.bufferLimit"),
            format!("expected at most {}", ByteSize(MAX_BUFFER_BYTES)),
        );
        self.backoff.check(&format!("{base}.backoff"), check);
        check_window(
            self.budget.interval,
            format!("{base}.budget.interval"),
            check,
        );
    }
}

impl CircuitBreaker {
    fn check(&self, base: &str, check: &mut Checker<'_>) {
        let base = format!("{base}.circuitBreaker");
        check_window(
            self.success_rate.window,
            format!("{base}.successRate.window"),
            check,
        );
        check.require(
            self.success_rate.minimum_requests != Some(0),
            format!("{base}.successRate.minimumRequests"),
            "expected at least 1, found `0`",
        );
        self.backoff.check(&format!("{base}.backoff"), check);
    }
}

impl Backoff {
    /// Whether a step can be as long.
    pub(crate) fn is_step(step: Duration) -> bool {
        step > ZERO && step <= MAX_WINDOW
    }

    fn check(&self, base: &str, check: &mut Checker<'_>) {
        for (name, value) in [("base", self.base), ("max", self.max)] {
            check.require(
                value.is_none_or(Self::is_step),
                format!("{base}.{name}"),
                format!("expected more than 0s and at most {MAX_WINDOW}"),
            );
        }
        if let (Some(first), Some(max)) = (self.base, self.max)
            && first > max
        {
            let message = format!("the first step ({first}) is above the maximum ({max})");
            check.error(format!("{base}.base"), message);
        }
    }
}

fn check_window(window: Option<Duration>, path: String, check: &mut Checker<'_>) {
    check.require(
        window.is_none_or(|window| window >= MIN_WINDOW && window <= MAX_WINDOW),
        path,
        format!("expected {MIN_WINDOW} to {MAX_WINDOW}"),
    );
}
