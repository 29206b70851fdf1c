//! The body of a message as it arrives, whichever protocol brings it: from
//! hyper's HTTP/1 or from a stream of h2. Where it ends early is told apart
//! from where it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

/// Why a body broke off.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// Of HTTP/1.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// Of HTTP/2.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// The stream ended before the length that its head promised.
    #[error("the stream ended before its content-length")]
    Short,
}

/// See the module.
#[derive(Debug)]
pub enum Received {
    /// From HTTP/1.
    Http1(Incoming),
    /// From HTTP/2.
    Http2(Stream),
}

/// A body that comes on a stream of HTTP/2.
#[derive(Debug)]
pub struct Stream {
    frames: RecvStream,
    /// Bytes still to come, where the head said how many.
    left: Option<u64>,
    data_done: bool,
}

impl Received {
    /// The body that follows `headers` on a stream of HTTP/2.
    #[must_use]
    pub fn stream(frames: RecvStream, headers: &HeaderMap) -> Self {
        let left = if frames.is_end_stream() {
            Some(0)
        } else {
            // h2 has refused lengths that are none, or that differ.
            headers
                .get(CONTENT_LENGTH)
                .and_then(|value| value.to_str().ok()?.parse().ok())
        };
        Self::Http2(Stream {
            frames,
            left,
            data_done: false,
        })
    }
}

impl Stream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ReceiveError>>> {
        while !self.data_done {
            match ready!(self.frames.poll_data(cx)) {
                None => self.data_done = true,
                Some(Ok(data)) => {
                    // Taken: the peer may send as much again.
                    let released = self.frames.flow_control().release_capacity(data.len());
                    debug_assert!(released.is_ok(), "no more is released than was received");
                    if let Some(left) = &mut self.left {
                        *left = left.saturating_sub(data.len() as u64);
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // RFC 9113 §8.1: whoever has answered may stop the request so.
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {
                    self.data_done = true;
                    if self.left.is_some_and(|left| left > 0) {
                        return Poll::Ready(Some(Err(ReceiveError::Short)));
                    }
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error.into()))),
            }
        }
        match ready!(self.frames.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
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
            Self::Http2(stream) => stream.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(body) => body.is_end_stream(),
            Self::Http2(stream) => stream.frames.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(body) => body.size_hint(),
            Self::Http2(stream) => stream
                .left
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
