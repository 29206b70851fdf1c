//! What both ends of an HTTP/2 connection do on h2's own level: send a body as
//! the peer's windows allow, and notice a peer that has gone silent. hyper's
//! HTTP/2 costs a task, a channel and a boxed future per request; a proxy that
//! forwards from stream to stream needs none of them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{Ping, PingPong, Reason, SendStream};
use http_body::Body;
use tokio::time::{Instant, Sleep};

/// Sends a body on a stream, to its end or to where the peer stops it. A body
/// that fails resets the stream.
pub struct Pump<B> {
    body: Option<B>,
    stream: SendStream<Bytes>,
    /// What waits for the peer's window, and whether it is the last.
    held: Option<(Bytes, bool)>,
    blame: Reason,
}

impl<B: Body<Data = Bytes> + Unpin> Pump<B> {
    /// A body that has not begun. `blame` tells the peer why it stopped, where it does.
    pub fn new(body: B, stream: SendStream<Bytes>, blame: Reason) -> Self {
        Self {
            body: Some(body),
            stream,
            held: None,
            blame,
        }
    }

    /// Ready when there is nothing more to send; an error where the stream is no longer ours to use.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if let Some((data, last)) = self.held.take() {
                if self.stream.capacity() == 0 {
                    match self.stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(_))) => {
                            self.held = Some((data, last));
                            continue;
                        }
                        Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                        // No longer open: the peer wants no more.
                        Poll::Ready(None) => return Poll::Ready(Ok(())),
                        Poll::Pending => {
                            self.held = Some((data, last));
                            return Poll::Pending;
                        }
                    }
                }
                self.stream.send_data(data, last)?;
                if last {
                    return Poll::Ready(Ok(()));
                }
            }
            match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                None => {
                    self.stream.send_data(Bytes::new(), true)?;
                    return Poll::Ready(Ok(()));
                }
                Some(Err(_)) => {
                    self.stream.send_reset(self.blame);
                    return Poll::Ready(Ok(()));
                }
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {
                        if body.is_end_stream() {
                            self.stream.send_data(data, true)?;
                            return Poll::Ready(Ok(()));
                        }
                    }
                    Ok(data) => {
                        // One byte of the connection's window is claimed while it waits, not all
                        // of them: a slow stream must not hold what another could use.
                        self.stream.reserve_capacity(1);
                        self.held = Some((data, body.is_end_stream()));
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.stream.reserve_capacity(0);
                            self.stream.send_trailers(trailers)?;
                            return Poll::Ready(Ok(()));
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

/// Asks a silent peer whether it is there, while something waits for it.
pub struct Pinger {
    pings: PingPong,
    timer: Pin<Box<Sleep>>,
    asked: bool,
    every: Duration,
    patience: Duration,
}

impl Pinger {
    /// `every`: time between two questions; `patience`: for the answer.
    pub fn new(pings: PingPong, [every, patience]: [Duration; 2]) -> Self {
        Self {
            pings,
            timer: Box::pin(tokio::time::sleep(every)),
            asked: false,
            every,
            patience,
        }
    }

    /// Ready when the peer did not answer.
    pub fn poll(&mut self, cx: &mut Context<'_>, busy: bool) -> Poll<()> {
        loop {
            if self.asked && self.pings.poll_pong(cx).is_ready() {
                self.asked = false;
                self.wait(self.every);
            }
            ready!(self.timer.as_mut().poll(cx));
            if self.asked {
                return Poll::Ready(());
            }
            // Refused where an earlier one is still under way.
            self.asked = busy && self.pings.send_ping(Ping::opaque()).is_ok();
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
