//! Frames as they cross (RFC 9113 §4, §6).

use crate::error::{Error, Reason};

/// Bytes in front of every payload.
pub(crate) const HEAD: usize = 9;
/// `SETTINGS_MAX_FRAME_SIZE` at first, and the least that it can be.
pub(crate) const MIN_MAX_SIZE: u32 = 16_384;
/// The most that it can be.
pub(crate) const MAX_MAX_SIZE: u32 = (1 << 24) - 1;
/// The largest window (§6.9.1).
pub(crate) const MAX_WINDOW: u32 = (1 << 31) - 1;
/// Windows at first (§6.9.2).
pub(crate) const FIRST_WINDOW: u32 = 65_535;
/// What a client says first (§3.4).
pub(crate) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0x0;
pub(crate) const HEADERS: u8 = 0x1;
pub(crate) const PRIORITY: u8 = 0x2;
pub(crate) const RST_STREAM: u8 = 0x3;
pub(crate) const SETTINGS: u8 = 0x4;
pub(crate) const PUSH_PROMISE: u8 = 0x5;
pub(crate) const PING: u8 = 0x6;
pub(crate) const GOAWAY: u8 = 0x7;
pub(crate) const WINDOW_UPDATE: u8 = 0x8;
pub(crate) const CONTINUATION: u8 = 0x9;

/// Of DATA and HEADERS.
pub(crate) const END_STREAM: u8 = 0x1;
/// Of SETTINGS and PING.
pub(crate) const ACK: u8 = 0x1;
/// Of HEADERS and CONTINUATION.
pub(crate) const END_HEADERS: u8 = 0x4;
/// Of DATA and HEADERS.
pub(crate) const PADDED: u8 = 0x8;
/// Of HEADERS.
pub(crate) const PRIORITIZED: u8 = 0x20;

/// What stands in front of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Bytes of the payload.
    pub(crate) len: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
}

impl Head {
    /// The head at the front of `bytes`, once it is whole.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.first_chunk::<HEAD>()?;
        let [a, b, c, kind, flags, stream @ ..] = *head;
        Some(Self {
            len: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            // One bit is reserved, and is not looked at.
            stream: u32::from_be_bytes(stream) & MAX_WINDOW,
        })
    }

    /// Its bytes. `len` is at most [`MAX_MAX_SIZE`].
    pub(crate) const fn bytes(self) -> [u8; HEAD] {
        let len = (self.len as u32).to_be_bytes();
        let id = self.stream.to_be_bytes();
        [
            len[1], len[2], len[3], self.kind, self.flags, id[0], id[1], id[2], id[3],
        ]
    }

    pub(crate) const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Where the content of a DATA or HEADERS payload lies: without padding and priority.
pub(crate) fn content(head: Head, payload: &[u8]) -> Result<std::ops::Range<usize>, Error> {
    let mut start = 0;
    let mut padding = 0;
    if head.has(PADDED) {
        let Some(&length) = payload.first() else {
            return Err(TOO_SHORT);
        };
        padding = usize::from(length);
        start = 1;
    }
    if head.kind == HEADERS && head.has(PRIORITIZED) {
        start += PRIORITY_LEN;
        if payload.len() < start {
            return Err(TOO_SHORT);
        }
    }
    let end = payload
        .len()
        .checked_sub(padding)
        .filter(|&end| end >= start);
    let Some(end) = end else {
        return Err(Error::connection(
            Reason::PROTOCOL_ERROR,
            "more padding than payload",
        ));
    };
    Ok(start..end)
}

/// Octets of a priority, in a frame of its own and in HEADERS.
pub(crate) const PRIORITY_LEN: usize = 5;

const TOO_SHORT: Error = Error::connection(Reason::FRAME_SIZE_ERROR, "payload too short");

/// Whether a PRIORITY or HEADERS frame has its stream depend on itself. Priorities are not used
/// (§5.3.2), but that much was an error before they were given up, and some peers still look for it.
pub(crate) fn depends_on_itself(head: Head, payload: &[u8]) -> bool {
    let at = match head.kind {
        PRIORITY => 0,
        HEADERS if head.has(PRIORITIZED) => usize::from(head.has(PADDED)),
        _ => return false,
    };
    payload
        .get(at..at + PRIORITY_LEN)
        .is_some_and(|priority| four(priority) & MAX_WINDOW == head.stream)
}

/// The number in the first four bytes; zero where there are fewer.
pub(crate) fn four(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk::<4>()
        .map_or(0, |number| u32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_survives_its_bytes() {
        for (len, kind, flags, stream) in [
            (0, DATA, END_STREAM, 1),
            (16_384, HEADERS, END_HEADERS | PADDED, 0x7fff_ffff),
            (MAX_MAX_SIZE as usize, 0xff, 0xff, 0),
        ] {
            let head = Head {
                len,
                kind,
                flags,
                stream,
            };
            assert_eq!(Head::parse(&head.bytes()), Some(head));
        }
    }

    #[test]
    fn a_head_that_is_not_whole_is_none() {
        assert_eq!(Head::parse(&[0; HEAD - 1]), None);
    }

    #[test]
    fn the_reserved_bit_is_not_looked_at() {
        let head = Head::parse(&[0, 0, 0, 0, 0, 0x80, 0, 0, 3]).expect("whole");
        assert_eq!(head.stream, 3);
    }

    #[test]
    fn content_is_what_padding_and_priority_leave() {
        let head = |kind, flags| Head {
            len: 0,
            kind,
            flags,
            stream: 1,
        };
        let priority = [0, 0, 0, 0, 7];
        type Row = (Head, Vec<u8>, Option<&'static [u8]>);
        let table: [Row; 8] = [
            (head(DATA, 0), b"abc".to_vec(), Some(b"abc")),
            (head(DATA, PADDED), b"\x02abc\0\0".to_vec(), Some(b"abc")),
            (head(DATA, PADDED), b"\x03\0\0\0".to_vec(), Some(b"")),
            (head(DATA, PADDED), b"\x04\0\0\0".to_vec(), None),
            (head(DATA, PADDED), Vec::new(), None),
            // The flag has no meaning on DATA.
            (head(DATA, PRIORITIZED), b"abc".to_vec(), Some(b"abc")),
            (
                head(HEADERS, PRIORITIZED),
                [&priority[..], b"x"].concat(),
                Some(b"x"),
            ),
            (head(HEADERS, PRIORITIZED), vec![0; 4], None),
        ];
        for (head, payload, expected) in table {
            let found = content(head, &payload).ok().map(|range| &payload[range]);
            assert_eq!(found, expected, "{head:?} {payload:?}");
        }
    }

    #[test]
    fn a_stream_that_depends_on_itself_is_seen() {
        let head = |kind, flags| Head {
            len: 5,
            kind,
            flags,
            stream: 3,
        };
        assert!(depends_on_itself(head(PRIORITY, 0), &[0x80, 0, 0, 3, 1]));
        assert!(!depends_on_itself(head(PRIORITY, 0), &[0, 0, 0, 1, 1]));
        assert!(depends_on_itself(
            head(HEADERS, PRIORITIZED),
            &[0, 0, 0, 3, 1]
        ));
        let padded = head(HEADERS, PRIORITIZED | PADDED);
        assert!(depends_on_itself(padded, &[0, 0x80, 0, 0, 3, 1]));
        assert!(!depends_on_itself(head(HEADERS, 0), &[0, 0, 0, 3, 1]));
    }
}
