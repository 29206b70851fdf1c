//! What a connection carries once it is known: HTTP, handed request by request
//! to the journey, or opaque bytes, handed to a tunnel. HTTP ends when the drain
//! closes its direction, or when the peer's certificate expires.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use selvage_policy::balance::Ask;
use selvage_policy::classify::{Outcome, TransportFailure};
use selvage_policy::endpoint::Report;
use selvage_policy::flag::Flag;
use selvage_policy::route::StreamRoute;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::Rest;
use super::http1::http1;
use super::http2::http2;
use super::log::ConnectionLog;
use super::prefixed::Prefixed;
use crate::error::ProxyError;
use crate::forward::{Abort, Ended, tunnel};
use crate::request::{Downstream, Side, admit_connection};
use crate::telemetry::metrics::{TcpRecord, TcpSeries};
use crate::tls::Inside;
use crate::upstream::Destination;
use crate::upstream::connect::Connected;
use crate::worker::Worker;

/// Endpoints tried for a connection of opaque bytes: none of them was spoken to yet.
const TRIES: u32 = 3;
/// A connection that was told to finish and has nothing in flight ends after this long.
pub(super) const LAST_WORD: Duration = Duration::from_secs(5);

/// What HTTP is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    /// 1.0 or 1.1.
    Http1,
    /// 2.
    Http2,
}

/// HTTP to the connection's end.
pub(super) fn http<S>(
    worker: Rc<Worker>,
    stream: Prefixed<S>,
    downstream: Downstream,
    spoken: Spoken,
) -> Rest
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match spoken {
        Spoken::Http1 => Box::pin(http1(worker, stream, downstream)),
        Spoken::Http2 => Box::pin(async move { http2(&worker, stream, downstream).await }),
    }
}

/// Resolves when the peer's certificate has expired.
pub(super) async fn expiry(downstream: &Downstream) {
    let Some(peer) = &downstream.peer else {
        return std::future::pending().await;
    };
    // Clocks jump: look again now and then instead of trusting one long sleep.
    const LOOK: Duration = Duration::from_secs(60);
    while let Ok(left) = peer.not_after.duration_since(SystemTime::now()) {
        tokio::time::sleep(left.min(LOOK).max(Duration::from_millis(1))).await;
    }
}

/// Opaque bytes to the connection's end.
pub(super) fn opaque<S>(worker: Rc<Worker>, stream: S, downstream: Downstream) -> Rest
where
    S: AsyncRead + AsyncWrite + Abort + Unpin + 'static,
{
    Box::pin(async move { tunneled(&worker, stream, &downstream, None).await })
}

/// Opaque bytes to the connection's end, where a route leads them.
pub(super) fn opaque_by<S>(
    worker: Rc<Worker>,
    stream: S,
    downstream: Downstream,
    route: Arc<StreamRoute>,
) -> Rest
where
    S: AsyncRead + AsyncWrite + Abort + Unpin + 'static,
{
    Box::pin(async move { tunneled(&worker, stream, &downstream, Some(route)).await })
}

async fn tunneled<S>(
    worker: &Rc<Worker>,
    stream: S,
    downstream: &Downstream,
    route: Option<Arc<StreamRoute>>,
) where
    S: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let mut log = ConnectionLog::begin(worker, downstream);
    if let Some(route) = &route {
        log.follows(&route.label);
    }
    let found = match (&downstream.side, &route) {
        (Side::Inbound { app, caller }, _) => Ok((app.clone(), caller.tcp.clone())),
        (_, Some(route)) => worker.stream_backend(route).await.map(with_series),
        (Side::Outbound { purpose }, None) => {
            let crate::accept::Purpose::Upstream { service, port } = &**purpose else {
                return;
            };
            log.named(service);
            worker.by_name(service, *port).await.map(with_series)
        }
        (Side::Gateway { .. }, None) => return,
    };
    let (destination, series) = match found {
        Ok(found) => found,
        Err(error) => {
            tracing::debug!(remote = %downstream.remote, flag = error.flag.as_str(),
                detail = %error.detail, "connection refused");
            if route.is_some() {
                let metrics = &worker.shared.metrics;
                let nowhere = metrics.tcp(downstream.direction(), worker.own_label(), "-");
                nowhere.open(worker.index).set_flag(error.flag);
            }
            log.ends(Some(error.flag));
            stream.abort();
            return;
        }
    };
    log.goes_to(&destination);
    let record = series.open(worker.index);
    let _admitted = match admit_connection(worker, downstream).await {
        Ok(admitted) => admitted,
        Err(error) => {
            tracing::debug!(destination = &*destination.label, flag = error.flag.as_str(),
                detail = %error.detail, "connection turned away");
            record.set_flag(error.flag);
            log.ends(Some(error.flag));
            stream.abort();
            return;
        }
    };
    let flag = match carry(worker, &destination, downstream, stream, &record, &mut log).await {
        Ok(flag) => flag,
        Err(error) => {
            tracing::debug!(destination = &*destination.label, flag = error.flag.as_str(),
                detail = %error.detail, "connection refused");
            Some(error.flag)
        }
    };
    if let Some(flag) = flag {
        record.set_flag(flag);
    }
    log.ends(flag);
}

fn with_series(destination: Rc<Destination>) -> (Rc<Destination>, Arc<TcpSeries>) {
    let series = destination.tcp.clone();
    (destination, series)
}

/// Carries it to one of the endpoints; the flag it ends with.
async fn carry<S>(
    worker: &Rc<Worker>,
    destination: &Rc<Destination>,
    downstream: &Downstream,
    stream: S,
    record: &TcpRecord,
    log: &mut ConnectionLog<'_>,
) -> Result<Option<Flag>, ProxyError>
where
    S: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let policy = destination.policy();
    let overflow = || ProxyError::new(Flag::Overflow, "limits.maxConnections is reached");
    let Some(_permit) = destination.live.admit_connection(&policy.limits) else {
        stream.abort();
        return Err(overflow());
    };
    let (connected, mut in_flight) = match reach(worker, destination, downstream, log).await {
        Ok(reached) => reached,
        Err(error) => {
            stream.abort();
            return Err(error);
        }
    };
    // Told to close, a tunnel goes on: only its ends know when it is over. What
    // is left at the drain's timeout is cut.
    let carried = tunnel(stream, connected.io, policy.timeouts.idle_tcp, Some(record)).await;
    log.carried(&carried);
    observe(worker, destination, &mut in_flight, &well());
    Ok(match carried.ended {
        Ended::Cleanly | Ended::Downstream => None,
        Ended::Upstream => Some(Flag::Reset),
        Ended::Idle => Some(Flag::Timeout),
    })
}

/// A connection to one of the endpoints; another is tried where one is away.
async fn reach(
    worker: &Rc<Worker>,
    destination: &Rc<Destination>,
    downstream: &Downstream,
    log: &mut ConnectionLog<'_>,
) -> Result<(Connected, selvage_policy::endpoint::InFlight), ProxyError> {
    let policy = destination.policy();
    let key = destination.key_of_connection(downstream.remote.ip());
    let mut tried = Vec::new();
    loop {
        let now = Instant::now().into_std();
        let ask = Ask {
            tried: &tried,
            retryable: true,
            key,
        };
        let picked = worker
            .with_rng(|rng| destination.pick(ask, now, rng))
            .map_err(|error| ProxyError::new(Flag::NoHealthyEndpoint, error.to_string()))?;
        let mut in_flight = picked.in_flight;
        if let Some(transition) = picked.transition {
            worker.note(destination, in_flight.endpoint().key(), transition);
        }
        tried.push(picked.index);
        log.tries(destination, picked.index);
        let pool = &destination.pools[picked.index];
        let error = match pool.open(Inside::Tcp, policy.timeouts.connect).await {
            Ok(connected) => {
                if in_flight.is_probe() {
                    observe(worker, destination, &mut in_flight, &well());
                }
                return Ok((connected, in_flight));
            }
            Err(error) => error,
        };
        let refused = ProxyError::new(error.flag(), error.to_string());
        let Some(failure) = error.failure() else {
            return Err(refused);
        };
        let outcome = if error.is_starved() {
            Outcome::Cancelled
        } else {
            Outcome::Transport(failure)
        };
        observe(worker, destination, &mut in_flight, &outcome);
        let again = matches!(failure, TransportFailure::Connect | TransportFailure::Tls);
        if !again || tried.len() as u32 >= TRIES {
            return Err(refused);
        }
    }
}

/// What a connection that was reached says of its endpoint.
const fn well() -> Outcome {
    Outcome::Response {
        status: ::http::StatusCode::OK,
        grpc_status: None,
        flag: None,
    }
}

fn observe(
    worker: &Worker,
    destination: &Destination,
    in_flight: &mut selvage_policy::endpoint::InFlight,
    outcome: &Outcome,
) {
    let now = Instant::now().into_std();
    let breaker = &destination.policy().breaker;
    let report = Report::of(&destination.policy().failures, outcome, None);
    let transition = worker.with_rng(|rng| in_flight.observe(&report, breaker, now, rng));
    if let Some(transition) = transition {
        worker.note(destination, in_flight.endpoint().key(), transition);
    }
}
