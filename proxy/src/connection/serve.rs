//! What a connection carries once it is known: HTTP, handed request by request
//! to the journey, or opaque bytes, handed to a tunnel. Both end when the
//! drain closes their direction, HTTP also when the peer's certificate expires.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use selvage_policy::classify::{Outcome, TransportFailure};
use selvage_policy::endpoint::Report;
use selvage_policy::flag::Flag;
use selvage_policy::snapshot::TrafficPolicy;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::http2::http2;
use crate::error::ProxyError;
use crate::forward::{Abort, Ended, tunnel};
use crate::http::door::{Door, DoorBell, DoorLimits};
use crate::http::received::Received;
use crate::lifecycle::Direction;
use crate::request::{Downstream, Side, handle};
use crate::telemetry::metrics::TcpRecord;
use crate::tls::Inside;
use crate::upstream::Destination;
use crate::upstream::connect::Connected;
use crate::worker::{DEFAULT_ROUTE, Worker};

/// Endpoints tried for a connection of opaque bytes: none of them was spoken to yet.
const TRIES: u32 = 3;
/// What hyper takes by itself.
const HYPER_HEADERS: usize = 100;
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

/// Serves HTTP to the connection's end.
pub(super) async fn http<S>(worker: &Rc<Worker>, stream: S, downstream: Downstream, spoken: Spoken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match spoken {
        Spoken::Http1 => Box::pin(http1(worker, stream, downstream)).await,
        Spoken::Http2 => Box::pin(http2(worker, stream, downstream)).await,
    }
}

async fn http1<S>(worker: &Rc<Worker>, stream: S, mut downstream: Downstream)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let settings = &worker.shared.settings;
    let bell = Arc::new(DoorBell::default());
    downstream.bell = Some(bell.clone());
    let downstream = Rc::new(downstream);
    let limits = DoorLimits {
        head: settings.header_timeout,
        idle: TrafficPolicy::default().timeouts.idle,
    };
    let door = Door::new(stream, bell.clone(), limits);
    let mut builder = http1::Builder::new();
    builder.max_header_size(settings.header_bytes);
    if settings.head.count != HYPER_HEADERS {
        // Said at all, it costs an allocation a request.
        builder.max_headers(settings.head.count);
    }
    let connection = builder
        .serve_connection(TokioIo::new(door), service(worker, &downstream))
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = until_told(worker, &downstream, connection.as_mut(), |connection| {
        connection.graceful_shutdown();
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(remote = %downstream.remote, %error, "HTTP/1 connection");
    }
    if let Some(flag) = bell.refused() {
        malformed(worker, &downstream, flag);
    }
}

/// The journey, as hyper calls it. Its future lies within hyper's own allocation.
fn service(
    worker: &Rc<Worker>,
    downstream: &Rc<Downstream>,
) -> impl hyper::service::Service<
    ::http::Request<hyper::body::Incoming>,
    Response = ::http::Response<crate::http::body::ResponseBody>,
    Error = Infallible,
> + 'static {
    let (worker, downstream) = (worker.clone(), downstream.clone());
    service_fn(move |request: ::http::Request<hyper::body::Incoming>| {
        let (worker, downstream) = (worker.clone(), downstream.clone());
        let request = request.map(Received::Http1);
        async move { Ok(handle(worker, downstream, request).await) }
    })
}

/// Runs a connection until it ends by itself, or is told to finish: by the
/// drain, or by the end of the peer's certificate.
async fn until_told<C, E>(
    worker: &Worker,
    downstream: &Downstream,
    mut connection: Pin<&mut C>,
    shut: impl Fn(Pin<&mut C>),
) -> Result<(), E>
where
    C: Future<Output = Result<(), E>>,
{
    let closing = worker.shared.lifecycle.closing(downstream.direction());
    tokio::select! {
        biased;
        result = &mut connection => return result,
        () = closing.cancelled() => {}
        () = expiry(downstream) => {}
    }
    shut(connection.as_mut());
    // A peer that never speaks would never let it end.
    loop {
        tokio::select! {
            biased;
            result = &mut connection => return result,
            () = tokio::time::sleep(LAST_WORD) => {
                if downstream.streams.get() == 0 {
                    return Ok(());
                }
            }
        }
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

/// A head that never reached the journey is counted all the same.
fn malformed(worker: &Worker, downstream: &Downstream, flag: Flag) {
    let metrics = &worker.shared.metrics;
    let series = match &downstream.side {
        Side::Inbound { caller, .. } => caller.http.clone(),
        Side::Outbound { .. } => {
            metrics.http(Direction::Outbound, worker.own_label(), "-", DEFAULT_ROUTE)
        }
    };
    series.record(
        worker.index,
        flag.status().as_u16(),
        None,
        Some(flag),
        Duration::ZERO,
    );
}

/// Carries opaque bytes to the connection's end.
pub(super) async fn opaque<S>(worker: &Rc<Worker>, stream: S, downstream: Downstream)
where
    S: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let (destination, series) = match &downstream.side {
        Side::Inbound { app, caller } => (app.clone(), caller.tcp.clone()),
        Side::Outbound { purpose } => {
            let crate::accept::Purpose::Upstream { service, port } = &**purpose else {
                return;
            };
            match worker.by_name(service, *port).await {
                Ok(destination) => (destination.clone(), destination.tcp.clone()),
                Err(error) => {
                    tracing::debug!(%service, flag = error.flag.as_str(), "connection refused");
                    stream.abort();
                    return;
                }
            }
        }
    };
    let record = series.open(worker.index);
    let carried = carry(worker, &destination, stream, &record).await;
    if let Err(error) = carried {
        record.set_flag(error.flag);
        tracing::debug!(destination = &*destination.label, flag = error.flag.as_str(),
            detail = %error.detail, "connection refused");
    }
}

async fn carry<S>(
    worker: &Rc<Worker>,
    destination: &Rc<Destination>,
    stream: S,
    record: &TcpRecord,
) -> Result<(), ProxyError>
where
    S: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let policy = destination.policy();
    let overflow = || ProxyError::new(Flag::Overflow, "limits.maxConnections is reached");
    let Some(_permit) = destination.live.admit_connection(&policy.limits) else {
        stream.abort();
        return Err(overflow());
    };
    let (connected, mut in_flight) = match reach(worker, destination).await {
        Ok(reached) => reached,
        Err(error) => {
            stream.abort();
            return Err(error);
        }
    };
    // Told to close, a tunnel goes on: only its ends know when it is over. What
    // is left at the drain's timeout is cut.
    let carried = tunnel(stream, connected.io, policy.timeouts.idle_tcp, Some(record)).await;
    match carried.ended {
        Ended::Cleanly | Ended::Downstream => {}
        Ended::Upstream => record.set_flag(Flag::Reset),
        Ended::Idle => record.set_flag(Flag::Timeout),
    }
    observe(worker, destination, &mut in_flight, &well());
    Ok(())
}

/// A connection to one of the endpoints; another is tried where one is away.
async fn reach(
    worker: &Rc<Worker>,
    destination: &Rc<Destination>,
) -> Result<(Connected, selvage_policy::endpoint::InFlight), ProxyError> {
    let policy = destination.policy();
    let mut tried = Vec::new();
    loop {
        let now = Instant::now().into_std();
        let picked = worker
            .with_rng(|rng| destination.pick(&tried, true, now, rng))
            .map_err(|error| ProxyError::new(Flag::NoHealthyEndpoint, error.to_string()))?;
        let mut in_flight = picked.in_flight;
        if let Some(transition) = picked.transition {
            worker.note(destination, in_flight.endpoint().key(), transition);
        }
        tried.push(picked.index);
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
        observe(
            worker,
            destination,
            &mut in_flight,
            &Outcome::Transport(failure),
        );
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
    let report = Report::of(outcome, None);
    let transition = worker.with_rng(|rng| in_flight.observe(&report, breaker, now, rng));
    if let Some(transition) = transition {
        worker.note(destination, in_flight.endpoint().key(), transition);
    }
}
