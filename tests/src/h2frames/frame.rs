//! One frame (RFC 9113 §4.1), the numbers it is made of, and the frames that
//! tests send most.

/// What a client says first (RFC 9113 §3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Octets before a frame's payload.
pub const HEADER: usize = 9;

/// The highest window there may be (RFC 9113 §6.9.1).
pub const MOST_WINDOW: u32 = 0x7fff_ffff;

/// Frame types (RFC 9113 §6).
#[allow(missing_docs, reason = "these are the RFC's own names")]
pub mod kind {
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const PRIORITY: u8 = 2;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PUSH_PROMISE: u8 = 5;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames (RFC 9113 §6).
#[allow(missing_docs, reason = "these are the RFC's own names")]
pub mod flag {
    pub const ACK: u8 = 0x1;
    pub const END_STREAM: u8 = 0x1;
    pub const END_HEADERS: u8 = 0x4;
    pub const PADDED: u8 = 0x8;
    pub const PRIORITY: u8 = 0x20;
}

/// Settings (RFC 9113 §6.5.2).
#[allow(missing_docs, reason = "these are the RFC's own names")]
pub mod setting {
    pub const HEADER_TABLE_SIZE: u16 = 1;
    pub const ENABLE_PUSH: u16 = 2;
    pub const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub const INITIAL_WINDOW_SIZE: u16 = 4;
    pub const MAX_FRAME_SIZE: u16 = 5;
    pub const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// Error codes (RFC 9113 §7).
#[allow(missing_docs, reason = "these are the RFC's own names")]
pub mod code {
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const FLOW_CONTROL_ERROR: u32 = 3;
    pub const STREAM_CLOSED: u32 = 5;
    pub const FRAME_SIZE_ERROR: u32 = 6;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
    pub const COMPRESSION_ERROR: u32 = 9;
    pub const ENHANCE_YOUR_CALM: u32 = 11;
}

/// A frame; nothing of it need make sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream, with the reserved bit where a test sets it.
    pub stream: u32,
    /// All after its header.
    pub payload: Vec<u8>,
}

impl Frame {
    /// Any frame.
    #[must_use]
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.into(),
        }
    }

    /// Its bytes on the wire.
    ///
    /// # Panics
    /// When its payload is longer than 24 bits can say.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len())
            .ok()
            .filter(|length| *length < 1 << 24)
            .expect("a length has 24 bits");
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// Takes the first frame from `bytes`, once all of it is there.
    pub fn decode(bytes: &mut Vec<u8>) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        let [a, b, c, kind, flags, stream @ ..] = *header;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
        let payload = rest.get(..length)?.to_vec();
        bytes.drain(..HEADER + length);
        let stream = u32::from_be_bytes(stream) & MOST_WINDOW;
        Some(Self::new(kind, flags, stream, payload))
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// The four octets at `place` as a number; 0 where there are none.
    #[must_use]
    pub fn number(&self, place: usize) -> u32 {
        let octets = self.payload.get(place..place + 4);
        octets.map_or(0, |octets| {
            u32::from_be_bytes(octets.try_into().unwrap_or_default())
        })
    }
}

/// SETTINGS with these values.
#[must_use]
pub fn settings(values: &[(u16, u32)]) -> Frame {
    let octets = values.iter().flat_map(|(name, value)| {
        let (name, value) = (name.to_be_bytes(), value.to_be_bytes());
        name.into_iter().chain(value)
    });
    Frame::new(kind::SETTINGS, 0, 0, octets.collect::<Vec<_>>())
}

/// PING with these octets.
#[must_use]
pub fn ping(octets: [u8; 8]) -> Frame {
    Frame::new(kind::PING, 0, 0, octets)
}

/// HEADERS with a whole block that ends the stream.
#[must_use]
pub fn request(stream: u32, fields: &[(&str, &str)]) -> Frame {
    headers(stream, flag::END_STREAM, fields)
}

/// HEADERS with a whole block; `flags` beside `END_HEADERS`.
#[must_use]
pub fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Frame {
    let block = super::hpack::block(fields);
    Frame::new(kind::HEADERS, flags | flag::END_HEADERS, stream, block)
}

/// DATA; `flags` 0 or `END_STREAM`.
#[must_use]
pub fn data(stream: u32, flags: u8, bytes: impl Into<Vec<u8>>) -> Frame {
    Frame::new(kind::DATA, flags, stream, bytes)
}

/// RST_STREAM.
#[must_use]
pub fn reset(stream: u32, code: u32) -> Frame {
    Frame::new(kind::RST_STREAM, 0, stream, code.to_be_bytes())
}

/// WINDOW_UPDATE; stream 0 is the connection.
#[must_use]
pub fn window(stream: u32, by: u32) -> Frame {
    Frame::new(kind::WINDOW_UPDATE, 0, stream, by.to_be_bytes())
}

/// PRIORITY: what `stream` depends on, with any weight (RFC 7540 §6.3).
#[must_use]
pub fn priority(stream: u32, on: u32) -> Frame {
    let mut payload = on.to_be_bytes().to_vec();
    payload.push(15);
    Frame::new(kind::PRIORITY, 0, stream, payload)
}

/// GOAWAY.
#[must_use]
pub fn goaway(last: u32, code: u32) -> Frame {
    let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
    Frame::new(kind::GOAWAY, 0, 0, payload)
}
