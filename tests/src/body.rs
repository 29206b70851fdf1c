//! Bodies of requests and responses: whole ones, ones with trailers, and ones
//! that a test feeds piece by piece.

use std::error::Error;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::mpsc;

/// What a body may fail with.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The one type of body of the harness.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// No bytes at all.
#[must_use]
pub fn empty() -> Body {
    full("")
}

/// All bytes at once, their length known.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Some bytes, their length not told, and trailers.
pub fn with_trailers(bytes: impl Into<Bytes>, trailers: HeaderMap) -> Body {
    let frames = [Ok(Frame::data(bytes.into())), Ok(Frame::trailers(trailers))];
    BodyExt::boxed_unsync(StreamBody::new(stream::iter(frames)))
}

/// `total` zero bytes, made as they are asked for, in pieces of `piece`; the length is not told.
#[must_use]
pub fn zeros(total: u64, piece: usize) -> Body {
    let chunk = Bytes::from(vec![0; piece]);
    let frames = stream::unfold(total, move |left| {
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(chunk.len());
        let piece = chunk.slice(..size);
        async move { (size > 0).then(|| (Ok(Frame::data(piece)), left - size as u64)) }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// A body that is fed through the returned handle, one frame ahead at most.
#[must_use]
pub fn channel() -> (Feed, Body) {
    let (sender, receiver) = mpsc::channel(1);
    let frames = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|frame| (frame, receiver))
    });
    (Feed(sender), BodyExt::boxed_unsync(StreamBody::new(frames)))
}

/// Feeds a body; dropped, it ends the body properly.
#[derive(Clone)]
pub struct Feed(mpsc::Sender<Result<Frame<Bytes>, BoxError>>);

impl Feed {
    /// Sends data once the frame before has been taken; false when nobody reads any more.
    pub async fn data(&self, bytes: impl Into<Bytes>) -> bool {
        self.0.send(Ok(Frame::data(bytes.into()))).await.is_ok()
    }

    /// Sends trailers; false when nobody reads any more.
    pub async fn trailers(&self, trailers: HeaderMap) -> bool {
        self.0.send(Ok(Frame::trailers(trailers))).await.is_ok()
    }

    /// Breaks the body off: the peer must see an error, not an end.
    pub async fn abort(self) {
        // A reader that has gone needs no error any more.
        let _ = self.0.send(Err("broken off on purpose".into())).await;
    }

    /// Waits until nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}
