//! What the traffic of a service is promised: timeouts, retries, breakers,
//! limits. Knows no service and no endpoint.

mod isolation;

use std::time::Duration;

use selvage_api::v1;
use selvage_policy::failures::Failures;
use selvage_policy::snapshot::{
    BackoffPolicy, BreakerPolicy, BudgetPolicy, Limits, RetryOn, RetryPolicy, SuccessRate,
    Timeouts, TrafficPolicy,
};

use super::balancer::balancer;
use super::health;
use super::{InvalidResource, absent, invalid, method};

pub(super) use self::isolation::{backend, headers, mirror, static_response};

pub(super) fn traffic_policy(
    message: &v1::TrafficPolicy,
) -> Result<TrafficPolicy, InvalidResource> {
    let v1::TrafficPolicy {
        timeouts: limits,
        retry,
        circuit_breaker,
        limits: bounds,
        load_balancer: _,
        retry_budget,
        hashing: _,
        slow_start: _,
        locality: _,
        health_check,
        failures,
        hedge,
        fallback,
        fault,
        mirror,
    } = message;
    let balancer = balancer(message)?;
    let breaker = circuit_breaker
        .as_ref()
        .ok_or_else(|| absent("policy.circuit_breaker"))?;
    let v1::Limits {
        max_connections,
        max_requests,
        max_pending,
    } = bounds.as_ref().ok_or_else(|| absent("policy.limits"))?;
    let v1::RetryBudget {
        percent,
        interval,
        min_per_second,
    } = retry_budget
        .as_ref()
        .ok_or_else(|| absent("policy.retry_budget"))?;
    Ok(TrafficPolicy {
        timeouts: timeouts(limits.as_ref().ok_or_else(|| absent("policy.timeouts"))?)?,
        retry: retry.as_ref().map(retry_policy).transpose()?,
        budget: BudgetPolicy {
            percent: *percent,
            interval: required("policy.retry_budget.interval", interval.as_ref())?,
            min_per_second: *min_per_second,
        },
        breaker: breaker_policy(breaker)?,
        limits: Limits {
            max_connections: *max_connections,
            max_requests: *max_requests,
            max_pending: *max_pending,
        },
        balancer,
        failures: match failures {
            None => Failures::USUAL,
            Some(failures) => health::failures(failures)?,
        },
        health_check: health_check
            .as_ref()
            .map(health::health_check)
            .transpose()?,
        hedge: hedge.as_ref().map(isolation::hedge).transpose()?,
        fallback: fallback.as_ref().map(isolation::fallback).transpose()?,
        fault: fault.as_ref().map(isolation::fault).transpose()?,
        mirror: mirror.as_ref().map(isolation::mirror).transpose()?,
    })
}

pub(super) fn duration(
    field: &str,
    message: &prost_types::Duration,
) -> Result<Duration, InvalidResource> {
    Duration::try_from(*message).map_err(|error| invalid(field, error))
}

pub(super) fn required(
    field: &str,
    message: Option<&prost_types::Duration>,
) -> Result<Duration, InvalidResource> {
    duration(field, message.ok_or_else(|| absent(field))?)
}

/// Absent is the default, zero is none.
fn limit(
    field: &str,
    message: Option<&prost_types::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>, InvalidResource> {
    match message {
        None => Ok(default),
        Some(message) => Ok(Some(duration(field, message)?).filter(|limit| !limit.is_zero())),
    }
}

fn timeouts(message: &v1::Timeouts) -> Result<Timeouts, InvalidResource> {
    let v1::Timeouts {
        request,
        backend_request,
        connect,
        idle,
    } = message;
    let default = Timeouts::default();
    Ok(Timeouts {
        request: limit("timeouts.request", request.as_ref(), default.request)?,
        backend_request: limit(
            "timeouts.backend_request",
            backend_request.as_ref(),
            default.backend_request,
        )?,
        connect: limit("timeouts.connect", connect.as_ref(), default.connect)?,
        idle: limit("timeouts.idle", idle.as_ref(), default.idle)?,
        idle_tcp: limit("timeouts.idle", idle.as_ref(), default.idle_tcp)?,
    })
}

fn retry_policy(message: &v1::Retry) -> Result<RetryPolicy, InvalidResource> {
    let v1::Retry {
        attempts,
        on,
        methods,
        backoff,
        buffer_limit,
    } = message;
    let mut conditions = RetryOn::default();
    for v1::RetryCondition { condition } in on {
        use v1::retry_condition::Condition;
        match condition.as_ref().ok_or_else(|| absent("retry.on"))? {
            Condition::Transport(number) => match v1::TransportCondition::try_from(*number) {
                Ok(v1::TransportCondition::ConnectFailure) => conditions.connect_failure = true,
                Ok(v1::TransportCondition::Reset) => conditions.reset = true,
                Ok(v1::TransportCondition::Timeout) => conditions.timeout = true,
                Ok(v1::TransportCondition::Unspecified) | Err(_) => {
                    return Err(absent("retry.on.transport"));
                }
            },
            Condition::Status(code) => {
                let status = u16::try_from(*code)
                    .ok()
                    .and_then(|code| http::StatusCode::from_u16(code).ok());
                conditions
                    .statuses
                    .push(status.ok_or_else(|| absent("retry.on.status"))?);
            }
            Condition::GrpcStatus(code) => conditions.grpc_statuses.push(*code),
        }
    }
    let methods = if methods.is_empty() {
        [
            http::Method::GET,
            http::Method::HEAD,
            http::Method::OPTIONS,
            http::Method::PUT,
            http::Method::DELETE,
        ]
        .to_vec()
    } else {
        methods
            .iter()
            .map(|text| method("retry.methods", text))
            .collect::<Result<_, _>>()?
    };
    Ok(RetryPolicy {
        attempts: *attempts,
        on: conditions,
        methods,
        backoff: backoff_policy(backoff.as_ref())?,
        buffer_limit: usize::try_from(*buffer_limit)
            .map_err(|error| invalid("retry.buffer_limit", error))?,
    })
}

fn backoff_policy(message: Option<&v1::Backoff>) -> Result<BackoffPolicy, InvalidResource> {
    let v1::Backoff { base, max } = message.ok_or_else(|| absent("backoff"))?;
    Ok(BackoffPolicy {
        base: required("backoff.base", base.as_ref())?,
        max: required("backoff.max", max.as_ref())?,
    })
}

fn breaker_policy(message: &v1::CircuitBreaker) -> Result<BreakerPolicy, InvalidResource> {
    let v1::CircuitBreaker {
        consecutive_failures,
        success_rate,
        backoff,
        max_open_percent,
    } = message;
    let success_rate = match success_rate {
        None => None,
        Some(v1::SuccessRate {
            threshold_percent,
            window,
            minimum_requests,
        }) => Some(SuccessRate {
            threshold_percent: *threshold_percent,
            window: required("success_rate.window", window.as_ref())?,
            minimum_requests: *minimum_requests,
        }),
    };
    Ok(BreakerPolicy {
        consecutive_failures: *consecutive_failures,
        success_rate,
        backoff: backoff_policy(backoff.as_ref())?,
        max_open_percent: *max_open_percent,
    })
}
