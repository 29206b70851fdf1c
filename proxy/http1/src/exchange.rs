//! What is under way on a connection.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version, response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use crate::Error;
use crate::connection::{Connection, Home};
use crate::head::Heads;
use crate::writing::Writing;

/// Octets that are read at once, at first.
const READ: usize = 4 * 1024;
/// The most that are.
pub(crate) const READ_MOST: usize = 256 * 1024;
/// Interim responses before the final one.
const INTERIM: usize = 64;

/// One request and its answer.
pub(crate) struct Exchange<S, B> {
    pub(crate) io: S,
    pub(crate) input: BytesMut,
    /// Octets to ask the transport for.
    read: usize,
    /// Of the request.
    pub(crate) method: Method,
    /// Of the request.
    pub(crate) version: Version,
    heads: Heads,
    /// Interim responses that came.
    interim: usize,
    pub(crate) writing: Writing<B>,
    /// Who reads the answer, and who writes the request, where those are two.
    pub(crate) reader: Option<Waker>,
    pub(crate) writer: Option<Waker>,
    /// Nobody waits for the rest of it.
    pub(crate) is_abandoned: bool,
    home: Home<S>,
}

impl<S, B> Exchange<S, B> {
    /// A request that is about to be written.
    pub(crate) fn new(
        io: S,
        (method, version): (Method, Version),
        writing: Writing<B>,
        home: Home<S>,
    ) -> Self {
        Self {
            io,
            input: BytesMut::new(),
            read: READ,
            method,
            version,
            heads: Heads::default(),
            interim: 0,
            writing,
            reader: None,
            writer: None,
            is_abandoned: false,
            home,
        }
    }

    /// The connection can be used again.
    pub(crate) fn goes_home(self) {
        *self.home.borrow_mut() = Some(Connection::new(self.io));
    }
}

impl<S, B> Exchange<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body<Data = Bytes> + Unpin,
{
    /// Goes on with the request; ready once all of it is written, or never will be.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.writing.poll(&mut self.io, cx)
    }

    /// Reads at most about `wanted` octets; `false` at the transport's end.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        wanted: u64,
    ) -> Poll<io::Result<bool>> {
        let wanted = usize::try_from(wanted).map_or(self.read, |wanted| wanted.min(self.read));
        if self.input.capacity() - self.input.len() < wanted {
            self.input.reserve(wanted);
        }
        let room = self.input.capacity() - self.input.len();
        let count = match poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input) {
            Poll::Pending => {
                // Who waits holds no buffer.
                if self.input.is_empty() {
                    self.input = BytesMut::new();
                }
                return Poll::Pending;
            }
            Poll::Ready(read) => read?,
        };
        // As much as comes at once: a large piece of memory under a few octets would be a waste.
        if count == room {
            self.read = (self.read * 2).min(READ_MOST);
        } else if count < room / 4 {
            self.read = (self.read / 2).max(READ);
        }
        Poll::Ready(Ok(count > 0))
    }

    /// The head of the final response.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<response::Parts, Error>> {
        loop {
            let has_begun = !self.input.is_empty() || self.interim > 0;
            let head = match self.heads.take(&mut self.input)? {
                Some(head) => head,
                None => match ready!(self.poll_came(cx)) {
                    Ok(Came::Head(head)) => head,
                    Ok(Came::Octets) => continue,
                    Ok(Came::End) | Err(Error::Io(_)) if has_begun => {
                        return Poll::Ready(Err(Error::Incomplete));
                    }
                    // TLS may end without saying so.
                    Ok(Came::End) | Err(Error::Io(io::ErrorKind::UnexpectedEof)) => {
                        return Poll::Ready(Err(Error::Closed));
                    }
                    Err(error) => return Poll::Ready(Err(error)),
                },
            };
            if head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Poll::Ready(Err(Error::Malformed("an upgrade that nobody asked for")));
            }
            if !head.status.is_informational() {
                return Poll::Ready(Ok(head));
            }
            self.interim += 1;
            if self.interim > INTERIM {
                return Poll::Ready(Err(Error::Malformed("interim responses without end")));
            }
        }
    }

    fn poll_came(&mut self, cx: &mut Context<'_>) -> Poll<Result<Came, Error>> {
        if !self.input.is_empty() {
            let more = ready!(self.poll_read(cx, READ as u64))?;
            return Poll::Ready(Ok(if more { Came::Octets } else { Came::End }));
        }
        // On the stack: most heads come whole, and who waits for one needs no memory.
        let mut room = [MaybeUninit::uninit(); READ];
        let mut room = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut room))?;
        let came = room.filled();
        if came.is_empty() {
            return Poll::Ready(Ok(Came::End));
        }
        if came.len() == READ {
            self.read = READ * 2;
        }
        let head = self.heads.read(came)?;
        let behind = head.as_ref().map_or(0, |(length, _)| *length);
        self.input = BytesMut::from(&came[behind..]);
        Poll::Ready(Ok(head.map_or(Came::Octets, |(_, head)| Came::Head(head))))
    }
}

/// What a read has brought.
enum Came {
    Head(response::Parts),
    Octets,
    End,
}
