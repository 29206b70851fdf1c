//! The end that asks.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use http::{Response, request};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Driver;
use crate::core::Core;
use crate::error::{Error, Reason};
use crate::handles::{Handle, RecvStream, SendStream};
use crate::settings::Config;
use crate::streams::{Receiving, wait};

/// Begins HTTP/2 on a transport. Nothing is sent before the connection is driven.
pub fn handshake<S>(io: S, config: Config) -> (Sender, Connection<S>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let driver = Driver::new(io, Core::new(config, true));
    let sender = Sender::new(&driver.core);
    (sender, Connection(driver))
}

/// Opens streams. Once the last is dropped the connection ends with its streams.
pub struct Sender(Rc<RefCell<Core>>);

impl Sender {
    fn new(core: &Rc<RefCell<Core>>) -> Self {
        core.borrow_mut().senders += 1;
        Self(core.clone())
    }

    /// Whether the connection takes further streams, as far as there is room.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.borrow().is_open()
    }

    /// Streams that are open.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.0.borrow().streams.open()
    }

    /// Sends the head of a request, and with `ends` all of it. What sends its body is there where there is more.
    ///
    /// # Errors
    /// The connection takes no stream: nothing was sent.
    pub fn send(
        &self,
        parts: &request::Parts,
        ends: bool,
    ) -> Result<(Answer, Option<SendStream>), Error> {
        let key = self.0.borrow_mut().open(parts, ends)?;
        let handle = Handle::new(&self.0, key);
        let body = (!ends).then(|| SendStream(handle.clone()));
        Ok((Answer(Some(handle)), body))
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let mut core = self.0.borrow_mut();
        core.senders -= 1;
        core.wake_driver();
    }
}

/// The response to one request, which is on its way.
#[derive(Debug)]
pub struct Answer(Option<Handle>);

impl Future for Answer {
    type Output = Result<Response<RecvStream>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(Handle { core, key }) = &self.0 else {
            return Poll::Ready(Err(Error::stream(Reason::STREAM_CLOSED, "taken already")));
        };
        let parts = {
            let mut core = core.borrow_mut();
            let slot = core.streams.at(*key);
            match (slot.response.take(), &slot.receiving) {
                (Some(parts), _) => parts,
                (None, Receiving::Failed(error)) => return Poll::Ready(Err(error.clone())),
                (None, _) => {
                    wait(&mut slot.reader, cx);
                    return Poll::Pending;
                }
            }
        };
        match self.0.take() {
            Some(handle) => {
                let body = RecvStream::new(handle);
                Poll::Ready(Ok(Response::from_parts(*parts, body)))
            }
            None => Poll::Pending,
        }
    }
}

/// Drives a connection to its end.
#[derive(Debug)]
pub struct Connection<S>(Driver<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Ready at the end: after the last sender and the last stream, or when the peer or the transport ended it.
    ///
    /// # Errors
    /// Why it ended before.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll(cx).map_ok(|_| ())
    }
}

impl<S> Connection<S> {
    /// Streams that the peer lets us have open.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.core.borrow().room()
    }

    /// Asks the peer whether it is there.
    pub fn ask(&self) {
        self.0.ask();
    }

    /// Whether it has answered since.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.0.is_there()
    }
}
