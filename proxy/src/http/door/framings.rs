//! What the door looks for in the raw bytes of a head: what another parser
//! would read in another way.

/// Looks through the raw bytes of one head for what two parsers read in two
/// ways and hyper forgives: both framings at once (RFC 9112 §6.1), and lines
/// that end without CR.
#[derive(Debug, Default)]
pub(super) struct Framings {
    /// The first bytes of the line being read.
    line: [u8; 18],
    length: usize,
    coding_seen: bool,
    length_seen: bool,
    begun: bool,
    ended: bool,
    last: u8,
    bare_lf: bool,
}

impl Framings {
    /// Takes bytes of the head; what follows its empty line is left alone.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        if self.ended {
            return;
        }
        for &byte in bytes {
            if byte != b'\n' {
                self.last = byte;
                if let Some(place) = self.line.get_mut(self.length) {
                    *place = byte.to_ascii_lowercase();
                }
                self.length += 1;
                continue;
            }
            self.bare_lf |= self.last != b'\r';
            let line = &self.line[..self.length.min(self.line.len())];
            if self.begun && matches!(line, b"" | b"\r") {
                // Without a body the next head follows; a body is not looked through.
                self.ended = self.coding_seen || self.length_seen;
                if self.ended {
                    return;
                }
                self.begun = false;
            }
            self.begun |= !matches!(line, b"" | b"\r");
            self.coding_seen |= line.starts_with(b"transfer-encoding:");
            self.length_seen |= line.starts_with(b"content-length:");
            self.length = 0;
            self.last = 0;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_reads_in_two_ways_is_seen_however_the_head_is_cut() {
        let table: [(&str, bool); 7] = [
            (
                "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                true,
            ),
            (
                "GET / HTTP/1.1\r\ntransfer-encoding:chunked\r\ncontent-length:1\r\n\r\n",
                true,
            ),
            ("GET / HTTP/1.1\r\nhost: a\nx: y\r\n\r\n", true),
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
