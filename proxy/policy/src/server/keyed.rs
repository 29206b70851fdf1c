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
//! lock is taken. A place changes hands in three steps: its tag is taken off,
//! so that nobody finds it; the first token is taken, which fails where any is
//! missing by now; then it has the new tag, or the old one again. Without the
//! second step a key could spend all its tokens while its place is taken, and
//! begin anew in another. A request that found the place just before that is
//! charged to the neighbour: one for each worker, not again. A request that
//! may have missed its own place looks again, [`LOOKS`] times at most, and is
//! then counted with those that find none.

use crate::sync::atomic::{AtomicU64, Ordering};
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;

use super::rate::Rate;

/// In loom's models every place is one to look at.
const FEW: bool = cfg!(feature = "loom");

/// Places in a set: their tags are one line of the cache.
const WAYS: usize = if FEW { 2 } else { 8 };
const SETS: usize = if FEW { 1 } else { 1024 };

/// Keys that are limited apart from each other at a time. The table takes
/// 128 KiB, once a policy asks for it.
pub const KEYS: usize = SETS * WAYS;

/// How often a request looks for its place while places change hands.
const LOOKS: usize = if FEW { 2 } else { 8 };

/// The tag of a place where nobody ever was …
const NOBODY: u64 = 0;
/// … and of one that changes hands.
const CHANGES: u64 = u64::MAX;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Set {
    tags: [AtomicU64; WAYS],
    arrivals: [AtomicU64; WAYS],
}

impl Set {
    /// Tags and arrivals.
    fn places(&self) -> impl Iterator<Item = (&AtomicU64, &AtomicU64)> {
        self.tags.iter().zip(&self.arrivals)
    }
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
        let sets = [tag, tag >> 32].map(|at| &self.sets[at as usize % KEYS / WAYS]);
        let over = |crowded| move |wait| OverRate { wait, crowded };
        for _ in 0..LOOKS {
            match find(sets, tag) {
                Found::Kept(arrival) => return rate.take(arrival, now).map_err(over(false)),
                Found::Changes => {}
                Found::Nowhere => match claim(sets, tag, rate, now) {
                    Claim::Passed => return Ok(()),
                    Claim::Raced => {}
                    Claim::Full => break,
                },
            }
        }
        rate.take(&self.shared, now).map_err(over(true))
    }

    fn tag(&self, key: &[u8]) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.seed);
        hasher.write(key);
        hasher.finish().clamp(NOBODY + 1, CHANGES - 1)
    }
}

/// Where a key is.
enum Found<'a> {
    Kept(&'a AtomicU64),
    /// Perhaps in a place that changes hands.
    Changes,
    Nowhere,
}

fn find(sets: [&Set; 2], tag: u64) -> Found<'_> {
    let mut found = Found::Nowhere;
    for (kept, arrival) in sets.into_iter().flat_map(Set::places) {
        match kept.load(Ordering::Relaxed) {
            kept if kept == tag => return Found::Kept(arrival),
            CHANGES => found = Found::Changes,
            _ => {}
        }
    }
    found
}

/// What became of a request whose key has no place.
enum Claim {
    /// It has one now, and its first token is taken.
    Passed,
    /// Others claim, too, perhaps for the same key.
    Raced,
    Full,
}

/// Takes a place whose last key has all its tokens again.
fn claim(sets: [&Set; 2], tag: u64, rate: &Rate, now: u64) -> Claim {
    for (kept, arrival) in sets.into_iter().flat_map(Set::places) {
        // In this order: who sees a token taken sees for whom.
        let is_used = arrival.load(Ordering::Acquire) > now;
        let before = kept.load(Ordering::Relaxed);
        if before == tag || before == CHANGES {
            return Claim::Raced;
        }
        if is_used {
            continue;
        }
        let taken_off =
            kept.compare_exchange(before, CHANGES, Ordering::Relaxed, Ordering::Relaxed);
        if taken_off.is_err() {
            return Claim::Raced;
        }
        // Of those who take a token after this, nobody finds the old tag.
        let passed = rate.take_first(arrival, now);
        kept.store(if passed { tag } else { before }, Ordering::Release);
        if passed {
            return Claim::Passed;
        }
    }
    Claim::Full
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
    fn a_place_that_is_used_as_it_is_taken_stays_its_key_s() {
        let rate = Rate::new(1, seconds(60), 2);
        let set = Set::default();
        let sets = [&set; 2];
        assert!(matches!(claim(sets, 1, &rate, 0), Claim::Passed));
        // What the other worker saw before that is over.
        assert!(!rate.take_first(&set.arrivals[0], 0));
        assert!(matches!(claim(sets, 1, &rate, 0), Claim::Raced), "its own");
        assert!(matches!(find(sets, 1), Found::Kept(_)));
        set.tags[0].store(CHANGES, Ordering::Relaxed);
        assert!(matches!(find(sets, 1), Found::Changes));
        assert!(matches!(claim(sets, 2, &rate, 0), Claim::Raced));
    }

    #[test]
    fn threads_that_race_stay_at_the_rate() {
        let table = KeyTable::new(3);
        let rate = Rate::new(1, seconds(60), 100);
        assert_eq!(table.take(&rate, b"one", 0), Ok(()), "it has its place");
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
        assert_eq!(passed, 99);
    }
}
