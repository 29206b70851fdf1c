//! Drives a connection: frames in, frames out.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use crate::core::{Core, Leaving};
use crate::error::{Error, Reason};
use crate::frame::{self, Head};
use crate::receive::Opened;

/// Octets that are read at once, at first.
const READ: usize = 4 * 1024;
/// The most that are, beyond what a frame needs.
const READ_MOST: usize = 64 * 1024;
/// How much may wait for a caller that does not read, until we do not read either.
const UNREAD: usize = 256 * 1024;

/// What client and server have in common.
#[derive(Debug)]
pub(crate) struct Driver<S> {
    io: S,
    input: BytesMut,
    /// Octets to ask the transport for.
    read: usize,
    pub(crate) core: Rc<RefCell<Core>>,
    /// Whether the client's preface is still to come.
    preface: bool,
    /// Nothing is left but to say so.
    is_closing: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Driver<S> {
    pub(crate) fn new(io: S, core: Core) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            read: READ,
            preface: !core.is_client,
            is_closing: false,
            core: Rc::new(RefCell::new(core)),
        }
    }

    /// Does what can be done; ready with a stream that the peer opened, with the end (`None`), or with what
    /// ended it early.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Opened>, Error>> {
        if self.is_closing {
            return self.poll_close(cx).map(|()| Ok(None));
        }
        let result = self.poll_frames(cx);
        if let Poll::Ready(Err(error)) = &result {
            self.end(error, cx);
        }
        result
    }

    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Opened>, Error>> {
        let mut is_stuck;
        let mut moved = self.core.borrow().out.len() > 0;
        loop {
            if let Some(opened) = self.take_frames()? {
                return Poll::Ready(Ok(Some(opened)));
            }
            is_stuck = {
                let core = self.core.borrow();
                !core.is_client && core.out.len() > UNREAD
            };
            if is_stuck {
                break;
            }
            match self.poll_read(cx)? {
                Poll::Pending => break,
                Poll::Ready(true) => moved = true,
                Poll::Ready(false) if self.core.borrow().streams.open() > 0 => {
                    return Poll::Ready(Err(self.core.borrow().ended()));
                }
                Poll::Ready(false) => {
                    // A caller may have said its last word and still read the answer to it.
                    let _ = self.poll_flush(cx)?;
                    return self.poll_close(cx).map(|()| Ok(None));
                }
            }
        }
        let flushed = self.poll_flush(cx)?;
        let mut core = self.core.borrow_mut();
        // What a client has left to write then is of no use to anybody.
        if core.streams.open() == 0 && core.is_done() && (flushed.is_ready() || core.is_client) {
            drop(core);
            return self.poll_close(cx).map(|()| Ok(None));
        }
        if core.streams.open() == 0 && flushed.is_ready() {
            // Nothing since the last look: whoever looks now and then has the buffers given back.
            if !moved {
                self.read = READ;
                core.out.rest();
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
            }
        }
        match &mut core.driver {
            Some(waker) => waker.clone_from(cx.waker()),
            None => core.driver = Some(cx.waker().clone()),
        }
        if is_stuck && flushed.is_ready() {
            // Nothing was read, so nothing else would wake us.
            core.wake_driver();
        }
        Poll::Pending
    }

    /// Takes in the frames that are there, to the first that opens a stream.
    fn take_frames(&mut self) -> Result<Option<Opened>, Error> {
        if self.preface {
            let count = self.input.len().min(frame::PREFACE.len());
            if self.input[..count] != frame::PREFACE[..count] {
                return Err(Error::connection(Reason::PROTOCOL_ERROR, "no preface"));
            }
            if count < frame::PREFACE.len() {
                return Ok(None);
            }
            self.input.advance(count);
            self.preface = false;
        }
        let mut core = self.core.borrow_mut();
        while let Some(head) = Head::parse(&self.input) {
            if head.len > core.config.frame as usize {
                return Err(Error::connection(
                    Reason::FRAME_SIZE_ERROR,
                    "a frame larger than it may be",
                ));
            }
            let size = frame::HEAD + head.len;
            if self.input.len() < size {
                // All of it at once, rather than by growing.
                let missing = size - self.input.len();
                self.input.reserve(missing);
                return Ok(None);
            }
            self.input.advance(frame::HEAD);
            let payload = self.input.split_to(head.len).freeze();
            if let Some(opened) = core.receive(head, payload)? {
                return Ok(Some(opened));
            }
        }
        Ok(None)
    }

    /// Reads once; `false` at the transport's end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Poll<bool>, Error> {
        let spare = self.input.capacity() - self.input.len();
        if spare < self.read / 2 {
            self.input.reserve(self.read);
        }
        let room = self.input.capacity() - self.input.len();
        match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input)? {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(0) => Ok(Poll::Ready(false)),
            Poll::Ready(count) => {
                if count == room {
                    self.read = (self.read * 2).min(READ_MOST);
                }
                Ok(Poll::Ready(true))
            }
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Error> {
        let mut core = self.core.borrow_mut();
        let flushed = core.out.poll_flush(&mut self.io, cx)?;
        if flushed.is_ready() {
            core.replies = 0;
        }
        core.give_turns();
        Ok(flushed)
    }

    /// Nothing more is to be done.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.is_closing = true;
        self.core.borrow_mut().fail(&Error::Unprocessed);
        // Whether the peer hears it changes nothing any more; a client does not even wait.
        let shut = Pin::new(&mut self.io).poll_shutdown(cx);
        if shut.is_pending() && !self.core.borrow().is_client {
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// The connection ends by an error: the peer is told why, if its socket takes it at once.
    fn end(&mut self, error: &Error, cx: &mut Context<'_>) {
        let mut core = self.core.borrow_mut();
        if core.failed.is_some() {
            return;
        }
        core.fail(error);
        if let Error::GoAway { reason, .. } = error {
            let last = core.last;
            core.go_away(last, *reason);
            let _ = core.out.poll_flush(&mut self.io, cx);
            drop(core);
            let _ = Pin::new(&mut self.io).poll_shutdown(cx);
        }
    }
}

impl<S> Driver<S> {
    /// Asks the peer whether it is there.
    pub(crate) fn ask(&self) {
        self.core.borrow_mut().ask();
    }

    /// Whether no stream is open and nothing waits to be written.
    pub(crate) fn is_quiet(&self) -> bool {
        let core = self.core.borrow();
        core.streams.open() == 0 && core.out.len() == 0
    }

    /// Whether it has answered since it was asked.
    pub(crate) fn is_there(&self) -> bool {
        self.core.borrow().is_there
    }
}

impl<S> Drop for Driver<S> {
    fn drop(&mut self) {
        let error = Error::Io(std::io::ErrorKind::ConnectionAborted);
        self.core.borrow_mut().fail(&error);
    }
}

impl Core {
    /// Whether the connection has served its time, given that no stream is open.
    fn is_done(&self) -> bool {
        if self.is_client {
            self.senders == 0 || self.peer_leaves.is_some()
        } else {
            matches!(self.leaving, Leaving::Last(_))
        }
    }
}
