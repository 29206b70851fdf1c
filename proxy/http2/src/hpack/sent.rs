//! The dynamic table of the side that writes: what the peer's table holds, found by hash.
//!
//! A hash leads to a bucket of four places, newest first. A place may be stale, since nothing is
//! done there when an entry is pushed out; it is believed only when the entry it names is still
//! there and has the same octets. So losing a place, or a collision, costs octets, never truth.
//!
//! Most often there is no need to look: each entry knows which one followed it in the last head,
//! and the next head has them in the same order.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{BuildHasher, RandomState};

use super::OVERHEAD;
use super::known::MULTIPLIER;
use super::words::Words;

/// Buckets of places, and of fingerprints of fields seen lately.
const BUCKETS: usize = 64;
/// How many a bucket holds. With one alone, two fields of the same head that share it would push
/// each other out of it with every request: neither would be known to have been seen before, or
/// both would enter the table again and again.
const WAYS: usize = 4;

/// A field on its way, and what tells it apart.
pub(super) struct Passing<'a> {
    name: &'a [u8],
    value: &'a [u8],
    name_words: Words,
    value_words: Words,
}

impl<'a> Passing<'a> {
    #[inline]
    pub(super) const fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self {
            name,
            value,
            name_words: Words::of(name),
            value_words: Words::of(value),
        }
    }

    /// What it counts in a table, in octets (RFC 7541 §4.1).
    pub(super) const fn size(&self) -> usize {
        OVERHEAD + self.name.len() + self.value.len()
    }
}

/// A field in the table, in memory of its own: whatever buffer it came from is let go.
struct Entry {
    name: Words,
    value: Words,
    /// The name and behind it the value.
    text: Box<[u8]>,
    /// The entry that was sent after this one the last time.
    after: Number,
}

impl Entry {
    fn new(field: &Passing<'_>, after: Number) -> Self {
        Self {
            name: field.name_words,
            value: field.value_words,
            text: [field.name, field.value].concat().into_boxed_slice(),
            after,
        }
    }

    const fn size(&self) -> usize {
        OVERHEAD + self.text.len()
    }

    #[inline]
    fn is(&self, field: &Passing<'_>) -> bool {
        self.value.same(&field.value_words)
            && self.name.same(&field.name_words)
            && (self.name.whole() || self.text.starts_with(field.name))
            && (self.value.whole() || self.text.ends_with(field.value))
    }
}

/// How many entries came before one, modulo 2^16.
type Number = u16;

/// The table.
pub(super) struct Sent {
    newest_first: VecDeque<Entry>,
    /// The number of the next entry.
    next: Number,
    /// The entry that was sent last in this block, and the one that should be sent next.
    previous: Option<Number>,
    expected: Number,
    /// The entry that was sent first in the last block.
    first: Number,
    size: usize,
    limit: usize,
    seed: Seed,
    /// There from the first field on that may repeat.
    places: Option<Box<Places>>,
}

impl Sent {
    /// An empty one of at most `limit` octets.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            newest_first: VecDeque::new(),
            next: 0,
            previous: None,
            expected: 0,
            first: 0,
            size: 0,
            limit,
            seed: Seed::random(),
            places: None,
        }
    }

    /// Octets it may hold.
    #[inline]
    pub(super) const fn limit(&self) -> usize {
        self.limit
    }

    /// From now on the table holds at most `limit` octets.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
        self.shrink(limit);
    }

    /// A block begins.
    #[inline]
    pub(super) const fn begin(&mut self) {
        self.previous = None;
        self.expected = self.first;
    }

    /// How many entries are newer than the one of that field, if it is the one that came at this
    /// place of the last head.
    #[inline]
    pub(super) fn expected(&mut self, field: &Passing<'_>) -> Option<usize> {
        let newer = self.newer(self.expected);
        let entry = self.newest_first.get(newer)?;
        if !entry.is(field) {
            return None;
        }
        self.previous = Some(self.expected);
        self.expected = entry.after;
        Some(newer)
    }

    /// The hash by which a field is found.
    pub(super) fn hash(&self, field: &Passing<'_>) -> u64 {
        let name = field.name_words.mixed(MULTIPLIER);
        let state = self.seed.step(self.seed.first, name);
        self.seed.run(state, field.value, &field.value_words)
    }

    /// How many entries are newer than the one of that field, wherever it is.
    pub(super) fn find(&mut self, hash: u64, field: &Passing<'_>) -> Option<usize> {
        let places = self.places.as_ref()?;
        let tag = tag(hash);
        let number = places.buckets[bucket(hash)]
            .iter()
            .filter(|place| place.tag == tag)
            .map(|place| place.number)
            .find(|number| {
                let entry = self.newest_first.get(self.newer(*number));
                entry.is_some_and(|entry| entry.is(field))
            })?;
        self.passed(number);
        Some(self.newer(number))
    }

    /// Whether a field of that hash was asked about lately. From now on it was.
    pub(super) fn seen_before(&mut self, hash: u64) -> bool {
        let places = self.places.get_or_insert_default();
        let fingerprint = (hash >> 32) as u32;
        let lately = &mut places.seen[(hash >> 8) as usize % BUCKETS];
        let before = lately.contains(&fingerprint);
        lately.rotate_right(1);
        lately[0] = fingerprint;
        before
    }

    /// Takes a field in. It is no larger than the table.
    pub(super) fn insert(&mut self, hash: u64, field: &Passing<'_>) {
        let number = self.next;
        let entry = Entry::new(field, self.expected);
        self.shrink(self.limit - entry.size());
        self.size += entry.size();
        self.newest_first.push_front(entry);
        self.next = number.wrapping_add(1);
        let ways = &mut self.places.get_or_insert_default().buckets[bucket(hash)];
        ways.rotate_right(1);
        ways[0] = Place {
            tag: tag(hash),
            number,
        };
        self.passed(number);
    }

    /// Learns that an entry other than the expected one was sent at this place of a head.
    fn passed(&mut self, number: Number) {
        let before = self.previous.map(|number| self.newer(number));
        match before.and_then(|newer| self.newest_first.get_mut(newer)) {
            Some(entry) => entry.after = number,
            None => self.first = number,
        }
        let newer = self.newer(number);
        if let Some(entry) = self.newest_first.get(newer) {
            self.expected = entry.after;
        }
        self.previous = Some(number);
    }

    /// How many entries came after that one.
    #[inline]
    fn newer(&self, number: Number) -> usize {
        usize::from(self.next.wrapping_sub(number).wrapping_sub(1))
    }

    fn shrink(&mut self, size: usize) {
        while self.size > size {
            let Some(oldest) = self.newest_first.pop_back() else {
                return;
            };
            self.size -= oldest.size();
        }
    }

    /// Octets of all entries, and their number.
    #[cfg(test)]
    pub(super) fn contents(&self) -> (usize, usize) {
        (self.size, self.newest_first.len())
    }
}

impl fmt::Debug for Sent {
    /// Neither the seed nor what passed: both are for nobody to read.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sent")
            .field("entries", &self.newest_first.len())
            .field("size", &self.size)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

const fn bucket(hash: u64) -> usize {
    hash as usize % BUCKETS
}

const fn tag(hash: u64) -> u16 {
    (hash >> 48) as u16
}

/// Where entries are, by hash.
struct Places {
    buckets: [[Place; WAYS]; BUCKETS],
    seen: [[u32; WAYS]; BUCKETS],
}

impl Default for Places {
    fn default() -> Self {
        Self {
            buckets: [[Place::default(); WAYS]; BUCKETS],
            seen: [[0; WAYS]; BUCKETS],
        }
    }
}

/// Some bits of an entry's hash, and its number.
#[derive(Clone, Copy, Default)]
struct Place {
    tag: u16,
    number: Number,
}

/// A hash in steps of eight octets, each a multiplication whose halves are folded. Secret, so
/// that no caller can choose fields which share a bucket.
struct Seed {
    first: u64,
    factor: u64,
}

impl Seed {
    fn random() -> Self {
        let random = RandomState::new();
        Self {
            first: random.hash_one(1_u8),
            factor: random.hash_one(2_u8) | 1,
        }
    }

    #[inline]
    fn run(&self, state: u64, octets: &[u8], words: &Words) -> u64 {
        let mut state = state ^ words.length as u64;
        if words.whole() {
            state = self.step(state, words.first);
        } else {
            for eight in octets.as_chunks::<8>().0 {
                state = self.step(state, u64::from_le_bytes(*eight));
            }
        }
        self.step(state, words.last)
    }

    #[inline]
    fn step(&self, state: u64, word: u64) -> u64 {
        let product = u128::from(state ^ word) * u128::from(self.factor);
        product as u64 ^ (product >> 64) as u64
    }
}
