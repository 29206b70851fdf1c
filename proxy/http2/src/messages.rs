//! Messages as they come: heads, bodies, trailers (RFC 9113 §8).

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;

use crate::core::{Block, Core};
use crate::error::{Error, Reason};
use crate::frame::{self, Head, content, depends_on_itself};
use crate::head::Reading;
use crate::hpack::{self, Pseudo};
use crate::receive::{Opened, Place, protocol, reset};
use crate::streams::{Ended, Key, Receiving, Sending, Slot, wake};

/// CONTINUATION frames of one head.
const CONTINUATIONS: u32 = 64;
/// Octets of a compressed head beyond twice what it may be when decompressed.
const COMPRESSED: usize = 32 * 1024;

impl Core {
    pub(crate) fn data(&mut self, head: Head, payload: Bytes) -> Result<(), Error> {
        if head.stream == 0 {
            return protocol("DATA on no stream");
        }
        // A frame is never larger than ours may be.
        let count = payload.len() as u32;
        self.window_in -= i64::from(count);
        if self.window_in < 0 {
            return Err(Error::connection(
                Reason::FLOW_CONTROL_ERROR,
                "more than the connection's window",
            ));
        }
        let taken = match self.place(head.stream) {
            Place::Open(key) => self.data_of(key, head, payload),
            Place::Idle => protocol("DATA on an idle stream"),
            // The second of them was long ago, or never: who could say.
            Place::Over(Some(Ended::ByUs) | None) | Place::Late => {
                self.patience.chatter().map(|()| count)
            }
            Place::Over(Some(Ended::ByPeer)) => {
                reset(Reason::STREAM_CLOSED, "DATA behind its own RST_STREAM")
            }
            Place::Over(Some(Ended::Whole)) => Err(Error::connection(
                Reason::STREAM_CLOSED,
                "DATA on a closed stream",
            )),
        };
        // What nobody will read is taken now.
        self.take_from_connection(*taken.as_ref().unwrap_or(&count));
        taken.map(drop)
    }

    /// Takes in DATA of an open stream; how much of it nobody will read.
    fn data_of(&mut self, key: Key, head: Head, mut payload: Bytes) -> Result<u32, Error> {
        let count = payload.len();
        let range = content(head, &payload)?;
        let slot = self.streams.at(key);
        match slot.receiving {
            Receiving::Body => {}
            Receiving::Head => return reset(Reason::PROTOCOL_ERROR, "DATA before a head"),
            Receiving::Done | Receiving::Failed(_) => {
                return reset(Reason::STREAM_CLOSED, "DATA behind the end");
            }
        }
        slot.window_in -= count as i64;
        if slot.window_in < 0 {
            return reset(Reason::FLOW_CONTROL_ERROR, "more than the stream's window");
        }
        payload.truncate(range.end);
        payload.advance(range.start);
        if slot.is_bodiless && !payload.is_empty() {
            return reset(Reason::PROTOCOL_ERROR, "a body where there is none");
        }
        let ends = head.has(frame::END_STREAM);
        if let Some(left) = &mut slot.left {
            match left.checked_sub(payload.len() as u64) {
                Some(rest) if !ends || rest == 0 => *left = rest,
                Some(_) => return reset(Reason::PROTOCOL_ERROR, "less than content-length"),
                None => return reset(Reason::PROTOCOL_ERROR, "more than content-length"),
            }
        }
        let is_empty = payload.is_empty();
        let is_unread = slot.is_unread;
        let padding = (count - payload.len()) as u32;
        if !is_empty && !is_unread {
            slot.body.push(payload);
        }
        if ends {
            slot.receiving = Receiving::Done;
        }
        wake(&mut slot.reader);
        if !is_empty {
            self.patience.content();
        } else if !ends {
            self.patience.chatter()?;
        }
        if padding > 0 && !is_unread {
            self.take(key, padding);
        }
        if ends {
            self.settle(key, Ended::Whole);
        }
        Ok(if is_unread { count as u32 } else { 0 })
    }

    pub(crate) fn headers(&mut self, head: Head, payload: &Bytes) -> Result<Option<Opened>, Error> {
        if head.stream == 0 {
            return protocol("HEADERS on no stream");
        }
        let range = content(head, payload)?;
        let itself = depends_on_itself(head, payload);
        let block = Block {
            stream: head.stream,
            ends_stream: head.has(frame::END_STREAM),
            bytes: BytesMut::new(),
            frames: 0,
            fault: itself.then_some("a stream depends on itself"),
        };
        let fragment = payload.slice(range);
        if head.has(frame::END_HEADERS) {
            return self.head(&block, fragment);
        }
        self.block = Some(Block {
            bytes: BytesMut::from(&fragment[..]),
            ..block
        });
        Ok(None)
    }

    pub(crate) fn continuation(
        &mut self,
        head: Head,
        payload: &[u8],
    ) -> Result<Option<Opened>, Error> {
        let Some(mut block) = self.block.take() else {
            return protocol("CONTINUATION without HEADERS");
        };
        block.frames += 1;
        block.bytes.extend_from_slice(payload);
        let most = 2 * self.config.header_list as usize + COMPRESSED;
        if block.frames > CONTINUATIONS || block.bytes.len() > most {
            return Err(Error::connection(
                Reason::ENHANCE_YOUR_CALM,
                "a head without end",
            ));
        }
        if !head.has(frame::END_HEADERS) {
            self.block = Some(block);
            return Ok(None);
        }
        let bytes = block.bytes.split().freeze();
        self.head(&block, bytes)
    }

    /// Takes in a head that is whole.
    fn head(&mut self, block: &Block, bytes: Bytes) -> Result<Option<Opened>, Error> {
        let mut reading = Reading::new(self.config.header_list as usize);
        let decoded = self.decoder.decode(bytes, &mut |field| reading.take(field));
        match decoded {
            Ok(()) => {}
            Err(hpack::Error::TooMuch) => {
                return Err(Error::connection(
                    Reason::ENHANCE_YOUR_CALM,
                    "a head far too large",
                ));
            }
            Err(error) => {
                tracing::debug!(%error, "HTTP/2 head");
                return Err(Error::connection(
                    Reason::COMPRESSION_ERROR,
                    "a head that cannot be decompressed",
                ));
            }
        }
        match self.place(block.stream) {
            Place::Idle if !self.is_client && block.stream % 2 == 1 => {
                self.last = block.stream;
                self.opened(block, reading)
            }
            Place::Idle => protocol("a stream that the peer cannot open"),
            Place::Open(key) => {
                if let Some(fault) = block.fault {
                    return reset(Reason::PROTOCOL_ERROR, fault);
                }
                match self.streams.at(key).receiving {
                    Receiving::Head => self.response(key, block, reading)?,
                    Receiving::Body => self.trailers(key, block, reading)?,
                    Receiving::Done | Receiving::Failed(_) => {
                        return reset(Reason::STREAM_CLOSED, "HEADERS behind the end");
                    }
                }
                Ok(None)
            }
            Place::Late | Place::Over(Some(Ended::ByUs)) => self.patience.chatter().map(|()| None),
            // An answer to what was given up long ago.
            Place::Over(None) if self.is_client => self.patience.chatter().map(|()| None),
            Place::Over(Some(Ended::ByPeer)) => {
                reset(Reason::STREAM_CLOSED, "HEADERS behind its own RST_STREAM")
            }
            Place::Over(Some(Ended::Whole)) => Err(Error::connection(
                Reason::STREAM_CLOSED,
                "HEADERS on a closed stream",
            )),
            // Either long ago, or never: ids only go up (§5.1.1).
            Place::Over(None) => protocol("a stream below the last"),
        }
    }

    /// A request.
    fn opened(&mut self, block: &Block, reading: Reading) -> Result<Option<Opened>, Error> {
        if self.streams.open() >= self.config.streams as usize {
            if self.knows_limits {
                self.patience.provoked()?;
            }
            self.decline(block.stream, Reason::REFUSED_STREAM);
            return Ok(None);
        }
        if let Some(fault) = block.fault {
            return reset(Reason::PROTOCOL_ERROR, fault);
        }
        if reading.is_too_large() {
            self.too_large(block)?;
            return Ok(None);
        }
        let asked = match reading.request(&mut self.authorities) {
            Ok(asked) => asked,
            Err(fault) => return reset(Reason::PROTOCOL_ERROR, fault),
        };
        let receiving = if block.ends_stream {
            if asked.length.is_some_and(|length| length > 0) {
                return reset(Reason::PROTOCOL_ERROR, "less than content-length");
            }
            Receiving::Done
        } else {
            Receiving::Body
        };
        let mut slot = Slot::new(block.stream, receiving, Sending::Head);
        slot.left = asked.length;
        slot.is_waited_for = asked.waits && !block.ends_stream;
        slot.window_in = self.first_window();
        slot.window_out = i64::from(self.peer.window);
        let key = self.streams.insert(slot);
        self.patience.content();
        Ok(Some(Opened {
            key,
            parts: asked.parts,
        }))
    }

    /// Answers 431: the head was read to its end, the connection can go on.
    fn too_large(&mut self, block: &Block) -> Result<(), Error> {
        self.patience.provoked()?;
        let id = block.stream;
        let mut fields = Vec::new();
        self.encoder.begin(&mut fields);
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        self.encoder
            .pseudo(Pseudo::Status, status.as_str().as_bytes(), &mut fields);
        let flags = frame::END_HEADERS | frame::END_STREAM;
        self.write(frame::HEADERS, flags, id, &fields);
        if block.ends_stream {
            self.streams.remember(id, Ended::Whole);
        } else {
            self.decline(id, Reason::NO_ERROR);
        }
        Ok(())
    }

    fn response(&mut self, key: Key, block: &Block, reading: Reading) -> Result<(), Error> {
        if reading.is_too_large() {
            return reset(Reason::PROTOCOL_ERROR, "a head larger than it may be");
        }
        let (parts, length) = match reading.response() {
            Ok(response) => response,
            Err(fault) => return reset(Reason::PROTOCOL_ERROR, fault),
        };
        if parts.status.is_informational() {
            if block.ends_stream {
                return reset(Reason::PROTOCOL_ERROR, "an interim response at the end");
            }
            // The final one is what counts.
            return self.patience.chatter();
        }
        let slot = self.streams.at(key);
        slot.is_bodiless |= matches!(parts.status.as_u16(), 204 | 304);
        slot.left = length.filter(|_| !slot.is_bodiless);
        if block.ends_stream {
            if slot.left.is_some_and(|left| left > 0) {
                return reset(Reason::PROTOCOL_ERROR, "less than content-length");
            }
            slot.receiving = Receiving::Done;
        } else {
            slot.receiving = Receiving::Body;
        }
        slot.response = Some(Box::new(parts));
        wake(&mut slot.reader);
        self.patience.content();
        if block.ends_stream {
            self.settle(key, Ended::Whole);
        }
        Ok(())
    }

    fn trailers(&mut self, key: Key, block: &Block, reading: Reading) -> Result<(), Error> {
        let slot = self.streams.at(key);
        if !block.ends_stream {
            return reset(Reason::PROTOCOL_ERROR, "a second head");
        }
        if slot.left.is_some_and(|left| left > 0) {
            return reset(Reason::PROTOCOL_ERROR, "less than content-length");
        }
        if reading.is_too_large() {
            return reset(Reason::PROTOCOL_ERROR, "trailers larger than they may be");
        }
        match reading.trailers() {
            Ok(trailers) if slot.is_unread => drop(trailers),
            Ok(trailers) => slot.trailers = Some(Box::new(trailers)),
            Err(fault) => return reset(Reason::PROTOCOL_ERROR, fault),
        }
        slot.receiving = Receiving::Done;
        wake(&mut slot.reader);
        self.patience.content();
        self.settle(key, Ended::Whole);
        Ok(())
    }
}
