//! The encrypted stream after its handshake. It takes from the socket what is
//! there in one read and decrypts from that, and gathers what is written into
//! as few writes as it fills: records leave with the flush, or once there are
//! enough of them. While it waits it holds no buffer.

use std::io::{self, BufRead, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustls::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffers::{self, Buffer, PIECE, write_together};

/// Plaintext that is encrypted before the socket is asked to take some, and the
/// most that waits for a socket that takes none.
const BATCH: usize = buffers::SIZE;

/// Plaintext that is encrypted at once: full records.
const RECORDS: usize = 4 * 16 * 1024;
/// Slices that it is cut into: pieces, and a few shorter ones.
const PIECES: usize = RECORDS / PIECE + 8;

/// See the module.
#[derive(Debug)]
pub struct TlsStream<S> {
    io: S,
    session: Connection,
    /// What was read from the socket and is not decrypted yet.
    ahead: Option<Buffer>,
    /// Plaintext that was encrypted since the socket last took everything.
    queued: usize,
    /// Whether the peer was told that nothing follows.
    closed: bool,
}

impl<S> TlsStream<S> {
    /// A stream of which the handshake is done.
    pub fn new(io: S, session: impl Into<Connection>) -> Self {
        let mut session = session.into();
        session.set_buffer_limit(Some(BATCH));
        Self {
            io,
            session,
            ahead: None,
            queued: 0,
            closed: false,
        }
    }

    /// What it runs over.
    pub const fn get_ref(&self) -> &S {
        &self.io
    }

    /// What was agreed on.
    pub const fn session(&self) -> &Connection {
        &self.session
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream<S> {
    /// Moves what is decrypted; `true` where the peer said that it was all.
    fn take(&mut self, buf: &mut ReadBuf<'_>) -> io::Result<bool> {
        let mut taken = false;
        while buf.remaining() > 0 {
            let mut reader = self.session.reader();
            match reader.fill_buf() {
                Ok([]) => return Ok(true),
                Ok(chunk) => {
                    let count = chunk.len().min(buf.remaining());
                    for piece in chunk[..count].chunks(PIECE) {
                        buf.put_slice(piece);
                    }
                    reader.consume(count);
                    taken = true;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // It is said again when the bytes before it are out.
                Err(_) if taken => break,
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// Decrypts what was read ahead, up to the next plaintext.
    fn decrypt(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Some(ahead) = &mut self.ahead {
            let count = self.session.read_tls(&mut Pieces(ahead.bytes()))?;
            ahead.advance(count);
            // Nothing is taken after the peer's last word.
            if count == 0 || ahead.is_empty() {
                self.ahead = None;
            }
            match self.session.process_new_packets() {
                Ok(state) if state.plaintext_bytes_to_read() > 0 => break,
                Ok(_) => {}
                Err(error) => {
                    self.ahead = None;
                    // The peer is told why, if its socket takes it at once.
                    let _ = self.poll_write_tls(cx);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
        Ok(())
    }

    fn poll_read_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut buffer = Buffer::lend();
        let (read, count) = buffer.fill(|room| Pin::new(&mut self.io).poll_read(cx, room));
        ready!(read)?;
        if count == 0 {
            // The session tells an end that was announced from one that was not.
            self.session.read_tls(&mut io::empty())?;
        } else {
            self.ahead = Some(buffer);
        }
        Poll::Ready(Ok(()))
    }

    /// Writes records, in one go.
    fn poll_write_tls(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = Blocking {
            io: &mut self.io,
            cx,
        };
        let written = match self.session.write_tls(&mut socket) {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(error) => Err(error),
        };
        if !self.session.wants_write() {
            self.queued = 0;
        }
        Poll::Ready(written)
    }

    /// Writes all records.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.wants_write() {
            ready!(self.poll_write_tls(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Encrypts what is next, and writes once a batch has gathered.
    fn poll_encrypt(
        &mut self,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        let mut places = [IoSlice::new(&[]); PIECES];
        let pieces = if bufs.iter().all(|buf| buf.len() <= PIECE) {
            bufs
        } else {
            in_pieces(bufs, &mut places)
        };
        loop {
            let count = self.session.writer().write_vectored(pieces)?;
            self.queued += count;
            if count == 0 {
                ready!(self.poll_write_tls(cx))?;
                continue;
            }
            if self.queued >= BATCH
                && let Poll::Ready(Err(error)) = self.poll_drain(cx)
            {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(count));
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsStream<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            let ended = this.take(buf)?;
            if ended {
                this.ahead = None;
            }
            if ended || buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if this.ahead.is_some() {
                this.decrypt(cx)?;
            } else if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            } else {
                ready!(this.poll_read_ahead(cx))?;
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsStream<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_encrypt(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.closed {
            this.session.send_close_notify();
            this.closed = true;
        }
        ready!(this.poll_drain(cx))?;
        match ready!(Pin::new(&mut this.io).poll_shutdown(cx)) {
            // The peer has closed already: that is what was wanted.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}

/// The first [`RECORDS`] bytes of `bufs` in slices no longer than a piece, as far as there are places.
fn in_pieces<'p, 'b>(bufs: &'b [IoSlice<'_>], places: &'p mut [IoSlice<'b>]) -> &'p [IoSlice<'b>] {
    let pieces = bufs.iter().flat_map(|buf| buf.chunks(PIECE));
    let (mut count, mut left) = (0, RECORDS);
    for (place, piece) in places.iter_mut().zip(pieces) {
        let piece = &piece[..piece.len().min(left)];
        *place = IoSlice::new(piece);
        count += 1;
        left -= piece.len();
        if left == 0 {
            break;
        }
    }
    &places[..count]
}

/// What was read ahead, as rustls reads it.
struct Pieces<'a>(&'a [u8]);

impl Read for Pieces<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.0.len().min(buf.len());
        let pieces = self.0[..count].chunks(PIECE);
        for (to, from) in buf.chunks_mut(PIECE).zip(pieces) {
            to[..from.len()].copy_from_slice(from);
        }
        Ok(count)
    }
}

/// The socket as rustls writes to it: `WouldBlock` where it is pending.
struct Blocking<'a, 'c, S> {
    io: &'a mut S,
    cx: &'a mut Context<'c>,
}

impl<S> Blocking<'_, '_, S> {
    fn said<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
        match poll {
            Poll::Ready(result) => result,
            Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl<S: AsyncWrite + Unpin> Write for Blocking<'_, '_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        Self::said(Pin::new(&mut *self.io).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Self::said(write_together(self.io, self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Self::said(Pin::new(&mut *self.io).poll_flush(self.cx))
    }
}

#[cfg(test)]
mod tests;
