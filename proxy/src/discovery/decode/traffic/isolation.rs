//! What keeps a slow or failing service from its callers, beside retries and
//! breakers.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, StatusCode};
use selvage_api::v1;
use selvage_policy::fallback::{FallbackOn, FallbackPolicy, FallbackTo, StaticResponse};
use selvage_policy::fault::{Abort, FaultPolicy};
use selvage_policy::flag::{Flag, Grpc};
use selvage_policy::hedge::{HedgeDelay, HedgePolicy};
use selvage_policy::mirror::MirrorPolicy;
use selvage_policy::share::Share;
use selvage_policy::snapshot::{Backend, ServiceName};

use super::super::{InvalidResource, absent, invalid, method};
use super::{duration, required};

pub(super) fn hedge(message: &v1::Hedge) -> Result<HedgePolicy, InvalidResource> {
    use v1::hedge::Delay;
    let v1::Hedge {
        delay,
        max_percent,
        methods,
    } = message;
    let delay = match delay.as_ref().ok_or_else(|| absent("hedge.delay"))? {
        Delay::Percentile(percent) => match u8::try_from(*percent) {
            Ok(percent @ 1..=99) => HedgeDelay::Percentile(percent),
            _ => {
                return Err(invalid(
                    "hedge.percentile",
                    format!("{percent} is not within 1 to 99"),
                ));
            }
        },
        Delay::After(delay) => HedgeDelay::After(duration("hedge.after", delay)?),
    };
    let methods = methods.iter().map(|text| method("hedge.methods", text));
    Ok(HedgePolicy {
        delay,
        max_percent: *max_percent,
        methods: methods.collect::<Result<_, _>>()?,
    })
}

pub(super) fn fallback(message: &v1::Fallback) -> Result<FallbackPolicy, InvalidResource> {
    use v1::fallback::To;
    let v1::Fallback { name, on, to } = message;
    let to = match to.as_ref().ok_or_else(|| absent("fallback.to"))? {
        To::Service(message) => FallbackTo::Service(backend("fallback.service", message)?),
        To::Response(message) => {
            FallbackTo::Response(Arc::new(static_response("fallback.response", message)?))
        }
    };
    Ok(FallbackPolicy {
        name: name.as_str().into(),
        on: fallback_on(on)?,
        to,
    })
}

fn fallback_on(messages: &[v1::FallbackCondition]) -> Result<FallbackOn, InvalidResource> {
    use v1::fallback_condition::Condition;
    let mut on = FallbackOn::default();
    for v1::FallbackCondition { condition } in messages {
        match condition.as_ref().ok_or_else(|| absent("fallback.on"))? {
            Condition::Flag(name) => on
                .flags
                .push(Flag::parse(name).ok_or_else(|| invalid("fallback.on.flag", name))?),
            Condition::Status(code) => on.statuses.push(status("fallback.on.status", *code)?),
            Condition::GrpcStatus(code) => on.grpc_statuses.push(*code),
        }
    }
    Ok(on)
}

pub(in super::super) fn static_response(
    field: &str,
    message: &v1::StaticResponse,
) -> Result<StaticResponse, InvalidResource> {
    let v1::StaticResponse {
        status: code,
        headers: messages,
        body,
    } = message;
    Ok(StaticResponse {
        status: status(field, *code)?,
        headers: headers(field, messages)?.into_iter().collect(),
        body: body.clone(),
    })
}

pub(super) fn fault(message: &v1::Fault) -> Result<FaultPolicy, InvalidResource> {
    use v1::fault_abort::How;
    let v1::Fault {
        delay,
        abort,
        headers: messages,
    } = message;
    let delay = match delay {
        None => None,
        Some(v1::FaultDelay {
            millionths,
            duration,
        }) => Some((
            share("fault.delay", *millionths)?,
            required("fault.delay.duration", duration.as_ref())?,
        )),
    };
    let abort = match abort {
        None => None,
        Some(v1::FaultAbort { millionths, how }) => {
            let how = match how.as_ref().ok_or_else(|| absent("fault.abort.how"))? {
                How::Status(code) => Abort::Status(status("fault.abort.status", *code)?),
                How::GrpcStatus(code) => Abort::Grpc(
                    Grpc::from_number(*code).ok_or_else(|| absent("fault.abort.grpc_status"))?,
                ),
                How::Reset(_) => Abort::Reset,
            };
            Some((share("fault.abort", *millionths)?, how))
        }
    };
    Ok(FaultPolicy {
        delay,
        abort,
        headers: headers("fault.headers", messages)?,
    })
}

pub(in super::super) fn mirror(message: &v1::Mirror) -> Result<MirrorPolicy, InvalidResource> {
    let v1::Mirror {
        service,
        millionths,
        max_pending,
        host_suffix,
    } = message;
    let service = service.as_ref().ok_or_else(|| absent("mirror.service"))?;
    Ok(MirrorPolicy {
        to: backend("mirror.service", service)?,
        share: share("mirror", *millionths)?,
        max_pending: *max_pending,
        host_suffix: host_suffix.clone(),
    })
}

pub(in super::super) fn backend(
    field: &str,
    message: &v1::Backend,
) -> Result<Backend, InvalidResource> {
    let v1::Backend {
        namespace,
        name,
        port,
    } = message;
    Ok(Backend {
        service: ServiceName::new(namespace, name),
        port: match u16::try_from(*port) {
            Ok(0) => None,
            Ok(port) => Some(port),
            Err(error) => return Err(invalid(field, error)),
        },
    })
}

fn share(field: &str, millionths: u32) -> Result<Share, InvalidResource> {
    Share::of_million(millionths).ok_or_else(|| invalid(field, "more than all"))
}

fn status(field: &str, code: u32) -> Result<StatusCode, InvalidResource> {
    let status = u16::try_from(code).ok().map(StatusCode::from_u16);
    match status {
        Some(Ok(status)) => Ok(status),
        _ => Err(invalid(field, format!("{code} is no status"))),
    }
}

pub(in super::super) fn headers(
    field: &str,
    messages: &[v1::Header],
) -> Result<Vec<(HeaderName, HeaderValue)>, InvalidResource> {
    let header = |v1::Header { name, value }: &v1::Header| {
        let name = HeaderName::try_from(name).map_err(|error| invalid(field, error))?;
        let value = HeaderValue::try_from(value).map_err(|error| invalid(field, error))?;
        Ok((name, value))
    };
    messages.iter().map(header).collect()
}
