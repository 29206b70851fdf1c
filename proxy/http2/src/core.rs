//! The state of a connection that its driver and the holders of its streams
//! share. All of them live on one thread: nothing here locks, and what is sent
//! is written at once to where the driver finds it.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::task::Waker;

use bytes::BytesMut;

use crate::error::{By, Error, Reason};
use crate::floods::Patience;
use crate::frame::{self, FIRST_WINDOW, Head, MAX_WINDOW};
use crate::head::Authorities;
use crate::hpack::{Decoder, Encoder};
use crate::output::Output;
use crate::settings::{Config, Peer, window_update};
use crate::streams::{Ended, Key, Receiving, Sending, Streams, wake};

/// The octets of the PING that marks the moment at which the peer knows that we leave.
pub(crate) const LEAVING: [u8; 8] = *b"selvage!";
/// Acknowledgements that may wait for a peer that does not read.
const REPLIES: u32 = 4096;
/// The last stream there can be (RFC 9113 §5.1.1).
pub(crate) const LAST_STREAM: u32 = MAX_WINDOW;

/// A head of which not all came.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) stream: u32,
    pub(crate) ends_stream: bool,
    pub(crate) bytes: BytesMut,
    /// CONTINUATION frames.
    pub(crate) frames: u32,
    /// What was wrong with its frame; it is decoded all the same, as the table depends on it.
    pub(crate) fault: Option<&'static str>,
}

/// How far we are with leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    No,
    /// The peer was told that there will be a last stream.
    Told,
    /// The peer was told which one is the last.
    Last(u32),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) is_client: bool,
    pub(crate) config: Config,
    pub(crate) peer: Peer,
    /// Whether the peer has acknowledged our SETTINGS.
    pub(crate) knows_limits: bool,
    /// Whether the peer's first SETTINGS came.
    pub(crate) is_greeted: bool,
    pub(crate) out: Output,
    pub(crate) streams: Streams,
    pub(crate) encoder: Encoder,
    pub(crate) decoder: Decoder,
    pub(crate) authorities: Authorities,
    pub(crate) block: Option<Block>,
    /// Octets that may be sent on all streams together.
    pub(crate) window_out: i64,
    /// Octets that may come on all streams together.
    pub(crate) window_in: i64,
    /// Octets taken of which the peer does not know.
    taken: u32,
    /// Open streams that wait for what all share: room in `out`, the connection's window.
    pub(crate) queue: VecDeque<Key>,
    /// The id of our next stream.
    pub(crate) next: u32,
    /// The highest id of a stream of the peer's.
    pub(crate) last: u32,
    pub(crate) leaving: Leaving,
    /// The last stream that the peer takes, and why it leaves.
    pub(crate) peer_leaves: Option<(u32, Reason)>,
    /// Why the connection is over.
    pub(crate) failed: Option<Error>,
    pub(crate) driver: Option<Waker>,
    pub(crate) patience: Patience,
    /// The octets of the PING that asks whether the peer is there: nobody who does not read knows them.
    pub(crate) asked: Option<[u8; 8]>,
    /// Whether the peer answered since it was asked.
    pub(crate) is_there: bool,
    /// Acknowledgements written since all was flushed.
    pub(crate) replies: u32,
    /// Who may open streams.
    pub(crate) senders: usize,
}

impl Core {
    pub(crate) fn new(config: Config, is_client: bool) -> Self {
        let mut out = Output::default();
        if is_client {
            out.tail().extend_from_slice(frame::PREFACE);
        }
        config.say(is_client, out.tail());
        Self {
            is_client,
            peer: Peer::default(),
            knows_limits: false,
            is_greeted: false,
            out,
            streams: Streams::default(),
            encoder: Encoder::new(),
            decoder: Decoder::new(4096),
            authorities: Authorities::default(),
            block: None,
            window_out: i64::from(FIRST_WINDOW),
            window_in: i64::from(config.connection_window.max(FIRST_WINDOW)),
            taken: 0,
            queue: VecDeque::new(),
            next: 1,
            last: 0,
            leaving: Leaving::No,
            peer_leaves: None,
            failed: None,
            driver: None,
            patience: Patience::new(&config),
            asked: None,
            is_there: false,
            replies: 0,
            senders: 0,
            config,
        }
    }

    /// The driver has something to do.
    pub(crate) fn wake_driver(&mut self) {
        wake(&mut self.driver);
    }

    pub(crate) fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let head = Head {
            len: payload.len(),
            kind,
            flags,
            stream,
        };
        let tail = self.out.tail();
        tail.extend_from_slice(&head.bytes());
        tail.extend_from_slice(payload);
        self.wake_driver();
    }

    /// Whether streams of ours can be opened, as far as the peer has room for them.
    pub(crate) const fn is_open(&self) -> bool {
        self.failed.is_none() && self.peer_leaves.is_none() && self.next <= LAST_STREAM
    }

    /// Streams of ours that the peer lets us have open.
    pub(crate) const fn room(&self) -> usize {
        self.peer.streams as usize
    }

    /// Closes a stream of which both directions are over.
    pub(crate) fn settle(&mut self, key: Key, ended: Ended) {
        let slot = self.streams.at(key);
        if slot.is_closed || !slot.is_over() {
            return;
        }
        let is_held = slot.handles > 0;
        if std::mem::take(&mut slot.is_queued) {
            // Else a peer that opens no window could have it grow by a stream after the other.
            self.queue.retain(|other| *other != key);
        }
        if ended == Ended::Whole {
            self.patience.ended_well();
        }
        self.streams.close(key, ended);
        if !is_held {
            self.streams.remove(key);
        }
        // It may have been the last that something waits for.
        if self.streams.open() == 0 {
            self.wake_driver();
        }
    }

    /// Resets a stream that has not ended.
    pub(crate) fn reset(&mut self, key: Key, error: &Error) {
        let slot = self.streams.at(key);
        if slot.is_closed {
            return;
        }
        let reason = error.reason().unwrap_or(Reason::CANCEL);
        slot.fail(error);
        self.write(frame::RST_STREAM, 0, key.id, &reason.code().to_be_bytes());
        self.settle(key, Ended::ByUs);
    }

    /// A stream got a holder.
    pub(crate) fn hold(&mut self, key: Key) {
        self.streams.at(key).handles += 1;
    }

    /// A stream lost a holder. One that nobody holds is not wanted.
    pub(crate) fn let_go(&mut self, key: Key) {
        let slot = self.streams.at(key);
        slot.handles -= 1;
        let had_turn = std::mem::take(&mut slot.has_turn);
        let (is_held, is_closed) = (slot.handles > 0, slot.is_closed);
        if had_turn {
            // It is another's now.
            self.wake_driver();
        }
        if is_held {
            return;
        }
        let slot = self.streams.at(key);
        if is_closed {
            let unread = slot.body.discard();
            self.streams.remove(key);
            self.take_from_connection(unread);
        } else {
            // An answer that is whole makes the rest of its request needless (§8.1).
            let reason = if !self.is_client && slot.sending == Sending::Done {
                Reason::NO_ERROR
            } else {
                Reason::CANCEL
            };
            self.unread(key);
            self.reset(key, &Error::stream(reason, ""));
        }
    }

    /// Nobody reads what comes on a stream any more.
    pub(crate) fn unread(&mut self, key: Key) {
        let slot = self.streams.at(key);
        slot.is_unread = true;
        slot.reader = None;
        slot.trailers = None;
        let unread = slot.body.discard();
        self.take_from_connection(unread);
    }

    /// Octets of a stream were taken: the peer may send as many again.
    pub(crate) fn take(&mut self, key: Key, count: u32) {
        let half = (self.config.stream_window / 2).max(1);
        let slot = self.streams.at(key);
        if slot.receiving == Receiving::Body {
            slot.taken += count;
            if slot.taken >= half {
                let increment = std::mem::take(&mut slot.taken);
                slot.window_in += i64::from(increment);
                window_update(key.id, increment, self.out.tail());
                self.wake_driver();
            }
        }
        self.take_from_connection(count);
    }

    /// The same, of all streams together.
    pub(crate) fn take_from_connection(&mut self, count: u32) {
        self.taken += count;
        if self.taken >= self.config.connection_window / 2 {
            let increment = std::mem::take(&mut self.taken);
            self.window_in += i64::from(increment);
            window_update(0, increment, self.out.tail());
            self.wake_driver();
        }
    }

    /// The connection is over, and with it every stream.
    pub(crate) fn fail(&mut self, error: &Error) {
        if self.failed.is_some() {
            return;
        }
        self.failed = Some(error.clone());
        for key in self.streams.keys() {
            self.streams.at(key).fail(error);
            self.settle(key, Ended::ByUs);
        }
        self.queue.clear();
        self.wake_driver();
    }

    /// Acknowledges; a peer that asks and does not listen is not acknowledged for ever.
    pub(crate) fn reply(&mut self, kind: u8, payload: &[u8]) -> Result<(), Error> {
        self.replies += 1;
        if self.replies > REPLIES {
            return Err(Error::connection(
                Reason::ENHANCE_YOUR_CALM,
                "acknowledgements that nobody reads",
            ));
        }
        self.write(kind, frame::ACK, 0, payload);
        Ok(())
    }

    /// Asks the peer whether it is there.
    pub(crate) fn ask(&mut self) {
        let octets = RandomState::new().hash_one(self.next).to_be_bytes();
        self.asked = Some(octets);
        self.is_there = false;
        self.write(frame::PING, 0, 0, &octets);
    }

    /// Octets that may come on a new stream before some were taken. A peer that does not know ours yet goes
    /// by the protocol's.
    pub(crate) fn first_window(&self) -> i64 {
        let window = if self.knows_limits {
            self.config.stream_window
        } else {
            self.config.stream_window.max(FIRST_WINDOW)
        };
        i64::from(window)
    }

    /// Tells the peer that it is over.
    pub(crate) fn go_away(&mut self, last: u32, reason: Reason) {
        let mut payload = [0; 8];
        payload[..4].copy_from_slice(&last.to_be_bytes());
        payload[4..].copy_from_slice(&reason.code().to_be_bytes());
        self.write(frame::GOAWAY, 0, 0, &payload);
    }

    /// Begins to leave: streams that are under way are served, later ones are not.
    pub(crate) fn leave(&mut self) {
        if self.leaving == Leaving::No {
            self.leaving = Leaving::Told;
            self.go_away(LAST_STREAM, Reason::NO_ERROR);
            self.write(frame::PING, 0, 0, &LEAVING);
        }
    }

    /// The peer knows that we leave: what it opened until now is what we serve.
    pub(crate) fn leave_for_good(&mut self) {
        if self.leaving == Leaving::Told {
            self.leaving = Leaving::Last(self.last);
            self.go_away(self.last, Reason::NO_ERROR);
        }
    }

    /// Why the transport's end is an error, where it is one.
    pub(crate) fn ended(&self) -> Error {
        match self.peer_leaves {
            Some((_, reason)) if reason != Reason::NO_ERROR => Error::GoAway {
                reason,
                by: By::Peer,
                why: "",
            },
            _ => Error::Io(std::io::ErrorKind::UnexpectedEof),
        }
    }
}

#[cfg(test)]
mod tests;
