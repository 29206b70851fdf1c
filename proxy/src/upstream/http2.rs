//! One HTTP/2 connection to an endpoint, shared by many requests. It stands on
//! h2 itself: a request is one stream, and all that one wake-up of the worker
//! brings leaves in one write.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;
use selvage_policy::service::ConnectionPermit;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connect::Io;
use super::expiry::Expiry;
use crate::clock;
use crate::http::received::Received;
use crate::http::replay::RequestBody;
use crate::http::stream::{Pinger, Pump};

/// Streams on one HTTP/2 connection; at half of it a further connection is opened.
pub const STREAMS: usize = 100;
/// Bytes in flight per stream before the reader must have taken some.
pub const STREAM_WINDOW: u32 = 256 * 1024;
/// The connection's window holds all streams: one slow reader cannot starve the others.
pub const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// Response heads larger than this are refused.
pub const HEADER_LIST: u32 = 64 * 1024;
/// Bytes of one stream that wait for the socket.
pub const SEND_BUFFER: usize = 128 * 1024;
/// The largest frame that a peer may send. Each costs a turn of its own, and lets no other stream
/// between; two fit into a stream's window, so that one is on its way while the other is read.
pub const FRAME: u32 = STREAM_WINDOW / 2;
/// A silent HTTP/2 peer with requests in flight is asked, and given up.
const PING: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(5)];

/// See the module.
pub struct Shared {
    sender: RefCell<SendRequest<Bytes>>,
    state: Rc<State>,
    idle_since: Cell<Instant>,
    expires: Expiry,
}

/// What the connection's task and its users tell each other.
#[derive(Default)]
struct State {
    streams: Cell<usize>,
    /// Streams the peer lets us open, at most [`STREAMS`].
    room: Cell<usize>,
    closed: Cell<bool>,
}

/// A place among the streams of a connection.
pub struct Stream {
    connection: Rc<Shared>,
    /// Sends the request's body, where it has one.
    sending: Option<AbortHandle>,
}

impl Drop for Stream {
    fn drop(&mut self) {
        let state = &self.connection.state;
        state.streams.set(state.streams.get() - 1);
        self.connection.idle_since.set(clock::recent());
        if let Some(sending) = &self.sending {
            sending.abort();
        }
    }
}

/// The response to one request, which is on its way.
#[derive(Debug)]
pub struct Answer(ResponseFuture);

impl Future for Answer {
    type Output = Result<Response<Received>, h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map_ok(|response| {
            let (parts, frames) = response.into_parts();
            let body = Received::stream(frames, &parts.headers);
            Response::from_parts(parts, body)
        })
    }
}

impl Shared {
    /// Begins HTTP/2, and drives it on this worker to its end.
    pub async fn open(
        io: Io,
        expires: Expiry,
        permit: ConnectionPermit,
    ) -> Result<Rc<Self>, h2::Error> {
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(STREAMS)
            .max_header_list_size(HEADER_LIST)
            .max_send_buffer_size(SEND_BUFFER)
            .max_frame_size(FRAME)
            .handshake(io)
            .await?;
        let state = Rc::new(State::default());
        state.room.set(STREAMS);
        tokio::task::spawn_local(drive(connection, state.clone(), permit));
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            state,
            idle_since: Cell::new(Instant::now()),
            expires,
        }))
    }

    /// Whether a further stream may be opened on it.
    pub fn is_usable(&self, now: Instant) -> bool {
        if self.state.closed.get() || self.expires.is_over(now) {
            return false;
        }
        // An error, or a GOAWAY, shows here before the connection has ended.
        let mut context = Context::from_waker(Waker::noop());
        let ready = self.sender.borrow_mut().poll_ready(&mut context);
        !matches!(ready, Poll::Ready(Err(_)))
    }

    /// Asks the wall clock whether the peer's certificate still holds.
    pub fn look_again(&self, now: Instant) {
        self.expires.look_again(now);
    }

    /// Streams in use.
    pub fn streams(&self) -> usize {
        self.state.streams.get()
    }

    /// Streams that may be in use at most.
    pub fn room(&self) -> usize {
        self.state.room.get()
    }

    /// Since when it has no stream, or `None` while it has.
    pub fn idle_since(&self) -> Option<Instant> {
        (self.streams() == 0).then(|| self.idle_since.get())
    }

    /// Takes a place.
    pub fn stream(self: &Rc<Self>) -> Stream {
        self.state.streams.set(self.streams() + 1);
        Stream {
            connection: self.clone(),
            sending: None,
        }
    }
}

impl Stream {
    /// Sends a request.
    ///
    /// # Errors
    /// Where the connection takes no more: nothing of the request was sent.
    pub fn send(&mut self, request: Request<RequestBody>) -> Result<Answer, h2::Error> {
        let (mut parts, body) = request.into_parts();
        let ends = body.is_end_stream();
        if let Some(length) = body.size_hint().exact() {
            let says_so = length > 0 || !has_no_body_by_habit(&parts.method);
            if says_so && !parts.headers.contains_key(CONTENT_LENGTH) {
                parts
                    .headers
                    .insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        let head = Request::from_parts(parts, ());
        let sent = self.connection.sender.borrow_mut().send_request(head, ends);
        let (answer, stream) = sent?;
        if !ends {
            let pump = Pump::new(body, stream, Reason::CANCEL);
            self.sending = Some(tokio::task::spawn_local(pump).abort_handle());
        }
        Ok(Answer(answer))
    }

    /// The response has come whole: what is left of the request goes on.
    pub fn answered(mut self) {
        self.sending = None;
    }
}

/// Methods of which nobody expects a length when there is none.
fn has_no_body_by_habit(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT
    )
}

/// Drives a connection to its end.
async fn drive(mut connection: Connection<Io, Bytes>, state: Rc<State>, permit: ConnectionPermit) {
    let mut pinger = connection.ping_pong().map(|pings| Pinger::new(pings, PING));
    let driven = std::future::poll_fn(|cx| {
        let polled = Pin::new(&mut connection).poll(cx);
        let room = connection.max_concurrent_send_streams();
        state.room.set(room.clamp(1, STREAMS));
        if polled.is_ready() {
            return polled;
        }
        let busy = state.streams.get() > 0;
        if let Some(pinger) = &mut pinger
            && pinger.poll(cx, busy).is_ready()
        {
            return Poll::Ready(Err(Reason::NO_ERROR.into()));
        }
        Poll::Pending
    });
    if let Err(error) = driven.await {
        tracing::debug!(%error, "upstream HTTP/2 connection");
    }
    state.closed.set(true);
    drop(permit);
}
