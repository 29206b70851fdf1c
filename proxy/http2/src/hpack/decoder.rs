//! Reading blocks (RFC 7541 §3 and §6). What is indexed is cloned out of a table; what is spelled
//! out is a slice of the block, except where it stays in the table: an entry must not keep alive
//! the buffer it came in.

use std::ops::Range;

use bytes::Bytes;

use super::entries::{Entries, Entry};
use super::name::{Name, Names};
use super::{Error, Field, huffman, integer, known};

/// Changes of the table's size that may stand in front of a block: the smallest and the last.
const UPDATES: usize = 2;
/// The bit that says that a string is Huffman-coded (RFC 7541 §5.2).
const CODED: u8 = 0x80;

/// The reading side of one connection.
#[derive(Debug)]
pub(crate) struct Decoder {
    entries: Entries,
    names: Names,
    limit: usize,
}

/// What becomes of a field that is spelled out (RFC 7541 §6.2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Indexed,
    Passes,
    Secret,
}

impl Decoder {
    /// One whose table holds at most `limit` octets, which is our `SETTINGS_HEADER_TABLE_SIZE`.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            entries: Entries::new(limit),
            names: Names::default(),
            limit,
        }
    }

    /// Reads a whole block and hands every field to `take`, in order; fails with
    /// [`Error::TooMuch`] where that returns false. After any failure the table is of no more
    /// use, and neither is the connection.
    pub(crate) fn decode(
        &mut self,
        block: Bytes,
        take: &mut impl FnMut(Field) -> bool,
    ) -> Result<(), Error> {
        let mut reader = Reader::new(block);
        self.update(&mut reader)?;
        while let Some(first) = reader.octet() {
            let field = match first {
                0x80.. => match self.indexed(reader.integer(first, 0x7f)?)? {
                    // Cloned here, a header is written once, where it is taken from.
                    Ok(Field::Header(name, value)) => Field::Header(name.clone(), value.clone()),
                    Ok(field) => field.clone(),
                    Err(malformed) => malformed,
                },
                0x40.. => self.literal(first, 0x3f, Fate::Indexed, &mut reader)?,
                0x20.. => return Err(Error::LateUpdate),
                0x10.. => self.literal(first, 0x0f, Fate::Secret, &mut reader)?,
                _ => self.literal(first, 0x0f, Fate::Passes, &mut reader)?,
            };
            if !take(field) {
                return Err(Error::TooMuch);
            }
        }
        Ok(())
    }

    /// Changes of the table's size, which only stand in front (RFC 7541 §4.2).
    fn update(&mut self, reader: &mut Reader) -> Result<(), Error> {
        let mut updates = 0;
        while let Some(first @ 0x20..0x40) = reader.peek() {
            updates += 1;
            if updates > UPDATES {
                return Err(Error::Updates);
            }
            reader.at += 1;
            let limit = reader.integer(first, 0x1f)?;
            if limit > self.limit {
                return Err(Error::Oversized);
            }
            self.entries.set_limit(limit);
        }
        Ok(())
    }

    #[inline]
    fn indexed(&self, index: usize) -> Result<Result<&Field, Field>, Error> {
        match known::field(index) {
            Some(field) => Ok(Ok(field)),
            None => Ok(self.entry(index)?.field()),
        }
    }

    /// The dynamic table's entry of that index. Index 0 is no entry.
    #[inline]
    fn entry(&self, index: usize) -> Result<&Entry, Error> {
        let newer = index.checked_sub(known::FIELDS + 1).ok_or(Error::Index)?;
        self.entries.get(newer).ok_or(Error::Index)
    }

    fn literal(
        &mut self,
        first: u8,
        mask: u8,
        fate: Fate,
        reader: &mut Reader,
    ) -> Result<Field, Error> {
        let name = match reader.integer(first, mask)? {
            0 => self.names.read(reader.string()?),
            index => self.name(index)?,
        };
        if fate == Fate::Indexed {
            let field = name.clone().with(Bytes::copy_from_slice(reader.string()?));
            self.entries.insert(Entry::new(name, &field));
            return Ok(field);
        }
        let mut field = name.with(reader.shared_string()?);
        if fate == Fate::Secret
            && let Field::Header(_, value) = &mut field
        {
            value.set_sensitive(true);
        }
        Ok(field)
    }

    fn name(&self, index: usize) -> Result<Name, Error> {
        match known::field(index) {
            Some(field) => Ok(Name::of(field)),
            None => Ok(self.entry(index)?.name()),
        }
    }

    /// Octets of all entries, and the entries from the newest on.
    #[cfg(test)]
    pub(super) fn contents(&self) -> (usize, Vec<Field>) {
        self.entries.contents()
    }
}

/// A block, and how far it is read.
struct Reader {
    block: Bytes,
    at: usize,
    /// The last Huffman-coded string, decoded.
    decoded: Vec<u8>,
}

impl Reader {
    const fn new(block: Bytes) -> Self {
        Self {
            block,
            at: 0,
            decoded: Vec::new(),
        }
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.block.get(self.at).copied()
    }

    #[inline]
    fn octet(&mut self) -> Option<u8> {
        let octet = self.peek()?;
        self.at += 1;
        Some(octet)
    }

    #[inline]
    fn integer(&mut self, first: u8, mask: u8) -> Result<usize, Error> {
        integer::read(first, mask, &self.block, &mut self.at)
    }

    /// Where the next string stands in the block, and whether it is Huffman-coded.
    #[inline]
    fn place(&mut self) -> Result<(Range<usize>, bool), Error> {
        let first = self.octet().ok_or(Error::Truncated)?;
        let length = self.integer(first, !CODED)?;
        let begin = self.at;
        if length > self.block.len() - begin {
            return Err(Error::Truncated);
        }
        self.at = begin + length;
        Ok((begin..self.at, first & CODED != 0))
    }

    /// The next string, to look at.
    fn string(&mut self) -> Result<&[u8], Error> {
        let (place, coded) = self.place()?;
        if !coded {
            return Ok(&self.block[place]);
        }
        self.decoded.clear();
        huffman::decode(&self.block[place], &mut self.decoded)?;
        Ok(&self.decoded)
    }

    /// The next string, to keep: a part of the block where it stands there as it is.
    fn shared_string(&mut self) -> Result<Bytes, Error> {
        let (place, coded) = self.place()?;
        if !coded {
            return Ok(self.block.slice(place));
        }
        self.decoded.clear();
        huffman::decode(&self.block[place], &mut self.decoded)?;
        Ok(Bytes::copy_from_slice(&self.decoded))
    }
}
