//! What goes to the peer: heads at once, bodies as windows and the socket allow.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, request, response};

use crate::core::Core;
use crate::error::{Error, Reason};
use crate::frame::{self, Head};
use crate::head;
use crate::hpack::{Encoder, Pseudo};
use crate::streams::{Ended, Key, Receiving, Sending, Slot, wait, wake};

/// What a stream is expected to send in its turn, in octets.
const TURN: usize = 16 * 1024;

impl Core {
    /// Opens a stream by sending a request.
    pub(crate) fn open(&mut self, parts: &request::Parts, ends: bool) -> Result<Key, Error> {
        if !self.is_open() || self.streams.open() >= self.room() {
            return Err(Error::Unprocessed);
        }
        let id = self.next;
        self.next += 2;
        let sending = if ends { Sending::Done } else { Sending::Body };
        let mut slot = Slot::new(id, Receiving::Head, sending);
        slot.window_in = self.first_window();
        slot.window_out = i64::from(self.peer.window);
        slot.is_bodiless = parts.method == Method::HEAD;
        let key = self.streams.insert(slot);
        self.write_head(id, ends, |encoder, out| {
            head::write_request(parts, encoder, out)
        });
        Ok(key)
    }

    /// Answers a stream of the peer's.
    pub(crate) fn respond(
        &mut self,
        key: Key,
        parts: &response::Parts,
        ends: bool,
    ) -> Result<(), Error> {
        self.may_send(key)?;
        self.write_head(key.id, ends, |encoder, out| {
            head::write_response(parts, encoder, out);
        });
        self.streams.at(key).sending = Sending::Body;
        if ends {
            self.sent_all(key);
        }
        Ok(())
    }

    /// Tells a peer that waits for it to send its body: somebody reads it.
    pub(crate) fn send_continue(&mut self, key: Key) {
        let slot = self.streams.at(key);
        slot.is_waited_for = false;
        if slot.sending == Sending::Head {
            self.write_head(key.id, false, |encoder, out| {
                encoder.pseudo(Pseudo::Status, b"100", out);
            });
        }
    }

    /// Ends a body by trailers.
    pub(crate) fn send_trailers(&mut self, key: Key, trailers: &HeaderMap) -> Result<(), Error> {
        self.may_send(key)?;
        self.write_head(key.id, true, |encoder, out| {
            head::write_headers(trailers, encoder, out);
        });
        self.sent_all(key);
        Ok(())
    }

    /// Sends of `data` what may be sent now, and the rest when it may.
    pub(crate) fn poll_send(
        &mut self,
        key: Key,
        data: &mut Bytes,
        ends: bool,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Error>> {
        loop {
            self.may_send(key)?;
            if data.is_empty() && !ends {
                return Poll::Ready(Ok(()));
            }
            let is_full = self.out.len() >= self.config.send_buffer;
            let others = !self.queue.is_empty();
            let slot = self.streams.at(key);
            if !data.is_empty() && slot.window_out <= 0 {
                wait(&mut slot.writer, cx);
                if std::mem::take(&mut slot.has_turn) {
                    self.wake_driver();
                }
                return Poll::Pending;
            }
            let no_window = !data.is_empty() && self.window_out <= 0;
            if is_full || no_window || (others && !slot.has_turn) {
                wait(&mut slot.writer, cx);
                slot.has_turn = false;
                if !slot.is_queued {
                    slot.is_queued = true;
                    self.queue.push_back(key);
                    self.wake_driver();
                }
                return Poll::Pending;
            }
            slot.has_turn = false;
            let window = slot.window_out.min(self.window_out).max(0);
            let most = usize::try_from(window)
                .unwrap_or(usize::MAX)
                .min(self.peer.frame as usize);
            let piece = data.split_to(data.len().min(most));
            let last = ends && data.is_empty();
            slot.window_out -= piece.len() as i64;
            self.window_out -= piece.len() as i64;
            self.write_data(key.id, piece, last);
            if last {
                self.sent_all(key);
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn write_data(&mut self, stream: u32, piece: Bytes, last: bool) {
        let head = Head {
            len: piece.len(),
            kind: frame::DATA,
            flags: if last { frame::END_STREAM } else { 0 },
            stream,
        };
        self.out.tail().extend_from_slice(&head.bytes());
        self.out.push(piece);
        self.patience.content();
        self.wake_driver();
    }

    /// Writes a head: one HEADERS frame, and CONTINUATIONs where the peer's frames are too small for it.
    fn write_head(
        &mut self,
        stream: u32,
        ends: bool,
        fields: impl FnOnce(&mut Encoder, &mut Vec<u8>),
    ) {
        let most = self.peer.frame as usize;
        let out = self.out.tail();
        let start = out.len();
        out.extend_from_slice(&[0; frame::HEAD]);
        self.encoder.begin(out);
        fields(&mut self.encoder, out);
        let len = out.len() - start - frame::HEAD;
        let first = Head {
            len: len.min(most),
            kind: frame::HEADERS,
            flags: if ends { frame::END_STREAM } else { 0 }
                | if len <= most { frame::END_HEADERS } else { 0 },
            stream,
        };
        out[start..start + frame::HEAD].copy_from_slice(&first.bytes());
        if len > most {
            let rest = out.split_off(start + frame::HEAD + most);
            let mut pieces = rest.chunks(most).peekable();
            while let Some(piece) = pieces.next() {
                let last = pieces.peek().is_none();
                let head = Head {
                    len: piece.len(),
                    kind: frame::CONTINUATION,
                    flags: if last { frame::END_HEADERS } else { 0 },
                    stream,
                };
                out.extend_from_slice(&head.bytes());
                out.extend_from_slice(piece);
            }
        }
        self.wake_driver();
    }

    fn may_send(&mut self, key: Key) -> Result<(), Error> {
        match &self.streams.at(key).sending {
            Sending::Failed(error) => Err(error.clone()),
            // Whoever has sent all has nothing left to send.
            Sending::Done => Err(Error::stream(Reason::STREAM_CLOSED, "sent already")),
            Sending::Head | Sending::Body => Ok(()),
        }
    }

    fn sent_all(&mut self, key: Key) {
        self.streams.at(key).sending = Sending::Done;
        self.settle(key, Ended::Whole);
    }

    /// Gives those their turn who wait for what all streams share, as far as there is some.
    pub(crate) fn give_turns(&mut self) {
        let mut room = self.config.send_buffer.saturating_sub(self.out.len());
        while room > 0 && self.window_out > 0 {
            let Some(key) = self.queue.pop_front() else {
                return;
            };
            let Some(slot) = self.streams.still(key) else {
                continue;
            };
            slot.is_queued = false;
            if slot.is_closed {
                continue;
            }
            slot.has_turn = true;
            wake(&mut slot.writer);
            // Each looks again; most have little to send.
            room = room.saturating_sub(TURN);
        }
    }
}
