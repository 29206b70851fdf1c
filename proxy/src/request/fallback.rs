//! What stands in where a service has failed, after its last try: another
//! service under its own policy, or an answer known beforehand. Asked for once
//! in a request: what stands in is not stood in for.

use std::rc::Rc;

use http::Response;
use http::header::{HeaderName, HeaderValue};
use selvage_policy::classify::Outcome;
use selvage_policy::fallback::{FallbackPolicy, FallbackTo, WouldGet};
use selvage_policy::flag::Flag;
use selvage_policy::snapshot::{Backend, Protocol};

use super::answer::answer;
use super::outgoing::Outgoing;
use super::record::Record;
use super::route::given;
use super::send::{Tried, learn};
use super::serve;
use crate::clock;
use crate::error::ProxyError;
use crate::http::body::ResponseBody;
use crate::upstream::Destination;
use crate::worker::Worker;

/// Says which fallback answered.
const FALLBACK: HeaderName = HeaderName::from_static("x-selvage-fallback");

/// What the caller would get of this end.
fn would_get(ended: &Result<Tried, ProxyError>, grpc: bool) -> WouldGet {
    let of_error = |error: &ProxyError| WouldGet {
        status: error.status(),
        grpc_status: grpc.then(|| error.grpc_status()),
        flag: Some(error.flag),
    };
    let tried = match ended {
        Ok(tried) => tried,
        Err(error) => return of_error(error),
    };
    match (&tried.answered, tried.outcome) {
        (
            Some(_),
            Outcome::Response {
                status,
                grpc_status,
                flag,
            },
        ) => WouldGet {
            status,
            grpc_status,
            flag,
        },
        _ => of_error(&tried.error),
    }
}

/// Whether something stands in for this end.
pub(super) fn is_wanted(
    policy: &FallbackPolicy,
    ended: &Result<Tried, ProxyError>,
    outgoing: &Outgoing,
) -> bool {
    let replayable = outgoing.body.is_replayable() && !outgoing.switches();
    policy.takes(&would_get(ended, outgoing.grpc), outgoing.grpc, replayable)
}

/// Answers in place of the service at `destination`.
pub(super) async fn fall_back(
    worker: &Rc<Worker>,
    destination: &Destination,
    policy: &FallbackPolicy,
    ended: Result<Tried, ProxyError>,
    outgoing: &mut Outgoing,
    record: &mut Record,
) -> Result<Response<ResponseBody>, ProxyError> {
    record.falls_back(would_get(&ended, outgoing.grpc).flag);
    if let Ok(mut tried) = ended {
        // Its answer is not read on, so its head decides.
        let report = tried.report(tried.judged(&destination.policy().failures));
        learn(worker, destination, &mut tried.in_flight, &report);
    }
    destination.events.fallback(worker.index);
    let mut response = match &policy.to {
        FallbackTo::Service(backend) => another(worker, backend, outgoing, record).await?,
        FallbackTo::Response(response) => given(response, &outgoing.method, record),
    };
    if let Ok(name) = HeaderValue::try_from(&*policy.name) {
        response.headers_mut().insert(FALLBACK, name);
    }
    Ok(response)
}

/// The answer of another service.
async fn another(
    worker: &Rc<Worker>,
    backend: &Backend,
    outgoing: &mut Outgoing,
    record: &mut Record,
) -> Result<Response<ResponseBody>, ProxyError> {
    let destination = worker.by_name(&backend.service, backend.port).await?;
    if destination.port.protocol == Protocol::Tcp {
        let detail = "the fallback's port is declared tcp, this is HTTP";
        return Err(ProxyError::new(Flag::NoRoute, detail));
    }
    let _ = clock::now();
    record.goes_on_to(&destination);
    outgoing.pinned = None;
    let ended = serve(worker, &destination, outgoing, record).await;
    answer(worker, &destination, ended?, outgoing, record)
}
