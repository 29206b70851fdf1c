//! What routes do to a request, once the port or listener it came to is known:
//! the rule it meets, then an answer of the rule's own, or a backend and the
//! request as that backend is to see it. Which rule, which turn and which edit
//! is decided in `selvage_policy::route`; nothing is sent from here.

mod dress;
mod session;

use std::rc::Rc;
use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use http::uri::Scheme;
use http::{Method, Response, StatusCode};
use selvage_policy::fallback::StaticResponse;
use selvage_policy::fault::grpc_of;
use selvage_policy::flag::Flag;
use selvage_policy::route::cors::Visit;
use selvage_policy::route::redirect::Addressed;
use selvage_policy::route::{Filters, Found, Redirect, RouteTable, Rule};
use selvage_policy::snapshot::Protocol;

pub(super) use self::dress::Dress;
use self::session::{Pinned, Stay};
use super::outgoing::Outgoing;
use super::protect;
use super::record::Record;
use crate::error::ProxyError;
use crate::http::body::ResponseBody;
use crate::upstream::Destination;
use crate::worker::{Ruled, Worker};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Where a request came in, as its caller sees it.
#[derive(Debug)]
pub(super) struct Door<'d> {
    /// HTTPS where the caller's TLS ends here.
    pub(super) scheme: Scheme,
    /// Of the service or of the listener.
    pub(super) port: u16,
    /// What is answered without any service is counted under this destination.
    pub(super) label: &'d Arc<str>,
}

impl<'d> Door<'d> {
    /// A port of a service.
    pub(super) fn of_service(destination: &'d Destination) -> Self {
        Self {
            scheme: Scheme::HTTP,
            port: destination.port.port,
            label: &destination.label,
        }
    }
}

/// Where a rule leads.
pub(super) enum Led {
    /// It answers by itself.
    Answered(Box<Response<ResponseBody>>),
    /// To this backend.
    To(Rc<Destination>),
    /// To the backend at this index, used for the first time.
    Waits(Rc<Ruled>, usize),
}

/// Finds the rule of a request and does what it says.
///
/// # Errors
/// `no-route` where no rule matches, `invalid-backend` where the turn is with
/// a backend that cannot be used, or with none.
pub(super) fn lead(
    worker: &Worker,
    table: &RouteTable,
    door: &Door<'_>,
    outgoing: &mut Outgoing,
    record: &mut Record,
) -> Result<Led, ProxyError> {
    let Some(found) = table.find(&outgoing.asked_of_routes()) else {
        let detail = "none of its routes matches";
        return Err(ProxyError::new(Flag::NoRoute, detail));
    };
    let Found { rule, prefix } = found;
    let ruled = worker.ruled(rule);
    record.follows(&rule.label, worker.answers(&ruled, door.label));
    let mut dress = Dress::of(&ruled);
    if let (Some(cors), Some(dress)) = (&rule.filters.cors, &mut dress) {
        match cors.judge(&outgoing.method, outgoing.headers()) {
            Visit::Preflight(headers) => {
                let mut response = plain(StatusCode::OK, outgoing, record);
                response.headers_mut().extend(headers);
                return Ok(Led::Answered(Box::new(response)));
            }
            Visit::Allowed(origin) => dress.shared_with(origin),
            Visit::Unshared => {}
        }
    }
    let within = protect::within_rate(&ruled, outgoing.headers(), record.source()); // 429
    let answered = within.and_then(|()| answers_itself(rule, door, prefix, outgoing, record));
    let answered = match answered {
        Ok(answered) => answered,
        Err(error) => {
            record.wears(dress);
            return Err(error);
        }
    };
    let index = match answered {
        Some(_) => None,
        None => turn(worker, &ruled, door, prefix, outgoing, dress.as_deref_mut()),
    };
    record.wears(dress);
    if let Some(response) = answered {
        return Ok(Led::Answered(Box::new(response)));
    }
    let Some(index) = index else {
        let detail = "the rule has no backend with a weight";
        return Err(ProxyError::new(Flag::InvalidBackend, detail));
    };
    let backend = worker.backend_at_once(&ruled, index)?;
    edit(
        &rule.filters,
        &rule.backends[index].filters,
        prefix,
        outgoing,
    );
    Ok(match backend {
        Some(destination) => Led::To(speaks_http(destination)?),
        None => Led::Waits(ruled, index),
    })
}

/// The answer of a rule that asks no backend.
fn answers_itself(
    rule: &Rule,
    door: &Door<'_>,
    prefix: Option<&str>,
    outgoing: &Outgoing,
    record: &mut Record,
) -> Result<Option<Response<ResponseBody>>, ProxyError> {
    if let Some(response) = &rule.response {
        return Ok(Some(direct(response, outgoing, record)));
    }
    let Some(redirect) = &rule.filters.redirect else {
        return Ok(None);
    };
    redirected(redirect, door, prefix, outgoing, record).map(Some)
}

/// The backend whose turn it is, or with which the client stays.
fn turn(
    worker: &Worker,
    ruled: &Ruled,
    door: &Door<'_>,
    prefix: Option<&str>,
    outgoing: &mut Outgoing,
    dress: Option<&mut Dress>,
) -> Option<usize> {
    let Some(dress) = dress else {
        return ruled.next();
    };
    let mut pinned = None;
    if let Some(policy) = &ruled.rule.session {
        let (stay, found) = Stay::of(worker, ruled, policy, prefix, &door.scheme, outgoing);
        dress.stays(stay);
        pinned = found;
    }
    let index = match pinned {
        Some(Pinned { backend, endpoint }) => {
            outgoing.pinned = Some(endpoint);
            Some(backend)
        }
        None => ruled.next(),
    };
    if let Some(index) = index {
        dress.chooses(index);
    }
    index
}

/// From a service: by the routes of its port, or, where there are none, to its
/// own endpoints.
///
/// # Errors
/// Those of [`lead`], and `no-route` where the port speaks no HTTP.
pub(super) fn from_service(
    worker: &Worker,
    destination: Rc<Destination>,
    outgoing: &mut Outgoing,
    record: &mut Record,
) -> Result<Led, ProxyError> {
    if destination.port.protocol == Protocol::Tcp {
        record.goes_to(&destination);
        let detail = "the port is declared tcp, this is HTTP";
        return Err(ProxyError::new(Flag::NoRoute, detail));
    }
    let Some(table) = &destination.port.routes else {
        if destination.port.streams.is_empty() {
            return Ok(Led::To(destination));
        }
        record.goes_to(&destination);
        let detail = "its routes are for whole connections: give it a listener of its own";
        return Err(ProxyError::new(Flag::NoRoute, detail));
    };
    record.goes_to(&destination);
    let door = Door::of_service(&destination);
    lead(worker, table, &door, outgoing, record)
}

/// A backend that was not known when its turn came.
///
/// # Errors
/// `invalid-backend` or `not-ready`.
pub(super) async fn wait(
    worker: &Worker,
    ruled: &Ruled,
    index: usize,
) -> Result<Rc<Destination>, ProxyError> {
    speaks_http(worker.backend(ruled, index).await?)
}

fn speaks_http(destination: Rc<Destination>) -> Result<Rc<Destination>, ProxyError> {
    if destination.port.protocol == Protocol::Tcp {
        let detail = "the backend's port is declared tcp, this is HTTP";
        return Err(ProxyError::new(Flag::InvalidBackend, detail));
    }
    Ok(destination)
}

/// The request as its backend is to see it: the rule's edits, then the
/// backend's own. Where both name a host or a path, the backend's is meant.
fn edit(rule: &Filters, backend: &Filters, prefix: Option<&str>, outgoing: &mut Outgoing) {
    let edits = [&rule.request_headers, &backend.request_headers];
    for edits in edits.into_iter().flatten() {
        outgoing.edit_headers(edits);
    }
    let rewrites = [&backend.rewrite, &rule.rewrite];
    let rewrites = || rewrites.into_iter().flatten();
    if let Some(target) = rewrites().find_map(|it| it.target(outgoing.uri(), prefix)) {
        outgoing.aim(target);
    }
    if let Some(authority) = rewrites().find_map(|it| it.authority()) {
        outgoing.asked.authority = Some(authority);
    }
}

/// Sends the client elsewhere.
fn redirected(
    redirect: &Redirect,
    door: &Door<'_>,
    prefix: Option<&str>,
    outgoing: &Outgoing,
    record: &mut Record,
) -> Result<Response<ResponseBody>, ProxyError> {
    let authority = outgoing.asked.authority.as_ref();
    let uri = outgoing.uri();
    let asked = Addressed {
        scheme: &door.scheme,
        host: authority.map_or("", |authority| authority.host()),
        port: door.port,
        path: uri.path(),
        query: uri.query(),
        prefix,
    };
    let location = redirect.location(&asked).ok_or_else(|| {
        ProxyError::new(Flag::BadRequest, "a request without a host is redirected")
    })?;
    let mut response = plain(redirect.status, outgoing, record);
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// An answer without a body. A gRPC caller gets its status as one of gRPC's,
/// because it would look at no other.
fn plain(status: StatusCode, outgoing: &Outgoing, record: &mut Record) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::empty());
    if outgoing.grpc {
        let grpc_status = grpc_of(status).number();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status));
        record.answers_itself(StatusCode::OK, Some(grpc_status));
        return response;
    }
    *response.status_mut() = status;
    if status != StatusCode::NO_CONTENT {
        let length = HeaderValue::from_static("0");
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    record.answers_itself(status, None);
    response
}

/// The answer that a rule gives by itself.
fn direct(
    known: &StaticResponse,
    outgoing: &Outgoing,
    record: &mut Record,
) -> Response<ResponseBody> {
    if outgoing.grpc {
        plain(known.status, outgoing, record)
    } else {
        given(known, &outgoing.method, record)
    }
}

/// An answer known beforehand.
pub(super) fn given(
    known: &StaticResponse,
    method: &Method,
    record: &mut Record,
) -> Response<ResponseBody> {
    let StaticResponse {
        status,
        headers,
        body,
    } = known;
    let length = HeaderValue::from(body.len());
    let bodiless = matches!(status.as_u16(), 204 | 304);
    let body = if body.is_empty() || bodiless || *method == Method::HEAD {
        ResponseBody::empty()
    } else {
        ResponseBody::of_bytes(body.clone().into())
    };
    let mut response = Response::new(body);
    *response.status_mut() = *status;
    *response.headers_mut() = headers.clone();
    if !bodiless {
        response.headers_mut().insert(CONTENT_LENGTH, length);
    }
    record.answers_itself(*status, None);
    response
}
