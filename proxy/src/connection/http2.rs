//! An HTTP/2 connection as it is served: each stream is a task that makes the
//! journey and sends its answer. It stands on h2 itself; see `http/stream.rs`.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use ::http::header::{CONTENT_LENGTH, DATE, HeaderValue};
use ::http::{Request, Response};
use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http_body::Body;
use pin_project_lite::pin_project;
use selvage_policy::snapshot::TrafficPolicy;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::aside::Aside;
use super::serve::{LAST_WORD, expiry};
use crate::http::body::ResponseBody;
use crate::http::received::Received;
use crate::http::stream::{Pinger, Pump};
use crate::request::{Downstream, handle};
use crate::upstream::http2::{CONNECTION_WINDOW, FRAME, SEND_BUFFER, STREAM_WINDOW};
use crate::worker::Worker;

/// Streams that a peer resets before we answered, until the connection is ended (CVE-2023-44487).
const PENDING_RESETS: usize = 20;
/// Streams that a peer makes us reset, until the connection is ended (CVE-2025-8671).
const LOCAL_RESETS: usize = 100;
/// A silent HTTP/2 caller is asked, and given up.
const PING: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(10)];

/// Serves HTTP/2 to the connection's end.
pub(super) async fn http2<S>(worker: &Rc<Worker>, stream: S, downstream: Downstream)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let settings = &worker.shared.settings;
    let header_bytes = u32::try_from(settings.header_bytes).unwrap_or(u32::MAX);
    let handshake = Builder::new()
        .max_concurrent_streams(settings.streams)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(header_bytes)
        .max_send_buffer_size(SEND_BUFFER)
        .max_frame_size(FRAME)
        .max_pending_accept_reset_streams(PENDING_RESETS)
        .max_local_error_reset_streams(Some(LOCAL_RESETS))
        .handshake::<_, Bytes>(stream);
    // A caller that says nothing is no load yet, but holds a place.
    let greeted = match tokio::time::timeout(settings.header_timeout, handshake).await {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(error)) => {
            tracing::debug!(remote = %downstream.remote, %error, "HTTP/2 preface");
            return;
        }
        Err(_) => return,
    };
    let downstream = Rc::new(downstream);
    let mut serving = Serving::new(worker.clone(), downstream.clone(), greeted);
    let closing = worker.shared.lifecycle.closing(downstream.direction());
    let ended = {
        let mut told = pin!(async {
            tokio::select! {
                () = closing.cancelled() => {}
                () = expiry(&downstream) => {}
            }
        });
        let mut aside = Aside::default();
        poll_fn(|cx| match Pin::new(&mut serving).poll(cx) {
            Poll::Ready(ended) => Poll::Ready(Some(ended)),
            Poll::Pending => aside.poll(told.as_mut(), cx).map(|()| None),
        })
        .await
    };
    let ended = match ended {
        Some(Ended::Idle) | None => {
            serving.connection.graceful_shutdown();
            last_word(&mut serving).await
        }
        Some(ended) => ended,
    };
    match ended {
        Ended::Idle | Ended::Closed(Ok(())) => {}
        Ended::Closed(Err(error)) => {
            tracing::debug!(remote = %downstream.remote, %error, "HTTP/2 connection");
        }
        Ended::Stalled => {
            tracing::debug!(remote = %downstream.remote, "HTTP/2 caller does not read");
        }
    }
}

/// Lets what is in flight end. A peer that never speaks would never let it end.
async fn last_word<S: AsyncRead + AsyncWrite + Unpin>(serving: &mut Serving<S>) -> Ended {
    loop {
        tokio::select! {
            biased;
            ended = &mut *serving => match ended {
                Ended::Idle => {}
                ended => return ended,
            },
            () = tokio::time::sleep(LAST_WORD) => {}
        }
        if serving.downstream.streams.get() == 0 {
            return Ended::Closed(Ok(()));
        }
    }
}

/// Why serving stopped.
enum Ended {
    /// The connection is over.
    Closed(Result<(), h2::Error>),
    /// No stream was open for `timeouts.idle`.
    Idle,
    /// Frames wait for a caller that has taken none for `timeouts.idle`: only
    /// the connection's end lets go of what they hold.
    Stalled,
}

/// A connection and what is watched of it.
struct Serving<S> {
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    connection: Connection<S, Bytes>,
    pinger: Option<Pinger>,
    /// Looks for idleness and stalls now and then: one timer for both.
    look: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Serving<S> {
    fn new(
        worker: Rc<Worker>,
        downstream: Rc<Downstream>,
        mut connection: Connection<S, Bytes>,
    ) -> Self {
        let pinger = connection.ping_pong().map(|pings| Pinger::new(pings, PING));
        let idle = TrafficPolicy::default().timeouts.idle;
        Self {
            worker,
            downstream,
            connection,
            pinger,
            look: idle.map(|idle| (Box::pin(tokio::time::sleep(idle / 4)), idle)),
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while let Some(accepted) = ready!(self.connection.poll_accept(cx)) {
            let (request, respond) = accepted?;
            let (worker, downstream) = (self.worker.clone(), self.downstream.clone());
            tokio::task::spawn_local(exchange(worker, downstream, request, respond));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_look(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        let Some((timer, idle)) = &mut self.look else {
            return Poll::Pending;
        };
        loop {
            ready!(timer.as_mut().poll(cx));
            timer.as_mut().reset(Instant::now() + *idle / 4);
            if self.downstream.moved.get().elapsed() < *idle {
                continue;
            }
            if self.downstream.owed.get() > 0 {
                return Poll::Ready(Ended::Stalled);
            }
            if self.downstream.streams.get() == 0 {
                return Poll::Ready(Ended::Idle);
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Future for Serving<S> {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let this = &mut *self;
        if let Poll::Ready(ended) = this.poll_accept(cx) {
            return Poll::Ready(Ended::Closed(ended));
        }
        let busy = this.downstream.streams.get() > 0;
        if let Some(pinger) = &mut this.pinger
            && pinger.poll(cx, busy).is_ready()
        {
            this.connection.abrupt_shutdown(Reason::NO_ERROR);
            this.pinger = None;
            cx.waker().wake_by_ref();
        }
        this.poll_look(cx)
    }
}

/// One stream: the journey, then its answer.
fn exchange(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) -> Exchange<impl Future<Output = Response<ResponseBody>>> {
    let (parts, frames) = request.into_parts();
    let body = Received::stream(frames, &parts.headers);
    let request = Request::from_parts(parts, body);
    Exchange::Handling {
        handled: handle(worker, downstream, request),
        respond,
    }
}

pin_project! {
    // Written out: an async block would keep what it was given beside what it made of it, and the
    // runtime moves a task several times before it first runs.
    #[project = ExchangeNow]
    enum Exchange<F> {
        Handling {
            #[pin]
            handled: F,
            respond: SendResponse<Bytes>,
        },
        Sending { rest: Pump<ResponseBody> },
    }
}

impl<F: Future<Output = Response<ResponseBody>>> Future for Exchange<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next = match self.as_mut().project() {
                ExchangeNow::Handling { handled, respond } => match handled.poll(cx) {
                    Poll::Ready(response) => answer(response, respond),
                    // The caller wants no answer any more.
                    Poll::Pending => return respond.poll_reset(cx).map(drop),
                },
                ExchangeNow::Sending { rest } => return Pin::new(rest).poll(cx),
            };
            match next {
                Some(rest) => self.set(Self::Sending { rest }),
                None => return Poll::Ready(()),
            }
        }
    }
}

/// Sends the head of a response; what is left is its body, if it has one.
fn answer(
    response: Response<ResponseBody>,
    respond: &mut SendResponse<Bytes>,
) -> Option<Pump<ResponseBody>> {
    let (mut parts, body) = response.into_parts();
    if !parts.headers.contains_key(DATE) {
        parts.headers.insert(DATE, date());
    }
    let ends = body.is_end_stream();
    if !ends
        && !parts.headers.contains_key(CONTENT_LENGTH)
        && let Some(length) = body.size_hint().exact()
    {
        parts
            .headers
            .insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    match respond.send_response(Response::from_parts(parts, ()), ends) {
        Ok(stream) => (!ends).then(|| Pump::new(body, stream, Reason::INTERNAL_ERROR)),
        Err(error) => {
            tracing::debug!(%error, "HTTP/2 response");
            respond.send_reset(Reason::INTERNAL_ERROR);
            None
        }
    }
}

thread_local! {
    static SAID: RefCell<(u64, HeaderValue)> = const { RefCell::new((0, HeaderValue::from_static(""))) };
}

/// `Date`, for a response that came without (RFC 9110 §6.6.1); made once a second.
fn date() -> HeaderValue {
    let now = SystemTime::now();
    let second = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    SAID.with_borrow_mut(|(made, value)| {
        if *made != second
            && let Ok(time) = jiff::Timestamp::try_from(now)
            && let Ok(text) =
                jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time)
            && let Ok(fresh) = HeaderValue::try_from(text)
        {
            (*made, *value) = (second, fresh);
        }
        value.clone()
    })
}
