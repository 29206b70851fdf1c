//! Bytes on a socket, for callers and applications that say exactly what they
//! mean: it sends what it is given and reads what comes, and parses an HTTP/1
//! head only as far as a test has to look at it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wait;

/// A peer that is silent for this long keeps the connection open.
const KEPT_OPEN: Duration = Duration::from_secs(1);

/// A byte stream with what was read ahead of the caller.
pub struct Wire<S = TcpStream> {
    stream: S,
    ahead: Vec<u8>,
}

/// An HTTP/1 head, as it stood on the wire.
#[derive(Debug, Clone)]
pub struct Head {
    /// The first line, without its CRLF.
    pub line: String,
    /// Names in lower case with their values, in order.
    pub headers: Vec<(String, String)>,
}

impl Head {
    fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Self { line, headers }
    }

    /// The status of a response; 0 for anything else.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.line
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    }

    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }
}

impl Wire<TcpStream> {
    /// Connects.
    ///
    /// # Panics
    /// When nobody accepts.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = wait::soon(
            &format!("a connection to {address}"),
            TcpStream::connect(address),
        )
        .await;
        let stream = stream.unwrap_or_else(|error| panic!("{address} does not accept: {error}"));
        stream
            .set_nodelay(true)
            .expect("a connected socket takes options");
        Self::of(stream)
    }

    /// Sends all at once, and returns everything that comes until the peer closes.
    ///
    /// # Panics
    /// When the peer keeps the connection open, with what came until then.
    pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        let (came, closed) = Self::try_exchange(address, bytes).await;
        assert!(
            closed,
            "{} leaves the connection open: {}",
            bytes.escape_ascii(),
            came.escape_ascii()
        );
        came
    }

    /// Sends all at once, and returns what comes, and whether the peer closed then.
    pub async fn try_exchange(address: SocketAddr, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut wire = Self::connect(address).await;
        // The peer may refuse before it has read all: what counts is what it answers.
        let _ = wire.stream.write_all(bytes).await;
        loop {
            let more = wire.stream.read_buf(&mut wire.ahead);
            match tokio::time::timeout(KEPT_OPEN, more).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return (wire.ahead, true),
                Err(_) => return (wire.ahead, false),
            }
        }
    }

    /// Ends the connection with a reset instead of a FIN.
    ///
    /// # Panics
    /// When the socket takes no options.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("a socket takes SO_LINGER");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Wraps a stream.
    pub fn of(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    /// Sends all of `bytes`.
    ///
    /// # Panics
    /// When the peer is gone.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("the peer takes bytes");
    }

    /// Sends all of `bytes`, or says why not.
    ///
    /// # Errors
    /// As the socket says.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        wait::soon("sending", async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Ends the sending direction.
    ///
    /// # Panics
    /// When the peer is gone.
    pub async fn finish(&mut self) {
        self.stream
            .shutdown()
            .await
            .expect("a sending direction can be ended");
    }

    /// Reads one HTTP/1 head.
    ///
    /// # Panics
    /// When the stream ends first.
    pub async fn head(&mut self) -> Head {
        self.try_head().await.unwrap_or_else(|| {
            panic!(
                "the stream ends before a head: {:?}",
                String::from_utf8_lossy(&self.ahead)
            )
        })
    }

    /// Reads one HTTP/1 head; `None` when the stream ends first.
    pub async fn try_head(&mut self) -> Option<Head> {
        let bytes = self.until(b"\r\n\r\n").await?;
        Some(Head::parse(&bytes))
    }

    /// Reads up to and with `end`; `None` when the stream ends first.
    pub async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(place) = self
                .ahead
                .windows(end.len())
                .position(|window| window == end)
            {
                let rest = self.ahead.split_off(place + end.len());
                return Some(std::mem::replace(&mut self.ahead, rest));
            }
            if self.more().await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads exactly `count` bytes.
    ///
    /// # Panics
    /// When the stream ends first.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.ahead.len() < count {
            let read = self.more().await.expect("the peer sends");
            assert!(
                read > 0,
                "the stream ends after {} of {count} bytes",
                self.ahead.len()
            );
        }
        let rest = self.ahead.split_off(count);
        std::mem::replace(&mut self.ahead, rest)
    }

    /// Reads whatever comes next; empty at the end of the stream.
    ///
    /// # Errors
    /// As the socket says.
    pub async fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.more().await?;
        }
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Reads to the end of the stream.
    ///
    /// # Errors
    /// As the socket says, a reset above all.
    pub async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.more().await? > 0 {}
        Ok(std::mem::take(&mut self.ahead))
    }

    /// Reads a body in chunked coding: its data, and its trailer section as text.
    ///
    /// # Panics
    /// When it is malformed, or the stream ends first.
    pub async fn chunks(&mut self) -> (Vec<u8>, String) {
        let mut data = Vec::new();
        loop {
            let line = self
                .until(b"\r\n")
                .await
                .expect("a chunk begins with its size");
            let size = String::from_utf8_lossy(&line);
            let size = usize::from_str_radix(size.trim(), 16)
                .expect("a chunk's size is a hexadecimal number");
            if size == 0 {
                break;
            }
            data.extend(self.exactly(size).await);
            assert_eq!(self.exactly(2).await, b"\r\n", "a chunk ends with CRLF");
        }
        let mut trailers = String::new();
        loop {
            let line = self
                .until(b"\r\n")
                .await
                .expect("a chunked body ends with an empty line");
            if line == b"\r\n" {
                return (data, trailers);
            }
            trailers.push_str(&String::from_utf8_lossy(&line));
        }
    }

    /// The stream itself, with what was read ahead of the caller.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.ahead)
    }

    async fn more(&mut self) -> io::Result<usize> {
        let stream = &mut self.stream;
        let ahead = &mut self.ahead;
        wait::soon("the peer's next bytes, or its end", stream.read_buf(ahead)).await
    }
}
