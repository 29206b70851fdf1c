//! One bit for each of a fixed number of things, without a lock: ten thousand
//! of them are 157 words, so that going over all costs next to nothing.
//! It knows nothing of what it marks.

use crate::sync::atomic::{AtomicU64, Ordering};

const WORD: usize = u64::BITS as usize;

/// A set of small numbers, shared.
#[derive(Debug, Default)]
pub(crate) struct Marks(Box<[AtomicU64]>);

impl Marks {
    /// All of the numbers below `count`.
    pub(crate) fn all(count: usize) -> Self {
        let word = |first: usize| match count - first {
            left if left < WORD => (1 << left) - 1,
            _ => u64::MAX,
        };
        let words = (0..count).step_by(WORD).map(|first| word(first).into());
        Self(words.collect())
    }

    /// Whether `number` is in the set.
    pub(crate) fn has(&self, number: usize) -> bool {
        self.0[number / WORD].load(Ordering::Relaxed) >> (number % WORD) & 1 == 1
    }

    /// Puts `number` into the set, or takes it out.
    pub(crate) fn set(&self, number: usize, is_in: bool) {
        let word = &self.0[number / WORD];
        let bit = 1 << (number % WORD);
        if is_in {
            word.fetch_or(bit, Ordering::Relaxed);
        } else {
            word.fetch_and(!bit, Ordering::Relaxed);
        }
    }

    /// How many of the numbers below `end` are in the set.
    pub(crate) fn count_below(&self, end: usize) -> usize {
        let starts = (0..end).step_by(WORD);
        let of_word = |(start, word): (usize, &AtomicU64)| {
            let left = end - start;
            let wanted = if left < WORD {
                (1 << left) - 1
            } else {
                u64::MAX
            };
            (word.load(Ordering::Relaxed) & wanted).count_ones() as usize
        };
        starts.zip(&self.0).map(of_word).sum()
    }

    /// The numbers in the set, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = usize> {
        (0..).step_by(WORD).zip(&self.0).flat_map(|(first, word)| {
            let mut left = word.load(Ordering::Relaxed);
            std::iter::from_fn(move || {
                let bit = left.trailing_zeros() as usize;
                left &= left.checked_sub(1)?;
                Some(first + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_what_was_put_in_across_words() {
        for count in [0, 1, 63, 64, 65, 200] {
            let marks = Marks::all(count);
            assert!(marks.iter().eq(0..count), "{count}");
            (0..count).for_each(|number| marks.set(number, number % 3 == 0));
            assert!(marks.iter().eq((0..count).step_by(3)), "{count}");
            assert!((0..count).all(|number| marks.has(number) == (number % 3 == 0)));
            assert!((0..=count).all(|end| marks.count_below(end) == end.div_ceil(3)));
            (0..count).for_each(|number| marks.set(number, true));
            assert!(marks.iter().eq(0..count), "{count}");
        }
    }
}
