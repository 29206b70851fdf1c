//! Header compression (RFC 7541): written in its simplest form, literals that
//! touch no table; read in all its forms.

use std::collections::VecDeque;

use super::huffman::Code;

/// Names and values in the order in which they came.
pub type Fields = Vec<(String, String)>;

/// What the static table holds (RFC 7541 Appendix A).
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"),
    (":path", "/index.html"), (":scheme", "http"), (":scheme", "https"), (":status", "200"),
    (":status", "204"), (":status", "206"), (":status", "304"), (":status", "400"),
    (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""),
    ("accept", ""), ("access-control-allow-origin", ""), ("age", ""), ("allow", ""),
    ("authorization", ""), ("cache-control", ""), ("content-disposition", ""),
    ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""),
    ("date", ""), ("etag", ""), ("expect", ""), ("expires", ""), ("from", ""), ("host", ""),
    ("if-match", ""), ("if-modified-since", ""), ("if-none-match", ""), ("if-range", ""),
    ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""), ("location", ""),
    ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""),
    ("range", ""), ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""),
    ("set-cookie", ""), ("strict-transport-security", ""), ("transfer-encoding", ""),
    ("user-agent", ""), ("vary", ""), ("via", ""), ("www-authenticate", ""),
];

/// Octets that an entry of the dynamic table takes beside its own (RFC 7541 §4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The size of the dynamic table that nobody announced (RFC 9113 §6.5.2).
const TABLE_SIZE: usize = 4096;

/// A header block of literals, without indexing and without Huffman.
#[must_use]
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.extend(literal(0, name, value));
    }
    block
}

/// One literal: 0 for one without indexing, 0x40 for one that enters the dynamic table.
#[must_use]
pub fn literal(form: u8, name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![form];
    for text in [name, value] {
        bytes.extend(integer(0, 7, text.len()));
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// An integer behind a prefix of `bits` bits, whose other bits are `first` (RFC 7541 §5.1).
#[must_use]
#[allow(
    clippy::cast_possible_truncation,
    reason = "each octet takes the bits that belong to it"
)]
pub fn integer(first: u8, bits: u32, value: usize) -> Vec<u8> {
    let most = (1 << bits) - 1;
    if value < most {
        return vec![first | value as u8];
    }
    let mut bytes = vec![first | most as u8];
    let mut rest = value - most;
    while rest >= 0x80 {
        bytes.push(rest as u8 & 0x7f | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// Reads the header blocks of one direction of a connection.
pub struct Decoder {
    code: Code,
    dynamic: VecDeque<(String, String)>,
    size: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            code: Code::new(),
            dynamic: VecDeque::new(),
            size: TABLE_SIZE,
        }
    }
}

impl Decoder {
    /// Reads one block.
    ///
    /// # Panics
    /// When it is malformed.
    pub fn fields(&mut self, block: &[u8]) -> Fields {
        let mut fields = Vec::new();
        let mut rest = block;
        while let Some(first) = rest.first().copied() {
            match first {
                0x80.. => {
                    let index = read_integer(&mut rest, 7);
                    fields.push(self.entry(index));
                }
                0x40.. => {
                    let field = self.read_literal(&mut rest, 6);
                    self.dynamic.push_front(field.clone());
                    self.evict();
                    fields.push(field);
                }
                0x20.. => {
                    self.size = read_integer(&mut rest, 5);
                    assert!(self.size <= TABLE_SIZE, "a table beyond what was announced");
                    self.evict();
                }
                _ => fields.push(self.read_literal(&mut rest, 4)),
            }
        }
        fields
    }

    fn entry(&self, index: usize) -> (String, String) {
        assert!(index > 0, "no entry has index 0");
        match STATIC.get(index - 1) {
            Some((name, value)) => ((*name).to_owned(), (*value).to_owned()),
            None => self.dynamic[index - 1 - STATIC.len()].clone(),
        }
    }

    fn read_literal(&self, rest: &mut &[u8], bits: u32) -> (String, String) {
        let name = match read_integer(rest, bits) {
            0 => self.read_string(rest),
            index => self.entry(index).0,
        };
        (name, self.read_string(rest))
    }

    fn read_string(&self, rest: &mut &[u8]) -> String {
        let is_coded = rest[0] & 0x80 != 0;
        let length = read_integer(rest, 7);
        let (bytes, after) = rest.split_at(length);
        *rest = after;
        let text = if is_coded {
            self.code.decode(bytes)
        } else {
            bytes.to_vec()
        };
        String::from_utf8_lossy(&text).into_owned()
    }

    fn evict(&mut self) {
        let entry = |(name, value): &(String, String)| name.len() + value.len() + ENTRY_OVERHEAD;
        while self.dynamic.iter().map(entry).sum::<usize>() > self.size {
            self.dynamic.pop_back();
        }
    }
}

fn read_integer(rest: &mut &[u8], bits: u32) -> usize {
    let most = (1_usize << bits) - 1;
    let mut next = || {
        let (first, after) = rest.split_first().expect("an integer has an end");
        *rest = after;
        usize::from(*first)
    };
    let mut value = next() & most;
    if value < most {
        return value;
    }
    let mut shift = 0;
    loop {
        let octet = next();
        value += (octet & 0x7f) << shift;
        shift += 7;
        if octet & 0x80 == 0 {
            return value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let long = "x".repeat(300);
        let fields = [(":method", "GET"), ("name", long.as_str())];
        let read = Decoder::default().fields(&block(&fields));
        let owned = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(read, owned);
    }

    #[test]
    fn requests_of_the_rfc_are_read_with_their_table() {
        // RFC 7541 Appendix C.4.1 and C.4.2: with Huffman and a dynamic table.
        let first = [
            0x82, 0x86, 0x84, 0x41, 0x8c, 0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab,
            0x90, 0xf4, 0xff,
        ];
        let second = [
            0x82, 0x86, 0x84, 0xbe, 0x58, 0x86, 0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf,
        ];
        let mut decoder = Decoder::default();
        decoder.fields(&first);
        let read = decoder.fields(&second);
        assert_eq!(read[3].1, "www.example.com");
        assert_eq!(read[4], ("cache-control".to_owned(), "no-cache".to_owned()));
    }
}
