//! The body of a response, and what is left of its request.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Error;
use crate::chunked::{Decoder, Piece, take};
use crate::exchange::{Exchange, READ_MOST};
use crate::framing::Framing;

/// Where a body is.
enum State {
    Length(u64),
    Chunked(Box<Decoder>),
    UntilClose,
}

impl State {
    /// The next piece of what has come; `None` where more has to come first.
    fn take(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Error> {
        match self {
            Self::Length(0) => Ok(Some(Piece::End(None))),
            Self::Chunked(decoder) => decoder.take(input),
            Self::Length(_) | Self::UntilClose if input.is_empty() => Ok(None),
            Self::Length(left) => {
                let data = take(*left, input);
                *left -= data.len() as u64;
                Ok(Some(Piece::Data(data)))
            }
            Self::UntilClose => Ok(Some(Piece::Data(take(u64::MAX, input)))),
        }
    }

    /// Octets that may belong to it.
    const fn wanted(&self) -> u64 {
        match self {
            Self::Length(left) => *left,
            Self::Chunked(_) | Self::UntilClose => READ_MOST as u64,
        }
    }
}

/// The body of a response. At its end the connection goes home, if it can be used again.
///
/// Whoever reads it also writes what is left of the request, unless that was taken apart ([`Incoming::rest`]).
pub struct Incoming<S, B> {
    exchange: Option<Rc<RefCell<Exchange<S, B>>>>,
    state: State,
    persists: bool,
    /// Whether the peer refuses the request, and with it what is left of it.
    refuses: bool,
    /// Somebody else writes what is left of the request.
    apart: bool,
}

impl<S, B> fmt::Debug for Incoming<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming").finish_non_exhaustive()
    }
}

impl<S, B> Incoming<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    pub(crate) fn new(
        exchange: Option<Rc<RefCell<Exchange<S, B>>>>,
        framing: Framing,
        persists: bool,
        status: StatusCode,
    ) -> Self {
        let state = match framing {
            Framing::Length(left) => State::Length(left),
            Framing::Chunked => State::Chunked(Box::new(Decoder::new())),
            Framing::UntilClose => State::UntilClose,
        };
        let mut this = Self {
            exchange,
            state,
            persists,
            refuses: status.is_client_error() || status.is_server_error(),
            apart: false,
        };
        // What is left of the request needs the exchange still.
        if this.is_empty() && (this.refuses || !this.goes_on()) {
            this.ended();
        }
        this
    }

    const fn is_empty(&self) -> bool {
        matches!(self.state, State::Length(0))
    }

    fn goes_on(&self) -> bool {
        let exchange = self.exchange.as_ref();
        exchange.is_some_and(|exchange| exchange.borrow().writing.goes_on())
    }

    /// What is left of the request, to be written while nobody reads the answer and after that has come; `None`
    /// where nothing is, and where the answer is a refusal, after which the rest is not owed.
    pub fn rest(&mut self) -> Option<Rest<S, B>> {
        if self.apart || self.refuses || !self.goes_on() {
            return None;
        }
        self.apart = true;
        let rest = self.exchange.clone().map(Rest);
        // Seen to be over before it is asked for: some never ask for a body without octets.
        if self.is_empty() {
            self.ended();
        }
        rest
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, Error>> {
        let Some(held) = &self.exchange else {
            return Poll::Ready(Ok(None));
        };
        let mut exchange = held.borrow_mut();
        if self.apart {
            note(&mut exchange.reader, cx);
        } else {
            let _ = exchange.poll_write(cx);
        }
        loop {
            if let Some(piece) = self.state.take(&mut exchange.input)? {
                return Poll::Ready(Ok(Some(piece)));
            }
            // The peer waits for what does not come, and so would we.
            if exchange.writing.failed() == Some(&Error::Request) {
                return Poll::Ready(Err(Error::Request));
            }
            if !ready!(exchange.poll_read(cx, self.state.wanted()))? {
                return Poll::Ready(match self.state {
                    State::UntilClose => Ok(None),
                    _ => Err(Error::Incomplete),
                });
            }
        }
    }
}

impl<S, B> Incoming<S, B> {
    /// All of it has come.
    fn ended(&mut self)
    where
        B: Body<Data = Bytes> + Unpin,
    {
        let Some(held) = self.exchange.take() else {
            return;
        };
        match Rc::try_unwrap(held) {
            Ok(exchange) => {
                let exchange = exchange.into_inner();
                // Octets behind the end were not asked for: what else comes cannot be trusted.
                let is_clean = exchange.input.is_empty() && exchange.writing.is_done();
                if self.persists && is_clean {
                    exchange.goes_home();
                }
            }
            // What is left of the request goes on, and the connection ends with it.
            Err(_written_apart) => {}
        }
    }

    /// Nobody reads on: neither is anything written any more.
    fn abandon(&mut self) {
        if let Some(held) = self.exchange.take()
            && self.apart
        {
            let mut exchange = held.borrow_mut();
            exchange.is_abandoned = true;
            if let Some(writer) = exchange.writer.take() {
                writer.wake();
            }
        }
    }
}

impl<S, B> Drop for Incoming<S, B> {
    fn drop(&mut self) {
        self.abandon();
    }
}

impl<S, B> Body for Incoming<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        Poll::Ready(match ready!(this.poll_piece(cx)) {
            Ok(Some(Piece::Data(data))) => {
                if this.is_empty() {
                    this.ended();
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Some(Piece::End(trailers))) => {
                this.ended();
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Ok(None) => {
                this.exchange = None;
                None
            }
            Err(error) => {
                this.abandon();
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.exchange.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.exchange, &self.state) {
            (None, _) => SizeHint::with_exact(0),
            (Some(_), State::Length(left)) => SizeHint::with_exact(*left),
            (Some(_), _) => SizeHint::default(),
        }
    }
}

/// What is left of a request whose answer has begun. Ready once all of it is written, or never will be.
pub struct Rest<S, B>(Rc<RefCell<Exchange<S, B>>>);

impl<S, B> fmt::Debug for Rest<S, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rest")
    }
}

impl<S, B> Future for Rest<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut exchange = self.0.borrow_mut();
        if exchange.is_abandoned {
            return Poll::Ready(());
        }
        if exchange.poll_write(cx).is_pending() {
            note(&mut exchange.writer, cx);
            return Poll::Pending;
        }
        // Where it broke off, the reader has to know.
        if let Some(reader) = exchange.reader.take() {
            reader.wake();
        }
        Poll::Ready(())
    }
}

fn note(waker: &mut Option<Waker>, cx: &Context<'_>) {
    match waker {
        Some(known) => known.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
}
