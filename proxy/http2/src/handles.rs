//! What the holders of a stream hold: one that sends, one that reads.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::core::Core;
use crate::error::{Error, Reason};
use crate::streams::{Key, Receiving, Sending, wait};

/// A place at a stream, until it is dropped.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) core: Rc<RefCell<Core>>,
    pub(crate) key: Key,
}

impl Handle {
    pub(crate) fn new(core: &Rc<RefCell<Core>>, key: Key) -> Self {
        core.borrow_mut().hold(key);
        Self {
            core: core.clone(),
            key,
        }
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(&self.core, self.key)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.core.borrow_mut().let_go(self.key);
    }
}

/// Sends a body.
///
/// A stream is reset (`CANCEL`) when everything that holds it was dropped before both directions ended.
#[derive(Debug)]
pub struct SendStream(pub(crate) Handle);

impl SendStream {
    /// Sends `data`, and with `ends` the end of the stream behind it. What was sent is taken out of `data`;
    /// ready when that was all. Pending while the peer's windows or the socket have no room.
    ///
    /// # Errors
    /// The stream takes no more.
    pub fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        data: &mut Bytes,
        ends: bool,
    ) -> Poll<Result<(), Error>> {
        let Handle { core, key } = &self.0;
        core.borrow_mut().poll_send(*key, data, ends, cx)
    }

    /// Ends the stream by trailers.
    ///
    /// # Errors
    /// The stream takes no more.
    pub fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<(), Error> {
        self.0.core.borrow_mut().send_trailers(self.0.key, trailers)
    }

    /// Ends the stream before its time, in both directions.
    pub fn reset(&mut self, reason: Reason) {
        self.0.reset(reason);
    }

    /// Ready when the stream takes no more: the peer reset it, or the connection is over.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        self.0.poll_reset(cx)
    }
}

impl Handle {
    pub(crate) fn reset(&self, reason: Reason) {
        let error = Error::stream(reason, "");
        self.core.borrow_mut().reset(self.key, &error);
    }

    pub(crate) fn is_reset(&self) -> bool {
        let mut core = self.core.borrow_mut();
        let slot = core.streams.at(self.key);
        matches!(slot.sending, Sending::Failed(_))
    }

    pub(crate) fn poll_reset(&self, cx: &mut Context<'_>) -> Poll<Error> {
        let mut core = self.core.borrow_mut();
        let slot = core.streams.at(self.key);
        if let Sending::Failed(error) = &slot.sending {
            return Poll::Ready(error.clone());
        }
        wait(&mut slot.writer, cx);
        Poll::Pending
    }
}

/// Reads a body. What is read makes room for more.
#[derive(Debug)]
pub struct RecvStream {
    handle: Handle,
    /// Octets to come, where the head said how many.
    left: Option<u64>,
}

impl RecvStream {
    pub(crate) fn new(handle: Handle) -> Self {
        let left = {
            let mut core = handle.core.borrow_mut();
            let slot = core.streams.at(handle.key);
            if slot.receiving == Receiving::Done && slot.body.is_empty() {
                Some(0)
            } else {
                slot.left.map(|left| left + slot.body.len())
            }
        };
        Self { handle, left }
    }
}

impl Body for RecvStream {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let mut core = this.handle.core.borrow_mut();
        let key = this.handle.key;
        let slot = core.streams.at(key);
        if let Some(data) = slot.body.pop() {
            // A window bounds it.
            core.take(key, data.len() as u32);
            if let Some(left) = &mut this.left {
                *left = left.saturating_sub(data.len() as u64);
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if let Some(trailers) = slot.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(*trailers))));
        }
        match &slot.receiving {
            Receiving::Done => Poll::Ready(None),
            Receiving::Failed(error) => Poll::Ready(Some(Err(error.clone()))),
            Receiving::Head | Receiving::Body => {
                wait(&mut slot.reader, cx);
                if slot.is_waited_for {
                    core.send_continue(key);
                }
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let mut core = self.handle.core.borrow_mut();
        let slot = core.streams.at(self.handle.key);
        slot.receiving == Receiving::Done && slot.body.is_empty() && slot.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        self.handle.core.borrow_mut().unread(self.handle.key);
    }
}
