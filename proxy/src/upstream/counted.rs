//! A stream that has a place under `limits.maxConnections` for as long as there is a stream.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use selvage_policy::service::ConnectionPermit;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connect::Io;

/// See the module.
pub struct Counted {
    io: Io,
    _permit: ConnectionPermit,
}

impl Counted {
    /// Counts a stream.
    pub const fn new(io: Io, permit: ConnectionPermit) -> Self {
        Self {
            io,
            _permit: permit,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if let Io::Tls(stream) = &mut self.io {
            // A peer that is told of the end knows that nothing was cut off (RFC 8446 §6.1). What cannot be
            // written at once is not waited for.
            let mut cx = Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut **stream).poll_shutdown(&mut cx);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
