//! The body of a message as it arrives, whichever protocol brings it: from
//! hyper's HTTP/1, from our own on the side that asks, or from a stream of HTTP/2.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use selvage_http2::RecvStream;
use tokio::io::{AsyncRead, AsyncWrite};

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Of HTTP/1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// Of HTTP/2.
    #[error(transparent)]
    Http2(#[from] selvage_http2::Error),
    /// Of HTTP/1, on the side that asks.
    #[error(transparent)]
    Response(#[from] selvage_http1::Error),
}

/// What is left of a request whose answer has come.
pub type Rest = Pin<Box<dyn Future<Output = ()>>>;

/// The body of a response on an HTTP/1 connection, whatever that runs over.
pub trait ResponseOverHttp1:
    Body<Data = Bytes, Error = selvage_http1::Error> + Unpin + fmt::Debug
{
    /// As [`selvage_http1::Incoming::rest`].
    fn rest(&mut self) -> Option<Rest>;
}

impl<S, B> ResponseOverHttp1 for selvage_http1::Incoming<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
    B: Body<Data = Bytes> + Unpin + 'static,
{
    fn rest(&mut self) -> Option<Rest> {
        let rest = self.rest()?;
        Some(Box::pin(rest))
    }
}

/// See the module.
#[derive(Debug)]
pub enum Received {
    /// From HTTP/1.
    Http1(Incoming),
    /// From HTTP/2.
    Http2(RecvStream),
    /// From HTTP/1, on the side that asks.
    Response(Box<dyn ResponseOverHttp1>),
}

impl Received {
    /// What is left of the request that this answers, where it goes on only while somebody sees to it.
    pub fn rest(&mut self) -> Option<Rest> {
        match self {
            Self::Response(body) => body.rest(),
            Self::Http1(_) | Self::Http2(_) => None,
        }
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = ReceiveError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        match self.get_mut() {
            Self::Http1(body) => Pin::new(body).poll_frame(cx).map_err(ReceiveError::Http1),
            Self::Http2(body) => Pin::new(body).poll_frame(cx).map_err(ReceiveError::Http2),
            Self::Response(body) => Pin::new(body)
                .poll_frame(cx)
                .map_err(ReceiveError::Response),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
            Self::Response(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
            Self::Response(body) => body.size_hint(),
        }
    }
}
