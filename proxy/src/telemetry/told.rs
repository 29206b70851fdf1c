//! What is told of one request or one opaque connection: by the access log as a line, by tracing
//! as a span.
//!
//! It is made only where one of them is on, filled in as the journey goes, and handed over at its
//! end, shortened so that queues of them are bounded in bytes too. Knows neither form.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Version};
use selvage_certs::SpiffeId;
use selvage_policy::flag::Flag;
use selvage_policy::snapshot::Endpoint;
use selvage_policy::trace::{TRACESTATE, Trace, TraceId};

use super::access_log::AccessLog;
use super::escape;
use super::metrics::Direction;
use super::spans::Spans;

/// Longest text of one field in bytes; the rest is cut off, and the cut is marked with `…`.
pub const FIELD_BYTES: usize = 1024;
/// Retries of one request of which a span tells one by one.
const RETRIES: usize = 8;
/// Longest `tracestate` a span carries in bytes: as much as everybody must pass on (W3C Trace
/// Context §3.3.1.5). A longer one still travels to the next hop.
const STATE_BYTES: usize = 512;

/// Whether a connection from the peer was encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    /// Plaintext.
    #[default]
    None,
    /// A full handshake.
    Full,
    /// A resumed session.
    Resumed,
}

/// What was spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    /// HTTP.
    Http,
    /// gRPC.
    Grpc,
    /// Nothing that is looked into.
    Tcp,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Told {
    /// When it began.
    pub time: SystemTime,
    /// Which way it went.
    pub direction: Direction,
    /// Where the connection came from.
    pub peer: Option<SocketAddr>,
    /// Who called: `namespace/serviceAccount` inbound, our own `namespace/service` outbound.
    pub source: Option<Arc<str>>,
    /// The caller's identity: inbound the authenticated peer's, outbound our own.
    pub source_identity: Option<SpiffeId>,
    /// `namespace/service` that was called.
    pub destination: Option<Arc<str>>,
    /// The identity of what was called: outbound the endpoint's, inbound our own.
    pub destination_identity: Option<SpiffeId>,
    /// `namespace/name/rule`, or `default`.
    pub route: Option<Arc<str>>,
    /// The endpoint of the last try.
    pub endpoint: Option<Arc<str>>,
    /// Its address.
    pub endpoint_address: Option<SocketAddr>,
    /// What was spoken.
    pub spoken: Spoken,
    /// The method.
    pub method: Option<Method>,
    /// The path; a query, which may carry secrets, is left out.
    pub path: Option<String>,
    /// Which host the caller asked for.
    pub authority: Option<String>,
    /// The version of HTTP the caller spoke.
    pub version: Option<Version>,
    /// The status that was sent, if any.
    pub status: Option<u16>,
    /// The gRPC status that was sent.
    pub grpc_status: Option<u32>,
    /// What went wrong.
    pub flag: Option<Flag>,
    /// Bytes of body received from the caller.
    pub bytes_received: u64,
    /// Bytes of body sent to the caller.
    pub bytes_sent: u64,
    /// From the head of the request to the last byte.
    pub duration: Duration,
    /// From the head of the request to the head of the answer.
    pub first_byte: Option<Duration>,
    /// From the start of the last try to the head of its answer.
    pub upstream: Option<Duration>,
    /// How often it was sent upstream.
    pub tries: u32,
    /// Why it was sent again, the last time.
    pub retry_reason: Option<&'static str>,
    /// What stood against sending it once more.
    pub retry_refused: Option<&'static str>,
    /// Which try it is of the sidecar before, from 2 on.
    pub attempt: Option<u32>,
    /// `namespace/name` of the policy that denied it.
    pub denied_by: Option<Arc<str>>,
    /// The trace it belongs to.
    pub trace_id: Option<TraceId>,
    /// What the caller calls it: `x-request-id`.
    pub request_id: Option<String>,
    /// Who the caller says it is: `user-agent`.
    pub user_agent: Option<String>,
    /// How the caller's connection was encrypted.
    pub tls: Tls,
    /// What only a span tells; absent where none is recorded.
    pub span: Option<Box<Spanned>>,
}

/// What only a span tells.
#[derive(Debug, Clone)]
pub struct Spanned {
    /// Its place in its trace.
    pub trace: Trace,
    /// `tracestate`, as far as a span carries it.
    pub state: String,
    /// The first retries.
    pub retries: Vec<Retried>,
    /// The caller went away before the end.
    pub abandoned: bool,
}

/// A try that was followed by another.
#[derive(Debug, Clone)]
pub struct Retried {
    /// When it ended, after the beginning of the request.
    pub after: Duration,
    /// What it ended with.
    pub reason: &'static str,
    /// Whom it was sent to.
    pub endpoint_address: Option<SocketAddr>,
}

impl Spanned {
    /// A span at this place.
    #[must_use]
    pub const fn new(trace: Trace) -> Self {
        Self {
            trace,
            state: String::new(),
            retries: Vec::new(),
            abandoned: false,
        }
    }

    /// The `tracestate` that travels on with it.
    pub fn carries(&mut self, headers: &HeaderMap) {
        let members = headers.get_all(TRACESTATE).iter();
        let members: Vec<_> = members.filter_map(|value| value.to_str().ok()).collect();
        let state = members.join(",");
        if state.len() <= STATE_BYTES {
            self.state = state;
        }
    }

    /// Another try follows.
    pub fn retries(&mut self, retried: Retried) {
        if self.retries.len() < RETRIES {
            self.retries.push(retried);
        }
    }
}

impl Told {
    /// A record that says only which way and when.
    #[must_use]
    pub fn new(direction: Direction, time: SystemTime) -> Self {
        Self {
            time,
            direction,
            peer: None,
            source: None,
            source_identity: None,
            destination: None,
            destination_identity: None,
            route: None,
            endpoint: None,
            endpoint_address: None,
            spoken: Spoken::Tcp,
            method: None,
            path: None,
            authority: None,
            version: None,
            status: None,
            grpc_status: None,
            flag: None,
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            first_byte: None,
            upstream: None,
            tries: 0,
            retry_reason: None,
            retry_refused: None,
            attempt: None,
            denied_by: None,
            trace_id: None,
            request_id: None,
            user_agent: None,
            tls: Tls::None,
            span: None,
        }
    }

    /// A try goes to `endpoint`.
    pub fn is_sent_to(&mut self, endpoint: &Endpoint) {
        self.endpoint = Some(endpoint.id.clone());
        self.endpoint_address = Some(endpoint.key.address);
        // Inbound it is the application beside us, which is whom we are.
        if self.direction == Direction::Outbound {
            self.destination_identity = endpoint.key.identity.clone();
        }
    }

    /// Hands it to whoever tells it. Never waits.
    pub fn tell(mut self: Box<Self>, log: &AccessLog, spans: Option<&Spans>) {
        self.shorten();
        if let Some(spans) = spans.filter(|_| self.span.is_some()) {
            if log.is_on() {
                spans.record(self.clone());
            } else {
                return spans.record(self);
            }
        }
        log.record(self);
    }

    /// Lets go of what would not be shown.
    pub(super) fn shorten(&mut self) {
        if let Some(path) = &mut self.path {
            let end = path.find(['?', '#']).unwrap_or(path.len());
            path.truncate(end);
        }
        let texts = [
            &mut self.path,
            &mut self.authority,
            &mut self.request_id,
            &mut self.user_agent,
        ];
        for text in texts.into_iter().flatten() {
            escape::cut(text);
        }
        let long = |method: &Method| method.as_str().len() > FIELD_BYTES;
        if let Some(method) = self.method.take_if(|method| long(method)) {
            // Bytes of a token, cut anywhere, are a token.
            let start = &method.as_str().as_bytes()[..FIELD_BYTES];
            self.method = Method::from_bytes(start).ok();
        }
    }
}

/// The version of HTTP as logs and spans name it.
pub(super) const fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "other",
    }
}

/// A field that a peer sent, as text.
#[must_use]
pub fn text_of(headers: &HeaderMap, name: http::HeaderName) -> Option<String> {
    let value = headers.get(name)?;
    Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queued_record_is_bounded_in_bytes() {
        let mut told = Told::new(Direction::Inbound, SystemTime::UNIX_EPOCH);
        let long = "x".repeat(100_000);
        let texts = [
            &mut told.path,
            &mut told.authority,
            &mut told.request_id,
            &mut told.user_agent,
        ];
        for text in texts {
            *text = Some(long.clone());
        }
        told.method = Method::from_bytes(long.as_bytes()).ok();
        told.shorten();
        let texts = [told.path, told.authority, told.request_id, told.user_agent];
        for text in texts {
            assert!(text.is_some_and(|text| text.capacity() < 2 * FIELD_BYTES));
        }
        assert!(
            told.method
                .is_some_and(|method| method.as_str().len() == FIELD_BYTES)
        );
    }
}
