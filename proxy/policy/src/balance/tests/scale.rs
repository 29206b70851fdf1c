//! What a pick costs where endpoints are many, counted in looks at one of
//! them, and that it stays fair.

use super::*;
use crate::testing::looks;

const MANY: usize = 10_000;

/// `MANY` endpoints, those broken for a minute that `is_broken` says.
fn many(weight: impl Fn(usize) -> u32, is_broken: impl Fn(usize) -> bool) -> Bench {
    let kinds: Vec<_> = (0..MANY).map(|index| (weight(index), true)).collect();
    let mut bench = Bench::new(&kinds);
    for index in (0..MANY).filter(|index| is_broken(*index)) {
        bench.break_for(index, seconds(120));
    }
    bench
}

/// The mean and the most looks of a pick, of 2,000 that each hold on.
fn cost(bench: &mut Bench, tried: &[usize]) -> (usize, usize) {
    looks();
    let (mut held, mut each) = (Vec::new(), Vec::new());
    for _ in 0..2_000 {
        held.push(bench.pick(tried, true));
        each.push(looks());
    }
    let most = each.iter().max().expect("some picks");
    (each.iter().sum::<usize>() / each.len(), *most)
}

#[test]
fn a_pick_looks_at_few_of_many() {
    let even = |_| 1;
    // (weights, broken, mean, most)
    type Case = (&'static str, Bench, usize, usize);
    let table: [Case; 8] = [
        ("all closed", many(even, |_| false), 1, 1),
        ("by weight", many(|n| 1 + n as u32 % 7, |_| false), 1, 1),
        ("one open", many(even, |n| n == 77), 1, 1),
        ("half open", many(even, |n| n % 2 == 0), 1, 1),
        ("nine of ten open", many(even, |n| n % 10 != 0), 50, 3_100),
        ("the worst share", many(even, |n| n % 40 != 0), 500, 800),
        ("one closed", many(even, |n| n != 4_321), 4, 4),
        ("all open", many(even, |_| true), 0, 0),
    ];
    for (case, mut bench, mean, most) in table {
        let found = cost(&mut bench, &[]);
        assert!(found.0 <= mean && found.1 <= most, "{case}: {found:?}");
    }
}

#[test]
fn tried_ones_cost_no_more() {
    let mut bench = many(|_| 1, |n| n % 2 == 0);
    let tried = [1, 3, 5, 7, 9, 11, 13, 15];
    assert_eq!(cost(&mut bench, &tried), (1, 1));
    let mut bench = many(|_| 1, |n| n != 4_321);
    assert!(cost(&mut bench, &[4_321]).1 <= 8, "taken again");
}

#[test]
fn probes_are_found_without_looking_for_them() {
    let mut bench = many(|_| 1, |n| n % 2 == 0);
    bench.now += seconds(120);
    looks();
    let mut held = Vec::new();
    for _ in 0..MANY / 2 {
        let picked = bench.pick(&[], true).expect("a probe");
        assert!(picked.in_flight.is_probe());
        held.push(picked);
    }
    assert_eq!(looks(), 0);
    assert!(!bench.pick(&[], true).expect("closed").in_flight.is_probe());
}

#[test]
fn what_the_registry_calls_ill_is_not_looked_at() {
    let kinds: Vec<_> = (0..MANY).map(|n| (1, n % 2 == 0)).collect();
    let mut bench = Bench::new(&kinds);
    (0..MANY).for_each(|index| bench.break_for(index, seconds(1)));
    bench.now += seconds(1);
    looks();
    for _ in 0..MANY / 2 {
        std::mem::forget(bench.pick(&[], false));
    }
    assert_eq!(looks(), 0);
}

#[test]
fn the_only_healthy_one_is_found() {
    for last in [0, 63, 64, 4_321, MANY - 1] {
        let mut bench = many(|_| 1, |n| n != last);
        for retryable in [true, false] {
            assert_eq!(bench.index(&[], retryable), Some(last));
            assert_eq!(bench.index(&[last], retryable), Some(last));
        }
    }
}

#[test]
fn shares_are_within_five_per_cent() {
    let table: [(&[u32], &[usize]); 5] = [
        (&[1; 10], &[]),
        (&[1; 20], &[0, 3, 4, 5, 11, 12, 13, 14, 18, 19]),
        (&[2, 1, 3, 4, 5, 5], &[]),
        (&[2, 1, 3, 4, 5, 5, 2, 1, 2, 1, 1, 1], &[5, 9]),
        (&[1, 1, 1, 1, 1, 1, 1, 1, 1, 100], &[9]),
    ];
    for (weights, broken) in table {
        let kinds: Vec<_> = weights.iter().map(|weight| (*weight, true)).collect();
        let mut bench = Bench::new(&kinds);
        for index in broken {
            bench.break_for(*index, seconds(60));
        }
        let tries = 100_000;
        let shares = bench.shares(tries);
        let in_rotation = |index: &usize| !broken.contains(index);
        let all: u32 = (0..weights.len())
            .filter(in_rotation)
            .map(|i| weights[i])
            .sum();
        for index in 0..weights.len() {
            let weight = if in_rotation(&index) {
                weights[index]
            } else {
                0
            };
            let fair = tries as f64 * f64::from(weight) / f64::from(all);
            let off = (shares[index] as f64 - fair).abs();
            assert!(off <= fair * 0.05, "{weights:?} {broken:?}: {shares:?}");
        }
    }
}
