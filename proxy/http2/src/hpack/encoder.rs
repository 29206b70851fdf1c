//! Writing blocks (RFC 7541 §6). A field is an index where a table has it; it enters the table
//! when it is seen for the second time, so that values which differ with each request push out
//! nothing that repeats. Strings go out as they are: Huffman codes cost this hop more than the
//! octets they save.

use http::{HeaderName, HeaderValue};

use super::integer;
use super::known::{self, Rule};
use super::sent::{Passing, Sent};
use super::words::Words;
use super::{DEFAULT_LIMIT, Pseudo};

/// An index of a whole field (RFC 7541 §6.1): mask of its prefix, and pattern.
const INDEXED: (u8, u8) = (0x7f, 0x80);
/// A field that is spelled out and enters the table (§6.2.1).
const ENTERS: (u8, u8) = (0x3f, 0x40);
/// A field that is spelled out and stays outside (§6.2.2).
const PASSES: (u8, u8) = (0x0f, 0x00);
/// A field that is spelled out and that no table on the way may hold (§6.2.3).
const SECRET: (u8, u8) = (0x0f, 0x10);
/// A change of the table's size (§6.3).
const RESIZED: (u8, u8) = (0x1f, 0x20);

/// Indices of the static table that pseudo fields are sent by.
mod place {
    pub(super) const AUTHORITY: u8 = 1;
    pub(super) const GET: u8 = 2;
    pub(super) const POST: u8 = 3;
    pub(super) const ROOT: u8 = 4;
    pub(super) const INDEX_PAGE: u8 = 5;
    pub(super) const HTTP: u8 = 6;
    pub(super) const HTTPS: u8 = 7;
    pub(super) const STATUS: u8 = 8;
}

/// The writing side of one connection.
#[derive(Debug)]
pub(crate) struct Encoder {
    sent: Sent,
    /// The limit in force since the last block, in octets.
    announced: usize,
    /// The smallest limit since then.
    least: usize,
}

impl Encoder {
    /// One whose peer has not said yet how large a table it keeps.
    pub(crate) fn new() -> Self {
        Self {
            sent: Sent::new(DEFAULT_LIMIT),
            announced: DEFAULT_LIMIT,
            least: DEFAULT_LIMIT,
        }
    }

    /// The peer's `SETTINGS_HEADER_TABLE_SIZE`, in octets. Of more than 4096 no use is made. Not
    /// to be called within a block.
    pub(crate) fn set_limit(&mut self, bytes: u32) {
        let limit = DEFAULT_LIMIT.min(bytes as usize);
        self.least = self.least.min(limit);
        self.sent.set_limit(limit);
    }

    /// Begins a block: tells of changes of the table's size since the last one, which is the
    /// smallest it had and the one it has now (RFC 7541 §4.2).
    #[inline]
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        self.sent.begin();
        let limit = self.sent.limit();
        if self.least == self.announced && limit == self.announced {
            return;
        }
        if self.least < self.announced.min(limit) {
            write(self.least, RESIZED, out);
        }
        write(limit, RESIZED, out);
        self.announced = limit;
        self.least = limit;
    }

    /// Appends a pseudo field. A path is spelled out each time.
    pub(crate) fn pseudo(&mut self, which: Pseudo, value: &[u8], out: &mut Vec<u8>) {
        let (index, whole) = match (which, value) {
            (Pseudo::Method, b"GET") => (place::GET, true),
            (Pseudo::Method, b"POST") => (place::POST, true),
            (Pseudo::Method, _) => (place::GET, false),
            (Pseudo::Path, b"/") => (place::ROOT, true),
            (Pseudo::Path, b"/index.html") => (place::INDEX_PAGE, true),
            (Pseudo::Path, _) => (place::ROOT, false),
            (Pseudo::Scheme, b"http") => (place::HTTP, true),
            (Pseudo::Scheme, b"https") => (place::HTTPS, true),
            (Pseudo::Scheme, _) => (place::HTTP, false),
            (Pseudo::Status, _) => status(value),
            (Pseudo::Authority, _) => (place::AUTHORITY, value.is_empty()),
            (Pseudo::Protocol, _) => (0, false),
        };
        if whole {
            return write(usize::from(index), INDEXED, out);
        }
        let name = which.as_str().as_bytes();
        if which == Pseudo::Path {
            return spell(index, name, value, PASSES, out);
        }
        if !self.expected(name, value, out) {
            self.repeating(index, name, value, out);
        }
    }

    /// Appends a header. One whose value is sensitive, and those that carry credentials or
    /// cookies, are marked as never to be indexed (RFC 7541 §7.1.3).
    pub(crate) fn header(&mut self, name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
        let text = name.as_str().as_bytes();
        if value.is_sensitive() || !self.expected(text, value.as_bytes(), out) {
            self.unexpected(text, value, out);
        }
    }

    /// Appends the field if it came at this place of the last head as well, and says whether.
    #[inline]
    fn expected(&mut self, name: &[u8], value: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(newer) = self.sent.expected(&Passing::new(name, value)) else {
            return false;
        };
        write(known::FIELDS + 1 + newer, INDEXED, out);
        true
    }

    #[inline(never)]
    fn unexpected(&mut self, name: &[u8], value: &HeaderValue, out: &mut Vec<u8>) {
        let octets = value.as_bytes();
        let Some(known) = known::find(name, &Words::of(name)) else {
            return if value.is_sensitive() {
                spell(0, name, octets, SECRET, out);
            } else {
                self.repeating(0, name, octets, out);
            };
        };
        if value.is_sensitive() || known.rule == Rule::Secret {
            spell(known.index, name, octets, SECRET, out);
        } else if octets == known.value.as_bytes() {
            write(usize::from(known.index), INDEXED, out);
        } else if known.rule == Rule::Passes {
            spell(known.index, name, octets, PASSES, out);
        } else {
            self.repeating(known.index, name, octets, out);
        }
    }

    /// A field that may come again; its name has that index in the static table, or 0.
    fn repeating(&mut self, index: u8, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let field = Passing::new(name, value);
        if field.size() > self.sent.limit() {
            return spell(index, name, value, PASSES, out);
        }
        let hash = self.sent.hash(&field);
        if let Some(newer) = self.sent.find(hash, &field) {
            write(known::FIELDS + 1 + newer, INDEXED, out);
        } else if self.sent.seen_before(hash) {
            self.sent.insert(hash, &field);
            spell(index, name, value, ENTERS, out);
        } else {
            spell(index, name, value, PASSES, out);
        }
    }

    /// Octets of all entries that the peer's table has to hold now, and their number.
    #[cfg(test)]
    pub(super) fn contents(&self) -> (usize, usize) {
        self.sent.contents()
    }
}

/// The index that a status is sent by, and whether the field there is all of it.
fn status(value: &[u8]) -> (u8, bool) {
    let index = match value {
        b"200" => place::STATUS,
        b"204" => 9,
        b"206" => 10,
        b"304" => 11,
        b"400" => 12,
        b"404" => 13,
        b"500" => 14,
        _ => return (place::STATUS, false),
    };
    (index, true)
}

#[inline]
fn write(value: usize, (mask, pattern): (u8, u8), out: &mut Vec<u8>) {
    integer::write(value, mask, pattern, out);
}

/// Spells a field out, but for a name that has an index.
fn spell(index: u8, name: &[u8], value: &[u8], form: (u8, u8), out: &mut Vec<u8>) {
    write(usize::from(index), form, out);
    if index == 0 {
        string(name, out);
    }
    string(value, out);
}

#[inline]
fn string(text: &[u8], out: &mut Vec<u8>) {
    integer::write(text.len(), 0x7f, 0, out);
    out.extend_from_slice(text);
}
