//! One try: choose an endpoint, take a connection, send, wait for the head.
//! Tells what became of it; whether it is repeated is decided elsewhere.

use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body_util::BodyExt;
use selvage_policy::balance::{Ask, Picked};
use selvage_policy::blame::was_late;
use selvage_policy::breaker::PROBE_DECIDES_WITHIN;
use selvage_policy::classify::{Class, Outcome, TransportFailure};
use selvage_policy::deadline::{DeadlineOwner, is_as_good_as_over};
use selvage_policy::endpoint::{InFlight, Report};
use selvage_policy::failures::Failures;
use selvage_policy::flag::Flag;
use selvage_policy::retry::{Attempts, Ended, Pushback};
use selvage_policy::said;
use tokio::time::Instant;

use super::limits::{Expired, Limits};
use super::outgoing::Outgoing;
use super::record::Record;
use super::unanswered::{failed, starved, timed_out};
use crate::clock;
use crate::error::{FLAG, ProxyError};
use crate::http::grpc_status;
use crate::http::received::{ReceiveError, Received};
use crate::http::replay::Gate;
use crate::upstream::connect::ConnectError;
use crate::upstream::pool::{Lease, Sent, Unsent};
use crate::upstream::{Destination, Way};
use crate::worker::Worker;

/// An application that never says `100 Continue` gets the body after this long
/// (RFC 9110 §10.1.1: a client need not wait for ever).
const CONTINUE_WAIT: Duration = Duration::from_secs(1);

/// A response whose head has come, with what it holds.
pub(super) struct Answered {
    /// The head, and the body that follows.
    pub(super) response: Response<Received>,
    /// A frame that was read to judge the response by it.
    pub(super) peeked: Option<Frame<Bytes>>,
    /// The connection it comes on.
    pub(super) lease: Lease,
    /// Which way it came.
    pub(super) way: Way,
    /// The flag of another sidecar.
    pub(super) flag: Option<Flag>,
    /// Another sidecar says that it retried in vain.
    pub(super) exhausted: bool,
    /// Its gRPC status, if that is known already.
    pub(super) grpc_status: Option<u32>,
}

/// The endpoint of a try that has not begun.
pub(super) struct Chosen {
    /// The endpoint's index.
    pub(super) index: usize,
    in_flight: InFlight,
}

impl Chosen {
    /// Whether it decides a HalfOpen breaker.
    pub(super) const fn is_probe(&self) -> bool {
        self.in_flight.is_probe()
    }
}

/// What became of a try.
pub(super) struct Tried {
    /// How it ended, as far as is known.
    pub(super) outcome: Outcome,
    /// The response, if there is one.
    pub(super) answered: Option<Box<Answered>>,
    /// Counts as load of the endpoint.
    pub(super) in_flight: InFlight,
    /// What the caller is told, if there is no response.
    pub(super) error: ProxyError,
    /// Whether the endpoint is not to blame, whatever the outcome says.
    pub(super) excused: bool,
    /// What the upstream says about being called again.
    pub(super) pushback: Pushback,
}

impl Tried {
    /// How long the upstream asked to be left alone.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.pushback.at_least()
    }

    /// What the caller is told if nothing follows; `None` for an answer of the
    /// application, which is not kept.
    pub(super) fn failure(&self) -> Option<ProxyError> {
        match &self.answered {
            None => Some(self.error.clone()),
            Some(answered) => answered
                .flag
                .map(|flag| ProxyError::new(flag, "said by the other sidecar")),
        }
    }

    /// Whether the hop below retried in vain already.
    pub(super) fn is_exhausted(&self) -> bool {
        self.answered
            .as_ref()
            .is_some_and(|answered| answered.exhausted)
    }

    /// What it says of its endpoint, where `judged` is how its outcome counts.
    pub(super) fn report(&self, judged: Report) -> Report {
        if self.excused {
            judged.excused()
        } else if self.is_exhausted() {
            judged.from_below()
        } else {
            judged
        }
    }

    /// How its outcome counts, for whom it came to.
    pub(super) fn judged(&self, failures: &Failures) -> Report {
        Report::of(failures, &self.outcome, self.retry_after())
    }

    /// For the decision on what follows.
    pub(super) fn ended(&self, outgoing: &Outgoing) -> Ended {
        Ended {
            outcome: self.outcome,
            replayable: outgoing.body.is_replayable() && outgoing.asked.upgrade.is_none(),
            untouched: outgoing.body.is_untouched(),
            pushback: self.pushback,
            exhausted_below: self.is_exhausted(),
        }
    }
}

/// Why a try has no response.
enum Failure {
    /// A limit of ours: no other endpoint would help.
    Ours(ProxyError),
    /// The upstream.
    Upstream(TransportFailure, String),
    /// It could not be connected to in time; but it was we who did not get to run.
    Starved(String),
    /// Time.
    TimedOut(Expired),
}

/// Chooses the endpoint of the next try.
///
/// # Errors
/// Where no endpoint may be tried.
pub(super) fn choose(
    worker: &Worker,
    destination: &Destination,
    outgoing: &Outgoing,
    attempts: &Attempts,
    retryable: bool,
) -> Result<Chosen, ProxyError> {
    let now = clock::recent().into_std();
    let ask = Ask {
        tried: attempts.tried(),
        retryable,
        key: outgoing.affinity.key(),
    };
    let stays = outgoing.pinned.filter(|_| attempts.tried().is_empty());
    let Picked {
        index,
        in_flight,
        transition,
    } = stays
        .and_then(|index| destination.pinned(index, now))
        .map_or_else(
            || worker.with_rng(|rng| destination.pick(ask, now, rng)),
            Ok,
        )
        .map_err(|error| ProxyError::new(Flag::NoHealthyEndpoint, error.to_string()))?;
    if let Some(transition) = transition {
        worker.note(destination, in_flight.endpoint().key(), transition);
    }
    Ok(Chosen { index, in_flight })
}

/// Tries once.
///
/// # Errors
/// Where nothing was tried: no endpoint may be, or a limit of ours is reached.
pub(super) async fn attempt(
    worker: &Worker,
    destination: &Destination,
    attempts: &mut Attempts,
    outgoing: &Outgoing,
    record: &mut Record,
) -> Result<Tried, ProxyError> {
    let chosen = choose(
        worker,
        destination,
        outgoing,
        attempts,
        attempts.retryable(),
    )
    .inspect_err(|_| record.finds_nobody())?;
    let index = chosen.index;
    attempts.sent_to(index);
    record.tries(index);
    let number = attempts.tries();
    exchange_with(worker, destination, chosen, number, outgoing)
        .await
        .inspect_err(|_| record.sends_nothing(index))
}

/// Tries the endpoint that was chosen; it is the `number`th try. What it begins
/// with is made before there is a future, which would keep it twice.
///
/// # Errors
/// Where a limit of ours is reached.
pub(super) fn exchange_with<'t>(
    worker: &'t Worker,
    destination: &'t Destination,
    chosen: Chosen,
    number: u32,
    outgoing: &'t Outgoing,
) -> impl Future<Output = Result<Tried, ProxyError>> + 't {
    let Chosen {
        index,
        mut in_flight,
    } = chosen;
    destination.pools[index].renew(in_flight.generation());
    let limits = Limits::of(
        &destination.policy().timeouts,
        outgoing,
        &worker.timers,
        clock::recent(),
    );
    async move {
        let sent = {
            let sending = pin!(send(destination, outgoing, index, number, &limits));
            probing(worker, destination, &mut in_flight, sending).await
        };
        let now = clock::now();
        let tried = match sent {
            Ok(mut answered) => {
                in_flight.first_byte(now.into_std());
                answered.exhausted = is_exhausted(worker, outgoing, &answered);
                judge(answered, outgoing, in_flight, &limits).await
            }
            Err(Failure::Ours(error)) => return Err(error),
            Err(Failure::Upstream(failure, reason)) => {
                let error = ProxyError::new(failure.flag(), reason);
                failed(Outcome::Transport(failure), in_flight, error)
            }
            Err(Failure::Starved(reason)) => starved(in_flight, reason),
            Err(Failure::TimedOut(expired)) => timed_out(expired, in_flight, outgoing, &limits),
        };
        Ok(tried)
    }
}

/// Lets a try go on while its HalfOpen endpoint is judged by the time it takes.
async fn probing<T>(
    worker: &Worker,
    destination: &Destination,
    in_flight: &mut InFlight,
    mut sending: Pin<&mut impl Future<Output = T>>,
) -> T {
    let Some(decides) = in_flight.probe_deadline() else {
        return sending.await;
    };
    tokio::select! {
        biased;
        sent = &mut sending => return sent,
        () = tokio::time::sleep_until(Instant::from_std(decides)) => {}
    }
    let late = Report {
        class: Class::HardFailure,
        could_not_connect: false,
        retry_after: None,
    };
    let noticed = clock::now().into_std();
    let late = if was_late(PROBE_DECIDES_WITHIN, decides, noticed) {
        late.excused()
    } else {
        late
    };
    learn(worker, destination, in_flight, &late);
    sending.await
}

/// Reports a try to its endpoint's breaker and load.
pub(super) fn learn(
    worker: &Worker,
    destination: &Destination,
    in_flight: &mut InFlight,
    report: &Report,
) {
    let breaker = &destination.policy().breaker;
    let now = clock::recent().into_std();
    let transition = worker.with_rng(|rng| in_flight.observe(report, breaker, now, rng));
    if let Some(transition) = transition {
        worker.note(destination, in_flight.endpoint().key(), transition);
    }
}

/// Sends the `number`th try.
async fn send(
    destination: &Destination,
    outgoing: &Outgoing,
    index: usize,
    number: u32,
    limits: &Limits<'_>,
) -> Result<Box<Answered>, Failure> {
    let mut way = destination.way(index, &outgoing.asked);
    let mut lease = match destination.lease_at_once(index, way) {
        Some(lease) => lease,
        // Boxed: connecting is rare, and its future is large.
        None => Box::pin(connect(destination, outgoing, index, &mut way, limits)).await?,
    };
    let request = outgoing
        .request(destination, way, number, clock::now())
        .map_err(Failure::Ours)?;
    let unsent = |Unsent { failure, reason }| Failure::Upstream(failure, reason);
    let mut sent = lease.send(request, outgoing.switches()).map_err(unsent)?;
    let response = match &outgoing.gate {
        None => limits.within(Pin::new(&mut sent)).await,
        Some(gate) => Box::pin(gated(gate, limits, &mut sent)).await,
    }
    .map_err(Failure::TimedOut)?
    .map_err(unsent)?;
    // It answers without having asked: what is left of the body is its to read, or to refuse.
    if let Some(gate) = outgoing
        .gate
        .as_ref()
        .filter(|_| response.status().is_success())
    {
        gate.open();
    }
    let flag = way
        .mesh
        .then(|| {
            response
                .headers()
                .get(FLAG)?
                .to_str()
                .ok()
                .and_then(Flag::parse)
        })
        .flatten();
    let grpc_status = if outgoing.grpc {
        grpc_status(response.headers())
    } else {
        None
    };
    Ok(Box::new(Answered {
        response,
        peeked: None,
        lease,
        way,
        flag,
        exhausted: false,
        grpc_status,
    }))
}

/// Whether another sidecar says that retries were in vain below. Where all
/// went well, nobody asks.
fn is_exhausted(worker: &Worker, outgoing: &Outgoing, answered: &Answered) -> bool {
    let well = answered.response.status().is_success() && !outgoing.grpc;
    if well || !answered.way.mesh {
        return false;
    }
    said::says_exhausted(answered.response.headers()).unwrap_or_else(|field| {
        worker.ignores(field);
        false
    })
}

/// Waits for an answer to a request whose body waits for `100 Continue`.
async fn gated(
    gate: &Gate,
    limits: &Limits<'_>,
    sent: &mut Sent,
) -> Result<Result<Response<Received>, Unsent>, Expired> {
    let mut sending = pin!(limits.within(Pin::new(sent)));
    tokio::select! {
        biased;
        response = &mut sending => response,
        () = tokio::time::sleep(CONTINUE_WAIT) => {
            gate.open();
            sending.await
        }
    }
}

/// Waits for a connection.
async fn connect(
    destination: &Destination,
    outgoing: &Outgoing,
    index: usize,
    way: &mut Way,
    limits: &Limits<'_>,
) -> Result<Lease, Failure> {
    let mut leased = limits.within(pin!(destination.lease(index, *way))).await;
    if let Ok(Err(ConnectError::Http1Only(_))) = leased {
        // Known from now on: the second time the way is another.
        *way = destination.way(index, &outgoing.asked);
        leased = limits.within(pin!(destination.lease(index, *way))).await;
    }
    leased
        .map_err(unconnected)?
        .map_err(|error| match error.failure() {
            Some(_) if error.is_starved() => Failure::Starved(error.to_string()),
            Some(failure) => Failure::Upstream(failure, error.to_string()),
            None => Failure::Ours(ProxyError::new(error.flag(), error.to_string())),
        })
}

/// No connection within the limits of the try. Where only the try is over,
/// nothing was sent, and it is the same as if `timeouts.connect` had run out.
fn unconnected(expired: Expired) -> Failure {
    match expired {
        Expired::Try => {
            let reason = "no connection before timeouts.backendRequest ran out".to_owned();
            Failure::Upstream(TransportFailure::Connect, reason)
        }
        Expired::Deadline | Expired::Idle => Failure::TimedOut(expired),
    }
}

/// Judges a response by its head; a gRPC response also by its trailers, where
/// they follow at once and a policy asks for them.
async fn judge(
    mut answered: Box<Answered>,
    outgoing: &Outgoing,
    in_flight: InFlight,
    limits: &Limits<'_>,
) -> Tried {
    let waits_for_status = outgoing.grpc
        // A probe decides by the status, whoever else may want it.
        && (outgoing.peeks || in_flight.is_probe())
        && answered.grpc_status.is_none()
        // A two-way stream may wait for more of the request before it says anything.
        && outgoing.body.is_complete();
    if waits_for_status {
        let decides = in_flight.probe_deadline().map(Instant::from_std);
        let peeked = Box::pin(peek(&mut answered, decides, limits)).await;
        let _ = clock::now();
        match peeked {
            Ok(()) => {}
            Err(Peek::Broken(error)) => {
                let error = ProxyError::new(Flag::Reset, error.to_string());
                let outcome = Outcome::Transport(TransportFailure::Reset);
                return failed(outcome, in_flight, error);
            }
            Err(Peek::Expired(expired)) => return timed_out(expired, in_flight, outgoing, limits),
        }
    }
    let outcome = if gave_up_with_the_caller(&answered, outgoing) {
        Outcome::CallerDeadline
    } else {
        Outcome::Response {
            status: answered.response.status(),
            grpc_status: answered.grpc_status,
            flag: answered.flag,
        }
    };
    // What went well asks for nothing.
    let well = answered.response.status().is_success() && !outgoing.grpc;
    let pushback = if well {
        Pushback::None
    } else {
        Pushback::parse(answered.response.headers())
    };
    let error = ProxyError::new(Flag::BadResponse, "answered");
    let now = clock::recent().into_std();
    let excused = outgoing
        .met()
        .is_some_and(|met| met.excuses(&outcome, in_flight.started(), now));
    Tried {
        outcome,
        answered: Some(answered),
        in_flight,
        error,
        excused,
        pushback,
    }
}

/// Whether the other sidecar ended the request at the deadline it was given,
/// a moment before we would have.
fn gave_up_with_the_caller(answered: &Answered, outgoing: &Outgoing) -> bool {
    let (deadline, owner) = outgoing.deadline;
    answered.flag == Some(Flag::Timeout)
        && owner == DeadlineOwner::Caller
        && is_as_good_as_over(deadline, clock::recent().into_std())
}

/// Why there is no frame to judge by.
enum Peek {
    Broken(ReceiveError),
    Expired(Expired),
}

/// Reads the frame after the head, at most until a probe is decided.
async fn peek(
    answered: &mut Answered,
    decides: Option<Instant>,
    limits: &Limits<'_>,
) -> Result<(), Peek> {
    let mut frame = answered.response.body_mut().frame();
    let peeking = limits.within(Pin::new(&mut frame));
    let peeked = match decides {
        None => peeking.await,
        // A stream that goes on has answered with its head.
        Some(decides) => match tokio::time::timeout_at(decides, peeking).await {
            Ok(peeked) => peeked,
            Err(_) => return Ok(()),
        },
    };
    match peeked.map_err(Peek::Expired)? {
        Some(Ok(frame)) => {
            answered.grpc_status = frame.trailers_ref().and_then(grpc_status);
            answered.peeked = Some(frame);
            Ok(())
        }
        None => Ok(()),
        Some(Err(error)) => Err(Peek::Broken(error)),
    }
}
