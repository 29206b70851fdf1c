//! The connections of one worker to one endpoint: HTTP/1 connections that are
//! lent out and come back, HTTP/2 connections that many requests share. A
//! connection is lent only while the peer's certificate holds.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvage_policy::classify::TransportFailure;
use selvage_policy::service::{ConnectionPermit, PendingPermit};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connect::{ConnectError, Connected, Io, Peer, connect};
use super::failure;
use crate::http::replay::RequestBody;
use crate::identity::Identity;
use crate::telemetry::metrics::Metrics;
use crate::tls::Inside;

/// Streams on one HTTP/2 connection; at half of it a further connection is opened.
pub const STREAMS: usize = 100;
/// Bytes in flight per stream before the reader must have taken some.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// The connection's window holds all streams: one slow reader cannot starve the others.
pub const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// Response heads larger than this are refused.
pub const HEADER_LIST: u32 = 64 * 1024;
/// Bytes of one stream that wait for the socket.
pub const SEND_BUFFER: usize = 64 * 1024;
/// A silent HTTP/2 peer with requests in flight is asked, and given up.
const PING: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(5)];
/// A peer that speaks HTTP/1.1 alone is asked again after this long: it may be another by then.
const HTTP1_ONLY: Duration = Duration::from_secs(300);
/// Connections that are opened in a row for one waiting request, where each closes at once.
const OPENINGS: usize = 3;
/// Idle HTTP/1 connections kept per endpoint and worker.
const IDLE: usize = 128;

/// Runs hyper's tasks on the worker's own thread.
#[derive(Debug, Clone, Copy)]
pub struct Here;

impl<F> hyper::rt::Executor<F> for Here
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

/// What a connection is opened with.
pub struct Opening<'a> {
    /// `timeouts.connect`.
    pub timeout: Option<Duration>,
    /// A place under `limits.maxConnections`, or none.
    pub permit: &'a dyn Fn() -> Option<ConnectionPermit>,
    /// A place under `limits.maxPending` for the wait, or none.
    pub pending: &'a dyn Fn() -> Option<PendingPermit>,
}

/// See the module.
pub struct Pool {
    peer: Peer,
    identity: std::sync::Arc<Identity>,
    metrics: std::sync::Arc<Metrics>,
    worker: usize,
    http1: RefCell<Vec<Idle>>,
    http2: RefCell<Vec<Rc<Shared>>>,
    connecting: RefCell<Option<Rc<Connecting>>>,
    /// When the peer was asked for HTTP/2 and did not speak it.
    http1_only: Cell<Option<Instant>>,
    /// How long a connection may be unused; `None`: for ever.
    idle: Cell<Option<Duration>>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("peer", &self.peer.address)
            .finish_non_exhaustive()
    }
}

struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since: Instant,
    expires: Option<SystemTime>,
}

/// One HTTP/2 connection.
struct Shared {
    sender: RefCell<http2::SendRequest<RequestBody>>,
    streams: Cell<usize>,
    /// Streams the peer lets us open, at most [`STREAMS`].
    room: Rc<Cell<usize>>,
    idle_since: Cell<Instant>,
    expires: Option<SystemTime>,
    served: Cell<bool>,
}

impl Shared {
    fn is_usable(&self) -> bool {
        !self.sender.borrow().is_closed() && !is_over(self.expires)
    }
}

fn is_over(expires: Option<SystemTime>) -> bool {
    expires.is_some_and(|expires| expires <= SystemTime::now())
}

/// A connection being opened, for all who wait for it.
struct Connecting {
    result: RefCell<Option<Result<(), ConnectError>>>,
    done: Notify,
}

/// A connection, lent for one request.
pub enum Lease {
    /// Alone on it.
    Http1 {
        /// Where it goes back to.
        pool: Rc<Pool>,
        /// The connection.
        sender: http1::SendRequest<RequestBody>,
        /// Whether it served before.
        reused: bool,
        /// The end of the peer's certificate.
        expires: Option<SystemTime>,
    },
    /// One stream among others.
    Http2(Stream),
}

/// A place among the streams of an HTTP/2 connection.
pub struct Stream(Rc<Shared>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.idle_since.set(Instant::now());
    }
}

/// A request that got no response.
pub struct Unsent {
    /// What happened.
    pub failure: TransportFailure,
    /// For the log.
    pub reason: String,
}

impl Pool {
    /// No connections yet.
    #[must_use]
    pub fn new(
        peer: Peer,
        identity: std::sync::Arc<Identity>,
        metrics: std::sync::Arc<Metrics>,
        worker: usize,
    ) -> Rc<Self> {
        Rc::new(Self {
            peer,
            identity,
            metrics,
            worker,
            http1: RefCell::default(),
            http2: RefCell::default(),
            connecting: RefCell::default(),
            http1_only: Cell::new(None),
            idle: Cell::new(None),
        })
    }

    /// Opens a connection that is nobody else's: for opaque bytes and upgrades.
    pub async fn open(
        &self,
        inside: Inside,
        timeout: Option<Duration>,
    ) -> Result<Connected, ConnectError> {
        connect(
            &self.peer,
            inside,
            timeout,
            &self.identity,
            &self.metrics,
            self.worker,
        )
        .await
    }

    /// A connection for one HTTP/1 request. `fresh`: one that served nothing before.
    pub async fn http1(
        self: &Rc<Self>,
        fresh: bool,
        opening: &Opening<'_>,
    ) -> Result<Lease, ConnectError> {
        if !fresh {
            while let Some(Idle {
                sender,
                since: _,
                expires,
            }) = self.pop()
            {
                if sender.is_ready() && !is_over(expires) {
                    return Ok(Lease::Http1 {
                        pool: self.clone(),
                        sender,
                        reused: true,
                        expires,
                    });
                }
            }
        }
        // Boxed: connecting is rare, and its future is large.
        Box::pin(self.fresh_http1(opening)).await
    }

    async fn fresh_http1(self: &Rc<Self>, opening: &Opening<'_>) -> Result<Lease, ConnectError> {
        let permit = (opening.permit)().ok_or(ConnectError::Overflow)?;
        let _pending = (opening.pending)().ok_or(ConnectError::Overflow)?;
        let Connected { io, expires, .. } = self.open(Inside::Http1, opening.timeout).await?;
        let sender = self.drive_http1(io, permit).await?;
        Ok(Lease::Http1 {
            pool: self.clone(),
            sender,
            reused: false,
            expires,
        })
    }

    async fn drive_http1(
        &self,
        io: Io,
        permit: ConnectionPermit,
    ) -> Result<http1::SendRequest<RequestBody>, ConnectError> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(SEND_BUFFER)
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| ConnectError::Refused(self.peer.address, error.to_string()))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "upstream HTTP/1 connection");
            }
            drop(permit);
        });
        Ok(sender)
    }

    /// Whether the peer was found to speak HTTP/1.1 alone.
    #[must_use]
    pub fn is_http1_only(&self) -> bool {
        self.http1_only
            .get()
            .is_some_and(|found| found.elapsed() < HTTP1_ONLY)
    }

    fn pop(&self) -> Option<Idle> {
        self.http1.borrow_mut().pop()
    }

    /// A stream on an HTTP/2 connection. All who come while one is being
    /// opened wait for that one.
    pub async fn http2(self: &Rc<Self>, opening: &Opening<'_>) -> Result<Lease, ConnectError> {
        if let Some(stream) = self.stream(opening) {
            return Ok(Lease::Http2(stream));
        }
        Box::pin(self.awaited_http2(opening)).await
    }

    async fn awaited_http2(self: &Rc<Self>, opening: &Opening<'_>) -> Result<Lease, ConnectError> {
        let _pending = (opening.pending)().ok_or(ConnectError::Overflow)?;
        for _ in 0..OPENINGS {
            let connecting = self.connecting(opening)?;
            let woken = connecting.done.notified();
            if connecting.result.borrow().is_none() {
                woken.await;
            }
            if let Some(Err(error)) = &*connecting.result.borrow() {
                return Err(error.clone());
            }
            if let Some(stream) = self.stream(opening) {
                return Ok(Lease::Http2(stream));
            }
        }
        let closed = "it closes connections at once".to_owned();
        Err(ConnectError::Refused(self.peer.address, closed))
    }

    /// The least busy connection with room. One that is half full sends for another.
    fn stream(self: &Rc<Self>, opening: &Opening<'_>) -> Option<Stream> {
        let chosen = {
            let mut connections = self.http2.borrow_mut();
            // Requests in flight on what is dropped here keep it alive to their end.
            connections.retain(|connection| connection.is_usable());
            connections
                .iter()
                .filter(|connection| connection.streams.get() < connection.room.get())
                .min_by_key(|connection| connection.streams.get())
                .cloned()
        }?;
        if chosen.streams.get() * 2 >= chosen.room.get() {
            // At the limit of connections the ones there are go on filling.
            let _ = self.connecting(opening);
        }
        chosen.streams.set(chosen.streams.get() + 1);
        Some(Stream(chosen))
    }

    /// The connection being opened; opens one if there is none.
    fn connecting(self: &Rc<Self>, opening: &Opening<'_>) -> Result<Rc<Connecting>, ConnectError> {
        if let Some(connecting) = &*self.connecting.borrow() {
            return Ok(connecting.clone());
        }
        let permit = (opening.permit)().ok_or(ConnectError::Overflow)?;
        let connecting = Rc::new(Connecting {
            result: RefCell::default(),
            done: Notify::new(),
        });
        *self.connecting.borrow_mut() = Some(connecting.clone());
        let (pool, told, timeout) = (self.clone(), connecting.clone(), opening.timeout);
        // A task of its own: whoever asked first may be gone before it is there.
        tokio::task::spawn_local(async move {
            let result = pool.open_http2(timeout, permit).await;
            *pool.connecting.borrow_mut() = None;
            *told.result.borrow_mut() = Some(result);
            told.done.notify_waiters();
        });
        Ok(connecting)
    }

    async fn open_http2(
        &self,
        timeout: Option<Duration>,
        permit: ConnectionPermit,
    ) -> Result<(), ConnectError> {
        let Connected {
            io,
            expires,
            inside,
        } = self.open(Inside::Http2, timeout).await?;
        if inside == Inside::Http1 {
            self.http1_only.set(Some(Instant::now()));
            let sender = self.drive_http1(io, permit).await?;
            self.give_back(Idle {
                sender,
                since: Instant::now(),
                expires,
            });
            return Err(ConnectError::Http1Only(self.peer.address));
        }
        let (sender, connection) = http2_builder()
            .handshake(TokioIo::new(io))
            .await
            .map_err(|error| ConnectError::Refused(self.peer.address, error.to_string()))?;
        let room = Rc::new(Cell::new(STREAMS));
        let told = room.clone();
        tokio::task::spawn_local(async move {
            let mut connection = connection;
            let driven = poll_fn(|cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                told.set(connection.current_max_send_streams().clamp(1, STREAMS));
                polled
            });
            if let Err(error) = driven.await {
                tracing::debug!(%error, "upstream HTTP/2 connection");
            }
            drop(permit);
        });
        self.http2.borrow_mut().push(Rc::new(Shared {
            sender: RefCell::new(sender),
            streams: Cell::new(0),
            room,
            idle_since: Cell::new(Instant::now()),
            expires,
            served: Cell::new(false),
        }));
        Ok(())
    }

    /// Sets how long a connection may be unused.
    pub fn set_idle(&self, idle: Option<Duration>) {
        self.idle.set(idle);
    }

    /// Closes what was unused for too long.
    pub fn tidy(&self) {
        let idle = self.idle.get().unwrap_or(Duration::MAX);
        let now = Instant::now();
        self.http1
            .borrow_mut()
            .retain(|connection| now - connection.since < idle && !connection.sender.is_closed());
        self.http2.borrow_mut().retain(|connection| {
            let unused = connection.streams.get() == 0 && now - connection.idle_since.get() >= idle;
            connection.is_usable() && !unused
        });
    }

    fn give_back(&self, idle: Idle) {
        let mut connections = self.http1.borrow_mut();
        if connections.len() < IDLE && !idle.sender.is_closed() && !is_over(idle.expires) {
            connections.push(idle);
        }
    }
}

fn http2_builder() -> http2::Builder<Here> {
    let mut builder = http2::Builder::new(Here);
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(STREAMS)
        .max_header_list_size(HEADER_LIST)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING[0])
        .keep_alive_timeout(PING[1]);
    builder
}

impl Lease {
    /// Sends a request and waits for the head of its response.
    pub async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unsent> {
        let reused = match self {
            Self::Http1 { reused, .. } => *reused,
            Self::Http2(stream) => stream.0.served.replace(true),
        };
        let result = match self {
            Self::Http1 { sender, .. } => sender.try_send_request(request).await,
            Self::Http2(stream) => {
                let sent = stream.0.sender.borrow_mut().try_send_request(request);
                sent.await
            }
        };
        result.map_err(|mut error| {
            // Handed back: not a byte of it was written.
            let failure = if error.take_message().is_some() {
                TransportFailure::Unprocessed
            } else {
                failure::sort(error.error(), reused && matches!(self, Self::Http1 { .. }))
            };
            Unsent {
                failure,
                reason: describe(error.error()),
            }
        })
    }

    /// Gives an HTTP/1 connection back once its exchange is complete; an
    /// HTTP/2 stream just ends.
    pub fn give_back(self) {
        let Self::Http1 {
            pool,
            mut sender,
            reused: _,
            expires,
        } = self
        else {
            return;
        };
        if sender.is_ready() {
            pool.give_back(Idle {
                sender,
                since: Instant::now(),
                expires,
            });
            return;
        }
        // The connection's task has still to see the end of the exchange.
        tokio::task::spawn_local(async move {
            if poll_fn(|cx| sender.poll_ready(cx)).await.is_ok() {
                pool.give_back(Idle {
                    sender,
                    since: Instant::now(),
                    expires,
                });
            }
        });
    }
}

fn describe(error: &hyper::Error) -> String {
    use std::error::Error;
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
