//! The body of a request, read once from the caller and sent as often as a
//! retry needs. It is kept while it streams, up to a limit; past that it goes
//! on unkept and the request is simply no longer replayable.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::body::BodyError;
use super::clean;
use super::received::Received;
use crate::clock;

/// When a byte last moved in either direction of an exchange.
#[derive(Debug)]
pub struct Activity(Cell<Instant>);

impl Activity {
    /// An exchange that has just begun.
    #[must_use]
    pub fn new() -> Rc<Self> {
        Rc::new(Self(Cell::new(clock::recent())))
    }

    /// A byte moved, at `now`.
    pub fn touch(&self, now: Instant) {
        self.0.set(now);
    }

    /// When the last one did.
    #[must_use]
    pub fn last(&self) -> Instant {
        self.0.get()
    }
}

/// Holds a body back until the upstream says `100 Continue`, or answers.
#[derive(Debug, Default)]
pub struct Gate {
    open: AtomicBool,
    waker: AtomicWaker,
}

impl Gate {
    /// Lets the body through.
    pub fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        if self.open.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        self.waker.register(cx.waker());
        if self.open.load(Ordering::Acquire) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// What all tries of one request share.
#[derive(Debug)]
struct Shared {
    /// Where it comes from; a copy is there whole.
    source: Option<Received>,
    kept: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    kept_bytes: usize,
    limit: usize,
    /// Nothing was let go of yet.
    whole: bool,
    /// The source has ended.
    complete: bool,
    /// The caller's side broke.
    broken: bool,
    /// Bytes read from the caller.
    received: u64,
    /// Which try may read.
    reader: u32,
    activity: Rc<Activity>,
    gate: Option<Arc<Gate>>,
}

/// The body of one request, from which each try gets its own reader.
#[derive(Debug, Clone)]
pub struct Replay(Option<Rc<RefCell<Shared>>>);

impl Replay {
    /// A body of which nothing is kept yet. `gate` holds the first byte back.
    #[must_use]
    pub fn of(source: Received, activity: Rc<Activity>, gate: Option<Arc<Gate>>) -> Self {
        if source.is_end_stream() {
            return Self(None);
        }
        Self(Some(Rc::new(RefCell::new(Shared {
            source: Some(source),
            kept: Vec::new(),
            trailers: None,
            kept_bytes: 0,
            limit: 0,
            whole: true,
            complete: false,
            broken: false,
            received: 0,
            reader: 0,
            activity,
            gate,
        }))))
    }

    /// Keeps at most `limit` bytes from now on. Called before the first try.
    pub fn keep(&self, limit: usize) {
        if let Some(shared) = &self.0 {
            shared.borrow_mut().limit = limit;
        }
    }

    /// The body for the next try. An earlier reader gets what is kept, and
    /// nothing that comes later.
    #[must_use]
    pub fn reader(&self) -> RequestBody {
        let Some(shared) = &self.0 else {
            return RequestBody(None);
        };
        let reader = {
            let mut shared = shared.borrow_mut();
            shared.reader += 1;
            shared.reader
        };
        RequestBody(Some(Reader {
            shared: shared.clone(),
            reader,
            next: 0,
            ended: false,
        }))
    }

    /// The same body apart from this one; `None` unless all of it was read and kept.
    #[must_use]
    pub fn copy(&self) -> Option<Self> {
        let Some(shared) = &self.0 else {
            return Some(Self(None));
        };
        let shared = shared.borrow();
        let is_there = shared.whole && shared.complete && !shared.broken;
        is_there.then(|| {
            Self(Some(Rc::new(RefCell::new(Shared {
                source: None,
                kept: shared.kept.clone(),
                trailers: shared.trailers.clone(),
                kept_bytes: shared.kept_bytes,
                limit: shared.limit,
                whole: true,
                complete: true,
                broken: false,
                received: shared.received,
                reader: 0,
                activity: Activity::new(),
                gate: None,
            }))))
        })
    }

    /// Whether the body can be sent again from its first byte.
    #[must_use]
    pub fn is_replayable(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let shared = shared.borrow();
            shared.whole && !shared.broken
        })
    }

    /// Whether no byte of it was read yet.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.0.as_ref().is_none_or(|shared| {
            let shared = shared.borrow();
            shared.received == 0 && !shared.complete && !shared.broken
        })
    }

    /// Whether the caller's side broke while its body was read.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.borrow().broken)
    }

    /// Whether the whole of it was read.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|shared| shared.borrow().complete)
    }

    /// Bytes read from the caller.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.borrow().received)
    }

    /// No more retries: what was kept is given back and nothing more is kept.
    /// The current reader goes on.
    pub fn release(&self) {
        if let Some(shared) = &self.0 {
            let mut shared = shared.borrow_mut();
            shared.limit = 0;
            shared.whole = false;
        }
    }
}

/// One try's reading of the body.
#[derive(Debug)]
pub struct RequestBody(Option<Reader>);

impl RequestBody {
    /// No body.
    #[must_use]
    pub const fn empty() -> Self {
        Self(None)
    }
}

#[derive(Debug)]
struct Reader {
    shared: Rc<RefCell<Shared>>,
    reader: u32,
    next: usize,
    ended: bool,
}

impl Reader {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let shared = &mut *self.shared.borrow_mut();
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(chunk) = shared.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        if shared.complete {
            self.ended = true;
            return Poll::Ready(shared.trailers.clone().map(|map| Ok(Frame::trailers(map))));
        }
        // What is kept is everybody's; what is still to come, the latest reader's alone.
        if shared.reader != self.reader {
            return Poll::Ready(Some(Err(BodyError::Superseded)));
        }
        if let Some(gate) = &shared.gate {
            ready!(gate.poll_open(cx));
        }
        let Some(source) = &mut shared.source else {
            return Poll::Ready(None);
        };
        match ready!(Pin::new(source).poll_frame(cx)) {
            None => {
                shared.complete = true;
                self.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                shared.broken = true;
                Poll::Ready(Some(Err(BodyError::Caller(error))))
            }
            Some(Ok(frame)) => {
                let frame = clean(frame);
                shared.activity.touch(clock::now());
                shared.keep(&frame);
                self.next = shared.kept.len();
                self.ended = frame.is_trailers();
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Shared {
    fn keep(&mut self, frame: &Frame<Bytes>) {
        if let Some(data) = frame.data_ref() {
            self.received += data.len() as u64;
            self.kept_bytes += data.len();
            if self.whole && self.kept_bytes <= self.limit {
                self.kept.push(data.clone());
            } else {
                self.whole = false;
                self.kept = Vec::new();
            }
            self.complete = self.source.as_ref().is_none_or(Body::is_end_stream);
        } else if let Some(trailers) = frame.trailers_ref() {
            self.complete = true;
            if self.whole {
                self.trailers = Some(trailers.clone());
            }
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            None => Poll::Ready(None),
            Some(reader) => reader.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|reader| {
            let shared = reader.shared.borrow();
            let read_all = reader.next >= shared.kept.len();
            reader.ended || (read_all && shared.complete && shared.trailers.is_none())
        })
    }

    fn size_hint(&self) -> SizeHint {
        let Some(reader) = &self.0 else {
            return SizeHint::with_exact(0);
        };
        let shared = reader.shared.borrow();
        let kept: u64 = shared
            .kept
            .iter()
            .skip(reader.next)
            .map(|chunk| chunk.len() as u64)
            .sum();
        let rest = if shared.complete {
            Some(0)
        } else {
            shared
                .source
                .as_ref()
                .and_then(|source| source.size_hint().exact())
        };
        rest.map_or_else(SizeHint::default, |rest| SizeHint::with_exact(kept + rest))
    }
}
