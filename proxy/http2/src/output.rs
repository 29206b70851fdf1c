//! What waits for the socket: many small frames in one buffer, large payloads
//! beside it without a copy.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

/// Payloads up to this size are copied: a slice of their own would cost more.
const COPIED: usize = 2048;
/// Slices per write.
const SLICES: usize = 32;
/// Capacity of a buffer at first.
const FIRST: usize = 2048;
/// Capacity that an empty buffer keeps.
const KEPT: usize = 32 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// In front of `tail`.
    sealed: VecDeque<Bytes>,
    tail: Vec<u8>,
    /// How much of `tail` was written.
    written: usize,
    /// Bytes in `sealed`.
    before: usize,
    /// Whether the transport may still hold some of what it took.
    unflushed: bool,
}

impl Output {
    /// Where small frames are written.
    pub(crate) fn tail(&mut self) -> &mut Vec<u8> {
        if self.tail.capacity() == 0 {
            self.tail.reserve(FIRST);
        }
        &mut self.tail
    }

    /// Adds a payload; what came before it stays before it.
    pub(crate) fn push(&mut self, payload: Bytes) {
        if payload.len() <= COPIED {
            self.tail.extend_from_slice(&payload);
            return;
        }
        let mut tail = Bytes::from(std::mem::take(&mut self.tail));
        tail.advance(self.written);
        self.written = 0;
        if !tail.is_empty() {
            self.before += tail.len();
            self.sealed.push_back(tail);
        }
        self.before += payload.len();
        self.sealed.push_back(payload);
    }

    /// Bytes that wait.
    pub(crate) fn len(&self) -> usize {
        self.before + self.tail.len() - self.written
    }

    /// Writes all of it, and has the transport do so.
    pub(crate) fn poll_flush(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while self.len() > 0 {
            let count = if self.sealed.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, &self.tail[self.written..]))?
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let chunks = self.sealed.iter().map(|chunk| &chunk[..]);
                let mut count = 0;
                for (slice, chunk) in slices
                    .iter_mut()
                    .zip(chunks.chain([&self.tail[self.written..]]))
                {
                    *slice = IoSlice::new(chunk);
                    count += 1;
                }
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices[..count]))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unflushed = true;
            self.advance(count);
        }
        if self.unflushed {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(chunk) = self.sealed.front_mut() {
            let part = count.min(chunk.len());
            chunk.advance(part);
            count -= part;
            self.before -= part;
            if !chunk.is_empty() {
                return;
            }
            self.sealed.pop_front();
        }
        self.written += count;
        if self.written == self.tail.len() {
            self.tail.clear();
            self.tail.shrink_to(KEPT);
            self.written = 0;
        }
    }

    /// Gives memory back while nothing is to be written.
    pub(crate) fn rest(&mut self) {
        if self.len() == 0 {
            self.tail = Vec::new();
            self.sealed = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes a few bytes per write.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            let count = buf.len().min(self.room);
            self.taken.extend_from_slice(&buf[..count]);
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn order_is_kept_whatever_is_copied_and_however_little_is_taken() {
        for room in [1, 7, 1000, 1 << 20] {
            let mut narrow = Narrow {
                taken: Vec::new(),
                room,
            };
            let mut out = Output::default();
            let mut expected = Vec::new();
            let mut cx = Context::from_waker(Waker::noop());
            for round in 0..20_u8 {
                let small = vec![round; usize::from(round) * 13];
                let large = vec![round ^ 0xff; COPIED - 5 + usize::from(round)];
                out.tail().extend_from_slice(&small);
                out.push(Bytes::from(large.clone()));
                expected.extend_from_slice(&small);
                expected.extend_from_slice(&large);
                if round % 3 == 0 {
                    assert!(out.poll_flush(&mut narrow, &mut cx).is_ready());
                    assert_eq!(out.len(), 0);
                }
            }
            assert!(out.poll_flush(&mut narrow, &mut cx).is_ready());
            assert_eq!(narrow.taken, expected);
        }
    }

    #[test]
    fn a_transport_that_takes_nothing_is_an_error() {
        let mut narrow = Narrow {
            taken: Vec::new(),
            room: 0,
        };
        let mut out = Output::default();
        out.tail().push(1);
        let flushed = out.poll_flush(&mut narrow, &mut Context::from_waker(Waker::noop()));
        assert!(
            matches!(flushed, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::WriteZero)
        );
    }
}
