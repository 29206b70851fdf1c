//! Turns by weight, spread as evenly as they can be: smooth weighted round robin.
//!
//! Each is due at `(2k+1)/2w` for its turns `k` and its weight `w`, and the
//! soonest is next (earliest deadline first, as Envoy's scheduler has it). In
//! any span of one round, which is as many turns as all weights together, each
//! has exactly its weight; nginx's running sums give the same order, and cost a
//! look at everyone per turn instead of a logarithm. Fractions are compared
//! crosswise in integers, so that no error adds up. It knows no endpoints.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

/// Whose turn it is, without end.
#[derive(Debug)]
pub(crate) enum Rounds {
    /// All weigh the same: one after the other.
    Even { next: usize, count: usize },
    /// By weight.
    Weighted(BinaryHeap<Reverse<Turn>>),
}

/// A turn, due at `moment / weight`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn {
    /// Odd, so that it lies in the middle between two turns.
    moment: u64,
    weight: u32,
    who: u32,
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> Ordering {
        let crosswise =
            |one: &Self, other: &Self| u128::from(one.moment) * u128::from(other.weight);
        let due = crosswise(self, other).cmp(&crosswise(other, self));
        due.then(self.who.cmp(&other.who))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Turn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Turn {}

impl Rounds {
    /// Begins within a round, at `phase` of 2³² of it, so that those who begin
    /// at the same time need not all begin with the first. There is at least
    /// one weight, and none is 0.
    pub(crate) fn begin(weights: impl ExactSizeIterator<Item = u32> + Clone, phase: u32) -> Self {
        let count = weights.len();
        let mut others = weights.clone();
        let first = others.next();
        if others.all(|weight| Some(weight) == first) {
            let next = (u64::from(phase) * count as u64) >> 32;
            return Self::Even {
                next: next as usize,
                count,
            };
        }
        let turn = |(who, weight): (u32, u32)| {
            // The first turn k for which (2k+1)/2w is no sooner than the phase.
            let begun = (u64::from(phase) * u64::from(weight) * 2) >> 32;
            Reverse(Turn {
                moment: begun.next_multiple_of(2) + 1,
                weight,
                who,
            })
        };
        Self::Weighted((0..).zip(weights).map(turn).collect())
    }

    /// Who is next.
    pub(crate) fn next(&mut self) -> usize {
        match self {
            Self::Even { next, count } => {
                let who = *next;
                *next = (who + 1) % *count;
                who
            }
            Self::Weighted(turns) => {
                let Some(mut first) = turns.peek_mut() else {
                    return 0;
                };
                let who = first.0.who as usize;
                first.0.moment = first.0.moment.wrapping_add(2);
                who
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(weights: &[u32], phase: u32, turns: usize) -> Vec<usize> {
        let mut rounds = Rounds::begin(weights.iter().copied(), phase);
        (0..turns).map(|_| rounds.next()).collect()
    }

    #[test]
    fn the_heavy_ones_are_spread() {
        assert_eq!(order(&[5, 1, 1], 0, 7), [0, 0, 0, 1, 2, 0, 0]);
        assert_eq!(order(&[2, 1], 0, 6), [0, 1, 0, 0, 1, 0]);
        assert_eq!(order(&[3, 3, 3], 0, 4), [0, 1, 2, 0]);
        assert_eq!(order(&[3, 3, 3], u32::MAX / 2, 4), [1, 2, 0, 1]);
        assert_eq!(order(&[7], 99, 2), [0, 0]);
    }

    proptest! {
        #[test]
        fn every_round_is_exact_wherever_it_begins(
            weights in proptest::collection::vec(prop_oneof![1u32..6, Just(40u32)], 1..12),
            phase: u32,
            later in 0usize..50,
        ) {
            let mut rounds = Rounds::begin(weights.iter().copied(), phase);
            (0..later).for_each(|_| {
                rounds.next();
            });
            let all: u32 = weights.iter().sum();
            let mut had = vec![0u32; weights.len()];
            (0..2 * all).for_each(|_| had[rounds.next()] += 1);
            // A round that is entered in its middle ends in the middle of another.
            for (had, weight) in had.iter().zip(&weights) {
                prop_assert!(had.abs_diff(2 * weight) <= 1, "{had} of {weight}");
            }
        }
    }
}
