//! The chunked coding (RFC 9112 §7.1).

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::Error;
use crate::head::FIELDS;

/// Octets of one line: a size with its extensions, or a trailer field.
const LINE: usize = 8 * 1024;
/// Octets of all trailers.
const TRAILERS: usize = 64 * 1024;
/// Octets of extensions, in all chunks of a body together: nobody reads them.
const EXTENSIONS: usize = 16 * 1024;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The line with a chunk's size.
    Size,
    /// So many octets of a chunk.
    Data(u64),
    /// The end of line behind a chunk.
    EndOfChunk,
    /// A trailer field, or the empty line at the end.
    Trailer,
    Done,
}

/// Decodes a body.
#[derive(Debug)]
pub(crate) struct Decoder {
    next: Next,
    trailers: HeaderMap,
    trailer_octets: usize,
    extension_octets: usize,
}

/// Something that a body consists of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Data(Bytes),
    /// The end; with trailers, where there were some.
    End(Option<HeaderMap>),
}

impl Decoder {
    pub(crate) fn new() -> Self {
        Self {
            next: Next::Size,
            trailers: HeaderMap::new(),
            trailer_octets: 0,
            extension_octets: 0,
        }
    }

    /// The next piece of what has come; `None` where more has to come first.
    pub(crate) fn take(&mut self, input: &mut BytesMut) -> Result<Option<Piece>, Error> {
        loop {
            match self.next {
                Next::Size => {
                    let Some(line) = line(input)? else {
                        return Ok(None);
                    };
                    self.next = match self.size(&line)? {
                        0 => Next::Trailer,
                        size => Next::Data(size),
                    };
                }
                Next::Data(left) => {
                    if input.is_empty() {
                        return Ok(None);
                    }
                    let data = take(left, input);
                    self.next = match left - data.len() as u64 {
                        0 => Next::EndOfChunk,
                        left => Next::Data(left),
                    };
                    return Ok(Some(Piece::Data(data)));
                }
                Next::EndOfChunk => match line(input)? {
                    None => return Ok(None),
                    Some(line) if line.is_empty() => self.next = Next::Size,
                    Some(_) => return Err(Error::Malformed("a chunk longer than it says")),
                },
                Next::Trailer => match line(input)? {
                    None => return Ok(None),
                    Some(line) if line.is_empty() => {
                        self.next = Next::Done;
                        let trailers = std::mem::take(&mut self.trailers);
                        let trailers = (!trailers.is_empty()).then_some(trailers);
                        return Ok(Some(Piece::End(trailers)));
                    }
                    Some(line) => self.trailer(&line)?,
                },
                Next::Done => return Ok(Some(Piece::End(None))),
            }
        }
    }

    fn size(&mut self, line: &[u8]) -> Result<u64, Error> {
        let digits = line
            .iter()
            .take_while(|octet| octet.is_ascii_hexdigit())
            .count();
        let (size, extension) = line.split_at(digits);
        let blanks = extension
            .iter()
            .take_while(|octet| matches!(octet, b' ' | b'\t'))
            .count();
        let extension = &extension[blanks..];
        let is_extension = extension.first().is_none_or(|octet| *octet == b';');
        self.extension_octets += extension.len();
        if self.extension_octets > EXTENSIONS {
            return Err(Error::Malformed("chunk extensions without end"));
        }
        // Sixteen digits are all that 64 bits hold.
        if !(1..=16).contains(&digits) || !is_extension {
            return Err(Error::Malformed("a chunk size that is none"));
        }
        let size = std::str::from_utf8(size).ok();
        size.and_then(|size| u64::from_str_radix(size, 16).ok())
            .ok_or(Error::Malformed("a chunk size that is none"))
    }

    fn trailer(&mut self, line: &[u8]) -> Result<(), Error> {
        self.trailer_octets += line.len();
        if self.trailer_octets > TRAILERS || self.trailers.len() >= FIELDS {
            return Err(Error::Malformed("trailers without end"));
        }
        let colon = line.iter().position(|octet| *octet == b':');
        let field = colon.and_then(|colon| {
            let name = HeaderName::from_bytes(&line[..colon]).ok()?;
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
            self.trailers.try_append(name, value).ok()
        });
        match field {
            Some(_) => Ok(()),
            None => Err(Error::Malformed("a trailer that is no field")),
        }
    }
}

/// The next line without its end. One without CR is none (RFC 9112 §2.2 would let it pass; others do not).
fn line(input: &mut BytesMut) -> Result<Option<Bytes>, Error> {
    let window = &input[..input.len().min(LINE)];
    let Some(end) = window.iter().position(|octet| *octet == b'\n') else {
        if input.len() >= LINE {
            return Err(Error::Malformed("a line without end"));
        }
        return Ok(None);
    };
    let mut line = input.split_to(end + 1).freeze();
    let length = line.len();
    if length < 2 || line[length - 2] != b'\r' || line[..length - 2].contains(&b'\r') {
        return Err(Error::Malformed("a line that does not end with CR LF"));
    }
    line.truncate(length - 2);
    Ok(Some(line))
}

/// Writes a chunk's size in front of it.
pub(crate) fn write_size(size: usize, out: &mut BytesMut) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        out.put_u8(DIGITS[(size >> (4 * place)) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the end of a body, with trailers where there are some.
pub(crate) fn write_end(trailers: Option<&HeaderMap>, out: &mut BytesMut) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

/// Takes at most so many octets of what has come.
pub(crate) fn take(most: u64, input: &mut BytesMut) -> Bytes {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    // All that a buffer holds, and not much less than it could: nothing has to be shared.
    if most >= input.len() && input.capacity() <= 2 * input.len() {
        return std::mem::take(input).freeze();
    }
    input.split_to(most.min(input.len())).freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Whole = (Vec<u8>, Option<HeaderMap>);

    /// All of a body that comes in parts of `step` octets; `None` where it does not end.
    fn decoded(text: &[u8], step: usize) -> Result<Option<Whole>, Error> {
        let mut decoder = Decoder::new();
        let mut input = BytesMut::new();
        let mut body = Vec::new();
        for part in text.chunks(step) {
            input.extend_from_slice(part);
            while let Some(piece) = decoder.take(&mut input)? {
                match piece {
                    Piece::Data(data) => body.extend_from_slice(&data),
                    Piece::End(trailers) => return Ok(Some((body, trailers))),
                }
            }
        }
        Ok(None)
    }

    #[test]
    fn chunks_become_a_body_however_they_come() {
        let table: [(&[u8], Option<&[u8]>); 9] = [
            (b"0\r\n\r\n", Some(b"")),
            (b"5\r\nhello\r\n0\r\n\r\n", Some(b"hello")),
            (
                b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
                Some(b"hello world"),
            ),
            (b"A\r\n0123456789\r\n000\r\n\r\n", Some(b"0123456789")),
            (b"a;x=y\r\n0123456789\r\n0 ; z\r\n\r\n", Some(b"0123456789")),
            (b"2\r\n\r\n\r\n0\r\n\r\n", Some(b"\r\n")),
            (b"5\r\nhello\r\n", None),
            (b"5\r\nhel", None),
            (b"0\r\n", None),
        ];
        for (text, expected) in table {
            for step in [1, 2, 3, 1000] {
                let found = decoded(text, step).expect("valid");
                assert_eq!(
                    found.as_ref().map(|(body, _)| &body[..]),
                    expected,
                    "{text:?} by {step}"
                );
            }
        }
    }

    #[test]
    fn what_others_might_read_otherwise_is_refused() {
        let table: [&[u8]; 13] = [
            b"\r\n",
            b"x\r\n",
            b"-1\r\n",
            b"+1\r\n",
            b" 1\r\na\r\n",
            b"1 2\r\na\r\n",
            b"0x1\r\na\r\n",
            b"1\na\r\n",
            b"1\r\nab\r\n",
            b"11111111111111111\r\n",
            b"1\r\r\na\r\n",
            b"0\r\nno field\r\n\r\n",
            b"0\r\nname : x\r\n\r\n",
        ];
        for text in table {
            assert!(decoded(text, 1000).is_err(), "{text:?}");
        }
        assert!(decoded(&[b'1'; 3 * LINE], 100).is_err());
        assert!(decoded(&[&b"1;"[..], &[b'x'; 3 * LINE]].concat(), 100).is_err());
        let chunk = [&b"1;"[..], &[b'x'; 1000], b"\r\na\r\n"].concat();
        assert!(decoded(&chunk.repeat(20), 100).is_err());
        let trailer = [&b"x:"[..], &[b'y'; 1000], b"\r\n"].concat();
        assert!(decoded(&[&b"0\r\n"[..], &trailer.repeat(100)].concat(), 100).is_err());
    }

    #[test]
    fn trailers_come_with_the_end() {
        let (body, trailers) = decoded(b"1\r\na\r\n0\r\nx-sum:  7 \r\nX-Sum: 8\r\n\r\n", 4)
            .expect("valid")
            .expect("whole");
        let trailers = trailers.expect("two");
        let sums: Vec<_> = trailers.get_all("x-sum").iter().collect();
        assert_eq!((body, sums == ["7", "8"]), (b"a".to_vec(), true));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut out = BytesMut::new();
        let mut body = Vec::new();
        for size in [1, 15, 16, 255, 256, 4096, 70_000] {
            let chunk = vec![size as u8; size];
            write_size(size, &mut out);
            out.extend_from_slice(&chunk);
            out.extend_from_slice(b"\r\n");
            body.extend_from_slice(&chunk);
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        write_end(Some(&trailers), &mut out);
        assert_eq!(decoded(&out, 1000), Ok(Some((body, Some(trailers)))));
    }

    proptest::proptest! {
        /// The octets alone decide, not the reads in which they come.
        #[test]
        fn parts_make_no_difference(text in "[0-3a;: x\r\n]{0,60}", step in 1_usize..20) {
            let whole = decoded(text.as_bytes(), usize::MAX);
            proptest::prop_assert_eq!(decoded(text.as_bytes(), step), whole);
        }

        #[test]
        fn whatever_is_written_is_read(chunks: Vec<Vec<u8>>, step in 1_usize..50) {
            let mut out = BytesMut::new();
            for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
                write_size(chunk.len(), &mut out);
                out.extend_from_slice(chunk);
                out.extend_from_slice(b"\r\n");
            }
            write_end(None, &mut out);
            proptest::prop_assert_eq!(decoded(&out, step), Ok(Some((chunks.concat(), None))));
        }
    }
}
