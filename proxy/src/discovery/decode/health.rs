//! How endpoints are asked for their health, and which answers are failures.
//! Knows no endpoint.

use std::sync::Arc;

use selvage_api::v1;
use selvage_policy::failures::{Failures, GrpcSet, StatusSet};
use selvage_policy::health::{HealthCheck, Pace, Question};

use super::traffic::required;
use super::{InvalidResource, absent};

pub(super) fn health_check(message: &v1::HealthCheck) -> Result<HealthCheck, InvalidResource> {
    use v1::health_check::Question as Asked;
    let v1::HealthCheck {
        question,
        interval,
        timeout,
        jitter_percent,
        unhealthy_threshold,
        healthy_threshold,
    } = message;
    let question = match question.as_ref() {
        None => return Err(absent("health_check.question")),
        Some(Asked::Tcp(v1::TcpQuestion {})) => Question::Tcp,
        Some(Asked::Grpc(v1::GrpcQuestion { service })) => Question::Grpc {
            service: service.as_str().into(),
        },
        Some(Asked::Http(http)) => http_question(http)?,
    };
    let threshold = |field: &str, count: u32| match count {
        0 => Err(absent(field)),
        count => Ok(count),
    };
    let interval = required("health_check.interval", interval.as_ref())?;
    if interval.is_zero() {
        return Err(absent("health_check.interval"));
    }
    Ok(HealthCheck {
        question,
        pace: Pace {
            interval,
            jitter_percent: *jitter_percent,
            timeout: required("health_check.timeout", timeout.as_ref())?,
            unhealthy_threshold: threshold(
                "health_check.unhealthy_threshold",
                *unhealthy_threshold,
            )?,
            healthy_threshold: threshold("health_check.healthy_threshold", *healthy_threshold)?,
        },
    })
}

fn http_question(message: &v1::HttpQuestion) -> Result<Question, InvalidResource> {
    let v1::HttpQuestion {
        path,
        host,
        expected,
    } = message;
    if path.parse::<http::uri::PathAndQuery>().is_err() || !path.starts_with('/') {
        return Err(absent("health_check.http.path"));
    }
    let host = Some(host.as_str()).filter(|host| !host.is_empty());
    Ok(Question::Http {
        path: path.as_str().into(),
        host: host.map(Arc::from),
        expected: statuses("health_check.http.expected", expected)?,
    })
}

pub(super) fn failures(message: &v1::Failures) -> Result<Failures, InvalidResource> {
    let v1::Failures {
        statuses: failing,
        hard_statuses,
        grpc_statuses,
        hard_grpc_statuses,
    } = message;
    Ok(Failures {
        statuses: statuses("failures.statuses", failing)?,
        hard_statuses: statuses("failures.hard_statuses", hard_statuses)?,
        grpc: grpc(grpc_statuses),
        hard_grpc: grpc(hard_grpc_statuses),
    })
}

fn statuses(field: &str, ranges: &[v1::StatusRange]) -> Result<StatusSet, InvalidResource> {
    let add = |set: StatusSet, range: &v1::StatusRange| {
        let v1::StatusRange { first, last } = range;
        let ends = u16::try_from(*first).ok().zip(u16::try_from(*last).ok());
        let (first, last) = ends.ok_or_else(|| absent(field))?;
        Ok(set.with(first, last))
    };
    ranges.iter().try_fold(StatusSet::EMPTY, add)
}

fn grpc(numbers: &[u32]) -> GrpcSet {
    let sum = GrpcSet::EMPTY;
    numbers.iter().fold(sum, |set, number| set.with(*number))
}
