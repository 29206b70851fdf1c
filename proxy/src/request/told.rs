//! What is told of a request at its beginning, for the access log and for its span.

use http::header::{HOST, USER_AGENT};
use http::{HeaderName, Request, StatusCode};
use selvage_policy::classify::Outcome;
use selvage_policy::flag::Grpc;
use selvage_policy::trace::{Trace, trace_id};

use super::downstream::Downstream;
use crate::http::is_grpc;
use crate::http::received::Received;
use crate::telemetry::told::{Spanned, Spoken, Told, text_of};
use crate::worker::Worker;

/// What a caller calls its request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Why a try failed, in a word.
pub(super) fn reason(outcome: &Outcome) -> &'static str {
    match *outcome {
        Outcome::Transport(failure) => failure.flag().as_str(),
        Outcome::Response {
            flag: Some(flag), ..
        } => flag.as_str(),
        Outcome::Response {
            status,
            grpc_status,
            ..
        } => {
            let exhausted =
                grpc_status.and_then(Grpc::from_number) == Some(Grpc::ResourceExhausted);
            if status == StatusCode::TOO_MANY_REQUESTS || exhausted {
                "throttled"
            } else {
                "status"
            }
        }
        Outcome::Cancelled => "cancelled",
        Outcome::CallerDeadline => "deadline",
    }
}

/// What its head says.
pub(super) fn told(
    worker: &Worker,
    downstream: &Downstream,
    request: &Request<Received>,
    trace: Option<&Trace>,
) -> Told {
    let headers = request.headers();
    let mut told = downstream.told(worker);
    told.spoken = if is_grpc(headers) {
        Spoken::Grpc
    } else {
        Spoken::Http
    };
    told.method = Some(request.method().clone());
    told.path = Some(request.uri().path().to_owned());
    let authority = match request.uri().authority() {
        Some(authority) => Some(authority.to_string()),
        None => text_of(headers, HOST),
    };
    // What stands before the `@` is somebody's name and password.
    told.authority = authority.map(|authority| match authority.rsplit_once('@') {
        Some((_, host)) => host.to_owned(),
        None => authority,
    });
    told.version = Some(request.version());
    told.request_id = text_of(headers, REQUEST_ID);
    told.user_agent = text_of(headers, USER_AGENT);
    told.trace_id = match trace {
        Some(trace) => Some(trace.context.trace),
        None => trace_id(headers),
    };
    told.span = trace
        .filter(|trace| trace.sampled)
        .map(|trace| Box::new(Spanned::new(*trace)));
    told
}
