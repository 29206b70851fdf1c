//! The life of a request, top to bottom. Outside, `handle` records and turns
//! an error into an answer; inside, `outbound` and `inbound` are `?` all
//! the way, and `exchange` is the loop of tries they share.

mod answer;
mod crossing;
mod downstream;
mod fallback;
mod fault;
mod gateway;
mod hedge;
mod limits;
mod mirror;
mod outgoing;
mod protect;
mod record;
mod route;
mod send;
mod told;
mod tries;
mod unanswered;

use std::borrow::Cow;
use std::rc::Rc;

use http::uri::Authority;
use http::{Request, Response};
use selvage_policy::authorize::{Caller, Operated};
use selvage_policy::classify::Outcome;
use selvage_policy::flag::Flag;
use selvage_policy::headers::Seen;
use selvage_policy::path;
use selvage_policy::retry::{Attempts, Next};
use selvage_policy::said::Said;

use self::answer::{answer, refuse};
use self::fallback::fall_back;
use self::fault::inject;
use self::hedge::hedged;
use self::outgoing::Outgoing;
use self::record::Record;
use self::route::Led;
use self::send::{Tried, attempt};
use crate::accept::Purpose;
use crate::clock;
use crate::discovery::View;
use crate::error::ProxyError;
use crate::http::CLIENT_CERTIFICATE;
use crate::http::body::ResponseBody;
use crate::http::head;
use crate::http::received::Received;
use crate::lifecycle::Direction;
use crate::telemetry::metrics::Decision;
use crate::upstream::Destination;
use crate::worker::{Worker, policy_name};

pub(crate) use self::protect::connection as admit_connection;

pub use self::downstream::{Downstream, Side};

/// Handles one request: the outside of the journey.
///
/// What needs no waiting is done before there is a future, and what is large
/// lies behind a pointer: a future keeps what it is given twice, and is moved
/// several times before it first runs.
pub fn handle(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    request: Request<Received>,
) -> impl Future<Output = Response<ResponseBody>> + 'static {
    downstream.begins();
    let mut record = Record::begin(&worker, &downstream, &request);
    let begun = begin(&worker, &downstream, request, &mut record);
    async move {
        let result = match begun {
            Ok(mut outgoing) => journey(&worker, &downstream, &mut outgoing, &mut record).await,
            Err(error) => Err(error),
        };
        match result {
            Ok(mut response) => {
                record.dresses(response.headers_mut());
                response.map(|body| body.ending(record))
            }
            Err(error) => refuse(&error, record),
        }
    }
}

/// Makes the head safe and judges the caller.
fn begin(
    worker: &Worker,
    downstream: &Downstream,
    mut request: Request<Received>,
    record: &mut Record,
) -> Result<Box<Outgoing>, ProxyError> {
    let limits = worker.shared.settings.head;
    let seen = Seen::of(request.headers());
    let said = if seen.said() {
        Said::read(request.headers())
    } else {
        Said::default()
    };
    said.ignored().for_each(|field| worker.ignores(field));
    let asked = head::sanitize(&mut request, seen, limits, downstream.peer.is_some())?; // 400, 414, 417, 431
    let criticality = protect::criticality(worker, downstream, asked.criticality);
    record.traces(request.headers_mut());
    let mut waits = None;
    match &downstream.side {
        Side::Outbound { .. } => canonicalize(&mut request, false)?, // 400
        Side::Gateway { .. } => {
            canonicalize(&mut request, false)?; // 400
            gateway::tells(worker, downstream, &mut request, &asked);
        }
        Side::Inbound { app, .. } => {
            let view = worker.view()?;
            authorize(worker, &view, downstream, &mut request, record)?; // 403, 400
            let headers = Some(request.headers());
            let matters = criticality.unwrap_or_default();
            let admission = protect::admit(worker, &view, downstream, app, headers, matters)?; // 429, 503
            waits = admission.and_then(|admission| record.takes(admission));
            if let Some(certificate) = downstream.certificate.get() {
                let headers = request.headers_mut();
                headers.insert(CLIENT_CERTIFICATE, certificate.clone());
            }
        }
    }
    let deadline = record.crosses(&said, request.headers());
    let mut outgoing = Box::new(Outgoing::new(request, asked, deadline));
    outgoing.criticality = criticality;
    outgoing.waits = waits.map(Box::new);
    Ok(outgoing)
}

/// From the application to a service, from another sidecar to the application,
/// or from a client through a listener of the gateway.
async fn journey(
    worker: &Rc<Worker>,
    downstream: &Downstream,
    outgoing: &mut Outgoing,
    record: &mut Record,
) -> Result<Response<ResponseBody>, ProxyError> {
    let backend = {
        let led = match &downstream.side {
            Side::Inbound { app, .. } => Led::To(app.clone()),
            Side::Gateway { gate, .. } => {
                gateway::lead(worker, downstream, gate, outgoing, record)? // 404, 421, 500
            }
            Side::Outbound { purpose } => {
                let authority = outgoing.asked.authority.as_ref();
                let destination = match worker.known(purpose, authority)? {
                    Some(known) => known,
                    // Boxed: each service is found once.
                    None => Box::pin(find(worker, purpose, authority, downstream.port)).await?, // 404, 503
                };
                route::from_service(worker, destination, outgoing, record)? // 404, 500
            }
        };
        match led {
            Led::Answered(response) => return Ok(*response),
            Led::To(backend) => backend,
            // Boxed: each backend of a rule is found once.
            Led::Waits(rule, index) => Box::pin(route::wait(worker, &rule, index)).await?, // 500, 503
        }
    };
    record.goes_to(&backend);
    let ended = serve(worker, &backend, outgoing, record).await;
    match &backend.policy().fallback {
        Some(policy) if fallback::is_wanted(policy, &ended, outgoing) => {
            // Boxed: another journey, and a rare one.
            let standing_in = fall_back(worker, &backend, policy, ended, outgoing, record);
            Box::pin(standing_in).await
        }
        _ => answer(worker, &backend, ended?, outgoing, record),
    }
}

/// What one service's policy does to a request: fails it on purpose, limits it,
/// copies it, sends it.
fn serve<'r>(
    worker: &'r Rc<Worker>,
    destination: &'r Rc<Destination>,
    outgoing: &'r mut Outgoing,
    record: &'r mut Record,
) -> impl Future<Output = Result<Tried, ProxyError>> + 'r {
    let fault = destination.policy().fault.as_ref();
    async move {
        outgoing.begins(clock::recent().into_std());
        if let Some(policy) = fault {
            // Boxed: it waits, and only where somebody wants it.
            Box::pin(inject(worker, destination, policy, outgoing, record)).await?;
        }
        if record.direction() == Direction::Outbound {
            record.admit(destination)?; // 503
        }
        if let Some(waits) = outgoing.waits.take() {
            // Boxed: it happens under overload alone.
            Box::pin(record.waits_for_place(*waits)).await?; // 503
        }
        let copying = mirror::begin(worker, destination, outgoing, record.source());
        let tried = exchange(worker, destination, outgoing, record).await;
        for copying in copying {
            copying.copies(outgoing);
        }
        tried
    }
}

async fn find(
    worker: &Worker,
    purpose: &Purpose,
    authority: Option<&Authority>,
    listener_port: u16,
) -> Result<Rc<Destination>, ProxyError> {
    match purpose {
        Purpose::Upstream { service, port } => worker.by_name(service, *port).await,
        Purpose::Outbound | Purpose::Inbound | Purpose::Gateway(_) => {
            worker.by_authority(authority, listener_port).await
        }
    }
}

/// Judges the caller by the canonical path, the one the application gets too.
fn authorize(
    worker: &Worker,
    view: &View,
    downstream: &Downstream,
    request: &mut Request<Received>,
    record: &mut Record,
) -> Result<(), ProxyError> {
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

/// The tries of one request; the one that is returned.
async fn exchange(
    worker: &Rc<Worker>,
    destination: &Rc<Destination>,
    outgoing: &mut Outgoing,
    record: &mut Record,
) -> Result<Tried, ProxyError> {
    let policy = destination.policy();
    let now = clock::recent().into_std();
    let mut attempts = Attempts::begin(policy, &outgoing.method, outgoing.grpc);
    let kept = worker.shared.settings.replay_bytes;
    outgoing.bounded_by(policy, &attempts, kept);
    outgoing.keyed_by(policy, record.source(), worker);
    let outgoing = &*outgoing;
    outgoing.is_in_time(now)?; // 504
    let limit = outgoing.deadline.0;
    record.sends(outgoing);
    destination.live.budget().request(now);
    let mut failed = None;
    loop {
        let tried = match attempts.hedge() {
            None => attempt(worker, destination, &mut attempts, outgoing, record).await,
            // Boxed: two tries are twice as large, and few requests want them.
            Some(_) => Box::pin(hedged(worker, destination, &mut attempts, outgoing, record)).await,
        };
        let mut tried = tried.map_err(|nobody| failed.take().unwrap_or(nobody))?; // 503
        if outgoing.body.is_broken() && tried.answered.is_none() {
            tried.outcome = Outcome::Cancelled;
            tried.error = ProxyError::new(Flag::BadRequest, "the caller broke off its request");
        }
        record.timed(destination, &tried, outgoing);
        record.tried(destination, &mut tried, &attempts);
        let now = clock::recent().into_std();
        let budget = destination.live.budget();
        let next =
            worker.with_rng(|rng| attempts.after(&tried.ended(outgoing), limit, budget, now, rng));
        match next {
            Next::Return(why) => {
                record.returns(destination, why, &tried);
                return Ok(tried);
            }
            Next::RetryAfter { wait, .. } => {
                record.retries(&tried.outcome);
                // Where nobody is left to ask, the caller hears of the last failure.
                failed = tried.failure();
                // Freed before the wait: it is no load of that endpoint any more.
                drop(tried);
                if !wait.is_zero() {
                    tokio::time::sleep(wait).await;
                    let _ = clock::now();
                }
            }
        }
    }
}

/// One path for matching, authorization and the application.
fn canonicalize(request: &mut Request<Received>, strict: bool) -> Result<(), ProxyError> {
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
    let path = canonical.map_err(|error| bad(error.to_string()))?;
    // `http://orders.shop?a=b` has a path too (RFC 9112 §3.2.1), though nobody wrote it.
    let unwritten = uri
        .path_and_query()
        .is_some_and(|target| target.as_str().starts_with('?'));
    if unwritten || matches!(path, Cow::Owned(_)) {
        let target = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.into_owned(),
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
