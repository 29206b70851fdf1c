//! The end that is asked.

use std::task::{Context, Poll};

use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::connection::Driver;
use crate::core::Core;
use crate::error::{Error, Reason};
use crate::handles::{Handle, RecvStream, SendStream};
use crate::settings::Config;

/// Drives a connection and says what the peer asks.
#[derive(Debug)]
pub struct Connection<S>(Driver<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Begins HTTP/2 on a transport of which nothing was read.
    pub fn new(io: S, config: Config) -> Self {
        Self(Driver::new(io, Core::new(config, false)))
    }

    /// Drives the connection; ready with the next request, or with `None` at its end.
    ///
    /// # Errors
    /// Why the connection ended before.
    #[expect(clippy::type_complexity, reason = "what is asked, and how to answer")]
    pub fn poll_accept(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<(Request<RecvStream>, Respond)>, Error>> {
        self.0.poll(cx).map_ok(|opened| {
            let opened = opened?;
            let handle = Handle::new(&self.0.core, opened.key);
            let respond = Respond(Some(handle.clone()));
            let body = RecvStream::new(handle);
            Some((Request::from_parts(opened.parts, body), respond))
        })
    }
}

impl<S> Connection<S> {
    /// Whether the peer has said its first word.
    #[must_use]
    pub fn is_greeted(&self) -> bool {
        self.0.core.borrow().is_greeted
    }

    /// Takes no streams beyond those that the peer has opened when it hears of it; then the connection ends
    /// with the last of them.
    pub fn leave(&self) {
        self.0.core.borrow_mut().leave();
    }

    /// Whether no stream is open and nothing waits to be written.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.0.is_quiet()
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

/// Answers one request.
#[derive(Debug)]
pub struct Respond(Option<Handle>);

impl Respond {
    /// Sends the head of a response, and with `ends` all of it. What sends its body is there where there is more.
    ///
    /// # Errors
    /// The stream takes no answer.
    pub fn send(
        &mut self,
        parts: &http::response::Parts,
        ends: bool,
    ) -> Result<Option<SendStream>, Error> {
        let Some(handle) = self.0.take() else {
            return Err(Error::stream(Reason::STREAM_CLOSED, "answered already"));
        };
        handle.core.borrow_mut().respond(handle.key, parts, ends)?;
        Ok((!ends).then_some(SendStream(handle)))
    }

    /// Ends the stream without an answer.
    pub fn reset(&mut self, reason: Reason) {
        if let Some(handle) = self.0.take() {
            handle.reset(reason);
        }
    }

    /// Whether no answer is wanted any more.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        let handle = self.0.as_ref();
        handle.is_some_and(Handle::is_reset)
    }

    /// Ready when no answer is wanted any more.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<Error> {
        match &self.0 {
            Some(handle) => handle.poll_reset(cx),
            None => Poll::Pending,
        }
    }
}
