//! One unary gRPC call by hand: length-prefixed frames and the two messages of `shop.v1.Inventory/Check`.
//!
//! It stands below the sample service and the load, which speak it over h2c. It refuses to know
//! connections, streaming and compression: the samples need none of them.

use bytes::{BufMut, Bytes, BytesMut};

/// The one method the samples know.
pub(crate) const CHECK: &str = "/shop.v1.Inventory/Check";
/// The status of a call that succeeded.
pub(crate) const OK: u32 = 0;
/// The status of a call whose dependency failed.
pub(crate) const INTERNAL: u32 = 13;
/// The status of a server that did not process the call.
pub(crate) const UNAVAILABLE: u32 = 14;

/// Bytes before each message: a compression flag and the length, big-endian.
const PREFIX: usize = 5;
/// The largest message that is read.
const MESSAGE_LIMIT: usize = 64 * 1024;

/// Why bytes are not the message that was expected.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum InvalidMessage {
    /// The frame is cut short, too long, compressed, or followed by more bytes.
    #[error("not one whole uncompressed frame")]
    Frame,
    /// The frame's content is not protobuf of the message's shape.
    #[error("not the expected protobuf message")]
    Protobuf,
}

/// `CheckRequest { string sku = 1; }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckRequest {
    /// What is asked for.
    pub(crate) sku: String,
}

/// `CheckReply { uint32 available = 1; string replica = 2; }`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CheckReply {
    /// Pieces in stock.
    pub(crate) available: u32,
    /// The replica that answered.
    pub(crate) replica: String,
}

impl CheckRequest {
    /// The message as one frame.
    pub(crate) fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        put_string(&mut body, 1, &self.sku);
        frame(&body)
    }

    /// Reads one frame.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        let mut sku = String::new();
        for field in fields(unframe(bytes)?)? {
            if let (1, Value::Bytes(text)) = field {
                sku = string(text)?;
            }
        }
        Ok(Self { sku })
    }
}

impl CheckReply {
    /// The message as one frame.
    pub(crate) fn encode(&self) -> Bytes {
        let mut body = BytesMut::new();
        put_varint(&mut body, 1 << 3);
        put_varint(&mut body, u64::from(self.available));
        put_string(&mut body, 2, &self.replica);
        frame(&body)
    }

    /// Reads one frame.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, InvalidMessage> {
        let (mut available, mut replica) = (0, String::new());
        for field in fields(unframe(bytes)?)? {
            match field {
                (1, Value::Varint(n)) => {
                    available = u32::try_from(n).map_err(|_| InvalidMessage::Protobuf)?;
                }
                (2, Value::Bytes(text)) => replica = string(text)?,
                _ => {}
            }
        }
        Ok(Self { available, replica })
    }
}

fn frame(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("the samples' messages are far below 4 GiB");
    let mut bytes = BytesMut::with_capacity(PREFIX + message.len());
    bytes.put_u8(0);
    bytes.put_u32(length);
    bytes.put_slice(message);
    bytes.freeze()
}

fn unframe(bytes: &[u8]) -> Result<&[u8], InvalidMessage> {
    let (prefix, message) = bytes
        .split_at_checked(PREFIX)
        .ok_or(InvalidMessage::Frame)?;
    let [0, a, b, c, d] = *prefix else {
        return Err(InvalidMessage::Frame);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length == message.len() && length <= MESSAGE_LIMIT {
        Ok(message)
    } else {
        Err(InvalidMessage::Frame)
    }
}

/// A protobuf value of the two wire types the messages use.
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

fn fields(mut bytes: &[u8]) -> Result<Vec<(u64, Value<'_>)>, InvalidMessage> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let value = match tag & 7 {
            0 => Value::Varint(take_varint(&mut bytes)?),
            2 => {
                let length = usize::try_from(take_varint(&mut bytes)?)
                    .map_err(|_| InvalidMessage::Protobuf)?;
                let (value, rest) = bytes
                    .split_at_checked(length)
                    .ok_or(InvalidMessage::Protobuf)?;
                bytes = rest;
                Value::Bytes(value)
            }
            _ => return Err(InvalidMessage::Protobuf),
        };
        fields.push((tag >> 3, value));
    }
    Ok(fields)
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, InvalidMessage> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(InvalidMessage::Protobuf)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(InvalidMessage::Protobuf)
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn put_string(out: &mut BytesMut, field: u64, text: &str) {
    put_varint(out, field << 3 | 2);
    put_varint(out, text.len() as u64);
    out.put_slice(text.as_bytes());
}

fn string(bytes: &[u8]) -> Result<String, InvalidMessage> {
    String::from_utf8(bytes.to_vec()).map_err(|_| InvalidMessage::Protobuf)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_its_frame() {
        for available in [0, 1, 127, 128, 300, u32::MAX] {
            let reply = CheckReply {
                available,
                replica: "inventory-1".repeat(available.min(20) as usize),
            };
            assert_eq!(CheckReply::decode(&reply.encode()), Ok(reply));
        }
        let request = CheckRequest {
            sku: "sku-7".to_owned(),
        };
        assert_eq!(CheckRequest::decode(&request.encode()), Ok(request));
    }

    #[test]
    fn the_frame_is_as_the_specification_says() {
        let bytes = CheckRequest {
            sku: "a".to_owned(),
        }
        .encode();
        assert_eq!(&bytes[..], [0, 0, 0, 0, 3, 0x0a, 1, b'a']);
    }

    #[test]
    fn a_broken_frame_is_refused() {
        let whole = CheckReply {
            available: 9,
            replica: "x".to_owned(),
        }
        .encode();
        for end in 0..whole.len() {
            assert_eq!(
                CheckReply::decode(&whole[..end]),
                Err(InvalidMessage::Frame),
                "{end}"
            );
        }
        assert_eq!(
            CheckReply::decode(&[1, 0, 0, 0, 0]),
            Err(InvalidMessage::Frame),
            "compressed"
        );
        assert_eq!(
            CheckReply::decode(&[0, 0, 0, 0, 1, 0xff]),
            Err(InvalidMessage::Protobuf),
            "endless varint"
        );
        assert_eq!(
            CheckReply::decode(&[0, 0, 0, 0, 2, 0x12, 9]),
            Err(InvalidMessage::Protobuf),
            "length past the end"
        );
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..10_000 {
            let mut bytes = vec![0u8; random.usize(..40)];
            random.fill(&mut bytes);
            let framed = frame(&bytes);
            assert_eq!(unframe(&framed), Ok(&bytes[..]));
            let _ = (
                CheckRequest::decode(&framed),
                CheckReply::decode(&framed),
                CheckReply::decode(&bytes),
            );
        }
    }
}
