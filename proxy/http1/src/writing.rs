//! A request on its way out: as few writes as its body allows.

use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::Error;
use crate::chunked;
use crate::head::Sent;

/// The request as far as it is not written.
pub(crate) struct Writing<B> {
    /// The head, the size of a chunk, the end of a body.
    out: BytesMut,
    /// A piece of the body, behind `out`.
    payload: Bytes,
    /// The end of the chunk that `payload` is.
    behind: &'static [u8],
    body: Option<B>,
    sent: Sent,
    has_begun: bool,
    unflushed: bool,
    /// What broke off, the transport or the body: the answer may come all the same.
    failed: Option<Error>,
}

impl<B: Body<Data = Bytes> + Unpin> Writing<B> {
    /// A request of which `head` is to be written first; `body` where it has one.
    pub(crate) fn new(head: BytesMut, body: Option<B>, sent: Sent) -> Self {
        Self {
            out: head,
            payload: Bytes::new(),
            behind: &[],
            body,
            sent,
            has_begun: false,
            unflushed: false,
            failed: None,
        }
    }

    /// Writes what there is; ready once all of it is written, or never will be.
    pub(crate) fn poll<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if self.failed.is_some() {
            return Poll::Ready(());
        }
        let result = ready!(self.poll_all(io, cx));
        if let Err(error) = result {
            self.failed = Some(error);
            self.body = None;
        }
        Poll::Ready(())
    }

    fn poll_all<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        loop {
            // A piece that is there already leaves with what stands before it.
            let has_room = self.payload.is_empty() && self.behind.is_empty();
            let waits = has_room && self.poll_body(cx)?.is_pending();
            ready!(self.poll_write(io, cx))?;
            if waits || self.body.is_none() {
                if self.unflushed {
                    ready!(Pin::new(&mut *io).poll_flush(cx))?;
                    self.unflushed = false;
                }
                return if waits {
                    Poll::Pending
                } else {
                    Poll::Ready(Ok(()))
                };
            }
        }
    }

    /// Takes the next piece of the body, where there is one.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Error> {
        let Some(body) = &mut self.body else {
            return Ok(Poll::Ready(()));
        };
        match Pin::new(body).poll_frame(cx) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(None) => self.ends(None)?,
            Poll::Ready(Some(Err(_))) => return Err(Error::Request),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => self.piece(data)?,
                Err(frame) => self.ends(frame.into_trailers().ok().as_ref())?,
            },
        }
        Ok(Poll::Ready(()))
    }

    fn piece(&mut self, data: Bytes) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.sent {
            // More than was promised would be taken for another request.
            Sent::Nothing => return Err(Error::Request),
            Sent::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Error::Request)?;
            }
            Sent::Chunked => {
                chunked::write_size(data.len(), &mut self.out);
                self.behind = b"\r\n";
            }
        }
        self.payload = data;
        Ok(())
    }

    fn ends(&mut self, trailers: Option<&HeaderMap>) -> Result<(), Error> {
        self.body = None;
        match self.sent {
            Sent::Length(1..) => Err(Error::Request),
            // Trailers have no place behind a body of a known length.
            Sent::Length(0) | Sent::Nothing => Ok(()),
            Sent::Chunked => {
                chunked::write_end(trailers, &mut self.out);
                Ok(())
            }
        }
    }

    fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        while !self.is_written() {
            let mut io = Pin::new(&mut *io);
            let written = if self.payload.is_empty() && self.behind.is_empty() {
                io.poll_write(cx, &self.out)
            } else {
                let slices = [&*self.out, &*self.payload, self.behind].map(IoSlice::new);
                io.as_mut().poll_write_vectored(cx, &slices)
            };
            let count = match ready!(written) {
                Ok(0) => return Poll::Ready(Err(self.fault(std::io::ErrorKind::WriteZero))),
                Ok(count) => count,
                Err(error) => return Poll::Ready(Err(self.fault(error.kind()))),
            };
            self.went(count);
        }
        Poll::Ready(Ok(()))
    }

    fn fault(&self, kind: std::io::ErrorKind) -> Error {
        if self.has_begun {
            Error::Io(kind)
        } else {
            Error::Unsent(kind)
        }
    }

    /// So many octets are written. What is empty holds no memory.
    fn went(&mut self, mut count: usize) {
        self.has_begun = true;
        self.unflushed = true;
        let here = count.min(self.out.len());
        self.out.advance(here);
        count -= here;
        if self.out.is_empty() {
            self.out = BytesMut::new();
        }
        let here = count.min(self.payload.len());
        self.payload.advance(here);
        count -= here;
        if self.payload.is_empty() {
            self.payload = Bytes::new();
        }
        self.behind = &self.behind[count..];
    }

    fn is_written(&self) -> bool {
        self.out.is_empty() && self.payload.is_empty() && self.behind.is_empty()
    }

    /// Whether something is still to be written.
    pub(crate) fn goes_on(&self) -> bool {
        self.failed.is_none() && (self.body.is_some() || !self.is_written() || self.unflushed)
    }

    /// Whether all of it was written, and well.
    pub(crate) fn is_done(&self) -> bool {
        self.failed.is_none() && !self.goes_on()
    }

    /// Why it broke off.
    pub(crate) fn failed(&self) -> Option<&Error> {
        self.failed.as_ref()
    }
}
