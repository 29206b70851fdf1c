//! What keeps a slow or failing service from its callers, beside retries and
//! breakers, as it is sent.

use selvage_api::v1;

use super::span;
use crate::resource::backend::{BackendRef, Header};
use crate::resource::fallback::{Fallback, FallbackCondition, StaticResponse};
use crate::resource::fault::Fault;
use crate::resource::hedge::{Hedge, HedgeDelay};
use crate::resource::mirror::Mirror;
use crate::scalar::{Fraction, Percent};

/// Safe methods: of two that cross, neither undoes what came after it.
const HEDGED: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

/// On once there is a delay, and a share above 0.
pub(super) fn hedge(hedge: &Hedge) -> Option<v1::Hedge> {
    use v1::hedge::Delay;
    let delay = match hedge.delay? {
        HedgeDelay::Percentile(percent) => Delay::Percentile(percent.into()),
        HedgeDelay::After(delay) => Delay::After(span(delay.0)),
    };
    let max_percent = hedge.max_percent.unwrap_or(Percent(5)).0;
    (max_percent > 0).then(|| v1::Hedge {
        delay: Some(delay),
        max_percent: max_percent.into(),
        methods: match &hedge.methods {
            Some(methods) => methods.clone(),
            None => HEDGED.map(str::to_owned).into(),
        },
    })
}

pub(super) fn fallback(fallback: &Fallback) -> v1::Fallback {
    use v1::fallback::To;
    let Fallback {
        name,
        on,
        service,
        response,
    } = fallback;
    let service = service.as_ref().map(|it| To::Service(backend(it)));
    let response = response
        .as_ref()
        .map(|it| To::Response(static_response(it)));
    v1::Fallback {
        name: name.clone(),
        on: on.iter().map(fallback_condition).collect(),
        to: service.or(response),
    }
}

pub(in crate::view) fn static_response(response: &StaticResponse) -> v1::StaticResponse {
    v1::StaticResponse {
        status: response.status.into(),
        headers: response.headers.iter().map(header).collect(),
        body: response.body.clone().into_bytes(),
    }
}

fn fallback_condition(condition: &FallbackCondition) -> v1::FallbackCondition {
    use v1::fallback_condition::Condition;
    let condition = match *condition {
        FallbackCondition::Flag(flag) => Condition::Flag(flag.to_owned()),
        FallbackCondition::Status(status) => Condition::Status(status.into()),
        FallbackCondition::GrpcStatus(status) => Condition::GrpcStatus(status.into()),
    };
    v1::FallbackCondition {
        condition: Some(condition),
    }
}

pub(super) fn fault(fault: &Fault) -> v1::Fault {
    use v1::fault_abort::How;
    let delay = fault.delay.map(|delay| v1::FaultDelay {
        millionths: delay.percent.millionths(),
        duration: Some(span(delay.duration.0)),
    });
    let abort = fault.abort.as_ref().map(|abort| v1::FaultAbort {
        millionths: abort.percent.millionths(),
        how: match (abort.status, abort.grpc_status) {
            (Some(status), _) => Some(How::Status(status.into())),
            (None, Some(status)) => Some(How::GrpcStatus(status.into())),
            (None, None) => Some(How::Reset(true)),
        },
    });
    v1::Fault {
        delay,
        abort,
        headers: fault.matching.headers.iter().map(header).collect(),
    }
}

pub(super) fn mirror(mirror: &Mirror) -> v1::Mirror {
    v1::Mirror {
        service: Some(backend(&mirror.service)),
        millionths: mirror.percent.unwrap_or(Fraction::ALL).millionths(),
        max_pending: mirror.max_pending.unwrap_or(64),
        host_suffix: mirror.host_suffix.clone().unwrap_or_default(),
    }
}

fn backend(backend: &BackendRef) -> v1::Backend {
    v1::Backend {
        namespace: backend.namespace.clone().unwrap_or_default(),
        name: backend.name.clone(),
        port: backend.port.unwrap_or_default().into(),
    }
}

fn header(header: &Header) -> v1::Header {
    v1::Header {
        name: header.name.to_ascii_lowercase(),
        value: header.value.clone(),
    }
}
