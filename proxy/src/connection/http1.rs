//! An HTTP/1 connection from its first request to its end. While requests come
//! it is hyper's. After a short silence it is taken back and parked: hyper's
//! buffers are freed, and what waits for the next byte is the bare socket.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::http::{Request, Response};
use futures_util::FutureExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use selvage_policy::flag::Flag;
use selvage_policy::snapshot::TrafficPolicy;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::aside::Aside;
use super::prefixed::Prefixed;
use super::serve::{LAST_WORD, expiry};
use crate::clock;
use crate::error::Reset;
use crate::http::body::ResponseBody;
use crate::http::door::{Door, DoorBell, DoorLimits};
use crate::http::received::Received;
use crate::lifecycle::Direction;
use crate::request::{Downstream, Side, handle};
use crate::telemetry::told::{Spoken, Tls};
use crate::timers::Alarm;
use crate::worker::{DEFAULT_ROUTE, Worker};

/// A connection without a request for this long is parked: long enough that one
/// in steady use never is, and short enough that a burst of connections leaves
/// soon what it took. Where it was too short, hyper's buffers are made anew.
const QUIET: Duration = Duration::from_millis(250);
/// What hyper takes by itself.
const HYPER_HEADERS: usize = 100;

/// Serves HTTP/1 to the connection's end. What is large lies behind pointers,
/// and what waits holds only the socket: it may wait for long.
pub(super) fn http1<S>(
    worker: Rc<Worker>,
    stream: Prefixed<S>,
    mut downstream: Downstream,
) -> impl Future<Output = ()> + 'static
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let bell = Arc::new(DoorBell::default());
    downstream.bell = Some(bell.clone());
    let downstream = Rc::new(downstream);
    let mut place = Some(stream);
    async move {
        let settings = &worker.shared.settings;
        let idle = TrafficPolicy::default().timeouts.idle;
        let keeper = Keeper {
            handle: |request: Request<Incoming>| {
                let request = request.map(Received::Http1);
                handle(worker.clone(), downstream.clone(), request)
            },
            downstream: &downstream,
            bell: &bell,
            closing: downstream.closing(&worker.shared.lifecycle),
            bounds: Bounds {
                limits: DoorLimits {
                    head: settings.header_timeout,
                    idle,
                    quiet: idle.is_none_or(|idle| idle > QUIET).then_some(QUIET),
                    drop_ends: downstream.tls == Tls::None,
                },
                header_bytes: settings.header_bytes,
                headers: settings.head.count,
            },
            upgrades: Cell::new(false),
        };
        keeper.keep(&mut place).await;
        if let Some(flag) = bell.refused() {
            malformed(&worker, &downstream, flag);
        }
    }
}

/// Bounds of a connection.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    limits: DoorLimits,
    /// Bytes of a head.
    header_bytes: usize,
    /// Fields of a head.
    headers: usize,
}

/// One connection's keeper; where the connection is, is given to it.
struct Keeper<'c, H> {
    /// The journey.
    handle: H,
    downstream: &'c Downstream,
    bell: &'c Arc<DoorBell>,
    closing: &'c CancellationToken,
    bounds: Bounds,
    /// An upgrade was asked for.
    upgrades: Cell<bool>,
}

/// hyper ends a connection whose request has no answer.
fn unless_reset(response: Response<ResponseBody>) -> Result<Response<ResponseBody>, Reset> {
    match response.extensions().get::<Reset>() {
        Some(reset) => Err(*reset),
        None => Ok(response),
    }
}

/// Wakes a connection when its caller has taken too long.
#[derive(Default)]
struct Watch {
    alarm: Option<Alarm>,
    /// The moment that has been told of.
    told: Option<Instant>,
}

impl Watch {
    /// Whether the moment has come, and nobody heard of it yet. There is a timer
    /// only from here on: most short connections end before they wait.
    fn rings(&mut self, due: Option<Instant>, cx: &mut Context<'_>) -> bool {
        let Some(due) = due.filter(|due| self.told != Some(*due)) else {
            return false;
        };
        let alarm = self.alarm.get_or_insert_with(|| Alarm::at(due));
        let rings = alarm.poll(due, cx).is_ready();
        if rings {
            self.told = Some(due);
            let _ = clock::now();
        }
        rings
    }
}

/// Why hyper is left.
enum Stop {
    Over(hyper::Result<()>),
    Quiet,
    Told,
}

impl<H, F> Keeper<'_, H>
where
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Response<ResponseBody>>,
{
    /// Serves what lies in `place`, awake and parked in turns, to its end.
    async fn keep<S>(&self, place: &mut Option<Prefixed<S>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        loop {
            // Boxed: while the connection is parked nothing of it is left.
            Box::pin(self.awake(place)).await;
            let Some(stream) = place else { return };
            if !self.park(stream).await {
                *place = None;
            }
        }
    }

    /// Serves requests as they come. The stream is put back where another may follow.
    async fn awake<S>(&self, place: &mut Option<Prefixed<S>>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(stream) = place.take() else { return };
        let door = Door::new(stream, self.bell.clone(), self.bounds.limits);
        let mut builder = http1::Builder::new();
        builder.max_header_size(self.bounds.header_bytes);
        if self.bounds.headers != HYPER_HEADERS {
            // Said at all, it costs an allocation a request.
            builder.max_headers(self.bounds.headers);
        }
        // The journey's future lies within hyper's own allocation.
        let service = service_fn(|request: Request<Incoming>| {
            if request.extensions().get::<OnUpgrade>().is_some() {
                self.upgrades.set(true);
            }
            (self.handle)(request).map(unless_reset)
        });
        let mut connection = builder
            .serve_connection(TokioIo::new(door), service)
            .with_upgrades();
        let result = match self.run(&mut connection).await {
            Stop::Over(result) => result,
            Stop::Told => {
                Pin::new(&mut connection).graceful_shutdown();
                self.last_word(&mut connection).await
            }
            Stop::Quiet => {
                // hyper itself is asked whether it is between two requests: then it
                // ends at once, and the bytes it had read ahead come back.
                self.bell.leave();
                Pin::new(&mut connection).graceful_shutdown();
                match once(&mut connection).await {
                    Poll::Ready(Ok(())) => {
                        *place = connection.into_parts().map(|parts| {
                            let mut stream = parts.io.into_inner().into_inner();
                            // An empty line before a request says nothing (RFC 9112 §2.2).
                            if !parts.read_buf.iter().all(|byte| b"\r\n".contains(byte)) {
                                stream.give_back(parts.read_buf);
                            }
                            stream
                        });
                        return;
                    }
                    Poll::Ready(Err(error)) => Err(error),
                    Poll::Pending => {
                        self.bell.stay();
                        self.last_word(&mut connection).await
                    }
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(remote = %self.downstream.remote, %error, "HTTP/1 connection");
        }
    }

    /// Runs a connection until it ends by itself, is quiet, or is told to finish.
    async fn run<C>(&self, connection: &mut C) -> Stop
    where
        C: Future<Output = hyper::Result<()>> + Unpin,
    {
        let mut told = pin!(self.told());
        let mut aside = Aside::default();
        let mut watch = Watch::default();
        let (mut fresh, mut watched) = (true, false);
        poll_fn(|cx| {
            if !fresh && !watched && self.closing.is_cancelled() {
                return Poll::Ready(Stop::Told);
            }
            if let Poll::Ready(result) = self.poll(connection, &mut watch, cx) {
                return Poll::Ready(Stop::Over(result));
            }
            let in_flight = self.downstream.streams.get() > 0;
            if self.bell.is_quiet() && !in_flight && !self.upgrades.get() {
                return Poll::Ready(Stop::Quiet);
            }
            // Many connections end with their first answer, and would have to be
            // told before it only to say so in it: looking once does that too.
            if std::mem::take(&mut fresh) && in_flight {
                return Poll::Pending;
            }
            watched = true;
            aside.poll(told.as_mut(), cx).map(|()| Stop::Told)
        })
        .await
    }

    /// Polls hyper, and once more when its caller has taken too long: the door says what then.
    fn poll<C>(
        &self,
        connection: &mut C,
        watch: &mut Watch,
        cx: &mut Context<'_>,
    ) -> Poll<hyper::Result<()>>
    where
        C: Future<Output = hyper::Result<()>> + Unpin,
    {
        loop {
            if let ended @ Poll::Ready(_) = Pin::new(&mut *connection).poll(cx) {
                return ended;
            }
            if !watch.rings(self.bell.due(), cx) {
                return Poll::Pending;
            }
        }
    }

    /// Runs a connection that was told to finish. A peer that never speaks
    /// would never let it end.
    async fn last_word<C>(&self, connection: &mut C) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>> + Unpin,
    {
        let mut watch = Watch::default();
        loop {
            tokio::select! {
                biased;
                result = poll_fn(|cx| self.poll(connection, &mut watch, cx)) => return result,
                () = tokio::time::sleep(LAST_WORD) => {
                    if self.downstream.streams.get() == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Waits for the first bytes of another request; `false` where none will come.
    async fn park<S>(&self, stream: &mut Prefixed<S>) -> bool
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if !stream.prefix().is_empty() {
            return true;
        }
        let DoorLimits { idle, quiet, .. } = self.bounds.limits;
        let idle = async {
            match idle {
                Some(idle) => {
                    let left = idle.saturating_sub(quiet.unwrap_or_default());
                    tokio::time::sleep(left).await;
                }
                None => pending().await,
            }
        };
        // What has come is served, whatever else happened with it.
        let come = tokio::select! {
            biased;
            read = stream.fetch() => read.is_ok_and(|count| count > 0),
            () = self.told() => false,
            () = idle => false,
        };
        if !come && !self.bounds.limits.drop_ends {
            // Boxed: it is no part of the wait.
            let _ = Box::pin(tokio::time::timeout(LAST_WORD, stream.shutdown())).await;
        }
        come
    }

    /// Resolves when the connection is to finish: at the drain, or at the end
    /// of the peer's certificate.
    async fn told(&self) {
        if self.downstream.peer.is_none() {
            return self.closing.cancelled().await;
        }
        tokio::select! {
            biased;
            () = self.closing.cancelled() => {}
            () = Box::pin(expiry(self.downstream)) => {}
        }
    }
}

/// One poll.
async fn once<C: Future + Unpin>(future: &mut C) -> Poll<C::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}

/// A head that never reached the journey is counted all the same.
fn malformed(worker: &Worker, downstream: &Downstream, flag: Flag) {
    let metrics = &worker.shared.metrics;
    let series = match &downstream.side {
        Side::Inbound { caller, .. } => caller.http.clone(),
        Side::Outbound { .. } | Side::Gateway { .. } => {
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
    if worker.shared.logs() {
        let mut told = downstream.told(worker);
        told.spoken = Spoken::Http;
        told.status = Some(flag.status().as_u16());
        told.flag = Some(flag);
        worker.shared.tell(Box::new(told));
    }
}

#[cfg(test)]
mod tests;
