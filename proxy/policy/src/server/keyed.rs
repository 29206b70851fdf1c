//! A rate limit for each caller, or each value of a header, in a table of
//! fixed size.
//!
//! A key that has all its tokens is no different from one that was never seen,
//! so it may be forgotten at any time: nobody gains or loses by it. A place is
//! given to another key only then, which is why flooding the table with keys
//! buys nobody a fresh burst. (Forgetting the least recently used, the usual
//! way, does: whoever is pushed out begins anew.) Keys that find no place,
//! because [`KEYS`] others are being limited right now, share one limit among
//! themselves: together they get what one of them may have.
//!
//! Each key has two sets of [`WAYS`] places, chosen by a hash with a seed that
//! nobody outside knows. A place is a tag of 64 bits and one arrival time; no
//! lock is taken. Two requests that race for a place may let one request too
//! many through, or charge one to a neighbour: once, not again.

use crate::sync::atomic::{AtomicU64, Ordering};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use super::rate::Rate;

/// Places in a set: their tags are one line of the cache.
const WAYS: usize = 8;
const SETS: usize = 1024;

/// Keys that are limited apart from each other at a time. The table takes
/// 128 KiB, once a policy asks for it.
pub const KEYS: usize = SETS * WAYS;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Set {
    /// 0 where nobody ever was.
    tags: [AtomicU64; WAYS],
    arrivals: [AtomicU64; WAYS],
}

/// See the module.
#[derive(Debug)]
pub(super) struct KeyTable {
    seed: u64,
    sets: Box<[Set]>,
    /// Of all who find no place.
    shared: AtomicU64,
}

/// Over the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OverRate {
    /// Until one would pass.
    pub(super) wait: Duration,
    /// Whether it was limited together with others, for want of a place.
    pub(super) crowded: bool,
}

impl KeyTable {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            sets: (0..SETS).map(|_| Set::default()).collect(),
            shared: AtomicU64::new(0),
        }
    }

    /// As [`Rate::take`], for one key.
    pub(super) fn take(&self, rate: &Rate, key: &[u8], now: u64) -> Result<(), OverRate> {
        let tag = self.tag(key);
        let sets = [tag as usize % SETS, (tag >> 32) as usize % SETS].map(|at| &self.sets[at]);
        let (arrival, crowded) = match known(sets, tag).or_else(|| claim(sets, tag, now)) {
            Some(arrival) => (arrival, false),
            None => (&self.shared, true),
        };
        let over = |wait| OverRate { wait, crowded };
        rate.take(arrival, now).map_err(over)
    }

    fn tag(&self, key: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(key);
        hasher.finish().max(1)
    }
}

/// The place that is the key's already.
fn known(sets: [&Set; 2], tag: u64) -> Option<&AtomicU64> {
    sets.into_iter().find_map(|set| {
        let mine = |kept: &AtomicU64| kept.load(Ordering::Relaxed) == tag;
        let way = set.tags.iter().position(mine)?;
        Some(&set.arrivals[way])
    })
}

/// A place whose last key has all its tokens again.
fn claim(sets: [&Set; 2], tag: u64, now: u64) -> Option<&AtomicU64> {
    sets.into_iter().find_map(|set| {
        set.tags
            .iter()
            .zip(&set.arrivals)
            .find_map(|(kept, arrival)| {
                let before = kept.load(Ordering::Relaxed);
                if arrival.load(Ordering::Relaxed) > now {
                    return None;
                }
                kept.compare_exchange(before, tag, Ordering::Relaxed, Ordering::Relaxed)
                    .ok()
                    .map(|_| arrival)
            })
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::testing::seconds;

    const MILLI: u64 = 1_000_000;

    fn key(n: u64) -> [u8; 8] {
        n.to_le_bytes()
    }

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let table = KeyTable::new(7);
        let rate = Rate::new(1, seconds(1), 2);
        for n in 0..100 {
            for _ in 0..2 {
                assert_eq!(table.take(&rate, &key(n), 0), Ok(()), "{n}");
            }
            let over = table.take(&rate, &key(n), 0).expect_err("its third");
            assert_eq!((over.wait, over.crowded), (seconds(1), false));
        }
    }

    #[test]
    fn a_flood_of_keys_gives_nobody_a_fresh_burst() {
        let table = KeyTable::new(7);
        let rate = Rate::new(1, seconds(60), 1);
        let greedy = b"greedy";
        assert_eq!(table.take(&rate, greedy, 0), Ok(()));
        let mut passed = 0;
        let mut crowded = 0;
        for n in 0..4 * KEYS as u64 {
            match table.take(&rate, &key(n), 1) {
                Ok(()) => passed += 1,
                Err(over) => crowded += usize::from(over.crowded),
            }
        }
        println!(
            "{KEYS} places, {} keys: {passed} passed, {crowded} shared",
            4 * KEYS
        );
        // One for each place, and one for all the others together.
        assert!(passed <= KEYS + 1, "{passed}");
        assert!(passed > KEYS * 9 / 10, "two sets each fill well: {passed}");
        assert!(
            table.take(&rate, greedy, 2).is_err(),
            "it was not forgotten"
        );
        let later = seconds(61).as_nanos() as u64;
        assert_eq!(
            table.take(&rate, b"new", later),
            Ok(()),
            "all have recovered"
        );
    }

    proptest! {
        #[test]
        fn equals_a_map_without_bound(
            events in proptest::collection::vec((0u64..300, 0u64..20), 1..600),
            burst in 1u32..4,
        ) {
            let table = KeyTable::new(11);
            let rate = Rate::new(20, seconds(1), burst);
            let mut model: HashMap<u64, AtomicU64> = HashMap::new();
            let mut now = 0;
            for (n, step) in events {
                now += step * MILLI;
                let alone = rate.take(model.entry(n).or_default(), now);
                let kept = table.take(&rate, &key(n), now);
                prop_assert_eq!(kept.map_err(|over| over.wait), alone);
            }
        }
    }

    #[test]
    fn threads_that_race_stay_at_the_rate() {
        let table = KeyTable::new(3);
        let rate = Rate::new(1, seconds(60), 100);
        let passed: usize = std::thread::scope(|scope| {
            let hammer = || {
                (0..5000)
                    .filter(|_| table.take(&rate, b"one", 0).is_ok())
                    .count()
            };
            let threads = [scope.spawn(hammer), scope.spawn(hammer)];
            threads
                .map(|thread| thread.join().expect("it ends"))
                .iter()
                .sum()
        });
        assert!((100..=101).contains(&passed), "{passed}");
    }
}
