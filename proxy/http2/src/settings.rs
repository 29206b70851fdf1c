//! What the two ends tell each other at the start (RFC 9113 §6.5).

use crate::error::{Error, Reason};
use crate::frame::{self, FIRST_WINDOW, Head, MAX_MAX_SIZE, MAX_WINDOW, MIN_MAX_SIZE};

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;

/// How this end behaves, and what it asks of the other.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Streams that the peer may have open; nothing is promised to a server.
    pub streams: u32,
    /// Bytes of one stream that may come before some were taken.
    pub stream_window: u32,
    /// The same of all streams together; at least 65,535, which is what there is without a word.
    pub connection_window: u32,
    /// The largest payload of a frame, 16,384 to 16,777,215.
    pub frame: u32,
    /// The largest head, in bytes as RFC 9113 §6.5.2 counts them.
    pub header_list: u32,
    /// Bytes that wait for the socket before bodies wait for them.
    pub send_buffer: usize,
    /// Streams in a row that the peer may cancel without waiting for an answer, until the connection is ended
    /// (CVE-2023-44487). Every stream that ends well, and every 10 ms, allow another.
    pub cancelled: u32,
    /// Streams that we may have to reset in a row because of what the peer sent (CVE-2025-8671); counted alike.
    pub provoked: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            streams: 100,
            stream_window: FIRST_WINDOW,
            connection_window: FIRST_WINDOW,
            frame: MIN_MAX_SIZE,
            header_list: 64 * 1024,
            send_buffer: 128 * 1024,
            cancelled: 500,
            provoked: 100,
        }
    }
}

impl Config {
    /// Writes the SETTINGS frame that says so, and opens the connection's window.
    pub(crate) fn say(&self, is_client: bool, out: &mut Vec<u8>) {
        let push = [(ENABLE_PUSH, 0)];
        let streams = [(MAX_CONCURRENT_STREAMS, self.streams)];
        let role: &[(u16, u32)] = if is_client { &push } else { &streams };
        let common = [
            (INITIAL_WINDOW_SIZE, self.stream_window),
            (MAX_FRAME_SIZE, self.frame),
            (MAX_HEADER_LIST_SIZE, self.header_list),
        ];
        let head = Head {
            len: 6 * (role.len() + common.len()),
            kind: frame::SETTINGS,
            flags: 0,
            stream: 0,
        };
        out.extend_from_slice(&head.bytes());
        for (name, value) in role.iter().chain(&common) {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        if let Some(more @ 1..) = self.connection_window.checked_sub(FIRST_WINDOW) {
            window_update(0, more, out);
        }
    }
}

/// Writes a WINDOW_UPDATE frame.
pub(crate) fn window_update(stream: u32, increment: u32, out: &mut Vec<u8>) {
    let head = Head {
        len: 4,
        kind: frame::WINDOW_UPDATE,
        flags: 0,
        stream,
    };
    out.extend_from_slice(&head.bytes());
    out.extend_from_slice(&increment.to_be_bytes());
}

/// What the peer asks of this end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Peer {
    /// `SETTINGS_HEADER_TABLE_SIZE`, octets.
    pub(crate) header_table: u32,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS`.
    pub(crate) streams: u32,
    /// `SETTINGS_INITIAL_WINDOW_SIZE`, octets.
    pub(crate) window: u32,
    /// `SETTINGS_MAX_FRAME_SIZE`, octets.
    pub(crate) frame: u32,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            header_table: 4096,
            streams: u32::MAX,
            window: FIRST_WINDOW,
            frame: MIN_MAX_SIZE,
        }
    }
}

impl Peer {
    /// Takes in the payload of a SETTINGS frame; what is unknown is passed over.
    pub(crate) fn apply(&mut self, payload: &[u8], is_server: bool) -> Result<(), Error> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Error::connection(
                Reason::FRAME_SIZE_ERROR,
                "SETTINGS of no whole number of settings",
            ));
        }
        for [a, b, value @ ..] in settings {
            let (name, value) = (u16::from_be_bytes([*a, *b]), u32::from_be_bytes(*value));
            if name == ENABLE_PUSH && value == 1 && is_server {
                let why = "a server that would have push enabled";
                return Err(Error::connection(Reason::PROTOCOL_ERROR, why));
            }
            self.set(name, value)?;
        }
        Ok(())
    }

    fn set(&mut self, name: u16, value: u32) -> Result<(), Error> {
        let wrong = |why| Err(Error::connection(Reason::PROTOCOL_ERROR, why));
        match name {
            HEADER_TABLE_SIZE => self.header_table = value,
            ENABLE_PUSH if value > 1 => return wrong("SETTINGS_ENABLE_PUSH is 0 or 1"),
            MAX_CONCURRENT_STREAMS => self.streams = value,
            INITIAL_WINDOW_SIZE if value > MAX_WINDOW => {
                return Err(Error::connection(
                    Reason::FLOW_CONTROL_ERROR,
                    "SETTINGS_INITIAL_WINDOW_SIZE above 2^31-1",
                ));
            }
            INITIAL_WINDOW_SIZE => self.window = value,
            MAX_FRAME_SIZE if !(MIN_MAX_SIZE..=MAX_MAX_SIZE).contains(&value) => {
                return wrong("SETTINGS_MAX_FRAME_SIZE outside 16384 to 16777215");
            }
            MAX_FRAME_SIZE => self.frame = value,
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(settings: &[(u16, u32)]) -> Result<Peer, Error> {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        let mut peer = Peer::default();
        peer.apply(&payload, false).map(|()| peer)
    }

    #[test]
    fn what_is_said_is_understood() {
        let config = Config {
            stream_window: 7,
            connection_window: FIRST_WINDOW + 5,
            frame: 20_000,
            streams: 3,
            ..Config::default()
        };
        let mut out = Vec::new();
        config.say(false, &mut out);
        let head = Head::parse(&out).expect("whole");
        assert_eq!((head.kind, head.stream), (frame::SETTINGS, 0));
        let (settings, update) = out[frame::HEAD..].split_at(head.len);
        let mut peer = Peer::default();
        peer.apply(settings, true).expect("valid");
        assert_eq!((peer.window, peer.frame, peer.streams), (7, 20_000, 3));
        assert_eq!(update, [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 5]);
    }

    #[test]
    fn values_out_of_range_are_refused() {
        let reasons = [
            (ENABLE_PUSH, 2, Some(Reason::PROTOCOL_ERROR)),
            (ENABLE_PUSH, 1, None),
            (INITIAL_WINDOW_SIZE, MAX_WINDOW, None),
            (
                INITIAL_WINDOW_SIZE,
                MAX_WINDOW + 1,
                Some(Reason::FLOW_CONTROL_ERROR),
            ),
            (
                MAX_FRAME_SIZE,
                MIN_MAX_SIZE - 1,
                Some(Reason::PROTOCOL_ERROR),
            ),
            (MAX_FRAME_SIZE, MAX_MAX_SIZE, None),
            (
                MAX_FRAME_SIZE,
                MAX_MAX_SIZE + 1,
                Some(Reason::PROTOCOL_ERROR),
            ),
            (0x7777, u32::MAX, None),
        ];
        for (name, value, reason) in reasons {
            let found = applied(&[(name, value)]).err();
            assert_eq!(
                found.and_then(|error| error.reason()),
                reason,
                "{name:#x} {value}"
            );
        }
    }

    #[test]
    fn a_server_does_not_enable_push() {
        let payload = [0, 2, 0, 0, 0, 1];
        assert!(Peer::default().apply(&payload, false).is_ok());
        assert!(Peer::default().apply(&payload, true).is_err());
        assert!(Peer::default().apply(&[0, 2, 0, 0, 0, 0], true).is_ok());
    }

    #[test]
    fn the_last_of_several_counts() {
        let peer = applied(&[(INITIAL_WINDOW_SIZE, 1), (INITIAL_WINDOW_SIZE, 2)]).expect("valid");
        assert_eq!(peer.window, 2);
    }

    #[test]
    fn a_part_of_a_setting_is_refused() {
        let error = Peer::default()
            .apply(&[0; 7], false)
            .expect_err("no multiple of six");
        assert_eq!(error.reason(), Some(Reason::FRAME_SIZE_ERROR));
    }
}
