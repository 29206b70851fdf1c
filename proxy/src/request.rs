//! The life of a request, top to bottom. Outside, `handle` records and turns
//! an error into an answer; inside, `outbound` and `inbound` are `?` all
//! the way, and `exchange` is the loop of tries they share.

mod answer;
mod limits;
mod outgoing;
mod record;
mod send;

use std::borrow::Cow;
use std::convert::Infallible;
use std::rc::Rc;

use http::{Request, Response};
use hyper::body::Incoming;
use selvage_policy::authorize::{Caller, Operated};
use selvage_policy::classify::Outcome;
use selvage_policy::deadline;
use selvage_policy::flag::Flag;
use selvage_policy::path;
use selvage_policy::retry::{Attempts, Next};
use selvage_policy::snapshot::Protocol;
use tokio::time::Instant;

use self::answer::{answer, refuse};
use self::outgoing::Outgoing;
use self::record::Record;
use self::send::attempt;
use crate::accept::Purpose;
use crate::error::ProxyError;
use crate::http::body::ResponseBody;
use crate::http::head::{self, Asked};
use crate::http::{CLIENT_CERTIFICATE, is_grpc};
use crate::telemetry::metrics::Decision;
use crate::upstream::Destination;
use crate::worker::{Worker, policy_name};

pub use self::record::{Downstream, Side};

/// Handles one request: the outside of the journey.
pub async fn handle(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    downstream.begins();
    let mut record = Record::begin(&worker, &downstream, &request);
    let grpc = is_grpc(request.headers());
    // Boxed: the tries' futures are large, and idle connections should not be.
    let result = match &downstream.side {
        Side::Outbound { purpose } => {
            Box::pin(outbound(
                &worker,
                &downstream,
                purpose,
                request,
                &mut record,
            ))
            .await
        }
        Side::Inbound { app, .. } => {
            Box::pin(inbound(&worker, &downstream, app, request, &mut record)).await
        }
    };
    Ok(match result {
        Ok(response) => response.map(|body| body.ending(record)),
        Err(error) => refuse(&error, grpc, record),
    })
}

/// From the application, to a service.
async fn outbound(
    worker: &Rc<Worker>,
    downstream: &Downstream,
    purpose: &Purpose,
    mut request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<ResponseBody>, ProxyError> {
    let limits = worker.shared.settings.head;
    let asked_deadline = deadline_headers(&request);
    let asked = head::sanitize(&mut request, limits, false)?; // 400, 414, 417, 431
    canonicalize(&mut request, false)?; // 400
    let destination = match purpose {
        Purpose::Upstream { service, port } => worker.by_name(service, *port).await,
        Purpose::Outbound | Purpose::Inbound => {
            worker
                .by_authority(asked.authority.as_ref(), downstream.local.port())
                .await
        }
    }?; // 404, 503
    record.goes_to(&destination);
    if destination.port.protocol == Protocol::Tcp {
        return Err(ProxyError::new(
            Flag::NoRoute,
            "the port is declared tcp, this is HTTP",
        ));
    }
    record.admit(&destination)?; // 503
    exchange(worker, &destination, request, asked, asked_deadline, record).await
}

/// From another sidecar, to the application.
async fn inbound(
    worker: &Rc<Worker>,
    downstream: &Downstream,
    app: &Rc<Destination>,
    mut request: Request<Incoming>,
    record: &mut Record,
) -> Result<Response<ResponseBody>, ProxyError> {
    let limits = worker.shared.settings.head;
    let peer = downstream.peer.as_ref();
    let asked_deadline = deadline_headers(&request);
    let asked = head::sanitize(&mut request, limits, peer.is_some())?; // 400, 414, 417, 431
    authorize(worker, downstream, &mut request, record)?; // 403, 400
    if let Some(certificate) = downstream.certificate.get() {
        let headers = request.headers_mut();
        headers.insert(CLIENT_CERTIFICATE, certificate.clone());
    }
    record.goes_to(app);
    exchange(worker, app, request, asked, asked_deadline, record).await
}

/// Judges the caller by the canonical path, the one the application gets too.
fn authorize(
    worker: &Worker,
    downstream: &Downstream,
    request: &mut Request<Incoming>,
    record: &mut Record,
) -> Result<(), ProxyError> {
    let view = worker.view()?;
    let policy = &view.snapshot.inbound;
    canonicalize(request, policy.looks_at_paths())?;
    let caller = Caller {
        identity: downstream.peer.as_ref().map(|peer| &peer.id),
    };
    let operated = Operated {
        method: Some(request.method()),
        path: Some(request.uri().path()),
    };
    let verdict = policy.authorize(caller, operated);
    for audited in &verdict.audited {
        worker.count_decision(Decision::AuditDeny, Some(audited));
    }
    if verdict.permitted {
        worker.count_decision(Decision::Allow, verdict.policy);
        return Ok(());
    }
    worker.count_decision(Decision::Deny, verdict.policy);
    let decided = policy_name(verdict.policy);
    record.denied_by(&decided);
    Err(ProxyError::new(
        Flag::Denied,
        format!("denied by {decided}"),
    ))
}

/// The tries of one request, until one is returned.
async fn exchange(
    worker: &Rc<Worker>,
    destination: &Rc<Destination>,
    request: Request<Incoming>,
    asked: Asked,
    asked_deadline: http::HeaderMap,
    record: &mut Record,
) -> Result<Response<ResponseBody>, ProxyError> {
    let policy = destination.policy();
    let now = Instant::now();
    let grpc = is_grpc(request.headers());
    let (limit, owner) = deadline::deadline(&policy.timeouts, &asked_deadline, now.into_std());
    let mut attempts = Attempts::begin(policy, request.method(), grpc);
    let keep = attempts
        .buffer_limit()
        .min(worker.shared.settings.replay_bytes);
    // Only a status that would be retried is worth holding a response for.
    let peeks = grpc && attempts.retryable();
    let outgoing = Outgoing::new(request, asked, grpc, (limit, owner), keep, peeks);
    record.sends(&outgoing);
    destination.live.budget().request(now.into_std());
    let mut failed = None;
    loop {
        let mut tried = attempt(worker, destination, &mut attempts, &outgoing)
            .await
            .map_err(|nobody| failed.take().unwrap_or(nobody))?; // 503
        if outgoing.body.is_broken() && tried.answered.is_none() {
            tried.outcome = Outcome::Cancelled;
            tried.error = ProxyError::new(Flag::BadRequest, "the caller broke off its request");
        }
        record.tried(destination, &mut tried, attempts.tries());
        let now = Instant::now().into_std();
        let budget = destination.live.budget();
        let next =
            worker.with_rng(|rng| attempts.after(&tried.ended(&outgoing), limit, budget, now, rng));
        match next {
            Next::Return(why) => {
                record.returns(destination, why);
                outgoing.body.release();
                return answer(worker, destination, tried, &outgoing, record);
            }
            Next::RetryAfter { wait, .. } => {
                // Where nobody is left to ask, the caller hears of the last failure.
                failed = tried.failure();
                // Freed before the wait: it is no load of that endpoint any more.
                drop(tried);
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

/// One path for matching, authorization and the application.
fn canonicalize(request: &mut Request<Incoming>, strict: bool) -> Result<(), ProxyError> {
    let uri = request.uri();
    if uri.path() == "*" {
        return Ok(());
    }
    let canonical = if strict {
        path::canonical_for_authorization(uri.path())
    } else {
        path::canonical(uri.path())
    };
    let bad = |detail: String| ProxyError::new(Flag::BadRequest, detail);
    if let Cow::Owned(path) = canonical.map_err(|error| bad(error.to_string()))? {
        let target = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(
            target
                .parse()
                .map_err(|_| bad("malformed path".to_owned()))?,
        );
        *request.uri_mut() =
            http::Uri::from_parts(parts).map_err(|_| bad("malformed target".to_owned()))?;
    }
    Ok(())
}

/// The headers a deadline is read from, before they are taken off.
fn deadline_headers(request: &Request<Incoming>) -> http::HeaderMap {
    let mut kept = http::HeaderMap::new();
    for name in [deadline::GRPC_TIMEOUT, deadline::DEADLINE_MS] {
        if let Some(value) = request.headers().get(&name) {
            kept.insert(name, value.clone());
        }
    }
    kept
}
