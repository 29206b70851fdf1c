//! One HTTP/2 connection to an endpoint, shared by many requests: a request is
//! one stream, and all that one wake-up of the worker brings leaves in one write.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{Method, Request, Response};
use http_body::Body;
use selvage_http2::client::{self, Connection, Sender};
use selvage_http2::{Config, Error, Reason};
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
/// Bytes that wait for the socket before bodies wait for them.
pub const SEND_BUFFER: usize = 128 * 1024;
/// The largest frame that a peer may send. Each costs a turn of its own, and lets no other stream
/// between; two fit into a stream's window, so that one is on its way while the other is read.
pub const FRAME: u32 = STREAM_WINDOW / 2;
/// Streams in a row that we reset for what the peer sent on them, until the connection is ended.
pub const PROVOKED: u32 = 100;
/// A silent HTTP/2 peer with requests in flight is asked, and given up.
const PING: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(5)];

const CONFIG: Config = Config {
    // Nothing is pushed.
    streams: 0,
    stream_window: STREAM_WINDOW,
    connection_window: CONNECTION_WINDOW,
    frame: FRAME,
    header_list: HEADER_LIST,
    send_buffer: SEND_BUFFER,
    // A server resets what it likes; what it sends wrongly closes the connection in the end.
    cancelled: 0,
    provoked: PROVOKED,
};

/// See the module.
pub struct Shared {
    sender: Sender,
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
pub struct Answer(client::Answer);

impl Future for Answer {
    type Output = Result<Response<Received>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = Pin::new(&mut self.0).poll(cx);
        answered.map_ok(|response| response.map(Received::Http2))
    }
}

impl Shared {
    /// Begins HTTP/2, and drives it on this worker to its end.
    #[must_use]
    pub fn open(io: Io, expires: Expiry, permit: ConnectionPermit) -> Rc<Self> {
        let (sender, connection) = client::handshake(io, CONFIG);
        let state = Rc::new(State::default());
        state.room.set(STREAMS);
        tokio::task::spawn_local(drive(connection, state.clone(), permit));
        Rc::new(Self {
            sender,
            state,
            idle_since: Cell::new(Instant::now()),
            expires,
        })
    }

    /// Whether a further stream may be opened on it.
    pub fn is_usable(&self, now: Instant) -> bool {
        self.sender.is_open() && !self.expires.is_over(now)
    }

    /// Asks the wall clock whether the peer's certificate still holds.
    pub fn look_again(&self, now: Instant) {
        self.expires.look_again(now);
    }

    /// Streams in use.
    pub fn streams(&self) -> usize {
        // One that was given up takes its place until its last holder knows.
        self.state.streams.get().max(self.sender.streams())
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
        self.state.streams.set(self.state.streams.get() + 1);
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
    pub fn send(&mut self, request: Request<RequestBody>) -> Result<Answer, Error> {
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
        let (answer, stream) = self.connection.sender.send(&parts, ends)?;
        if let Some(stream) = stream {
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
async fn drive(mut connection: Connection<Io>, state: Rc<State>, permit: ConnectionPermit) {
    let mut pinger = Pinger::new(PING);
    let driven = std::future::poll_fn(|cx| {
        let polled = connection.poll(cx);
        state.room.set(connection.room().clamp(1, STREAMS));
        if polled.is_ready() {
            return polled;
        }
        let busy = state.streams.get() > 0;
        let silent = pinger.poll(cx, &connection, busy);
        silent.map(|()| Err(Error::Io(std::io::ErrorKind::TimedOut)))
    });
    if let Err(error) = driven.await {
        tracing::debug!(%error, "upstream HTTP/2 connection");
    }
    drop(permit);
}
