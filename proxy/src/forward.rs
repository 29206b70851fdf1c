//! Opaque bytes in both directions, with half-close: TCP, and what HTTP became
//! after an upgrade. A side that breaks off is not made to look like an end:
//! the other side is reset.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::buffers::Buffer;
use crate::telemetry::metrics::TcpRecord;
use crate::tls::TlsStream;
use crate::upstream::connect::Io;

/// Something whose peer can be told that this was no clean end.
pub trait Abort {
    /// Makes the close that follows a reset.
    fn abort(&self);
}

impl Abort for TcpStream {
    fn abort(&self) {
        // Where it fails the peer sees a clean end of a cut TLS or HTTP stream, which those notice.
        let _ = SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Abort for Io {
    fn abort(&self) {
        self.socket().abort();
    }
}

impl<S: Abort> Abort for TlsStream<S> {
    fn abort(&self) {
        self.get_ref().abort();
    }
}

/// HTTP owns its socket; a dropped upgrade closes it.
impl Abort for hyper_util::rt::TokioIo<hyper::upgrade::Upgraded> {
    fn abort(&self) {}
}

/// Bytes that one direction moves before it lets others have their turn.
const TURN: usize = 1024 * 1024;

/// Which side a direction failed at.
enum Broken {
    Reading,
    Writing,
}

/// One direction. It holds a buffer only while bytes are on their way.
#[derive(Default)]
struct Way {
    buffer: Option<Buffer>,
    moved: u64,
    /// Whether the writer has taken bytes that it may still hold.
    unflushed: bool,
    state: State,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// The reader's side is closed; the writer's is to be.
    Closing,
    Closed,
}

impl Way {
    /// Ready when what was read is all written, and the end passed on.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        (from, to): (&mut R, &mut W),
        mut seen: impl FnMut(usize),
    ) -> Poll<Result<(), Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut turned = 0;
        while self.state == State::Open {
            let Some(buffer) = &mut self.buffer else {
                if turned >= TURN {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                let count = ready!(self.poll_fill(cx, from, to))?;
                if count > 0 {
                    seen(count);
                    turned += count;
                }
                continue;
            };
            match ready!(Pin::new(&mut *to).poll_write(cx, buffer.bytes())) {
                Err(_) | Ok(0) => return Poll::Ready(Err(Broken::Writing)),
                Ok(count) => buffer.advance(count),
            }
            self.unflushed = true;
            if buffer.is_empty() {
                self.buffer = None;
            }
        }
        if self.state == State::Closing {
            let closed = ready!(Pin::new(to).poll_shutdown(cx));
            self.state = State::Closed;
            return Poll::Ready(closed.map_err(|_| Broken::Writing));
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is there. What was written leaves before the reader is waited for.
    fn poll_fill<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
    ) -> Poll<Result<usize, Broken>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = Buffer::lend();
        let (read, count) = buffer.fill(|room| Pin::new(from).poll_read(cx, room));
        if self.unflushed && read.is_pending() {
            ready!(Pin::new(to).poll_flush(cx)).map_err(|_| Broken::Writing)?;
            self.unflushed = false;
        }
        ready!(read).map_err(|_| Broken::Reading)?;
        if count == 0 {
            self.state = State::Closing;
        } else {
            self.moved += count as u64;
            self.buffer = Some(buffer);
        }
        Poll::Ready(Ok(count))
    }
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Both sides closed cleanly.
    Cleanly,
    /// The side that called broke off.
    Downstream,
    /// The side that was called broke off.
    Upstream,
    /// No byte moved for `timeouts.idle`.
    Idle,
}

/// What went through a tunnel.
#[derive(Debug, Clone, Copy)]
pub struct Carried {
    /// From the side that called.
    pub received: u64,
    /// To it.
    pub sent: u64,
    /// How it ended.
    pub ended: Ended,
}

/// Carries bytes between the two until both have closed, one has broken off,
/// or none moved for `idle`.
pub async fn tunnel<D, U>(
    mut downstream: D,
    mut upstream: U,
    idle: Option<Duration>,
    record: Option<&TcpRecord>,
) -> Carried
where
    D: AsyncRead + AsyncWrite + Abort + Unpin,
    U: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let active = Cell::new(Instant::now());
    let (mut forth, mut back) = (Way::default(), Way::default());
    let copying = poll_fn(|cx| {
        let forth = forth.poll(cx, (&mut downstream, &mut upstream), |count| {
            active.set(Instant::now());
            if let Some(record) = record {
                record.received(count as u64);
            }
        });
        match forth {
            Poll::Ready(Err(Broken::Reading)) => return Poll::Ready(Ended::Downstream),
            // Whoever no longer reads has gone.
            Poll::Ready(Err(Broken::Writing)) => return Poll::Ready(Ended::Upstream),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        let back = back.poll(cx, (&mut upstream, &mut downstream), |count| {
            active.set(Instant::now());
            if let Some(record) = record {
                record.sent(count as u64);
            }
        });
        match back {
            Poll::Ready(Err(_)) => Poll::Ready(Ended::Upstream),
            Poll::Ready(Ok(())) if forth.is_ready() => Poll::Ready(Ended::Cleanly),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    });
    let ended = watched(copying, idle, &active).await;
    if matches!(ended, Ended::Downstream | Ended::Upstream) {
        downstream.abort();
        upstream.abort();
    }
    Carried {
        received: forth.moved,
        sent: back.moved,
        ended,
    }
}

/// Runs the copy, unless it is idle for too long.
async fn watched(
    copying: impl Future<Output = Ended>,
    idle: Option<Duration>,
    active: &Cell<Instant>,
) -> Ended {
    let Some(idle) = idle else {
        return copying.await;
    };
    tokio::pin!(copying);
    loop {
        tokio::select! {
            biased;
            ended = &mut copying => return ended,
            () = tokio::time::sleep_until(active.get() + idle) => {
                if active.get() + idle <= Instant::now() {
                    return Ended::Idle;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    /// Polls a direction once.
    async fn turn(
        way: &mut Way,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<bool> {
        poll_fn(|cx| Poll::Ready(way.poll(cx, (&mut *from, &mut *to), |_| {})))
            .await
            .map(|result| result.is_ok())
    }

    #[tokio::test]
    async fn a_buffer_is_held_only_while_the_writer_takes_nothing() {
        let (mut caller, mut from) = duplex(100_000);
        let (mut to, mut server) = duplex(1_000);
        let mut way = Way::default();
        assert_eq!(turn(&mut way, &mut from, &mut to).await, Poll::Pending);
        assert!(way.buffer.is_none(), "nothing has come");
        caller.write_all(&[7; 3_000]).await.expect("a pipe");
        assert_eq!(turn(&mut way, &mut from, &mut to).await, Poll::Pending);
        assert!(way.buffer.is_some(), "the writer has taken 1,000 of 3,000");
        let mut received = [0; 3_000];
        for part in received.chunks_mut(1_000) {
            server.read_exact(part).await.expect("a pipe");
            assert_eq!(turn(&mut way, &mut from, &mut to).await, Poll::Pending);
        }
        assert_eq!(received, [7; 3_000]);
        assert!(way.buffer.is_none(), "all is written");
        assert_eq!(way.moved, 3_000);
    }

    #[tokio::test]
    async fn an_end_is_passed_on_after_the_last_byte() {
        let (mut caller, mut from) = duplex(1_000);
        let (mut to, mut server) = duplex(1_000);
        let mut way = Way::default();
        caller.write_all(b"last").await.expect("a pipe");
        caller.shutdown().await.expect("a pipe");
        assert_eq!(turn(&mut way, &mut from, &mut to).await, Poll::Ready(true));
        let mut received = String::new();
        server.read_to_string(&mut received).await.expect("a pipe");
        assert_eq!(received, "last");
        assert_eq!(turn(&mut way, &mut from, &mut to).await, Poll::Ready(true));
    }

    #[tokio::test]
    async fn a_writer_that_has_gone_breaks_the_direction() {
        let (mut caller, mut from) = duplex(1_000);
        let (mut to, server) = duplex(1_000);
        drop(server);
        caller.write_all(b"lost").await.expect("a pipe");
        let mut way = Way::default();
        assert_eq!(turn(&mut way, &mut from, &mut to).await, Poll::Ready(false));
    }

    #[tokio::test]
    async fn a_direction_that_never_runs_dry_lets_others_have_their_turn() {
        let mut from = tokio::io::repeat(7);
        let mut to = tokio::io::sink();
        let mut way = Way::default();
        assert_eq!(turn(&mut way, &mut from, &mut to).await, Poll::Pending);
        assert_eq!(way.moved, TURN as u64);
    }
}
