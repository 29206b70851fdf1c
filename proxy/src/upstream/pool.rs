//! The connections of one worker to one endpoint: HTTP/1 connections that are
//! lent out and come back, HTTP/2 connections that many requests share. A
//! connection is lent only while the peer's certificate holds.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use http::{Request, Response};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use selvage_http1::{Connection, Home};
use selvage_policy::classify::TransportFailure;
use selvage_policy::service::{ConnectionPermit, PendingPermit, ServiceState};
use selvage_policy::snapshot::Limits;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::connect::{ConnectError, Connected, Peer, connect};
use super::counted::Counted;
use super::expiry::Expiry;
use super::failure;
use super::http2::{Answer, HEADER_LIST, Shared, Stream};
use crate::http::received::Received;
use crate::http::replay::RequestBody;
use crate::identity::Identity;
use crate::telemetry::metrics::Metrics;
use crate::tls::Inside;
use crate::{buffers, clock};

/// A peer that speaks HTTP/1.1 alone is asked again after this long: it may be another by then.
const HTTP1_ONLY: Duration = Duration::from_secs(300);
/// Connections that are opened in a row for one waiting request, where each closes at once.
const OPENINGS: usize = 3;
/// Idle HTTP/1 connections kept per endpoint and worker.
const IDLE: usize = 1024;

/// What a connection is opened with.
#[derive(Clone, Copy)]
pub struct Opening<'a> {
    /// `timeouts.connect`.
    pub timeout: Option<Duration>,
    /// How many connections and waiting requests there may be.
    pub limits: &'a Limits,
    /// Whose they are.
    pub live: &'a Arc<ServiceState>,
}

impl Opening<'_> {
    /// A place under `limits.maxConnections`.
    fn permit(&self) -> Result<ConnectionPermit, ConnectError> {
        self.live
            .admit_connection(self.limits)
            .ok_or(ConnectError::Overflow)
    }

    /// A place under `limits.maxPending` for the wait.
    fn pending(&self) -> Result<PendingPermit, ConnectError> {
        self.live
            .admit_pending(self.limits)
            .ok_or(ConnectError::Overflow)
    }
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
    /// The breaker's, in which the connections were used last.
    generation: Cell<u32>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("peer", &self.peer.address)
            .finish_non_exhaustive()
    }
}

struct Idle {
    /// The connection is there.
    home: Home<Counted>,
    since: Instant,
    expires: Expiry,
}

impl Idle {
    /// A connection that served nothing before.
    fn fresh(connected: Connected, permit: ConnectionPermit) -> Self {
        Self {
            home: Rc::new(RefCell::new(Some(Connection::new(Counted::new(
                connected.io,
                permit,
            ))))),
            since: clock::recent(),
            expires: Expiry::of(connected.expires),
        }
    }

    /// Whether it still can serve. Outside of the task's budget: spent, it would hide that the peer has closed.
    fn is_open(&self) -> bool {
        let mut connection = self.home.borrow_mut();
        let asking = poll_fn(|_| Poll::Ready(connection.as_mut().is_some_and(Connection::is_open)));
        let mut asking = pin!(tokio::task::unconstrained(asking));
        let mut cx = Context::from_waker(Waker::noop());
        asking.as_mut().poll(&mut cx) == Poll::Ready(true)
    }
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
        /// The connection, while nothing is exchanged on it.
        home: Home<Counted>,
        /// Whether it served before.
        reused: bool,
        /// The end of the peer's certificate.
        expires: Expiry,
    },
    /// One stream among others.
    Http2(Stream),
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
            generation: Cell::new(0),
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

    /// Begins with new connections where the breaker changed its state since
    /// they were used: a partition leaves connections standing that are dead
    /// for as long again as it lasted. What is in flight goes on to its end.
    pub fn renew(&self, generation: u32) {
        if self.generation.replace(generation) != generation {
            self.http1.borrow_mut().clear();
            self.http2.borrow_mut().clear();
        }
    }

    /// An HTTP/1 connection that served before and is free.
    pub fn idle_http1(self: &Rc<Self>) -> Option<Lease> {
        let now = clock::recent();
        while let Some(idle) = self.pop() {
            if idle.is_open() && !idle.expires.is_over(now) {
                return Some(Lease::http1(self, idle, true));
            }
        }
        None
    }

    /// An HTTP/1 connection that served nothing before.
    pub async fn fresh_http1(
        self: &Rc<Self>,
        opening: &Opening<'_>,
    ) -> Result<Lease, ConnectError> {
        let permit = opening.permit()?;
        let _pending = opening.pending()?;
        let connected = self.open(Inside::Http1, opening.timeout).await?;
        Ok(Lease::http1(self, Idle::fresh(connected, permit), false))
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
        let _pending = opening.pending()?;
        for _ in 0..OPENINGS {
            let connecting = self.connecting(opening)?;
            let woken = connecting.done.notified();
            if connecting.result.borrow().is_none() {
                woken.await;
            }
            if let Some(Err(error)) = &*connecting.result.borrow() {
                return Err(error.clone());
            }
            if let Some(lease) = self.stream(opening) {
                return Ok(lease);
            }
        }
        let closed = "it closes connections at once".to_owned();
        Err(ConnectError::Refused(self.peer.address, closed))
    }

    /// The least busy connection with room. One that is half full sends for another.
    pub fn stream(self: &Rc<Self>, opening: &Opening<'_>) -> Option<Lease> {
        let now = clock::recent();
        let chosen = {
            let mut connections = self.http2.borrow_mut();
            // Requests in flight on what is dropped here keep it alive to their end.
            connections.retain(|connection| connection.is_usable(now));
            connections
                .iter()
                .filter(|connection| connection.streams() < connection.room())
                .min_by_key(|connection| connection.streams())
                .cloned()
        }?;
        if chosen.streams() * 2 >= chosen.room() {
            // At the limit of connections the ones there are go on filling.
            let _ = self.connecting(opening);
        }
        Some(Lease::Http2(chosen.stream()))
    }

    /// The connection being opened; opens one if there is none.
    fn connecting(self: &Rc<Self>, opening: &Opening<'_>) -> Result<Rc<Connecting>, ConnectError> {
        if let Some(connecting) = &*self.connecting.borrow() {
            return Ok(connecting.clone());
        }
        let permit = opening.permit()?;
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
        let connected = self.open(Inside::Http2, timeout).await?;
        if connected.inside == Inside::Http1 {
            self.http1_only.set(Some(Instant::now()));
            self.give_back(Idle::fresh(connected, permit));
            return Err(ConnectError::Http1Only(self.peer.address));
        }
        let shared = Shared::open(connected.io, Expiry::of(connected.expires), permit);
        self.http2.borrow_mut().push(shared);
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
        self.http1.borrow_mut().retain_mut(|connection| {
            connection.expires.look_again(now);
            now - connection.since < idle
                && !connection.expires.is_over(now)
                && connection.is_open()
        });
        self.http2.borrow_mut().retain(|connection| {
            let unused = connection
                .idle_since()
                .is_some_and(|since| now - since >= idle);
            connection.look_again(now);
            connection.is_usable(now) && !unused
        });
    }

    fn give_back(&self, idle: Idle) {
        let mut connections = self.http1.borrow_mut();
        if connections.len() < IDLE && !idle.expires.is_over(idle.since) {
            if connections.capacity() == 0 {
                // Room for one: with thousands of endpoints few have more at rest.
                connections.reserve_exact(1);
            }
            connections.push(idle);
        }
    }
}

impl Lease {
    fn http1(pool: &Rc<Pool>, idle: Idle, reused: bool) -> Self {
        Self::Http1 {
            pool: pool.clone(),
            home: idle.home,
            reused,
            expires: idle.expires,
        }
    }

    /// Sends a request; what comes back is awaited apart. `switches`: it asks for another protocol, or waits for
    /// `100 Continue`.
    ///
    /// # Errors
    /// Where the connection took nothing of it.
    pub fn send(&mut self, request: Request<RequestBody>, switches: bool) -> Result<Sent, Unsent> {
        match self {
            Self::Http1 { home, reused, .. } => {
                let connection = home.borrow_mut().take().ok_or_else(|| Unsent {
                    failure: TransportFailure::Unprocessed,
                    reason: "the connection is in use".to_owned(),
                })?;
                Ok(if switches {
                    let io = connection.into_inner();
                    Sent::Hyper(Box::pin(by_hyper(io, request, *reused)))
                } else {
                    Sent::Http1(connection.send(request, home), *reused)
                })
            }
            Self::Http2(stream) => stream
                .send(request)
                .map(Sent::Http2)
                .map_err(|error| Unsent {
                    failure: TransportFailure::Unprocessed,
                    reason: error.to_string(),
                }),
        }
    }

    /// The response has come whole. Where the request has too (`complete`), an
    /// HTTP/1 connection goes back to its pool.
    pub fn answered(self, complete: bool) {
        match self {
            Self::Http2(stream) => stream.answered(),
            Self::Http1 {
                pool,
                home,
                expires,
                ..
            } => {
                let is_home = home.borrow().is_some();
                if is_home && complete {
                    pool.give_back(Idle {
                        home,
                        since: clock::recent(),
                        expires,
                    });
                }
            }
        }
    }
}

/// An exchange in which the two ends may go on in another protocol, or the body waits to be asked for: hyper
/// knows how. The connection serves nothing else.
async fn by_hyper(
    io: Counted,
    request: Request<RequestBody>,
    reused: bool,
) -> Result<Response<Received>, Unsent> {
    let unsent = |error: &hyper::Error| Unsent {
        failure: failure::sort(error, reused),
        reason: describe(error),
    };
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(buffers::SIZE)
        .max_header_size(HEADER_LIST as usize)
        .handshake(TokioIo::new(io))
        .await
        .map_err(|error| unsent(&error))?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "upstream HTTP/1 connection");
        }
    });
    let answered = sender.send_request(request).await;
    let response = answered.map_err(|error| unsent(&error))?;
    Ok(response.map(Received::Http1))
}

/// A request that was sent: the head of its response, once that is there.
pub enum Sent {
    /// On an HTTP/1 connection, and whether that served before.
    Http1(selvage_http1::Answer<Counted, RequestBody>, bool),
    /// The same, by hyper.
    Hyper(Pin<Box<dyn Future<Output = Result<Response<Received>, Unsent>>>>),
    /// On a stream of HTTP/2.
    Http2(Answer),
}

impl Future for Sent {
    type Output = Result<Response<Received>, Unsent>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Http1(answer, reused) => {
                let answered = ready!(Pin::new(answer).poll(cx));
                Poll::Ready(match answered {
                    Ok(response) => Ok(response.map(|body| Received::Response(Box::new(body)))),
                    Err(error) => Err(Unsent {
                        failure: failure::sort_http1(&error, *reused),
                        reason: error.to_string(),
                    }),
                })
            }
            Self::Hyper(answer) => answer.as_mut().poll(cx),
            Self::Http2(answer) => Pin::new(answer).poll(cx).map_err(|error| Unsent {
                failure: failure::sort_stream(&error),
                reason: error.to_string(),
            }),
        }
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
