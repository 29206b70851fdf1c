//! What stands between hyper's HTTP/1 server and its socket: the time a caller
//! may take for a head, the time a connection may idle, and the answers hyper
//! gives by itself (400, 414, 431), which leave with our flag on them.
//!
//! hyper's own header timeout also runs between requests, and would end idle
//! keep-alive connections within seconds; so time is kept here. The door also
//! says when a connection has been quiet for so long that it can do without
//! hyper until its next byte.

mod framings;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use parking_lot::Mutex;
use selvage_policy::flag::Flag;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use self::framings::Framings;
use crate::buffers::write_together;
use crate::clock;
use crate::error::ProxyError;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const ENDED: u8 = 3;
const QUIET: u8 = 4;
const LEAVING: u8 = 5;
const UPLOADING: u8 = 6;

/// Told of each request and each end of a response on one connection.
#[derive(Debug)]
pub struct DoorBell {
    state: AtomicU8,
    requests: AtomicU64,
    refused: Mutex<Option<Flag>>,
    made: Instant,
    /// Nanoseconds from `made` to the end of the last wait that began.
    due: AtomicU64,
}

impl Default for DoorBell {
    fn default() -> Self {
        Self {
            state: AtomicU8::default(),
            requests: AtomicU64::default(),
            refused: Mutex::default(),
            made: clock::recent(),
            due: AtomicU64::default(),
        }
    }
}

impl DoorBell {
    /// A request's head is complete: the journey has it.
    pub fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.state.store(BUSY, Ordering::Relaxed);
    }

    /// Its response has ended, but for the bytes still to be flushed.
    pub fn response_ended(&self) {
        // A caller that went away during an upgrade leaves no next request.
        let _ = self
            .state
            .compare_exchange(BUSY, ENDED, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Its response has ended before the request had: what comes is the rest of
    /// that, and then the next request.
    pub fn response_ended_early(&self) {
        let _ = self
            .state
            .compare_exchange(BUSY, UPLOADING, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// What was written has left; whether a response had ended with it.
    fn flushed(&self) -> bool {
        self.state
            .compare_exchange(ENDED, IDLE, Ordering::Relaxed, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether nothing has come for [`DoorLimits::quiet`] since the last answer
    /// was flushed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.state.load(Ordering::Relaxed) == QUIET
    }

    /// hyper is asked to end, and the socket will be taken back from it: until
    /// then its end is not the socket's.
    pub fn leave(&self) {
        self.state.store(LEAVING, Ordering::Relaxed);
    }

    /// Whether hyper was asked to end, and no door has opened since.
    #[cfg(test)]
    pub(crate) fn is_left(&self) -> bool {
        self.state.load(Ordering::Relaxed) == LEAVING
    }

    /// hyper does not end at once, so it keeps the socket.
    pub fn stay(&self) {
        let _ = self
            .state
            .compare_exchange(LEAVING, IDLE, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// When the caller will have taken too long, where it is waited for. The door
    /// sets no timer: who polls it does, once it is clear that the connection goes on.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let nanos = match self.state.load(Ordering::Relaxed) {
            IDLE | HEAD | QUIET | UPLOADING => self.due.load(Ordering::Relaxed),
            _ => 0,
        };
        (nanos > 0).then(|| self.made + Duration::from_nanos(nanos))
    }

    fn waits_until(&self, until: Instant) {
        let nanos = until.saturating_duration_since(self.made).as_nanos();
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.due.store(nanos.max(1), Ordering::Relaxed);
    }

    /// The flag of the request that never reached the journey, if there was one.
    #[must_use]
    pub fn refused(&self) -> Option<Flag> {
        *self.refused.lock()
    }
}

/// Time limits of an HTTP/1 connection, and how it ends.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Between two requests, and without progress in a write, or in a request that is answered.
    pub idle: Option<Duration>,
    /// Between two requests, until the bell says that it is quiet. What is left
    /// of `idle` counts from then on.
    pub quiet: Option<Duration>,
    /// The socket is dropped right after its end, and dropping it says all that
    /// shutting it down would: that is a call to the kernel less.
    pub drop_ends: bool,
}

/// What is waited for, and after how many requests: a timer of an earlier wait says nothing of this one.
type Wait = (u8, u64);

/// See the module.
#[derive(Debug)]
pub struct Door<S> {
    io: S,
    bell: Arc<DoorBell>,
    limits: DoorLimits,
    /// What is waited for, and until when.
    wait: Option<(Wait, Instant)>,
    framings: Framings,
    /// Runs while the caller does not read.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Our answer in place of hyper's, and how much of it is written.
    answer: Option<(Vec<u8>, usize)>,
}

impl<S> Door<S> {
    /// Guards one connection, between two requests.
    pub fn new(io: S, bell: Arc<DoorBell>, limits: DoorLimits) -> Self {
        bell.state.store(IDLE, Ordering::Relaxed);
        bell.due.store(0, Ordering::Relaxed);
        Self {
            io,
            bell,
            limits,
            wait: None,
            framings: Framings::default(),
            stalled: None,
            answer: None,
        }
    }

    /// The socket, once hyper is done with it.
    pub fn into_inner(self) -> S {
        self.io
    }

    fn state(&self) -> u8 {
        self.bell.state.load(Ordering::Relaxed)
    }

    fn limit(&self, state: u8) -> Option<Duration> {
        match state {
            IDLE => self.limits.quiet.or(self.limits.idle),
            QUIET | UPLOADING => self.limits.idle,
            HEAD => Some(self.limits.head),
            _ => None,
        }
    }

    /// The state in which the caller took too long, at the last look at the clock.
    fn overdue(&mut self) -> Option<u8> {
        let state = self.state();
        let limit = self.limit(state)?;
        let wait = (state, self.bell.requests.load(Ordering::Relaxed));
        let until = match self.wait {
            Some((for_this, until)) if for_this == wait => until,
            _ => {
                let until = clock::now() + limit;
                self.wait = Some((wait, until));
                self.bell.waits_until(until);
                until
            }
        };
        (clock::recent() >= until).then_some(state)
    }

    /// Ready when the caller is not waited for any longer.
    fn poll_patience(&mut self) -> Poll<u8> {
        let overdue = match self.overdue() {
            Some(IDLE) if self.limits.quiet.is_some() => {
                self.bell.state.store(QUIET, Ordering::Relaxed);
                self.overdue()
            }
            overdue => overdue,
        };
        overdue.map_or(Poll::Pending, Poll::Ready)
    }

    /// Times a write that does not progress; an error when that took too long.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let Some(limit) = self.limits.idle.filter(|_| written.is_pending()) else {
            self.stalled = None;
            return written;
        };
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match stalled.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }

    /// hyper writes outside of a journey only to refuse a head.
    fn refuse(&mut self, bytes: &[u8]) {
        if self.answer.is_some() || matches!(self.state(), BUSY | ENDED | UPLOADING) {
            return;
        }
        let flag = match bytes.get(9..12) {
            Some(b"431") => Flag::HeadersTooLarge,
            Some(b"414") => Flag::UriTooLong,
            _ => Flag::BadRequest,
        };
        *self.bell.refused.lock() = Some(flag);
        self.answer = Some((ProxyError::new(flag, "malformed head").http1_bytes(), 0));
    }
}

impl<S: AsyncWrite + Unpin> Door<S> {
    /// Writes our answer; ready when all of it is out.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((answer, written)) = &mut self.answer {
            if *written == answer.len() {
                return Poll::Ready(Ok(()));
            }
            let wrote = ready!(Pin::new(&mut self.io).poll_write(cx, &answer[*written..]))?;
            if wrote == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *written += wrote;
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> Door<S> {
    /// Answers where hyper never sees a request. What does not fit into the
    /// socket at once is not worth waiting for.
    fn answer_at_once(&mut self, cx: &mut Context<'_>, flag: Flag, detail: &'static str) {
        *self.bell.refused.lock() = Some(flag);
        self.answer = Some((ProxyError::new(flag, detail).http1_bytes(), 0));
        let _ = self.poll_answer(cx);
    }
}

impl<S: AsyncRead + Unpin> Door<S> {
    /// Whether the caller has sent nothing that nobody read. Dropping a socket
    /// that holds such bytes resets the connection; shut down before, it has at
    /// least ended.
    fn is_read_up(&mut self, cx: &mut Context<'_>) -> bool {
        if self.answer.is_some() {
            return false;
        }
        let mut space = [0];
        let mut buf = ReadBuf::new(&mut space);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut buf);
        polled.is_pending() || buf.filled().is_empty()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Door<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        match Pin::new(&mut this.io).poll_read(cx, buf) {
            Poll::Ready(result) => {
                if buf.filled().len() > before && matches!(this.state(), IDLE | QUIET) {
                    this.bell.state.store(HEAD, Ordering::Relaxed);
                    this.framings = Framings::default();
                }
                if this.state() == UPLOADING {
                    this.wait = None;
                }
                if this.state() == HEAD {
                    this.framings.take(&buf.filled()[before..]);
                    if let Some(detail) = this.framings.malformed() {
                        this.answer_at_once(cx, Flag::BadRequest, detail);
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    }
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                let state = ready!(this.poll_patience());
                if state == HEAD {
                    this.answer_at_once(cx, Flag::SlowRequest, "head took too long");
                }
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Door<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.refuse(buf);
        if self.answer.is_some() {
            return self.poll_answer(cx).map_ok(|()| buf.len());
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.refuse(bufs.first().map_or(&[], |first| first));
        if self.answer.is_some() {
            let all = bufs.iter().map(|buf| buf.len()).sum();
            return self.poll_answer(cx).map_ok(|()| all);
        }
        let written = write_together(&mut self.io, cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        ready!(self.watch(cx, flushed))?;
        // hyper looked for the caller's end while the answer was waited for, found nothing,
        // and does not look again before something comes: the wait begins here.
        if self.bell.flushed() || self.state() == UPLOADING {
            let _ = self.overdue();
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.state() {
            LEAVING => return Poll::Ready(Ok(())),
            // Busy even now, it carries an upgrade, and its end is half of one.
            BUSY => {}
            _ if self.limits.drop_ends && self.is_read_up(cx) => return Poll::Ready(Ok(())),
            _ => {}
        }
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
