//! The estimate against exact quantiles, and how it forgets.

use proptest::prelude::*;

use super::*;
use crate::testing::{millis, seconds, start};

fn exact(latencies: &[u64], percent: u8) -> u64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    sorted[(sorted.len() * usize::from(percent)).div_ceil(100) - 1]
}

#[test]
fn says_nothing_before_it_has_seen_enough() {
    let start = start();
    let quantile = Quantile::new(start);
    for _ in 0..48 {
        quantile.sample(millis(7), 95, start);
        assert_eq!(quantile.estimate(), None);
    }
    (0..16).for_each(|_| quantile.sample(millis(7), 95, start));
    let estimate = quantile.estimate().expect("64 samples");
    assert!(
        estimate > millis(7) && estimate <= millis(7) * 17 / 16,
        "{estimate:?}"
    );
}

#[test]
fn buckets_leave_no_gap_and_do_not_overlap() {
    for micros in (0..100_000).chain((0..27).map(|bits| 1 << bits)) {
        let at = bucket(Duration::from_micros(micros));
        let below = at.checked_sub(1).map_or(0, upper_edge);
        assert!(
            (below..upper_edge(at)).contains(&micros),
            "{micros} in {at}"
        );
    }
    assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    assert_eq!(upper_edge(BUCKETS - 1), LARGEST + 1);
}

#[test]
fn follows_a_change_within_two_thousand_requests() {
    let start = start();
    let quantile = Quantile::new(start);
    let take = |from: u64, count: u64, latency| {
        for n in 0..count {
            quantile.sample(latency, 95, start + millis(10 * (from + n)));
        }
    };
    take(0, 5000, millis(5));
    take(5000, 2000, millis(80));
    let slower = quantile.estimate().expect("samples");
    assert!(slower > millis(80), "{slower:?}");
    take(7000, 5000, millis(5));
    let again = quantile.estimate().expect("samples");
    assert!(again < millis(6), "{again:?}");
}

#[test]
fn forgets_at_most_once_a_second_and_at_least_once_a_minute() {
    let start = start();
    let held = |quantile: &Quantile| -> u32 {
        quantile
            .counts
            .iter()
            .map(|count| count.load(Relaxed))
            .sum()
    };
    let busy = Quantile::new(start);
    (0..16_000).for_each(|_| busy.sample(millis(1), 95, start + millis(999)));
    assert_eq!(held(&busy), 16_000);
    (0..16).for_each(|_| busy.sample(millis(1), 95, start + seconds(1)));
    assert_eq!(held(&busy), 8008);
    let quiet = Quantile::new(start);
    (0..64).for_each(|_| quiet.sample(millis(1), 95, start));
    (0..16).for_each(|_| quiet.sample(millis(1), 95, start + seconds(60)));
    assert_eq!(held(&quiet), 40);
}

#[test]
fn workers_that_count_and_fade_at_once_lose_nothing_below_zero() {
    let start = start();
    let quantile = Quantile::new(start);
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let quantile = &quantile;
            scope.spawn(move || {
                for n in 0..50_000 {
                    let latency = Duration::from_micros(1000 + (n * 7 + worker) % 500);
                    quantile.sample(latency, 95, start + millis(n));
                }
            });
        }
    });
    let all = quantile
        .counts
        .iter()
        .map(|count| u64::from(count.load(Relaxed)));
    assert!(all.sum::<u64>() <= 200_000, "a count went below zero");
    let estimate = quantile.estimate().expect("samples").as_micros();
    assert!((1475..=1600).contains(&estimate), "{estimate}");
}

proptest! {
    #[test]
    fn is_never_below_the_exact_quantile_and_at_most_a_sixteenth_above(
        blocks in prop::collection::vec([1..50_000_000_u64, 1..5_000, 1..200_000, 1..100], 20..200),
        percent in 50..=99_u8,
    ) {
        // Sixteen at a time: the estimate is then of all of them.
        let latencies: Vec<u64> = blocks.iter().flatten().copied().collect();
        let latencies = &latencies[..latencies.len() / 16 * 16];
        let start = start();
        let quantile = Quantile::new(start);
        for latency in latencies {
            quantile.sample(Duration::from_micros(*latency), percent, start);
        }
        let exact = exact(latencies, percent);
        let estimate = quantile.estimate().expect("at least 80 samples").as_micros() as u64;
        prop_assert!(estimate > exact && estimate <= exact + exact / 16 + 1, "{estimate} for {exact}");
    }
}
