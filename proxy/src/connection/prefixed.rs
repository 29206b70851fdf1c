//! A stream of which the first bytes were read already, to see what it is.

use std::io::{self, Cursor, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::forward::Abort;
use crate::identity::attest::INBOUND_ALPN;

/// A ClientHello larger than this is none of ours (a post-quantum one has about 1.6 KB).
const HELLO_BYTES: usize = 16 * 1024;

/// Room for a preface, SETTINGS and the first request.
const FIRST_BYTES: usize = 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Prefixed<S> {
    prefix: Bytes,
    inner: S,
}

impl<S> Prefixed<S> {
    /// Gives `prefix` before what is read next.
    pub(super) const fn new(prefix: Bytes, inner: S) -> Self {
        Self { prefix, inner }
    }

    /// Of which nothing was read.
    pub(super) const fn bare(inner: S) -> Self {
        Self::new(Bytes::new(), inner)
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// A stream whose peer has begun to speak; `None` where it does not within
    /// `limit`, or has gone.
    pub(super) async fn speaking(mut inner: S, limit: Duration) -> Option<Self> {
        let mut bytes = Vec::with_capacity(FIRST_BYTES);
        let reading = inner.read_buf(&mut bytes);
        let read = tokio::time::timeout(limit, reading).await.ok()?.ok()?;
        (read > 0).then(|| Self::new(bytes.into(), inner))
    }
}

impl Prefixed<TcpStream> {
    /// Whether the ClientHello offers one of our protocols; `None` where none
    /// comes within `limit`.
    pub(super) async fn offers_mesh(self, limit: Duration) -> Option<(bool, Self)> {
        let Self { prefix, mut inner } = self;
        let mut bytes = prefix.to_vec();
        let reading = async {
            loop {
                let mut acceptor = Acceptor::default();
                // Fails only where the bytes do not fit its buffer.
                let read = acceptor.read_tls(&mut Cursor::new(&bytes));
                match acceptor.accept() {
                    Ok(Some(accepted)) => {
                        let hello = accepted.client_hello();
                        let mut offered = hello.alpn().into_iter().flatten();
                        return Some(offered.any(|alpn| INBOUND_ALPN.contains(&alpn)));
                    }
                    Ok(None) if read.is_ok() && bytes.len() < HELLO_BYTES => {}
                    _ => return Some(false),
                }
                if inner.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            }
        };
        let offers = tokio::time::timeout(limit, reading).await.ok()??;
        Some((offers, Self::new(bytes.into(), inner)))
    }
}

impl<S: Abort> Abort for Prefixed<S> {
    fn abort(&self) {
        self.inner.abort();
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let count = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix[..count]);
        self.prefix.advance(count);
        if self.prefix.is_empty() {
            self.prefix = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
