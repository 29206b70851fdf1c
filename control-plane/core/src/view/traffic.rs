//! How callers treat a service, as it is sent: the defaults stand here.

pub(super) mod isolation;

use std::time::Duration;

use selvage_api::v1;

use super::health;
use super::load_balancer::balancing;
use crate::resource::call_policy::{Backoff, CallPolicy, CircuitBreaker, Retry, Timeouts};
use crate::resource::retry_condition::RetryCondition;
use crate::scalar::{ByteSize, Percent};

/// What no policy sets is filled in, but for what the proxy decides by the
/// kind of traffic (`idle`) or by its absence (other timeouts).
pub(super) fn traffic_policy(policy: &CallPolicy) -> v1::TrafficPolicy {
    let CallPolicy {
        timeouts: times,
        retry: retries,
        circuit_breaker,
        limits,
        load_balancer,
        failures,
        health_check,
        hedge,
        fallback,
        fault,
        mirror,
    } = policy;
    let budget = &retries.budget;
    let balancing = balancing(load_balancer);
    v1::TrafficPolicy {
        timeouts: Some(timeouts(times)),
        retry: retry(retries),
        circuit_breaker: Some(breaker(circuit_breaker)),
        limits: Some(v1::Limits {
            max_connections: limits.max_connections.unwrap_or(1024),
            max_requests: limits.max_requests.unwrap_or(1024),
            max_pending: limits.max_pending.unwrap_or(1024),
        }),
        load_balancer: balancing.load_balancer.into(),
        hashing: balancing.hashing,
        slow_start: balancing.slow_start,
        locality: balancing.locality,
        retry_budget: Some(v1::RetryBudget {
            percent: budget.percent.unwrap_or(Percent(20)).0.into(),
            interval: Some(span(
                budget.interval.map_or(Duration::from_secs(10), Into::into),
            )),
            min_per_second: budget.min_per_second.unwrap_or(1),
        }),
        health_check: health_check.as_deref().and_then(health::health_check),
        failures: health::failures(failures),
        hedge: isolation::hedge(hedge),
        fallback: fallback.as_ref().map(isolation::fallback),
        fault: fault.as_ref().map(isolation::fault),
        mirror: mirror.as_ref().map(isolation::mirror),
    }
}

fn timeouts(timeouts: &Timeouts) -> v1::Timeouts {
    let given = |duration: Option<crate::scalar::Duration>| duration.map(|given| span(given.0));
    v1::Timeouts {
        request: given(timeouts.request),
        backend_request: given(timeouts.backend_request),
        connect: Some(span(
            timeouts.connect.map_or(Duration::from_secs(1), Into::into),
        )),
        idle: given(timeouts.idle),
    }
}

/// Without conditions, what a Gateway API retry without codes covers.
const DEFAULT_CONDITIONS: [RetryCondition; 3] = [
    RetryCondition::ConnectFailure,
    RetryCondition::Reset,
    RetryCondition::Timeout,
];

fn retry(retry: &Retry) -> Option<v1::Retry> {
    let wanted = retry.attempts.is_some() || retry.on.is_some() || retry.methods.is_some();
    let attempts = retry.attempts.unwrap_or(1);
    let on = retry.on.as_deref().unwrap_or(&DEFAULT_CONDITIONS);
    (wanted && attempts > 0).then(|| v1::Retry {
        attempts,
        on: on
            .iter()
            .map(|condition| retry_condition(*condition))
            .collect(),
        methods: retry.methods.clone().unwrap_or_default(),
        backoff: Some(backoff(&retry.backoff, 25, 250)),
        buffer_limit: retry.buffer_limit.unwrap_or(ByteSize(64 * 1024)).0,
    })
}

fn retry_condition(condition: RetryCondition) -> v1::RetryCondition {
    use v1::retry_condition::Condition;
    let transport = |condition: v1::TransportCondition| Condition::Transport(condition.into());
    let condition = match condition {
        RetryCondition::ConnectFailure => transport(v1::TransportCondition::ConnectFailure),
        RetryCondition::Reset => transport(v1::TransportCondition::Reset),
        RetryCondition::Timeout => transport(v1::TransportCondition::Timeout),
        RetryCondition::Status(status) => Condition::Status(status.into()),
        RetryCondition::GrpcStatus(status) => Condition::GrpcStatus(status.into()),
    };
    v1::RetryCondition {
        condition: Some(condition),
    }
}

/// Base and maximum may come from different policies: the maximum is never below the base.
fn backoff(backoff: &Backoff, base_ms: u64, max_ms: u64) -> v1::Backoff {
    let base = backoff
        .base
        .map_or(Duration::from_millis(base_ms), Into::into);
    let max = backoff
        .max
        .map_or(Duration::from_millis(max_ms), Into::into);
    v1::Backoff {
        base: Some(span(base)),
        max: Some(span(max.max(base))),
    }
}

fn breaker(breaker: &CircuitBreaker) -> v1::CircuitBreaker {
    let rate = &breaker.success_rate;
    let threshold = rate.threshold.unwrap_or(Percent(80)).0;
    v1::CircuitBreaker {
        consecutive_failures: breaker.consecutive_failures.unwrap_or(5),
        success_rate: (threshold > 0).then(|| v1::SuccessRate {
            threshold_percent: threshold.into(),
            window: Some(span(
                rate.window.map_or(Duration::from_secs(10), Into::into),
            )),
            minimum_requests: rate.minimum_requests.unwrap_or(20),
        }),
        backoff: Some(backoff(&breaker.backoff, 1000, 60_000)),
        max_open_percent: breaker.max_open_percent.unwrap_or(Percent(50)).0.into(),
    }
}

pub(super) fn span(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or_default(),
    }
}
