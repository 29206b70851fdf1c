//! How endpoints are asked for their health and what counts as a failure, as
//! it is sent: the defaults stand here.

use std::time::Duration;

use selvage_api::v1;

use super::traffic::span;
use crate::resource::failures::Failures;
use crate::resource::health_check::{HealthCheck, HttpCheck};
use crate::resource::status::{GrpcStatus, StatusRange};
use crate::scalar::Percent;

const UNHEALTHY_THRESHOLD: u32 = 3;
const HEALTHY_THRESHOLD: u32 = 2;
const JITTER: Percent = Percent(10);
/// An answer is taken to be good up to here.
const EXPECTED: [StatusRange; 1] = [StatusRange {
    first: 200,
    last: 399,
}];
const STATUSES: [StatusRange; 1] = [StatusRange {
    first: 500,
    last: 599,
}];
const HARD_STATUSES: [StatusRange; 1] = [StatusRange {
    first: 502,
    last: 504,
}];
/// UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const GRPC: [GrpcStatus; 5] = [
    GrpcStatus(2),
    GrpcStatus(4),
    GrpcStatus(13),
    GrpcStatus(14),
    GrpcStatus(15),
];
/// UNAVAILABLE.
const HARD_GRPC: [GrpcStatus; 1] = [GrpcStatus(14)];

/// `None` where nobody asks, or where a policy turned it off.
pub(super) fn health_check(check: &HealthCheck) -> Option<v1::HealthCheck> {
    use v1::health_check::Question;
    let question = match check {
        HealthCheck { off: Some(_), .. } => None,
        HealthCheck {
            http: Some(http), ..
        } => Some(Question::Http(http_question(http))),
        HealthCheck {
            grpc: Some(grpc), ..
        } => Some(Question::Grpc(v1::GrpcQuestion {
            service: grpc.service.clone(),
        })),
        _ => Some(Question::Tcp(v1::TcpQuestion {})),
    }?;
    let wire = |duration: crate::scalar::Duration| Some(span(Duration::from(duration)));
    Some(v1::HealthCheck {
        question: Some(question),
        interval: wire(check.interval()),
        timeout: wire(check.timeout()),
        jitter_percent: check.jitter.unwrap_or(JITTER).0.into(),
        unhealthy_threshold: check.unhealthy_threshold.unwrap_or(UNHEALTHY_THRESHOLD),
        healthy_threshold: check.healthy_threshold.unwrap_or(HEALTHY_THRESHOLD),
    })
}

fn http_question(http: &HttpCheck) -> v1::HttpQuestion {
    v1::HttpQuestion {
        path: http.path.clone(),
        host: http.host.clone().unwrap_or_default(),
        expected: ranges(http.expected_statuses.as_deref(), &EXPECTED),
    }
}

/// `None` where no list was given: the reader knows the usual ones.
pub(super) fn failures(failures: &Failures) -> Option<v1::Failures> {
    let Failures {
        statuses,
        hard_statuses,
        grpc_statuses,
        hard_grpc_statuses,
    } = failures;
    if *failures == Failures::default() {
        return None;
    }
    Some(v1::Failures {
        statuses: ranges(statuses.as_deref(), &STATUSES),
        hard_statuses: ranges(hard_statuses.as_deref(), &HARD_STATUSES),
        grpc_statuses: numbers(grpc_statuses.as_deref(), &GRPC),
        hard_grpc_statuses: numbers(hard_grpc_statuses.as_deref(), &HARD_GRPC),
    })
}

fn ranges(given: Option<&[StatusRange]>, usual: &[StatusRange]) -> Vec<v1::StatusRange> {
    let wire = |range: &StatusRange| v1::StatusRange {
        first: range.first.into(),
        last: range.last.into(),
    };
    given.unwrap_or(usual).iter().map(wire).collect()
}

fn numbers(given: Option<&[GrpcStatus]>, usual: &[GrpcStatus]) -> Vec<u32> {
    let given = given.unwrap_or(usual);
    given.iter().map(|status| status.0.into()).collect()
}
