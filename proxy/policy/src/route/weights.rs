//! Which backend of a rule takes the next request, by weight.
//!
//! Smooth weighted round robin, as nginx has it: each backend has a running
//! sum; a turn adds its weight to each, the largest sum is next and pays the
//! total. Light backends are spread out instead of coming in a row, which the
//! schedule by deadlines of `rounds` does where many are alike light; a draw
//! by chance would be 3 % off over 1,000 requests. It costs a look at every
//! backend of the rule, of which there are few.
//!
//! Each worker keeps its own turns, and begins somewhere within a round, so
//! that several workers, or proxies that start together, do not all begin with
//! the same backend. It knows no endpoints; a backend that cannot be used
//! takes its turns as the others do.

/// Whose turn it is, of one rule, for one worker.
#[derive(Debug)]
pub struct Turns {
    seats: Box<[Seat]>,
    /// All weights.
    total: i64,
}

#[derive(Debug)]
struct Seat {
    weight: i64,
    /// What it is owed; over all seats 0 between two turns.
    sum: i64,
}

impl Turns {
    /// Begins somewhere within a round.
    #[must_use]
    pub fn begin(weights: impl Iterator<Item = u32>, rng: &mut fastrand::Rng) -> Self {
        let seat = |weight| Seat {
            weight: i64::from(weight),
            sum: 0,
        };
        let mut seats: Box<[Seat]> = weights.map(seat).collect();
        let total = seats.iter().map(|seat| seat.weight).sum();
        if total > 0 {
            skip(&mut seats, total, rng.i64(0..total));
        }
        Self { seats, total }
    }

    /// The index of the backend that is next; `None` where none has any weight.
    pub fn take(&mut self) -> Option<usize> {
        let mut next = None;
        let mut most = i64::MIN;
        for (index, seat) in self.seats.iter_mut().enumerate() {
            seat.sum += seat.weight;
            if seat.weight > 0 && seat.sum > most {
                (next, most) = (Some(index), seat.sum);
            }
        }
        self.seats[next?].sum -= self.total;
        next
    }
}

/// As if `turns` of a round were over: each had its share of them, rounded
/// down, and those with the largest remainders had what is left.
fn skip(seats: &mut [Seat], total: i64, turns: i64) {
    let mut left = 0;
    for seat in &mut *seats {
        let owed = i128::from(seat.weight) * i128::from(turns) % i128::from(total);
        // Less than `total`.
        seat.sum = owed as i64;
        left += seat.sum;
    }
    // The remainders add up to whole turns, fewer than there are seats.
    for _ in 0..left / total {
        // Of equals the first, as turns go.
        if let Some(seat) = seats.iter_mut().rev().max_by_key(|seat| seat.sum) {
            seat.sum -= total;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::seeded;

    fn counts(turns: &mut Turns, seats: usize, requests: usize) -> Vec<usize> {
        let mut counts = vec![0; seats];
        for _ in 0..requests {
            counts[turns.take().expect("somebody's turn")] += 1;
        }
        counts
    }

    fn begun(weights: &[u32], seed: u64) -> Turns {
        Turns::begin(weights.iter().copied(), &mut fastrand::Rng::with_seed(seed))
    }

    #[test]
    fn the_light_ones_are_spread() {
        let order = |weights: &[u32], turns: usize| {
            let mut it = begun(weights, 1);
            it.seats.iter_mut().for_each(|seat| seat.sum = 0);
            (0..turns)
                .map(|_| it.take().expect("a turn"))
                .collect::<Vec<_>>()
        };
        assert_eq!(order(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(order(&[1, 0, 1], 4), [0, 2, 0, 2]);
        assert_eq!(order(&[9], 2), [0, 0]);
    }

    #[test]
    fn nobody_without_weight() {
        for weights in [&[][..], &[0], &[0, 0]] {
            let mut turns = begun(weights, 3);
            assert_eq!((turns.take(), turns.take()), (None, None));
        }
    }

    #[test]
    fn many_light_ones_do_not_come_in_a_row() {
        let weights: Vec<u32> = std::iter::once(1_000_000)
            .chain(std::iter::repeat_n(1, 15))
            .collect();
        for seed in 0..50 {
            let had = counts(&mut begun(&weights, seed), weights.len(), 1_000);
            assert!(had[0] >= 990, "{had:?}");
        }
    }

    #[test]
    fn workers_do_not_all_begin_alike() {
        let mut rng = seeded();
        let first: Vec<_> = (0..40)
            .map(|_| Turns::begin([1, 1].into_iter(), &mut rng).take())
            .collect();
        assert!(first.contains(&Some(0)) && first.contains(&Some(1)));
    }

    proptest! {
        #[test]
        fn a_thousand_requests_are_at_most_one_percent_off(
            weights in proptest::collection::vec(prop_oneof![Just(0u32), 1u32..10, 1u32..=1_000_000, Just(1_000_000)], 1..=16),
            seeds: (u64, u64),
            before in 0usize..500,
            first in 0usize..=1_000,
        ) {
            let total: f64 = weights.iter().copied().map(f64::from).sum();
            prop_assume!(total > 0.0);
            // Two workers share the requests in any proportion.
            let (mut one, mut other) = (begun(&weights, seeds.0), begun(&weights, seeds.1));
            counts(&mut one, weights.len(), before);
            let ones = counts(&mut one, weights.len(), first);
            let others = counts(&mut other, weights.len(), 1_000 - first);
            for ((weight, one), other) in weights.iter().zip(ones).zip(others) {
                let expected = 1_000.0 * f64::from(*weight) / total;
                let had = (one + other) as f64;
                prop_assert!((had - expected).abs() <= 10.0, "{had} instead of {expected}");
                prop_assert!(*weight > 0 || had == 0.0);
            }
        }

        #[test]
        fn a_round_is_exact_wherever_it_begins(
            weights in proptest::collection::vec(0u32..40, 1..8), seed: u64, before in 0usize..50,
        ) {
            let total: u32 = weights.iter().sum();
            prop_assume!(total > 0);
            let mut turns = begun(&weights, seed);
            counts(&mut turns, weights.len(), before);
            for (had, weight) in counts(&mut turns, weights.len(), 4 * total as usize).iter().zip(&weights) {
                prop_assert!(had.abs_diff(4 * *weight as usize) <= 4, "{had} of 4 × {weight}");
            }
            let owed: i64 = turns.seats.iter().map(|seat| seat.sum).sum();
            prop_assert_eq!(owed, 0);
        }
    }
}
