//! An HTTP/2 connection as it is served: each stream is a task that makes the
//! journey and sends its answer.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use ::http::header::{CONTENT_LENGTH, DATE, HeaderValue};
use ::http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use selvage_http2::server::{Connection, Respond};
use selvage_http2::{Config, Error, Reason, RecvStream};
use selvage_policy::snapshot::TrafficPolicy;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use super::aside::Aside;
use super::serve::{LAST_WORD, expiry};
use crate::error::Reset;
use crate::http::body::ResponseBody;
use crate::http::received::Received;
use crate::http::stream::{Pinger, Pump};
use crate::request::{Downstream, handle};
use crate::upstream::http2::{CONNECTION_WINDOW, FRAME, PROVOKED, SEND_BUFFER, STREAM_WINDOW};
use crate::worker::Worker;

/// Streams in a row that a caller resets before we answered, until the connection is ended (CVE-2023-44487).
const CANCELLED: u32 = 500;
/// The same of another sidecar, which speaks for many callers.
const CANCELLED_BY_SIDECAR: u32 = 10_000;
/// How often a caller that does not read is given another [`LAST_WORD`] for what was written already.
const LAST_WORDS: usize = 12;
/// A silent HTTP/2 caller is asked, and given up.
const PING: [Duration; 2] = [Duration::from_secs(30), Duration::from_secs(10)];

/// Serves HTTP/2 to the connection's end.
pub(super) async fn http2<S>(worker: &Rc<Worker>, stream: S, downstream: Downstream)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let settings = &worker.shared.settings;
    let header_bytes = u32::try_from(settings.header_bytes).unwrap_or(u32::MAX);
    let config = Config {
        streams: settings.streams,
        stream_window: STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        frame: FRAME,
        header_list: header_bytes,
        send_buffer: SEND_BUFFER,
        cancelled: if downstream.peer.is_some() {
            CANCELLED_BY_SIDECAR
        } else {
            CANCELLED
        },
        provoked: PROVOKED,
    };
    let downstream = Rc::new(downstream);
    let connection = Connection::new(stream, config);
    let mut serving = Serving::new(worker.clone(), downstream.clone(), connection);
    // A caller that says nothing is no load yet, but holds a place.
    let greeted = poll_fn(|cx| match Pin::new(&mut serving).poll(cx) {
        Poll::Pending if !serving.connection.is_greeted() => Poll::Pending,
        polled => Poll::Ready(polled),
    });
    match tokio::time::timeout(settings.header_timeout, greeted).await {
        Ok(Poll::Pending) => {}
        Ok(Poll::Ready(ended)) => return ended.tell(&downstream),
        Err(_) => {
            tracing::debug!(remote = %downstream.remote, "HTTP/2 caller does not begin");
            return;
        }
    }
    let closing = downstream.closing(&worker.shared.lifecycle);
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
            serving.connection.leave();
            last_word(&mut serving).await
        }
        Some(ended) => ended,
    };
    ended.tell(&downstream);
}

/// Lets what is in flight end. A peer that never speaks would never let it end.
async fn last_word<S: AsyncRead + AsyncWrite + Unpin>(serving: &mut Serving<S>) -> Ended {
    let mut words = 0;
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
            words += 1;
            // The end of an answer may still wait for a slow reader.
            if serving.connection.is_quiet() || words > LAST_WORDS {
                return Ended::Closed(Ok(()));
            }
        }
    }
}

/// Why serving stopped.
enum Ended {
    /// The connection is over.
    Closed(Result<(), Error>),
    /// No stream was open for `timeouts.idle`.
    Idle,
    /// Frames wait for a caller that has taken none for `timeouts.idle`: only
    /// the connection's end lets go of what they hold.
    Stalled,
    /// The caller did not say whether it is there.
    Silent,
}

impl Ended {
    fn tell(&self, downstream: &Downstream) {
        let remote = downstream.remote;
        match self {
            Self::Idle | Self::Closed(Ok(())) => {}
            Self::Closed(Err(error)) => tracing::debug!(%remote, %error, "HTTP/2 connection"),
            Self::Stalled => tracing::debug!(%remote, "HTTP/2 caller does not read"),
            Self::Silent => tracing::debug!(%remote, "HTTP/2 caller is silent"),
        }
    }
}

/// A connection and what is watched of it.
struct Serving<S> {
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    connection: Connection<S>,
    pinger: Pinger,
    /// Looks for idleness and stalls now and then: one timer for both.
    look: Option<(Pin<Box<Sleep>>, Duration)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Serving<S> {
    fn new(worker: Rc<Worker>, downstream: Rc<Downstream>, connection: Connection<S>) -> Self {
        let idle = TrafficPolicy::default().timeouts.idle;
        Self {
            worker,
            downstream,
            connection,
            pinger: Pinger::new(PING),
            look: idle.map(|idle| (Box::pin(tokio::time::sleep(idle / 4)), idle)),
        }
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while let Some((request, respond)) = ready!(self.connection.poll_accept(cx))? {
            let (worker, downstream) = (self.worker.clone(), self.downstream.clone());
            // Boxed: the runtime moves a task several times before it first runs, and once more at its end.
            let exchange = Box::pin(exchange(worker, downstream, request, respond));
            tokio::task::spawn_local(exchange);
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
        if this.pinger.poll(cx, &this.connection, busy).is_ready() {
            return Poll::Ready(Ended::Silent);
        }
        this.poll_look(cx)
    }
}

/// One stream: the journey, then its answer.
fn exchange(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    request: Request<RecvStream>,
    respond: Respond,
) -> Exchange<impl Future<Output = Response<ResponseBody>>> {
    Exchange::Handling {
        handled: handle(worker, downstream, request.map(Received::Http2)),
        respond,
    }
}

pin_project! {
    // Written out: an async block would keep what it was given beside what it made of it.
    #[project = ExchangeNow]
    enum Exchange<F> {
        Handling {
            #[pin]
            handled: F,
            respond: Respond,
        },
        Sending { rest: Pump<ResponseBody> },
    }
}

impl<F: Future<Output = Response<ResponseBody>>> Future for Exchange<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let next = match self.as_mut().project() {
                // Asked and taken back in one breath: nobody behind us is troubled by it.
                ExchangeNow::Handling { respond, .. } if respond.is_reset() => {
                    return Poll::Ready(());
                }
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
fn answer(response: Response<ResponseBody>, respond: &mut Respond) -> Option<Pump<ResponseBody>> {
    let (mut parts, body) = response.into_parts();
    if parts.extensions.get::<Reset>().is_some() {
        respond.reset(Reason::INTERNAL_ERROR);
        return None;
    }
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
    match respond.send(&parts, ends) {
        Ok(stream) => stream.map(|stream| Pump::new(body, stream, Reason::INTERNAL_ERROR)),
        Err(error) => {
            tracing::debug!(%error, "HTTP/2 response");
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
