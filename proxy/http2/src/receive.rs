//! What the peer's frames do (RFC 9113 §5, §6); those of messages are in `messages.rs`.

use bytes::Bytes;
use http::request;

use crate::core::{Core, LAST_STREAM, LEAVING, Leaving};
use crate::error::{By, Error, Reason};
use crate::frame::{self, Head, MAX_WINDOW, depends_on_itself, four};
use crate::streams::{Ended, Key, Sending, wake};

/// A stream that the peer opened.
pub(crate) struct Opened {
    pub(crate) key: Key,
    pub(crate) parts: request::Parts,
}

/// What an id stands for.
pub(crate) enum Place {
    /// No stream yet.
    Idle,
    Open(Key),
    /// One that is over; it is known how, for a while.
    Over(Option<Ended>),
    /// Opened after we said that it is too late.
    Late,
}

impl Core {
    /// Takes in a frame.
    ///
    /// # Errors
    /// The connection is over.
    pub(crate) fn receive(&mut self, head: Head, payload: Bytes) -> Result<Option<Opened>, Error> {
        match self.frame(head, payload) {
            Err(error @ Error::Reset { .. }) => {
                self.refuse(head.stream, &error)?;
                Ok(None)
            }
            result => result,
        }
    }

    fn frame(&mut self, head: Head, payload: Bytes) -> Result<Option<Opened>, Error> {
        if let Some(block) = &self.block
            && (head.kind != frame::CONTINUATION || head.stream != block.stream)
        {
            return protocol("another frame within a head");
        }
        if !self.is_greeted && (head.kind != frame::SETTINGS || head.has(frame::ACK)) {
            return protocol("no SETTINGS at first");
        }
        match head.kind {
            frame::DATA => self.data(head, payload)?,
            frame::HEADERS => return self.headers(head, &payload),
            frame::CONTINUATION => return self.continuation(head, &payload),
            frame::PRIORITY => self.priority(head, &payload)?,
            frame::RST_STREAM => self.rst_stream(head, &payload)?,
            frame::SETTINGS => self.settings(head, &payload)?,
            frame::PUSH_PROMISE => return protocol("PUSH_PROMISE, which was not allowed"),
            frame::PING => self.ping(head, &payload)?,
            frame::GOAWAY => self.goaway(head, &payload)?,
            frame::WINDOW_UPDATE => self.window_update(head, &payload)?,
            // Whatever extends the protocol is passed over (§5.5).
            _ => self.patience.chatter()?,
        }
        Ok(None)
    }

    /// Resets a stream for what came on it, open or not.
    fn refuse(&mut self, id: u32, error: &Error) -> Result<(), Error> {
        tracing::debug!(stream = id, %error, "HTTP/2 stream refused");
        self.patience.provoked()?;
        let reason = error.reason().unwrap_or(Reason::PROTOCOL_ERROR);
        match self.place(id) {
            Place::Open(key) => self.reset(key, error),
            // What does not exist cannot be reset (§5.1).
            Place::Idle => return Err(Error::connection(reason, "on an idle stream")),
            Place::Over(_) | Place::Late => self.decline(id, reason),
        }
        Ok(())
    }

    /// Resets a stream of which nothing is kept.
    pub(crate) fn decline(&mut self, id: u32, reason: Reason) {
        self.write(frame::RST_STREAM, 0, id, &reason.code().to_be_bytes());
        self.streams.remember(id, Ended::ByUs);
    }

    pub(crate) fn place(&self, id: u32) -> Place {
        if let Some(key) = self.streams.find(id) {
            return Place::Open(key);
        }
        let is_odd = id % 2 == 1;
        let is_idle = if self.is_client {
            !is_odd || id >= self.next
        } else {
            !is_odd || id > self.last
        };
        match self.leaving {
            Leaving::Last(last) if !self.is_client && is_odd && id > last => Place::Late,
            _ if is_idle => Place::Idle,
            _ => Place::Over(self.streams.ended(id)),
        }
    }

    fn priority(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream == 0 {
            return protocol("PRIORITY on no stream");
        }
        if payload.len() != frame::PRIORITY_LEN {
            return Err(Error::stream(
                Reason::FRAME_SIZE_ERROR,
                "PRIORITY of another size",
            ));
        }
        self.patience.chatter()?;
        let is_idle = matches!(self.place(head.stream), Place::Idle);
        if depends_on_itself(head, payload) && !is_idle {
            return reset(Reason::PROTOCOL_ERROR, "a stream depends on itself");
        }
        Ok(())
    }

    fn rst_stream(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream == 0 {
            return protocol("RST_STREAM on no stream");
        }
        if payload.len() != 4 {
            return size("RST_STREAM of another size");
        }
        match self.place(head.stream) {
            Place::Idle => protocol("RST_STREAM on an idle stream"),
            Place::Over(_) | Place::Late => self.patience.chatter(),
            Place::Open(key) => {
                let error = Error::Reset {
                    reason: Reason::of(four(payload)),
                    by: By::Peer,
                    why: "",
                };
                let slot = self.streams.at(key);
                let is_unanswered = slot.sending == Sending::Head;
                slot.fail(&error);
                self.settle(key, Ended::ByPeer);
                // Asking and not waiting for the answer is cheap (CVE-2023-44487).
                if is_unanswered {
                    self.patience.cancelled()?;
                }
                Ok(())
            }
        }
    }

    fn settings(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream != 0 {
            return protocol("SETTINGS on a stream");
        }
        if head.has(frame::ACK) {
            if !payload.is_empty() {
                return size("an acknowledgement of SETTINGS with settings");
            }
            self.knows_limits = true;
            return self.patience.chatter();
        }
        self.patience.chatter()?;
        let before = self.peer.window;
        self.peer.apply(payload, self.is_client)?;
        self.is_greeted = true;
        self.encoder.set_limit(self.peer.header_table);
        if self.peer.window != before {
            self.resize(i64::from(self.peer.window) - i64::from(before))?;
        }
        self.reply(frame::SETTINGS, &[])
    }

    /// The initial window changed: so do those of all streams (§6.9.2).
    fn resize(&mut self, change: i64) -> Result<(), Error> {
        for key in self.streams.keys() {
            let slot = self.streams.at(key);
            slot.window_out += change;
            if slot.window_out > i64::from(MAX_WINDOW) {
                return Err(Error::connection(
                    Reason::FLOW_CONTROL_ERROR,
                    "a stream's window above 2^31-1",
                ));
            }
            wake(&mut slot.writer);
        }
        Ok(())
    }

    fn ping(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream != 0 {
            return protocol("PING on a stream");
        }
        if payload.len() != 8 {
            return size("PING of another size");
        }
        self.patience.chatter()?;
        if !head.has(frame::ACK) {
            return self.reply(frame::PING, payload);
        }
        if self.asked.is_some_and(|asked| payload == asked) {
            self.is_there = true;
        } else if payload == LEAVING {
            self.leave_for_good();
        }
        Ok(())
    }

    fn goaway(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if head.stream != 0 {
            return protocol("GOAWAY on a stream");
        }
        if payload.len() < 8 {
            return size("GOAWAY of another size");
        }
        self.patience.chatter()?;
        let last = four(payload) & LAST_STREAM;
        let reason = Reason::of(four(&payload[4..]));
        if self.peer_leaves.is_some_and(|(before, _)| last > before) {
            return protocol("GOAWAY that takes back an earlier one");
        }
        self.peer_leaves = Some((last, reason));
        if self.is_client {
            for key in self.streams.keys() {
                if key.id > last {
                    self.streams.at(key).fail(&Error::Unprocessed);
                    self.settle(key, Ended::ByUs);
                }
            }
        }
        Ok(())
    }

    fn window_update(&mut self, head: Head, payload: &[u8]) -> Result<(), Error> {
        if payload.len() != 4 {
            return size("WINDOW_UPDATE of another size");
        }
        self.patience.chatter()?;
        let increment = i64::from(four(payload) & MAX_WINDOW);
        if head.stream == 0 {
            if increment == 0 {
                return protocol("WINDOW_UPDATE of nothing");
            }
            self.window_out += increment;
            if self.window_out > i64::from(MAX_WINDOW) {
                return Err(Error::connection(
                    Reason::FLOW_CONTROL_ERROR,
                    "the connection's window above 2^31-1",
                ));
            }
            return Ok(());
        }
        let key = match self.place(head.stream) {
            Place::Open(key) => key,
            Place::Idle => return protocol("WINDOW_UPDATE on an idle stream"),
            Place::Over(_) | Place::Late => return Ok(()),
        };
        if increment == 0 {
            return reset(Reason::PROTOCOL_ERROR, "WINDOW_UPDATE of nothing");
        }
        let slot = self.streams.at(key);
        slot.window_out += increment;
        if slot.window_out > i64::from(MAX_WINDOW) {
            return reset(Reason::FLOW_CONTROL_ERROR, "a stream's window above 2^31-1");
        }
        wake(&mut slot.writer);
        Ok(())
    }
}

/// The connection ends by PROTOCOL_ERROR.
pub(crate) fn protocol<T>(why: &'static str) -> Result<T, Error> {
    Err(Error::connection(Reason::PROTOCOL_ERROR, why))
}

fn size<T>(why: &'static str) -> Result<T, Error> {
    Err(Error::connection(Reason::FRAME_SIZE_ERROR, why))
}

/// The stream ends.
pub(crate) fn reset<T>(reason: Reason, why: &'static str) -> Result<T, Error> {
    Err(Error::stream(reason, why))
}
