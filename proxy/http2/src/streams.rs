//! The streams of a connection and what is known of each.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::task::{Context, Waker};

use http::{HeaderMap, response};

use crate::error::Error;
use crate::pieces::Pieces;

/// Streams that were reset and are still known by name: what was under way to them is no fault.
const RESETS: usize = 1024;
/// The same of streams that ended as they should: what follows is a fault.
const WHOLE: usize = 64;
/// Which place of the store, and whose it was when it was said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    pub(crate) id: u32,
}

/// What comes from the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Receiving {
    /// Nothing came yet: a response is awaited.
    Head,
    /// The head was there.
    Body,
    /// All of it.
    Done,
    /// No more, before it was all.
    Failed(Error),
}

/// What goes to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// A response is still due.
    Head,
    /// The head was sent.
    Body,
    /// All of it.
    Done,
    /// No more, before it was all.
    Failed(Error),
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) id: u32,
    /// Who holds it: response, reader, writer.
    pub(crate) handles: u8,
    /// Whether both directions are over.
    pub(crate) is_closed: bool,

    pub(crate) receiving: Receiving,
    /// The response, until it is taken.
    pub(crate) response: Option<Box<response::Parts>>,
    pub(crate) body: Pieces,
    pub(crate) trailers: Option<Box<HeaderMap>>,
    /// Octets that the head promises and that did not come yet.
    pub(crate) left: Option<u64>,
    /// Octets that may come before some were taken.
    pub(crate) window_in: i64,
    /// Octets taken of which the peer does not know.
    pub(crate) taken: u32,
    /// Nobody reads any more.
    pub(crate) is_unread: bool,
    pub(crate) reader: Option<Waker>,
    /// The peer waits to be told to go on before it sends a body.
    pub(crate) is_waited_for: bool,
    /// The response has no body, whatever length it says: to HEAD, or by its status.
    pub(crate) is_bodiless: bool,

    pub(crate) sending: Sending,
    /// Octets that may be sent; below zero where the peer took some back.
    pub(crate) window_out: i64,
    pub(crate) writer: Option<Waker>,
    /// Whether it stands in the queue for what all streams share.
    pub(crate) is_queued: bool,
    /// Whether its turn has come.
    pub(crate) has_turn: bool,
}

impl Slot {
    pub(crate) fn new(id: u32, receiving: Receiving, sending: Sending) -> Self {
        Self {
            id,
            handles: 0,
            is_closed: false,
            receiving,
            response: None,
            body: Pieces::default(),
            trailers: None,
            left: None,
            window_in: 0,
            taken: 0,
            is_unread: false,
            reader: None,
            is_waited_for: false,
            is_bodiless: false,
            sending,
            window_out: 0,
            writer: None,
            is_queued: false,
            has_turn: false,
        }
    }

    /// Whether nothing more is received and nothing more is sent.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.receiving, Receiving::Done | Receiving::Failed(_))
            && matches!(self.sending, Sending::Done | Sending::Failed(_))
    }

    /// Ends what has not ended.
    pub(crate) fn fail(&mut self, error: &Error) {
        if self.receiving != Receiving::Done {
            self.receiving = Receiving::Failed(error.clone());
        }
        if self.sending != Sending::Done {
            self.sending = Sending::Failed(error.clone());
        }
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

/// Wakes whoever waits, once.
pub(crate) fn wake(waiting: &mut Option<Waker>) {
    if let Some(waker) = waiting.take() {
        waker.wake();
    }
}

/// Remembers who waits.
pub(crate) fn wait(waiting: &mut Option<Waker>, cx: &Context<'_>) {
    match waiting {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waiting = Some(cx.waker().clone()),
    }
}

/// How a stream ended that is no longer there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// By END_STREAM from both.
    Whole,
    /// By RST_STREAM from us: what the peer sent before it heard of it is passed over.
    ByUs,
    /// By RST_STREAM from the peer: nothing may follow.
    ByPeer,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    slots: Vec<Slot>,
    free: Vec<u32>,
    by_id: HashMap<u32, u32, BuildHasherDefault<Spread>>,
    whole: VecDeque<u32>,
    resets: VecDeque<(u32, Ended)>,
}

impl Streams {
    /// Streams that are open.
    pub(crate) fn open(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn insert(&mut self, slot: Slot) -> Key {
        let id = slot.id;
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                index
            }
            None => {
                self.slots.push(slot);
                (self.slots.len() - 1) as u32
            }
        };
        self.by_id.insert(id, index);
        Key { index, id }
    }

    /// The open stream of an id.
    pub(crate) fn find(&self, id: u32) -> Option<Key> {
        self.by_id.get(&id).map(|&index| Key { index, id })
    }

    /// A stream that somebody holds, or that is open.
    pub(crate) fn at(&mut self, key: Key) -> &mut Slot {
        let slot = &mut self.slots[key.index as usize];
        debug_assert_eq!(slot.id, key.id, "a stream is there while it is held");
        slot
    }

    /// A stream that may be gone.
    pub(crate) fn still(&mut self, key: Key) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key.index as usize)?;
        (slot.id == key.id).then_some(slot)
    }

    /// Both directions are over: the id means nothing any more.
    pub(crate) fn close(&mut self, key: Key, ended: Ended) {
        self.at(key).is_closed = true;
        self.by_id.remove(&key.id);
        self.remember(key.id, ended);
    }

    /// Nobody holds it, and it is closed.
    pub(crate) fn remove(&mut self, key: Key) {
        // No stream has this id.
        *self.at(key) = Slot::new(0, Receiving::Done, Sending::Done);
        self.free.push(key.index);
        if self.free.len() == self.slots.len() {
            // The memory of a crowd that is gone.
            self.free.clear();
            self.slots.clear();
            if self.slots.capacity() > 16 {
                *self = Self {
                    whole: std::mem::take(&mut self.whole),
                    resets: std::mem::take(&mut self.resets),
                    ..Self::default()
                };
            }
        }
    }

    pub(crate) fn remember(&mut self, id: u32, ended: Ended) {
        if ended == Ended::Whole {
            if self.whole.len() == WHOLE {
                self.whole.pop_front();
            }
            self.whole.push_back(id);
        } else {
            if self.resets.len() == RESETS {
                self.resets.pop_front();
            }
            self.resets.push_back((id, ended));
        }
    }

    /// How a stream ended, where that is still known.
    pub(crate) fn ended(&self, id: u32) -> Option<Ended> {
        if self.whole.contains(&id) {
            return Some(Ended::Whole);
        }
        let mut resets = self.resets.iter().rev();
        resets.find(|(other, _)| *other == id).map(|(_, how)| *how)
    }

    /// All open streams.
    pub(crate) fn keys(&self) -> Vec<Key> {
        let keys = self.by_id.iter();
        keys.map(|(&id, &index)| Key { index, id }).collect()
    }
}

/// Spreads ids over a table; as a connection has few of them open, nobody gains by choosing them.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        self.0 = (self.0 ^ u64::from(id))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(id: u32) -> Slot {
        Slot::new(id, Receiving::Head, Sending::Head)
    }

    #[test]
    fn a_place_is_used_again_and_old_keys_do_not_open_it() {
        let mut streams = Streams::default();
        let kept = streams.insert(slot(1));
        let gone = streams.insert(slot(3));
        assert_eq!(streams.open(), 2);
        streams.close(gone, Ended::ByUs);
        assert_eq!(streams.find(3), None);
        streams.remove(gone);
        assert!(streams.still(gone).is_none());
        let next = streams.insert(slot(5));
        assert_eq!(next.index, gone.index);
        assert!(streams.still(gone).is_none());
        assert_eq!(streams.find(1), Some(kept));
        assert_eq!(streams.ended(3), Some(Ended::ByUs));
        assert_eq!(streams.ended(5), None);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut streams = Streams::default();
        for id in 0..=WHOLE as u32 {
            streams.remember(id, Ended::Whole);
        }
        assert_eq!(streams.ended(0), None);
        assert_eq!(streams.ended(1), Some(Ended::Whole));
        for id in 1000..=1000 + RESETS as u32 {
            streams.remember(id, Ended::ByPeer);
        }
        assert_eq!(streams.ended(1000), None);
        assert_eq!(streams.ended(1001), Some(Ended::ByPeer));
    }

    #[test]
    fn a_crowd_leaves_no_memory() {
        let mut streams = Streams::default();
        let keys: Vec<Key> = (0..100).map(|n| streams.insert(slot(2 * n + 1))).collect();
        for &key in &keys {
            streams.close(key, Ended::Whole);
            streams.remove(key);
        }
        assert_eq!(streams.slots.capacity(), 0);
        assert!(keys.iter().all(|key| streams.still(*key).is_none()));
        assert_eq!(streams.open(), 0);
    }
}
