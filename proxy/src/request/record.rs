//! What is known of a request by its end: counted, logged, and given back.
//! It holds what must last until the last byte, and lets go of it exactly once,
//! however the request ends.

use std::cell::{Cell, OnceCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, Request, StatusCode};
use selvage_certs::PeerIdentity;
use selvage_policy::classify::{Class, Outcome, TransportFailure, classify};
use selvage_policy::endpoint::{InFlight, Report};
use selvage_policy::flag::Flag;
use selvage_policy::retry::{RetryOutcome, WhyReturned};
use selvage_policy::service::RequestPermit;
use tokio::time::Instant;

use super::outgoing::Outgoing;
use super::send::{Tried, learn};
use crate::accept::Purpose;
use crate::clock;
use crate::error::ProxyError;
use crate::http::body::{End, Ending};
use crate::http::door::DoorBell;
use crate::http::received::Received;
use crate::http::replay::Replay;
use crate::http::{grpc_status, is_grpc};
use crate::lifecycle::Direction;
use crate::telemetry::access_log::{AccessRecord, Tls, trace_id};
use crate::telemetry::metrics::{ActiveRequest, HttpSeries};
use crate::upstream::Destination;
use crate::upstream::pool::Lease;
use crate::worker::{CallerSeries, DEFAULT_ROUTE, Worker};

/// The status recorded where the caller went away before there was one.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The connection a request came on.
#[derive(Debug)]
pub struct Downstream {
    /// Which side of the application it is on.
    pub side: Side,
    /// Who is at its other end.
    pub peer: Option<PeerIdentity>,
    /// The address of its other end.
    pub remote: SocketAddr,
    /// The port of ours.
    pub port: u16,
    /// How it is protected.
    pub tls: Tls,
    /// Told of its requests, on HTTP/1.
    pub bell: Option<Arc<DoorBell>>,
    /// Requests in flight on it.
    pub streams: Cell<usize>,
    /// When a frame of a response last left for it, or a response ended.
    pub moved: Cell<Instant>,
    /// Responses of which a frame has left and nobody asked for the next yet.
    pub owed: Cell<usize>,
    /// What the application is told of the caller, once that is known.
    pub certificate: OnceCell<HeaderValue>,
}

/// Which side of the application a connection is on.
#[derive(Debug)]
pub enum Side {
    /// Toward it.
    Inbound {
        /// The application's port.
        app: Rc<Destination>,
        /// What the caller is counted in.
        caller: Rc<CallerSeries>,
    },
    /// From it.
    Outbound {
        /// What the listener is for.
        purpose: Arc<Purpose>,
    },
}

impl Downstream {
    /// Which direction its requests are counted in.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        match self.side {
            Side::Inbound { .. } => Direction::Inbound,
            Side::Outbound { .. } => Direction::Outbound,
        }
    }

    /// A request's head has come.
    pub fn begins(&self) {
        if let Some(bell) = &self.bell {
            bell.request();
        }
        self.streams.set(self.streams.get() + 1);
    }

    fn ends(&self, another: bool) {
        if let Some(bell) = self.bell.as_ref().filter(|_| another) {
            bell.response_ended();
        }
        self.streams.set(self.streams.get() - 1);
        self.moved.set(clock::recent());
    }
}

/// What a request holds until it ends.
#[derive(Default)]
struct Held {
    permit: Option<RequestPermit>,
    in_flight: Option<InFlight>,
    lease: Option<Lease>,
    body: Option<Replay>,
}

/// See the module.
pub(super) struct Record {
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    begun: Instant,
    series: Option<Arc<HttpSeries>>,
    destination: Option<Rc<Destination>>,
    status: u16,
    grpc: bool,
    grpc_status: Option<u32>,
    flag: Option<Flag>,
    tries: u32,
    held: Held,
    _active: ActiveRequest,
    access: Option<Box<AccessRecord>>,
    owed: Cell<bool>,
    done: bool,
}

impl Record {
    /// A request has come.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        downstream: &Rc<Downstream>,
        request: &Request<Received>,
    ) -> Box<Self> {
        let direction = downstream.direction();
        let series = match &downstream.side {
            Side::Inbound { caller, .. } => Some(caller.http.clone()),
            Side::Outbound { .. } => None,
        };
        let access = worker
            .shared
            .access_log
            .is_on()
            .then(|| Box::new(access_record(worker, downstream, request)));
        Box::new(Self {
            worker: worker.clone(),
            downstream: downstream.clone(),
            begun: clock::now(),
            series,
            destination: None,
            status: CLIENT_CLOSED_REQUEST,
            grpc: is_grpc(request.headers()),
            grpc_status: None,
            flag: None,
            tries: 0,
            held: Held::default(),
            _active: worker.shared.metrics.active(worker.index, direction),
            access,
            owed: Cell::new(false),
            done: false,
        })
    }

    /// Where it goes is known.
    pub(super) fn goes_to(&mut self, destination: &Rc<Destination>) {
        if self.downstream.direction() == Direction::Outbound {
            self.series = Some(destination.http.clone());
        }
        self.destination = Some(destination.clone());
        if let Some(access) = &mut self.access {
            access.destination = Some(destination.label.clone());
            access.route = Some(DEFAULT_ROUTE.into());
        }
    }

    /// Takes a place under `limits.maxRequests`, until the response has ended.
    pub(super) fn admit(&mut self, destination: &Destination) -> Result<(), ProxyError> {
        let limits = &destination.policy().limits;
        let permit = destination.live.admit_request(limits).ok_or_else(|| {
            ProxyError::new(
                Flag::Overflow,
                "limits.maxRequests of the service is reached",
            )
        })?;
        self.held.permit = Some(permit);
        Ok(())
    }

    /// The policy that denied it, for the log alone.
    pub(super) fn denied_by(&mut self, policy: &str) {
        if let Some(access) = &mut self.access {
            access.denied_by = Some(policy.into());
        }
    }

    /// Its body, for the count of bytes.
    pub(super) fn sends(&mut self, outgoing: &Outgoing) {
        self.held.body = Some(outgoing.body.clone());
    }

    /// A try has come to its head, or to nothing. What the head already says
    /// is learnt; a success is one only when its body has come.
    pub(super) fn tried(&mut self, destination: &Destination, tried: &mut Tried, tries: u32) {
        self.tries = tries;
        let report = Report::of(&tried.outcome, tried.retry_after());
        if tried.answered.is_none() || report.class != Class::Success || tried.in_flight.is_probe()
        {
            learn(&self.worker, destination, &mut tried.in_flight, &report);
        }
        if tries > 1 {
            let outcome = match tried.answered {
                Some(_) => RetryOutcome::of(report.class),
                None => RetryOutcome::Failure,
            };
            destination.series.retry(self.worker.index, outcome);
        }
        if let Some(access) = &mut self.access {
            access.endpoint = destination
                .port
                .endpoints
                .get(tried.index)
                .map(|e| e.id.clone());
            if report.class.is_failure() {
                access.retry_reason = Some(reason(&tried.outcome));
            }
        }
    }

    /// No further try follows.
    pub(super) fn returns(&mut self, destination: &Destination, why: WhyReturned) {
        if let Some(outcome) = why.outcome() {
            destination.series.retry(self.worker.index, outcome);
        }
        if why == WhyReturned::BudgetExhausted {
            destination.series.budget_exhausted(self.worker.index);
        }
    }

    /// A response is passed on.
    pub(super) fn answers(
        &mut self,
        status: StatusCode,
        grpc_status: Option<u32>,
        flag: Option<Flag>,
        lease: Option<Lease>,
        in_flight: InFlight,
    ) {
        self.status = status.as_u16();
        self.grpc_status = grpc_status;
        self.flag = flag;
        self.held.lease = lease;
        self.held.in_flight = Some(in_flight);
    }

    /// Which way it goes.
    pub(super) fn direction(&self) -> Direction {
        self.downstream.direction()
    }

    /// Whether it is a gRPC call.
    pub(super) const fn is_grpc(&self) -> bool {
        self.grpc
    }

    /// Whether it came on an HTTP/1 connection.
    pub(super) fn is_http1(&self) -> bool {
        self.downstream.bell.is_some()
    }

    /// We answer ourselves.
    pub(super) fn refuses(&mut self, error: &ProxyError, status: StatusCode) {
        self.status = status.as_u16();
        self.flag = Some(error.flag);
        self.grpc_status = self.grpc.then(|| error.flag.grpc_status());
        tracing::debug!(
            direction = self.downstream.direction().as_str(),
            destination = self.destination.as_ref().map(|to| &*to.label),
            flag = error.flag.as_str(),
            detail = %error.detail,
            "request refused"
        );
    }

    /// Notes whether the caller's side has still to ask for the next frame.
    fn owe(&self, owed: bool) {
        if self.owed.replace(owed) == owed {
            return;
        }
        let count = self.downstream.owed.get();
        self.downstream
            .owed
            .set(if owed { count + 1 } else { count - 1 });
    }

    fn conclude(&mut self, end: End, trailers: Option<&HeaderMap>, sent: u64) {
        // Where the caller broke its request off, the end of the answer follows from that.
        let is_broken = self.held.body.as_ref().is_some_and(Replay::is_broken);
        let end = match end {
            End::Upstream if is_broken => End::Caller,
            end => end,
        };
        self.done = true;
        self.owe(false);
        // Where it came to its end somebody has just looked.
        let now = if end == End::Complete {
            clock::recent()
        } else {
            clock::now()
        };
        if let Some(status) = trailers.and_then(grpc_status).filter(|_| self.grpc) {
            self.grpc_status = Some(status);
        }
        self.learn_from(end);
        let complete = self.held.body.as_ref().is_none_or(Replay::is_complete);
        match self.held.lease.take() {
            Some(lease) if end == End::Complete => lease.answered(complete),
            // Dropped: an exchange that is not over cannot be followed by another.
            _ => {}
        }
        match end {
            End::Complete => {}
            End::Upstream => self.flag = self.flag.or(Some(Flag::Reset)),
            End::TimedOut => self.flag = self.flag.or(Some(Flag::Timeout)),
            End::Caller => {}
        }
        let duration = now.saturating_duration_since(self.begun);
        let series = self.series.clone().unwrap_or_else(|| self.unknown());
        series.record(
            self.worker.index,
            self.status,
            self.grpc_status,
            self.flag,
            duration,
        );
        self.log(duration, sent);
        // After an upgrade no HTTP follows, nor where the request is still coming.
        let upgraded = self.status == StatusCode::SWITCHING_PROTOCOLS.as_u16();
        self.downstream.ends(complete && !upgraded);
    }

    /// A response is a success only once its body has come, and for gRPC its status.
    fn learn_from(&mut self, end: End) {
        let (Some(in_flight), Some(destination)) = (&mut self.held.in_flight, &self.destination)
        else {
            return;
        };
        let outcome = match end {
            End::Complete => Outcome::Response {
                status: StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK),
                grpc_status: self.grpc_status,
                flag: self.flag,
            },
            End::Upstream => Outcome::Transport(TransportFailure::Reset),
            // A stream that its caller or its deadline ended says nothing of the endpoint.
            End::TimedOut | End::Caller => Outcome::Cancelled,
        };
        learn(
            &self.worker,
            destination,
            in_flight,
            &Report::of(&outcome, None),
        );
        self.held.in_flight = None;
    }

    /// Requests that named no service that exists.
    fn unknown(&self) -> Arc<HttpSeries> {
        let metrics = &self.worker.shared.metrics;
        metrics.http(
            Direction::Outbound,
            self.worker.own_label(),
            "-",
            DEFAULT_ROUTE,
        )
    }

    fn log(&mut self, duration: Duration, sent: u64) {
        let Some(mut access) = self.access.take() else {
            return;
        };
        access.status = Some(self.status);
        access.grpc_status = self.grpc_status;
        access.flag = self.flag;
        access.bytes_received = self.held.body.as_ref().map_or(0, Replay::received);
        access.bytes_sent = sent;
        access.duration = duration;
        access.tries = self.tries;
        if self.tries < 2 {
            access.retry_reason = None;
        }
        self.worker.shared.access_log.record(move || *access);
    }
}

impl Ending for Record {
    fn moved(&self) {
        self.downstream.moved.set(clock::recent());
        self.owe(true);
    }

    fn waits(&self) {
        self.owe(false);
    }

    fn end(mut self: Box<Self>, end: End, trailers: Option<&HeaderMap>, bytes: u64) {
        self.conclude(end, trailers, bytes);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // The caller went away before there was an answer.
        if !self.done {
            self.conclude(End::Caller, None, 0);
        }
    }
}

fn reason(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Transport(failure) => failure.flag().as_str(),
        Outcome::Response {
            flag: Some(flag), ..
        } => flag.as_str(),
        Outcome::Response { .. } => match classify(outcome) {
            Class::Throttled => "throttled",
            _ => "status",
        },
        Outcome::Cancelled => "cancelled",
        Outcome::CallerDeadline => "deadline",
    }
}

fn access_record(
    worker: &Worker,
    downstream: &Downstream,
    request: &Request<Received>,
) -> AccessRecord {
    let mut access = AccessRecord::new(downstream.direction(), SystemTime::now());
    access.peer = Some(downstream.remote);
    access.source = Some(match &downstream.side {
        Side::Inbound { caller, .. } => caller.source.clone(),
        Side::Outbound { .. } => worker.own_label().clone(),
    });
    access.method = Some(request.method().clone());
    access.path = Some(request.uri().path().to_owned());
    access.authority = request
        .uri()
        .authority()
        .map(|authority| authority.to_string())
        .or_else(|| {
            let host = request.headers().get(http::header::HOST)?;
            Some(String::from_utf8_lossy(host.as_bytes()).into_owned())
        });
    access.version = Some(request.version());
    access.trace_id = request.headers().get("traceparent").and_then(trace_id);
    access.tls = downstream.tls;
    access
}
