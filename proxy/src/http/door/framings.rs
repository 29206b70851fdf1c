//! What the door looks for in the raw bytes of a head: what another parser
//! would read in another way.

use std::io::BufRead;

/// Looks through the raw bytes of one head for what two parsers read in two
/// ways and hyper forgives: both framings at once (RFC 9112 §6.1), and lines
/// that end without CR.
#[derive(Debug, Default)]
pub(super) struct Framings {
    /// The first bytes of a line whose end has not come.
    begin: [u8; BEGIN],
    /// All that has come of it.
    length: usize,
    /// The last of that.
    last: u8,
    coding_seen: bool,
    length_seen: bool,
    begun: bool,
    ended: bool,
    bare_lf: bool,
}

const CODING: &[u8] = b"transfer-encoding:";
const LENGTH: &[u8] = b"content-length:";
/// As much of a line as is looked at, beside its end.
const BEGIN: usize = CODING.len();

impl Framings {
    /// Takes bytes of the head; what follows its empty line is left alone.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !self.ended && !rest.is_empty() {
            let come = rest;
            // A search of many bytes at once, which an iterator is not. A slice never fails to be read.
            let Ok(count) = rest.skip_until(b'\n') else {
                return;
            };
            let Some(line) = come[..count].strip_suffix(b"\n") else {
                return self.keep(come);
            };
            if self.length == 0 {
                self.line(line, line.last().copied());
            } else {
                self.keep(line);
                let begin = self.begin;
                self.line(&begin[..self.length.min(BEGIN)], Some(self.last));
                self.length = 0;
            }
        }
    }

    /// Keeps what is looked at of a line that was cut.
    fn keep(&mut self, part: &[u8]) {
        let room = &mut self.begin[self.length.min(BEGIN)..];
        for (place, byte) in room.iter_mut().zip(part) {
            *place = *byte;
        }
        self.last = part.last().copied().unwrap_or(self.last);
        self.length += part.len();
    }

    /// Takes a line, or its first bytes, and the last before its end.
    fn line(&mut self, line: &[u8], last: Option<u8>) {
        self.bare_lf |= last != Some(b'\r');
        if matches!(line, b"" | b"\r") {
            // Without a body the next head follows; a body is not looked through.
            self.ended = self.begun && (self.coding_seen || self.length_seen);
            self.begun = false;
            return;
        }
        self.begun = true;
        match line[0] {
            b't' | b'T' => self.coding_seen |= begins(line, CODING),
            b'c' | b'C' => self.length_seen |= begins(line, LENGTH),
            _ => {}
        }
    }

    /// What must not reach the application, if anything.
    pub(super) const fn malformed(&self) -> Option<&'static str> {
        if self.coding_seen && self.length_seen {
            return Some("content-length beside transfer-encoding");
        }
        // RFC 9112 §2.2 lets a recipient take it; others do not, and so two would differ.
        if self.bare_lf {
            Some("a line that ends without CR")
        } else {
            None
        }
    }
}

/// Whether a line begins with a name, in whatever case.
fn begins(line: &[u8], name: &[u8]) -> bool {
    line.get(..name.len())
        .is_some_and(|begin| begin.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_in_two_ways_is_seen_however_the_head_is_cut() {
        let table: [(&str, bool); 10] = [
            (
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\ntransfer-encoding:chunked\r\ncontent-length:1\r\n\r\n",
                true,
            ),
            ("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nhost: a\r\n\n", true),
            (
                "GET / HTTP/1.1\r\nTRANSFER-encoding: chunked\r\ncontent-LENGTH: 1\r\n\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\nt: 1\r\nc: 1\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
                false,
            ),
            (
                "\r\nGET / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: x\r\n\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\ncontent-length: 1\r\n\r\ntransfer-encoding: chunked\r\n",
                false,
            ),
            (
                "GET / HTTP/1.1\r\ncontent-lengths: 1\r\ntransfer-encoding: chunked\r\n\r\n",
                false,
            ),
            (
                "GET / HTTP/1.1\r\nx: content-length:\r\ntransfer-encoding: chunked\r\n\r\n",
                false,
            ),
        ];
        for (head, expected) in table {
            let mut framings = Framings::default();
            for byte in head.as_bytes().chunks(1) {
                framings.take(byte);
            }
            assert_eq!(
                framings.malformed().is_some(),
                expected,
                "{head:?} byte by byte"
            );
            for cut in 0..head.len() {
                let mut framings = Framings::default();
                framings.take(&head.as_bytes()[..cut]);
                framings.take(&head.as_bytes()[cut..]);
                assert_eq!(
                    framings.malformed().is_some(),
                    expected,
                    "{head:?} cut at {cut}"
                );
            }
        }
    }
}
