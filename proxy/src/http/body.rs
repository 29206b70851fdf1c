//! The body of a response on its way to the caller. It carries everything that
//! must last until the last byte: permits, the endpoint's load, the record, the
//! connection to be given back. Whatever way the body ends, `Ending::end` runs
//! exactly once.

use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::clean;
use super::received::{ReceiveError, Received, Rest};
use super::replay::Activity;
use crate::clock;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The caller's side broke while its request was read.
    #[error("caller: {0}")]
    Caller(#[source] ReceiveError),
    /// The upstream's side broke while its response was read.
    #[error("upstream: {0}")]
    Upstream(#[source] ReceiveError),
    /// The request's deadline passed.
    #[error("the request's deadline passed")]
    Deadline,
    /// No byte moved in either direction for too long.
    #[error("no byte in either direction")]
    Idle,
    /// Another try took the body over.
    #[error("another try took over")]
    Superseded,
}

/// How a response ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// To its last byte.
    Complete,
    /// The upstream broke off.
    Upstream,
    /// Deadline or idle time.
    TimedOut,
    /// The caller went away.
    Caller,
}

/// What is done when a response has ended.
pub trait Ending {
    /// Called for each frame that leaves for the caller: the next poll shows that it reads.
    fn moved(&self);

    /// Called when the caller would read and the upstream has nothing.
    fn waits(&self);

    /// Called once. `trailers` where there were any; `bytes` of body sent to the caller.
    fn end(self: Box<Self>, end: End, trailers: Option<&HeaderMap>, bytes: u64);
}

/// Time limits of a body.
#[derive(Clone, Debug, Default)]
pub struct Patience {
    /// The moment the whole exchange must be over.
    pub deadline: Option<Instant>,
    /// Time without a byte in either direction.
    pub idle: Option<(Duration, Rc<Activity>)>,
}

impl Patience {
    fn next(&self) -> Option<Instant> {
        let idle = self
            .idle
            .as_ref()
            .map(|(limit, activity)| activity.last() + *limit);
        match (self.deadline, idle) {
            (Some(deadline), Some(idle)) => Some(deadline.min(idle)),
            (deadline, idle) => deadline.or(idle),
        }
    }

    /// What is left of a request, written while its answer is read and after that.
    pub async fn over(self, mut rest: Rest) {
        while let Some(end) = self.next() {
            let ended = tokio::time::timeout_at(end, &mut rest).await.is_ok();
            // Bytes that moved have put the end off.
            if ended || self.next() <= Some(end) {
                return;
            }
        }
        rest.await;
    }
}

enum Source {
    Empty,
    Upstream(Received),
    /// A frame was read to judge the response by it.
    Peeked(Box<(Option<Frame<Bytes>>, Received)>),
    Bytes(Option<Bytes>),
}

/// See the module.
pub struct ResponseBody {
    source: Source,
    ending: Option<Box<dyn Ending>>,
    patience: Patience,
    timer: Option<Pin<Box<Sleep>>>,
    bytes: u64,
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl ResponseBody {
    fn new(source: Source) -> Self {
        Self {
            source,
            ending: None,
            patience: Patience::default(),
            timer: None,
            bytes: 0,
        }
    }

    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::new(Source::Empty)
    }

    /// A body of our own.
    #[must_use]
    pub fn of_bytes(bytes: Bytes) -> Self {
        Self::new(Source::Bytes(Some(bytes)))
    }

    /// The upstream's body.
    #[must_use]
    pub fn upstream(body: Received) -> Self {
        Self::new(Source::Upstream(body))
    }

    /// The upstream's body, of which one frame was read already.
    #[must_use]
    pub fn peeked(frame: Frame<Bytes>, body: Received) -> Self {
        Self::new(Source::Peeked(Box::new((Some(frame), body))))
    }

    /// What limits it.
    #[must_use]
    pub fn within(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// What happens at its end.
    #[must_use]
    pub fn ending(mut self, ending: Box<dyn Ending>) -> Self {
        self.ending = Some(ending);
        self
    }

    fn finish(&mut self, end: End, trailers: Option<&HeaderMap>) {
        if let Some(ending) = self.ending.take() {
            ending.end(end, trailers, self.bytes);
        }
    }

    fn poll_source(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Bytes(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Upstream(body) => Pin::new(body).poll_frame(cx),
            Source::Peeked(peeked) => match &mut **peeked {
                (frame @ Some(_), _) => Poll::Ready(frame.take().map(Ok)),
                (None, body) => Pin::new(body).poll_frame(cx),
            },
        }
    }

    /// Ready when a limit has passed. A timer exists only while the body waits.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        loop {
            let Some(next) = self.patience.next() else {
                return Poll::Pending;
            };
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // A byte of the request may have moved meanwhile: then wait on.
            let now = Instant::now();
            if self
                .patience
                .deadline
                .is_some_and(|deadline| deadline <= now)
            {
                return Poll::Ready(BodyError::Deadline);
            }
            if self.patience.next().is_some_and(|next| next <= now) {
                return Poll::Ready(BodyError::Idle);
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        match this.poll_source(cx) {
            Poll::Pending => {
                if let Some(ending) = &this.ending {
                    ending.waits();
                }
                match this.poll_patience(cx) {
                    Poll::Pending => Poll::Pending,
                    Poll::Ready(error) => {
                        this.finish(End::TimedOut, None);
                        Poll::Ready(Some(Err(error)))
                    }
                }
            }
            Poll::Ready(None) => {
                let _ = clock::now();
                this.finish(End::Complete, None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                this.finish(End::Upstream, None);
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let frame = clean(frame);
                let now = clock::now();
                if let Some(ending) = &this.ending {
                    ending.moved();
                }
                if let Some((_, activity)) = &this.patience.idle {
                    activity.touch(now);
                }
                if let Some(data) = frame.data_ref() {
                    this.bytes += data.len() as u64;
                    // The server does not ask again once the length is reached.
                    if this.is_end_stream() {
                        this.finish(End::Complete, None);
                    }
                } else {
                    this.finish(End::Complete, frame.trailers_ref());
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty | Source::Bytes(None) => true,
            Source::Bytes(Some(_)) => false,
            Source::Upstream(body) => body.is_end_stream(),
            Source::Peeked(peeked) => peeked.0.is_none() && peeked.1.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty | Source::Bytes(None) => SizeHint::with_exact(0),
            Source::Bytes(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Source::Upstream(body) => body.size_hint(),
            Source::Peeked(peeked) => {
                let (frame, body) = &**peeked;
                let data = frame.as_ref().and_then(Frame::data_ref);
                let first = data.map_or(0, |data| data.len() as u64);
                let rest = body.size_hint().exact();
                rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(first + rest))
            }
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        let end = if self.is_end_stream() {
            End::Complete
        } else {
            End::Caller
        };
        self.finish(end, None);
    }
}
