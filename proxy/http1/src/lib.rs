//! HTTP/1.1 (RFC 9112) on the side that asks: one exchange at a time on a
//! connection, written and read by whoever awaits it. There is no task, no
//! channel and, while nothing is exchanged, no buffer.
//!
//! Upgrades, `Expect` and CONNECT are not done here.

mod chunked;
mod connection;
mod exchange;
mod framing;
mod head;
mod incoming;
mod writing;

pub use connection::{Answer, Connection, Home};
pub use incoming::{Incoming, Rest};

/// Why an exchange did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The transport failed before an octet of the request was written.
    #[error("connection, before anything was sent: {0}")]
    Unsent(std::io::ErrorKind),
    /// The transport failed.
    #[error("connection: {0}")]
    Io(std::io::ErrorKind),
    /// The peer closed before an octet of its answer.
    #[error("the peer closed the connection before it answered")]
    Closed,
    /// The peer closed within its answer.
    #[error("the peer closed the connection within its answer")]
    Incomplete,
    /// What came is no answer.
    #[error("no answer of HTTP/1.1: {0}")]
    Malformed(&'static str),
    /// The body of the request failed.
    #[error("the request broke off")]
    Request,
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error.kind())
    }
}
