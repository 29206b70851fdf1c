//! A stream of which the first bytes were read already, to see what it is.

use std::future::poll_fn;
use std::io::{self, Cursor, IoSlice, Read};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use rustls::server::Acceptor;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::forward::Abort;
use crate::identity::attest::INBOUND_ALPN;

/// A ClientHello larger than this is none of ours (a post-quantum one has about 1.6 KB).
const HELLO_BYTES: usize = 16 * 1024;

/// Room for a preface, SETTINGS and the first request, or for most heads of
/// HTTP/1.1: read at once, it is one call to the kernel.
const FIRST_BYTES: usize = 2048;

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

    /// What was read already.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Gives `bytes` before everything else.
    pub(super) fn give_back(&mut self, bytes: Bytes) {
        self.prefix = if self.prefix.is_empty() {
            bytes
        } else {
            [bytes, std::mem::take(&mut self.prefix)].concat().into()
        };
    }
}

impl<S: AsyncRead + Unpin> Prefixed<S> {
    /// A stream whose peer has begun to speak; `None` where it does not within
    /// `limit`, or has gone.
    pub(super) async fn speaking(inner: S, limit: Duration) -> Option<Self> {
        let mut stream = Self::bare(inner);
        let read = tokio::time::timeout(limit, stream.fetch()).await.ok()?;
        (read.ok()? > 0).then_some(stream)
    }

    /// Reads what comes next and keeps it: the number of bytes, 0 at the end.
    /// While it waits there is no buffer.
    pub(super) async fn fetch(&mut self) -> io::Result<usize> {
        poll_fn(|cx| self.poll_fetch(cx)).await
    }

    fn poll_fetch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut space = [MaybeUninit::uninit(); FIRST_BYTES];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(self.keep(buf.filled())))
    }

    fn keep(&mut self, bytes: &[u8]) -> usize {
        self.prefix = if self.prefix.is_empty() {
            Bytes::copy_from_slice(bytes)
        } else {
            [&self.prefix, bytes].concat().into()
        };
        bytes.len()
    }
}

/// What a ClientHello asks for.
#[derive(Debug, Default)]
pub(super) struct Hello {
    /// The name it gives in SNI.
    pub(super) server_name: Option<Box<str>>,
    /// Whether it offers one of the protocols between sidecars.
    pub(super) mesh: bool,
}

impl Hello {
    /// Of the bytes so far; `None` while there is more to come. What is no
    /// ClientHello asks for nothing.
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut acceptor = Acceptor::default();
        // Fails only where the bytes do not fit its buffer.
        let read = acceptor.read_tls(&mut Cursor::new(bytes));
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let mut offered = hello.alpn().into_iter().flatten();
                Some(Self {
                    server_name: hello.server_name().map(Into::into),
                    mesh: offered.any(|alpn| INBOUND_ALPN.contains(&alpn)),
                })
            }
            Ok(None) if read.is_ok() && bytes.len() < HELLO_BYTES => None,
            _ => Some(Self::default()),
        }
    }
}

impl Prefixed<TcpStream> {
    /// Keeps what has come already; whether there was anything. The runtime takes
    /// a socket that it accepted itself to hold the first bytes, and knows from a
    /// read that leaves room that it holds no more: nobody asks in vain then. Of one
    /// that another worker handed on it has not heard: to ask it is to wait for the
    /// next turn of its driver, under a timer, for bytes that mostly lie there.
    pub(super) async fn fetch_now(&mut self) -> bool {
        match poll_fn(|cx| Poll::Ready(self.poll_fetch(cx))).await {
            // An end and an error are found again where they are waited for.
            Poll::Ready(read) => read.is_ok_and(|count| count > 0),
            Poll::Pending => {
                let mut space = [0; FIRST_BYTES];
                let read = (&*SockRef::from(&self.inner)).read(&mut space);
                read.is_ok_and(|count| self.keep(&space[..count]) > 0)
            }
        }
    }

    /// What the ClientHello asks for, which stays to be read; `None` where none
    /// comes within `limit`.
    pub(super) async fn hello(self, limit: Duration) -> Option<(Hello, Self)> {
        let Self { prefix, mut inner } = self;
        let mut bytes = prefix.to_vec();
        let reading = async {
            loop {
                if let Some(hello) = Hello::of(&bytes) {
                    return Some(hello);
                }
                if inner.read_buf(&mut bytes).await.ok()? == 0 {
                    return None;
                }
            }
        };
        let hello = tokio::time::timeout(limit, reading).await.ok()??;
        Some((hello, Self::new(bytes.into(), inner)))
    }
}

#[cfg(test)]
impl Prefixed<TcpStream> {
    /// Whether the runtime would look at the socket for more, with `look`.
    pub(super) fn looks(&self, look: impl Fn() -> io::Result<()>) -> bool {
        let looked = std::cell::Cell::new(false);
        let _ = self.inner.try_io(tokio::io::Interest::READABLE, || {
            looked.set(true);
            look()
        });
        looked.get()
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
