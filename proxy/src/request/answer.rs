//! The answer to a caller: the upstream's, made safe to pass on, or our own.
//! An upgrade that the upstream agreed to becomes a tunnel here.

use std::rc::Rc;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue, SET_COOKIE, UPGRADE};
use http::{HeaderMap, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use selvage_policy::flag::Flag;
use selvage_policy::headers::{strip_hop_by_hop, strip_untrusted};
use selvage_policy::server::Admitted;
use tokio::time::Instant;

use super::outgoing::Outgoing;
use super::record::Record;
use super::send::{Answered, Tried};
use crate::error::{FLAG, PROXY_STATUS, ProxyError, Reset};
use crate::forward::tunnel;
use crate::http::body::{Patience, ResponseBody};
use crate::lifecycle::OpenConnection;
use crate::upstream::Destination;
use crate::worker::Worker;

/// An upgrade whose caller never takes it up is given up after this long.
const UPGRADE_WAIT: Duration = Duration::from_secs(10);

/// Our own answer.
pub(super) fn refuse(error: &ProxyError, mut record: Box<Record>) -> Response<ResponseBody> {
    let mut response = error.response_head(record.is_grpc());
    if record.is_http1() && is_malformed(error.flag) {
        // Where one message was not what it seemed, neither may be the next.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    record.dresses(response.headers_mut());
    record.marks(response.headers_mut());
    if error.is_reset() {
        response.extensions_mut().insert(Reset);
    }
    record.refuses(error, response.status());
    response.map(|()| ResponseBody::empty().ending(record))
}

const fn is_malformed(flag: Flag) -> bool {
    matches!(
        flag,
        Flag::BadRequest | Flag::HeadersTooLarge | Flag::UriTooLong | Flag::ExpectationFailed
    )
}

/// The answer after the last try.
pub(super) fn answer(
    worker: &Rc<Worker>,
    destination: &Rc<Destination>,
    tried: Tried,
    outgoing: &Outgoing,
    record: &mut Record,
) -> Result<Response<ResponseBody>, ProxyError> {
    outgoing.body.release();
    let Tried {
        answered,
        in_flight,
        error,
        ..
    } = tried;
    let Some(answered) = answered else {
        return Err(error);
    };
    let Answered {
        response,
        peeked,
        lease,
        way,
        flag,
        exhausted: _,
        grpc_status,
    } = *answered;
    let (mut parts, mut body) = response.into_parts();
    if let Some(cookie) = outgoing.affinity.cookie() {
        parts.headers.append(SET_COOKIE, cookie.clone());
    }
    record.answered_by(destination, &in_flight);
    let status = parts.status;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        let open = worker.shared.lifecycle.opened(record.direction());
        let holds = (open, record.tunnels());
        let switched = switch(worker, destination, &mut parts, outgoing, holds)?;
        record.answers(status, None, flag, None, in_flight);
        return Ok(switched);
    }
    clean(&mut parts.headers, way.mesh);
    record.marks(&mut parts.headers);
    // hyper writes the version its connection speaks.
    parts.version = Version::HTTP_11;
    record.answers(status, grpc_status, flag, Some(lease), in_flight);
    let patience = Patience {
        deadline: outgoing.deadline.0.map(Instant::from_std),
        idle: destination
            .policy()
            .timeouts
            .idle
            .map(|limit| (limit, outgoing.activity.clone())),
    };
    if let Some(rest) = body.rest() {
        tokio::task::spawn_local(patience.clone().over(rest));
    }
    let body = match peeked {
        Some(frame) => ResponseBody::peeked(frame, body),
        None => ResponseBody::upstream(body),
    };
    Ok(Response::from_parts(parts, body.within(patience)))
}

/// Takes from a response what belongs to one hop, and what only a sidecar may
/// say; of another sidecar its flag is kept.
fn clean(headers: &mut HeaderMap, mesh: bool) {
    strip_hop_by_hop(headers);
    let kept = if mesh {
        headers.get(FLAG).cloned()
    } else {
        None
    };
    let flagged = kept.is_some();
    strip_untrusted(headers);
    if let Some(flag) = kept {
        headers.insert(FLAG, flag);
    }
    if !flagged && headers.get(PROXY_STATUS).is_some_and(is_ours) {
        headers.remove(PROXY_STATUS);
    }
}

/// A `Proxy-Status` that only a Selvage may write.
fn is_ours(value: &HeaderValue) -> bool {
    value.as_bytes().starts_with(b"selvage;")
}

/// The upstream changes protocols: so do we, once the caller has our 101.
fn switch(
    worker: &Rc<Worker>,
    destination: &Rc<Destination>,
    parts: &mut http::response::Parts,
    outgoing: &Outgoing,
    holds: (OpenConnection, Option<Admitted>),
) -> Result<Response<ResponseBody>, ProxyError> {
    let unasked = || ProxyError::new(Flag::BadResponse, "101 without a request to upgrade");
    let caller = outgoing.take_upgrade().ok_or_else(unasked)?;
    let protocol = parts.headers.get(UPGRADE).cloned().ok_or_else(unasked)?;
    let upstream = parts.extensions.remove::<OnUpgrade>().ok_or_else(unasked)?;
    strip_hop_by_hop(&mut parts.headers);
    strip_untrusted(&mut parts.headers);
    let idle = destination.policy().timeouts.idle_tcp;
    let tcp = destination.tcp.clone();
    let worker_index = worker.index;
    tokio::task::spawn_local(async move {
        let both = async { tokio::try_join!(caller, upstream) };
        match tokio::time::timeout(UPGRADE_WAIT, both).await {
            Ok(Ok((caller, upstream))) => {
                let record = tcp.open(worker_index);
                tunnel(
                    TokioIo::new(caller),
                    TokioIo::new(upstream),
                    idle,
                    Some(&record),
                )
                .await;
            }
            Ok(Err(error)) => tracing::debug!(%error, "upgrade"),
            Err(_) => tracing::debug!("upgrade: one side never took it up"),
        }
        drop(holds);
    });
    let mut response = Response::new(ResponseBody::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *response.headers_mut() = std::mem::take(&mut parts.headers);
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("upgrade"));
    response.headers_mut().insert(UPGRADE, protocol);
    Ok(response)
}
