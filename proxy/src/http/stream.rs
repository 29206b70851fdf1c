//! What both ends of an HTTP/2 connection do beyond the protocol itself: send a
//! body as the peer's windows allow, and notice a peer that has gone silent.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use selvage_http2::{Error, Reason, SendStream};
use tokio::time::{Instant, Sleep};

/// Sends a body on a stream, to its end or to where the peer stops it. A body
/// that fails resets the stream.
pub struct Pump<B> {
    body: Option<B>,
    stream: SendStream,
    /// What waits for the peer's window, and whether it is the last.
    held: Option<(Bytes, bool)>,
    blame: Reason,
}

impl<B: Body<Data = Bytes> + Unpin> Pump<B> {
    /// A body that has not begun. `blame` tells the peer why it stopped, where it does.
    pub fn new(body: B, stream: SendStream, blame: Reason) -> Self {
        Self {
            body: Some(body),
            stream,
            held: None,
            blame,
        }
    }

    /// Ready when there is nothing more to send; an error where the stream is no longer ours to use.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if let Some((data, last)) = &mut self.held {
                ready!(self.stream.poll_data(cx, data, *last))?;
                if *last {
                    return Poll::Ready(Ok(()));
                }
                self.held = None;
            }
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => self.held = Some((Bytes::new(), true)),
                Some(Err(_)) => {
                    self.stream.reset(self.blame);
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.held = Some((data, body.is_end_stream())),
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            return Poll::Ready(self.stream.send_trailers(&trailers));
                        }
                    }
                },
            }
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Future for Pump<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let sent = this.poll_send(cx);
        match sent {
            Poll::Ready(done) => {
                if let Err(error) = done {
                    tracing::debug!(%error, "HTTP/2 body");
                }
                // Its end is the end of the exchange: not later than this.
                this.body = None;
                Poll::Ready(())
            }
            Poll::Pending if this.stream.poll_reset(cx).is_ready() => {
                this.body = None;
                Poll::Ready(())
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

/// A connection whose peer can be asked whether it is there.
pub trait Peer {
    /// Asks.
    fn ask(&self);
    /// Whether it has answered since.
    fn is_there(&self) -> bool;
}

impl<S> Peer for selvage_http2::client::Connection<S> {
    fn ask(&self) {
        self.ask();
    }

    fn is_there(&self) -> bool {
        self.is_there()
    }
}

impl<S> Peer for selvage_http2::server::Connection<S> {
    fn ask(&self) {
        self.ask();
    }

    fn is_there(&self) -> bool {
        self.is_there()
    }
}

/// Asks a silent peer whether it is there, while something waits for it.
pub struct Pinger {
    timer: Pin<Box<Sleep>>,
    asked: bool,
    every: Duration,
    patience: Duration,
}

impl Pinger {
    /// `every`: time between two questions; `patience`: for the answer.
    #[must_use]
    pub fn new([every, patience]: [Duration; 2]) -> Self {
        Self {
            timer: Box::pin(tokio::time::sleep(every)),
            asked: false,
            every,
            patience,
        }
    }

    /// Ready when the peer did not answer. To be polled whenever the connection was.
    pub fn poll(&mut self, cx: &mut Context<'_>, peer: &impl Peer, busy: bool) -> Poll<()> {
        loop {
            if self.asked && peer.is_there() {
                self.asked = false;
                self.wait(self.every);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.asked {
                return Poll::Ready(());
            }
            self.asked = busy;
            if busy {
                peer.ask();
            }
            let next = if self.asked {
                self.patience
            } else {
                self.every
            };
            self.wait(next);
        }
    }

    fn wait(&mut self, time: Duration) {
        self.timer.as_mut().reset(Instant::now() + time);
    }
}
