//! Sequences of events by chance. Each event is one word, spent digit by
//! digit: that is generated and shrunk at a tenth of the time that a strategy
//! for every field takes, and a smaller word is a plainer event.

use std::time::Duration;

use proptest::prelude::*;

use crate::millis;

/// For each model, where the environment does not say otherwise.
const SEQUENCES: u32 = 100_000;

/// One event, or one choice of a policy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Word(u64);

impl Word {
    /// A number below `count`.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        let digit = self.0 % count;
        self.0 /= count;
        digit
    }

    pub(crate) fn index(&mut self, count: usize) -> usize {
        self.below(count as u64) as usize
    }

    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == count - 1
    }

    /// From nothing to more than any window: short waits, seconds, long ones.
    pub(crate) fn wait(&mut self) -> Duration {
        let longest = self.one_of(&[1, 40, 40, 1_200, 1_200, 4_000, 70_000]);
        millis(self.below(longest)) + Duration::from_nanos(self.below(1_000_000))
    }
}

/// A word for the policy, one as a seed, and up to `longest` events.
pub(crate) fn sequence(longest: usize) -> impl Strategy<Value = (Word, u64, Vec<Word>)> {
    let word = || any::<u64>().prop_map(Word);
    let events = prop::collection::vec(any::<u64>(), 1..longest);
    let events = events.prop_map(|words| words.into_iter().map(Word).collect());
    (word(), any::<u64>(), events)
}

/// How many sequences.
pub(crate) fn sequences() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked
            .and_then(|text| text.parse().ok())
            .unwrap_or(SEQUENCES),
        // What fails is shrunk and printed; it then belongs into a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}
