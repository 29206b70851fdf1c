//! The body of a message as it arrives, whichever protocol brings it: from
//! hyper's HTTP/1 or from a stream of HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use selvage_http2::RecvStream;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Of HTTP/1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// Of HTTP/2.
    #[error(transparent)]
    Http2(#[from] selvage_http2::Error),
}

/// See the module.
#[derive(Debug)]
pub enum Received {
    /// From HTTP/1.
    Http1(Incoming),
    /// From HTTP/2.
    Http2(RecvStream),
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
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(body) => body.size_hint(),
        }
    }
}
