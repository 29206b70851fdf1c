//! What is known of a request by its end: counted, logged, and given back.
//! It holds what must last until the last byte, and lets go of it exactly once,
//! however the request ends.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use selvage_policy::blame::Met;
use selvage_policy::classify::{Class, Outcome, TransportFailure, classify};
use selvage_policy::endpoint::{InFlight, Report};
use selvage_policy::flag::Flag;
use selvage_policy::retry::{Attempts, RetryOutcome, WhyReturned};
use selvage_policy::said::Said;
use selvage_policy::server::{Admission, Admitted, Waits};
use selvage_policy::service::RequestPermit;
use selvage_policy::trace::{Trace, trace_id};
use tokio::time::Instant;

use super::crossing::Crossing;
use super::downstream::{Downstream, Follows, Side};
use super::outgoing::Outgoing;
use super::protect;
use super::route::Dress;
use super::send::{Tried, learn};
use super::told::told;
use super::tries::Tries;
use crate::clock;
use crate::error::ProxyError;
use crate::http::body::{End, Ending};
use crate::http::received::Received;
use crate::http::replay::Replay;
use crate::http::{grpc_status, is_grpc};
use crate::lifecycle::Direction;
use crate::telemetry::metrics::{ActiveRequest, HttpSeries};
use crate::telemetry::told::Told;
use crate::upstream::Destination;
use crate::upstream::pool::Lease;
use crate::worker::{DEFAULT_ROUTE, Worker};

/// The status recorded where the caller went away before there was one.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// When nobody waits for an answer any more.
type Deadline = std::time::Instant;

/// What a request holds until it ends.
#[derive(Default)]
struct Held {
    permit: Option<RequestPermit>,
    admitted: Option<Admitted>,
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
    /// What is told whatever the answer says.
    kept_flag: Option<Flag>,
    tries: Tries,
    crossing: Crossing,
    /// It was repeated in vain, or found nobody, and nothing stands in.
    in_vain: bool,
    deadline: Option<Met>,
    held: Held,
    _active: ActiveRequest,
    trace: Option<Box<Trace>>,
    told: Option<Box<Told>>,
    dress: Option<Box<Dress>>,
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
            Side::Outbound { .. } | Side::Gateway { .. } => None,
        };
        let trace = worker
            .shared
            .spans
            .as_ref()
            .map(|spans| Box::new(worker.with_rng(|rng| spans.begin(request.headers(), rng))));
        let sampled = trace.as_ref().is_some_and(|trace| trace.sampled);
        let told = (sampled || worker.shared.logs())
            .then(|| Box::new(told(worker, downstream, request, trace.as_deref())));
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
            kept_flag: None,
            tries: Tries::default(),
            crossing: Crossing::None,
            in_vain: false,
            deadline: None,
            held: Held::default(),
            _active: worker.shared.metrics.active(worker.index, direction),
            trace,
            told,
            dress: None,
            owed: Cell::new(false),
            done: false,
        })
    }

    /// Says to the next hop which trace it belongs to, where there is tracing.
    pub(super) fn traces(&mut self, headers: &mut HeaderMap) {
        let Some(trace) = &self.trace else {
            return;
        };
        trace.write(headers);
        if let Some(span) = self.told.as_mut().and_then(|told| told.span.as_mut()) {
            span.carries(headers);
        }
    }

    /// Takes its place among the requests of its trace; answers when nobody
    /// waits for it any more.
    pub(super) fn crosses(&mut self, said: &Said, headers: &HeaderMap) -> Option<Deadline> {
        if let Some(told) = &mut self.told {
            told.attempt = said.attempt.filter(|_| self.downstream.peer.is_some());
        }
        let begun = self.begun.into_std();
        let asked = said.waits.and_then(|waits| begun.checked_add(waits));
        let trace = match &self.trace {
            Some(trace) => Some(trace.context.trace),
            None if said.traced => trace_id(headers),
            None => None,
        };
        let Some(trace) = trace else {
            return asked;
        };
        let (crossing, asked) = Crossing::of(&self.worker, &self.downstream, trace, asked, begun);
        self.crossing = crossing;
        asked
    }

    /// Says to the caller what only its sidecar is to know.
    pub(super) fn marks(&self, headers: &mut HeaderMap) {
        self.crossing.marks(headers);
    }

    /// The head of an answer is there.
    fn heads(&mut self) {
        if self.in_vain {
            self.crossing.exhausts(&self.worker);
        }
        if let Some(told) = &mut self.told {
            told.first_byte = Some(clock::recent().saturating_duration_since(self.begun));
        }
    }

    /// Where it goes is known.
    pub(super) fn goes_to(&mut self, destination: &Rc<Destination>) {
        if self.downstream.direction() == Direction::Outbound {
            self.series = Some(destination.http.clone());
        }
        self.destination = Some(destination.clone());
        if let Some(told) = &mut self.told {
            told.destination = Some(destination.label.clone());
            told.route = Some(destination.route.clone());
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

    /// Keeps its place at the application until the response has ended, or says
    /// that there is one to wait for.
    pub(super) fn takes(&mut self, admission: Admission) -> Option<Waits> {
        match admission {
            Admission::Admitted(admitted) => {
                self.held.admitted = Some(admitted);
                None
            }
            Admission::Waits(waits) => Some(waits),
        }
    }

    /// Waits for a place at the application.
    pub(super) async fn waits_for_place(&mut self, waits: Waits) -> Result<(), ProxyError> {
        self.held.admitted = Some(protect::wait(waits).await?);
        Ok(())
    }

    /// What a try took, for the limit of the application's port.
    pub(super) fn timed(&mut self, app: &Destination, tried: &Tried, outgoing: &Outgoing) {
        if let Some(admitted) = &mut self.held.admitted {
            protect::learn(admitted, &app.policy().failures, tried, outgoing);
        }
    }

    /// The request becomes a tunnel, which keeps what is counted while it lasts.
    pub(super) fn tunnels(&mut self) -> Option<Admitted> {
        let mut admitted = self.held.admitted.take()?;
        admitted.tunnels();
        Some(admitted)
    }

    /// The policy that denied it, for the log alone.
    pub(super) fn denied_by(&mut self, policy: &str) {
        if let Some(told) = &mut self.told {
            told.denied_by = Some(policy.into());
        }
    }

    /// Its body, for the count of bytes, and its deadline.
    pub(super) fn sends(&mut self, outgoing: &Outgoing) {
        self.held.body = Some(outgoing.body.clone());
        self.deadline = outgoing.met();
    }

    /// A try begins, at the endpoint at `index`.
    pub(super) const fn tries(&mut self, index: usize) {
        self.tries.begin(index);
    }

    /// A hedge of the try under way begins, at the endpoint at `index`.
    pub(super) const fn hedges(&mut self, index: usize) {
        self.tries.begin_beside(index);
    }

    /// Of a try and its hedge, the one at `index` is what comes of both.
    pub(super) fn prefers(&mut self, index: usize) {
        self.tries.prefer(index);
    }

    /// A limit of ours stood before the try that began at `index`.
    pub(super) fn sends_nothing(&mut self, index: usize) {
        self.tries.withdraw(index);
    }

    /// A try has come to its head, or to nothing. What the head already says
    /// is learnt; a success is one only when its body has come.
    pub(super) fn tried(
        &mut self,
        destination: &Destination,
        tried: &mut Tried,
        attempts: &Attempts,
    ) {
        self.tries
            .settle(self.told.as_deref_mut(), Some(destination));
        let judged = tried.judged(&destination.policy().failures);
        let report = tried.report(judged);
        if tried.answered.is_none() || report.class != Class::Success || tried.in_flight.is_probe()
        {
            learn(&self.worker, destination, &mut tried.in_flight, &report);
        }
        if attempts.retries() > 0 {
            let outcome = match tried.answered {
                Some(_) => RetryOutcome::of(judged.class),
                None => RetryOutcome::Failure,
            };
            destination.series.retry(self.worker.index, outcome);
        }
        if let Some(told) = &mut self.told {
            told.upstream = tried.in_flight.latency();
        }
    }

    /// The last try, which ended so, is followed by another.
    pub(super) fn retries(&mut self, outcome: &Outcome) {
        if let Some(told) = &self.told {
            self.tries.fail(outcome, self.begun, told);
        }
    }

    /// No further try follows.
    pub(super) fn returns(&mut self, destination: &Destination, why: WhyReturned, tried: &Tried) {
        if let Some(outcome) = why.outcome() {
            destination.series.retry(self.worker.index, outcome);
            if let Some(told) = &mut self.told {
                told.retry_refused = Some(outcome.as_str());
            }
        }
        let passed_on = tried.is_exhausted()
            && classify(&destination.policy().failures, &tried.outcome).is_failure();
        if why.marks_exhausted() || passed_on {
            self.in_vain = true;
        }
        if why == WhyReturned::BudgetExhausted {
            destination.series.budget_exhausted(self.worker.index);
        }
    }

    /// No endpoint can be asked, here or in vain by whoever repeats it.
    pub(super) const fn finds_nobody(&mut self) {
        self.in_vain = true;
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
        self.heads();
        self.status = status.as_u16();
        self.grpc_status = grpc_status;
        self.flag = flag;
        self.held.lease = lease;
        self.held.in_flight = Some(in_flight);
    }

    /// Where it came from.
    pub(super) fn source(&self) -> IpAddr {
        self.downstream.remote.ip()
    }

    /// Something happened to it that is told however it is answered.
    pub(super) fn keeps(&mut self, flag: Flag) {
        self.kept_flag = Some(flag);
    }

    /// Its service has failed, with this flag if with any, and something stands in.
    pub(super) fn falls_back(&mut self, flag: Option<Flag>) {
        self.kept_flag = self.kept_flag.or(flag);
        self.in_vain = false;
        // The service has nothing more to do with it.
        self.held.permit = None;
    }

    /// Another service stands in. It is still counted as a request of the first.
    pub(super) fn goes_on_to(&mut self, destination: &Rc<Destination>) {
        self.destination = Some(destination.clone());
    }

    /// An answer of our own that is no failure is given.
    pub(super) fn answers_itself(&mut self, status: StatusCode, grpc_status: Option<u32>) {
        self.heads();
        self.status = status.as_u16();
        self.grpc_status = grpc_status;
    }

    /// The rule with this label is its; what no service answers is counted in `series`.
    pub(super) fn follows(&mut self, label: &Arc<str>, series: &Arc<HttpSeries>) {
        self.series = Some(series.clone());
        if let Some(told) = &mut self.told {
            told.route = Some(label.clone());
        }
    }

    /// What its rule does to the answer.
    pub(super) fn wears(&mut self, dress: Option<Box<Dress>>) {
        self.dress = dress;
    }

    /// An endpoint of a destination has answered.
    pub(super) fn answered_by(&mut self, destination: &Destination, in_flight: &InFlight) {
        if let Some(dress) = &mut self.dress {
            dress.answered(destination, in_flight.endpoint().key());
        }
    }

    /// The head of the answer as its rule wants it.
    pub(super) fn dresses(&mut self, headers: &mut HeaderMap) {
        if let Some(dress) = self.dress.take() {
            dress.put_on(headers);
        }
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
        self.heads();
        self.flag = Some(error.flag);
        if error.is_reset() {
            self.status = 0;
            self.grpc_status = None;
        } else {
            self.status = status.as_u16();
            self.grpc_status = self.grpc.then(|| error.grpc_status());
        }
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
        self.tries
            .settle(self.told.as_deref_mut(), self.destination.as_deref());
        // Where its own answer came to its end, the application is done.
        let answered = end == End::Complete && self.held.in_flight.is_some();
        self.crossing.ends(self.held.body.is_some() && !answered);
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
        if let Some(admitted) = self.held.admitted.as_mut().filter(|_| end == End::Caller) {
            admitted.given_up(now.into_std());
        }
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
        self.flag = self.kept_flag.or(self.flag);
        let duration = now.saturating_duration_since(self.begun);
        let series = self.series.clone().unwrap_or_else(|| self.unknown());
        series.record(
            self.worker.index,
            self.status,
            self.grpc_status,
            self.flag,
            duration,
        );
        self.tell(end, duration, sent);
        self.downstream.ends(match self.status {
            _ if self.status == StatusCode::SWITCHING_PROTOCOLS => Follows::Tunnel,
            _ if complete => Follows::Request,
            _ => Follows::Upload,
        });
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
        let judged = Report::of(&destination.policy().failures, &outcome, None);
        let now = clock::recent().into_std();
        let excused = |met: Met| met.excuses(&outcome, in_flight.started(), now);
        let report = if self.deadline.is_some_and(excused) {
            judged.excused()
        } else {
            judged
        };
        learn(&self.worker, destination, in_flight, &report);
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

    fn tell(&mut self, end: End, duration: Duration, sent: u64) {
        let Some(mut told) = self.told.take() else {
            return;
        };
        told.status = Some(self.status);
        told.grpc_status = self.grpc_status;
        told.flag = self.flag;
        told.bytes_received = self.held.body.as_ref().map_or(0, Replay::received);
        told.bytes_sent = sent;
        told.duration = duration;
        told.tries = self.tries.count();
        if let Some(span) = &mut told.span {
            span.abandoned = end == End::Caller;
        }
        self.worker.shared.tell(told);
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
