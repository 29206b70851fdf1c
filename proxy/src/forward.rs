//! Opaque bytes in both directions, with half-close: TCP, and what HTTP became
//! after an upgrade. A side that breaks off is not made to look like an end:
//! the other side is reset.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsStream;

use crate::telemetry::metrics::TcpRecord;
use crate::upstream::connect::Io;

/// Bytes in flight per direction.
const BUFFER: usize = 64 * 1024;

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
        self.get_ref().0.abort();
    }
}

/// HTTP owns its socket; a dropped upgrade closes it.
impl Abort for hyper_util::rt::TokioIo<hyper::upgrade::Upgraded> {
    fn abort(&self) {}
}

/// Where the bytes read are counted.
type Report<'r> = (&'r TcpRecord, fn(&TcpRecord, u64));

/// Counts bytes, and remembers when one last moved.
struct Counted<'r, S> {
    inner: S,
    read: Rc<Flow>,
    active: Rc<Cell<Instant>>,
    report: Option<Report<'r>>,
}

#[derive(Default)]
struct Flow {
    bytes: Cell<u64>,
    broken: Cell<bool>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(_)) = &result {
            self.read.broken.set(true);
        }
        let moved = buf.filled().len() - before;
        if moved > 0 {
            self.read.bytes.set(self.read.bytes.get() + moved as u64);
            self.active.set(Instant::now());
            if let Some((record, report)) = self.report {
                report(record, moved as u64);
            }
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
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
    downstream: D,
    upstream: U,
    idle: Option<Duration>,
    record: Option<&TcpRecord>,
) -> Carried
where
    D: AsyncRead + AsyncWrite + Abort + Unpin,
    U: AsyncRead + AsyncWrite + Abort + Unpin,
{
    let active = Rc::new(Cell::new(Instant::now()));
    let (down, up): (Rc<Flow>, Rc<Flow>) = Default::default();
    let counted = |read: &Rc<Flow>| (read.clone(), active.clone());
    let (read, at) = counted(&down);
    let mut downstream = Counted {
        inner: downstream,
        read,
        active: at,
        report: record.map(|record| (record, TcpRecord::received as fn(&TcpRecord, u64))),
    };
    let (read, at) = counted(&up);
    let mut upstream = Counted {
        inner: upstream,
        read,
        active: at,
        report: record.map(|record| (record, TcpRecord::sent as fn(&TcpRecord, u64))),
    };
    let copying =
        tokio::io::copy_bidirectional_with_sizes(&mut downstream, &mut upstream, BUFFER, BUFFER);
    let outcome = watched(copying, idle, &active).await;
    let ended = match outcome {
        Some(Ok(_)) => Ended::Cleanly,
        None => Ended::Idle,
        Some(Err(_)) if up.broken.get() => Ended::Upstream,
        Some(Err(_)) if down.broken.get() => Ended::Downstream,
        // A write failed: whoever no longer reads has gone.
        Some(Err(_)) => Ended::Upstream,
    };
    if matches!(ended, Ended::Downstream | Ended::Upstream) {
        downstream.inner.abort();
        upstream.inner.abort();
    }
    Carried {
        received: down.bytes.get(),
        sent: up.bytes.get(),
        ended,
    }
}

/// Runs the copy; `None` when it was idle for too long.
async fn watched<T>(
    copying: impl Future<Output = io::Result<T>>,
    idle: Option<Duration>,
    active: &Cell<Instant>,
) -> Option<io::Result<T>> {
    let Some(idle) = idle else {
        return Some(copying.await);
    };
    tokio::pin!(copying);
    loop {
        tokio::select! {
            biased;
            result = &mut copying => return Some(result),
            () = tokio::time::sleep_until(active.get() + idle) => {
                if active.get() + idle <= Instant::now() {
                    return None;
                }
            }
        }
    }
}
