//! HPACK (RFC 7541): how the fields of a head cross an HTTP/2 connection. Written for a hop on
//! which the same heads pass again and again: what repeats is one octet and one look-up at both
//! ends, and what never repeats is kept out of the tables. It knows fields and octets, not
//! frames, streams, or which fields make a proper message.

mod decoder;
mod encoder;
mod entries;
mod huffman;
mod integer;
mod known;
mod name;
mod sent;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_blocks;
#[cfg(test)]
mod tests_errors;
#[cfg(test)]
mod tests_properties;
mod words;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

pub(crate) use decoder::Decoder;
pub(crate) use encoder::Encoder;

/// Octets that each entry of a table counts beside its name and value (RFC 7541 §4.1).
const OVERHEAD: usize = 32;
/// Size of a table before anyone has said otherwise, in octets (RFC 9113 §6.5.2).
const DEFAULT_LIMIT: usize = 4096;

/// The pseudo fields of HTTP/2 (RFC 9113 §8.3, RFC 8441 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pseudo {
    Method,
    Scheme,
    Authority,
    Path,
    Protocol,
    Status,
}

impl Pseudo {
    /// Its name, with the colon.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Method => ":method",
            Self::Scheme => ":scheme",
            Self::Authority => ":authority",
            Self::Path => ":path",
            Self::Protocol => ":protocol",
            Self::Status => ":status",
        }
    }

    /// The pseudo field of that name.
    fn parse(name: &[u8]) -> Option<Self> {
        match name {
            b":method" => Some(Self::Method),
            b":scheme" => Some(Self::Scheme),
            b":authority" => Some(Self::Authority),
            b":path" => Some(Self::Path),
            b":protocol" => Some(Self::Protocol),
            b":status" => Some(Self::Status),
            _ => None,
        }
    }
}

/// A field as it stands in a head.
#[derive(Clone, Debug)]
pub(crate) enum Field {
    /// A pseudo field. Its value holds no octet that a header's value may not hold.
    Pseudo(Pseudo, Bytes),
    /// A header. Its value is sensitive where the peer forbade to index it (RFC 7541 §6.2.3).
    Header(HeaderName, HeaderValue),
    /// What can stand in no message: a name that is empty, has upper case or is no token, a
    /// pseudo field nobody knows, or a value with forbidden octets. The lengths of name and value
    /// in octets; the tables of both ends count it like any other.
    Malformed(usize, usize),
}

impl Field {
    /// What it counts in a table and against a limit on heads, in octets (RFC 7541 §4.1).
    pub(crate) fn size(&self) -> usize {
        OVERHEAD
            + match self {
                Self::Pseudo(which, value) => which.as_str().len() + value.len(),
                Self::Header(name, value) => name.as_str().len() + value.len(),
                Self::Malformed(name, value) => name + value,
            }
    }
}

/// Why a block could not be decoded. The decoder's table is no longer in step with the peer's
/// after any of them, so the connection has to end (RFC 9113 §4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// RFC 7541 §5.
    #[error("the block ends within a field")]
    Truncated,
    /// RFC 7541 §5.1.
    #[error("an integer has more than 32 bits or more octets than those need")]
    Integer,
    /// RFC 7541 §2.3.3.
    #[error("an index points to no entry of the tables")]
    Index,
    /// RFC 7541 §5.2.
    #[error(
        "a Huffman-coded string holds the end-of-string code or is not padded with its first bits"
    )]
    Huffman,
    /// RFC 7541 §6.3.
    #[error("the table is to become larger than the limit we set")]
    Oversized,
    /// RFC 7541 §4.2.
    #[error("the table's size changes after the first field of a block")]
    LateUpdate,
    /// RFC 7541 §4.2.
    #[error("the table's size changes more than twice in front of one block")]
    Updates,
    /// The one who takes the fields wanted no more.
    #[error("the head has more fields than are taken")]
    TooMuch,
}
