//! A connection, and the answer to what is asked on it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::Error;
use crate::exchange::Exchange;
use crate::framing::{of_response, persists};
use crate::head::{crossing, write_request};
use crate::incoming::Incoming;
use crate::writing::Writing;

/// Octets that most heads of requests have room in.
const HEAD: usize = 512;

/// A connection on which nothing is exchanged.
pub struct Connection<S> {
    io: S,
}

/// Where a connection goes when its exchange has ended well.
pub type Home<S> = Rc<RefCell<Option<Connection<S>>>>;

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl<S> Connection<S> {
    /// On a transport that owes nobody an answer.
    pub const fn new(io: S) -> Self {
        Self { io }
    }

    /// The transport.
    pub fn into_inner(self) -> S {
        self.io
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Whether it is as it was left, as far as is known here: neither closed by the peer nor spoken on. Asks
    /// nobody. A transport of tokio's says nothing once its task's budget is spent: ask outside of that.
    pub fn is_open(&mut self) -> bool {
        let mut octet = [0];
        let mut room = ReadBuf::new(&mut octet);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.io)
            .poll_read(&mut cx, &mut room)
            .is_pending()
    }

    /// Sends a request. Afterwards the connection is at `home`, where it can be used again.
    pub fn send<B>(self, request: Request<B>, home: &Home<S>) -> Answer<S, B>
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let (parts, body) = request.into_parts();
        let body = Some(body).filter(|body| !body.is_end_stream());
        let exact = body
            .as_ref()
            .map_or(Some(0), |body| body.size_hint().exact());
        let sent = crossing(&parts, exact);
        let mut head = BytesMut::with_capacity(HEAD);
        write_request(&parts, sent, &mut head);
        let writing = Writing::new(head, body, sent);
        let asked = (parts.method, parts.version);
        let exchange = Exchange::new(self.io, asked, writing, home.clone());
        Answer(Some(Rc::new(RefCell::new(exchange))))
    }
}

/// The response to one request, which is on its way.
pub struct Answer<S, B>(Option<Rc<RefCell<Exchange<S, B>>>>);

impl<S, B> fmt::Debug for Answer<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answer")
    }
}

impl<S, B> Future for Answer<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = Result<Response<Incoming<S, B>>, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(held) = &self.0 else {
            return Poll::Ready(Err(Error::Closed));
        };
        let result = ready!(held.borrow_mut().poll_answer(cx));
        let held = self.0.take();
        Poll::Ready(result.map(|(parts, framing, persists)| {
            let body = Incoming::new(held, framing, persists, parts.status);
            Response::from_parts(parts, body)
        }))
    }
}

type Answered = (http::response::Parts, crate::framing::Framing, bool);

impl<S, B> Exchange<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Answered, Error>> {
        let _ = self.poll_write(cx);
        if self.writing.failed() == Some(&Error::Request) {
            return Poll::Ready(Err(Error::Request));
        }
        let mut parts = match ready!(self.poll_head(cx)) {
            Ok(parts) => parts,
            // What went wrong first is what is told.
            Err(error @ (Error::Io(_) | Error::Closed)) => {
                let first = self.writing.failed().cloned();
                return Poll::Ready(Err(first.unwrap_or(error)));
            }
            Err(error) => return Poll::Ready(Err(error)),
        };
        let framing = of_response(
            &self.method,
            parts.status,
            parts.version,
            &mut parts.headers,
        )?;
        let persists = persists(self.version, parts.status, parts.version, &parts.headers);
        Poll::Ready(Ok((parts, framing, persists)))
    }
}
