//! What stands between hyper's HTTP/1 server and its socket: the time a caller
//! may take for a head, the time a connection may idle, and the answers hyper
//! gives by itself (400, 414, 431), which leave with our flag on them.
//!
//! hyper's own header timeout also runs between requests, and would end idle
//! keep-alive connections within seconds; so time is kept here.

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

use crate::error::ProxyError;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
const ENDED: u8 = 3;

/// Looks through the raw bytes of one head for what two parsers read in two
/// ways and hyper forgives: both framings at once (RFC 9112 §6.1), and lines
/// that end without CR.
#[derive(Debug, Default)]
struct Framings {
    /// The first bytes of the line being read.
    line: [u8; 18],
    length: usize,
    coding_seen: bool,
    length_seen: bool,
    begun: bool,
    ended: bool,
    last: u8,
    bare_lf: bool,
}

impl Framings {
    /// Takes bytes of the head; what follows its empty line is left alone.
    fn take(&mut self, bytes: &[u8]) {
        if self.ended {
            return;
        }
        for &byte in bytes {
            if byte != b'\n' {
                self.last = byte;
                if let Some(place) = self.line.get_mut(self.length) {
                    *place = byte.to_ascii_lowercase();
                }
                self.length += 1;
                continue;
            }
            self.bare_lf |= self.last != b'\r';
            let line = &self.line[..self.length.min(self.line.len())];
            if self.begun && matches!(line, b"" | b"\r") {
                // Without a body the next head follows; a body is not looked through.
                self.ended = self.coding_seen || self.length_seen;
                if self.ended {
                    return;
                }
                self.begun = false;
            }
            self.begun |= !matches!(line, b"" | b"\r");
            self.coding_seen |= line.starts_with(b"transfer-encoding:");
            self.length_seen |= line.starts_with(b"content-length:");
            self.length = 0;
            self.last = 0;
        }
    }

    /// What must not reach the application, if anything.
    const fn malformed(&self) -> Option<&'static str> {
        if self.coding_seen && self.length_seen {
            return Some("content-length beside transfer-encoding");
        }
        // RFC 9112 §2.2 lets a recipient take it; others do not, and so two would differ.
        if self.bare_lf {
            Some("a line that ends without CR")
        } else {
            None
        }
    }
}

/// Told of each request and each end of a response on one connection.
#[derive(Debug, Default)]
pub struct DoorBell {
    state: AtomicU8,
    requests: AtomicU64,
    refused: Mutex<Option<Flag>>,
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

    /// The flag of the request that never reached the journey, if there was one.
    #[must_use]
    pub fn refused(&self) -> Option<Flag> {
        *self.refused.lock()
    }
}

/// Time limits of an HTTP/1 connection.
#[derive(Debug, Clone, Copy)]
pub struct DoorLimits {
    /// From the first byte of a head to its last.
    pub head: Duration,
    /// Between two requests.
    pub idle: Option<Duration>,
}

/// What is waited for, and after how many requests: a timer of an earlier wait says nothing of this one.
type Wait = (u8, u64);

/// See the module.
#[derive(Debug)]
pub struct Door<S> {
    io: S,
    bell: Arc<DoorBell>,
    limits: DoorLimits,
    /// What is waited for, and until when. The timer may be set for earlier:
    /// it is moved when it fires, not with every request.
    wait: Option<(Wait, Instant)>,
    timer: Option<Pin<Box<Sleep>>>,
    framings: Framings,
    /// Runs while the caller does not read.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Our answer in place of hyper's, and how much of it is written.
    answer: Option<(Vec<u8>, usize)>,
}

impl<S> Door<S> {
    /// Guards one connection.
    pub fn new(io: S, bell: Arc<DoorBell>, limits: DoorLimits) -> Self {
        Self {
            io,
            bell,
            limits,
            wait: None,
            timer: None,
            framings: Framings::default(),
            stalled: None,
            answer: None,
        }
    }

    /// The socket, once HTTP is over (an upgrade).
    pub fn into_inner(self) -> S {
        self.io
    }

    fn state(&self) -> u8 {
        self.bell.state.load(Ordering::Relaxed)
    }

    fn limit(&self, state: u8) -> Option<Duration> {
        match state {
            IDLE => self.limits.idle,
            HEAD => Some(self.limits.head),
            _ => None,
        }
    }

    /// Ready when the caller took too long in this state.
    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<u8> {
        let state = self.state();
        let Some(limit) = self.limit(state) else {
            return Poll::Pending;
        };
        let wait = (state, self.bell.requests.load(Ordering::Relaxed));
        let until = match self.wait {
            Some((for_this, until)) if for_this == wait => until,
            _ => {
                let until = Instant::now() + limit;
                self.wait = Some((wait, until));
                until
            }
        };
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        while timer.as_mut().poll(cx).is_ready() {
            if Instant::now() >= until {
                return Poll::Ready(state);
            }
            timer.as_mut().reset(until);
        }
        Poll::Pending
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
        if self.answer.is_some() || matches!(self.state(), BUSY | ENDED) {
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
                if buf.filled().len() > before && this.state() == IDLE {
                    this.bell.state.store(HEAD, Ordering::Relaxed);
                    this.framings = Framings::default();
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
                let state = ready!(this.poll_overdue(cx));
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
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        ready!(self.watch(cx, flushed))?;
        let _ = self
            .bell
            .state
            .compare_exchange(ENDED, IDLE, Ordering::Relaxed, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn what_reads_in_two_ways_is_seen_however_the_head_is_cut() {
        let table: [(&str, bool); 7] = [
            (
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\ntransfer-encoding:chunked\r\ncontent-length:1\r\n\r\n",
                true,
            ),
            ("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", true),
            (
                "\r\nGET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: x\r\n\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\ncontent-length: 1\r\n\r\ntransfer-encoding: chunked\r\n",
                false,
            ),
            (
                "GET / HTTP/1.1\r\ncontent-lengths: 1\r\ntransfer-encoding: chunked\r\n\r\n",
                false,
            ),
            (
                "GET / HTTP/1.1\r\nx: content-length:\r\ntransfer-encoding: chunked\r\n\r\n",
                false,
            ),
        ];
        for (head, expected) in table {
            for cut in 0..head.len() {
                let mut framings = Framings::default();
                framings.take(&head.as_bytes()[..cut]);
                framings.take(&head.as_bytes()[cut..]);
                assert_eq!(
                    framings.malformed().is_some(),
                    expected,
                    "{head:?} cut at {cut}"
                );
            }
        }
    }

    /// One read that finds nothing, as hyper makes between two requests.
    async fn waits(door: &mut Door<tokio::io::DuplexStream>) -> bool {
        std::future::poll_fn(|cx| {
            let mut space = [0; 64];
            let mut buf = ReadBuf::new(&mut space);
            Poll::Ready(Pin::new(&mut *door).poll_read(cx, &mut buf).is_pending())
        })
        .await
    }

    #[tokio::test]
    async fn idle_time_begins_anew_after_each_request() {
        let (ours, mut callers) = tokio::io::duplex(64);
        let idle = Duration::from_millis(200);
        let limits = DoorLimits {
            head: Duration::from_secs(10),
            idle: Some(idle),
        };
        let bell = Arc::new(DoorBell::default());
        let mut door = Door::new(ours, bell.clone(), limits);
        let begun = tokio::time::Instant::now();
        while begun.elapsed() < idle * 3 {
            assert!(waits(&mut door).await, "closed while it was in use");
            callers
                .write_all(b"GET / HTTP/1.1\r\n\r\n")
                .await
                .expect("room");
            door.read_u8().await.expect("a byte of the head");
            bell.request();
            bell.response_ended();
            door.flush().await.expect("flushed");
            let mut rest = [0; 17];
            door.read_exact(&mut rest).await.expect("the rest of it");
            bell.request();
            bell.response_ended();
            door.flush().await.expect("flushed");
            tokio::time::sleep(idle / 10).await;
        }
        assert!(waits(&mut door).await);
        tokio::time::sleep(idle * 2).await;
        assert!(!waits(&mut door).await, "idle for longer than it may be");
    }
}
