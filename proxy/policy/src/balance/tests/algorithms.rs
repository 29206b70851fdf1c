//! What each algorithm promises: even shares, exact weights, homes that stay,
//! bounded loads, and that who asked for it is left alone.

use super::*;
use crate::crowd::Spill;
use crate::hash::hash;
use crate::snapshot::{Algorithm, HashOn, Hashing};

fn hashing() -> Hashing {
    Hashing {
        on: vec![HashOn::SourceIp],
        bounded_load: Some(125),
    }
}

fn ring() -> Algorithm {
    Algorithm::RingHash {
        hashing: hashing(),
        virtual_nodes: 4096,
    }
}

pub(super) fn by(algorithm: Algorithm) -> Balancer {
    Balancer {
        algorithm,
        ..Balancer::default()
    }
}

/// Every algorithm, with nothing that bends it.
pub(super) fn all() -> Vec<Balancer> {
    [
        Algorithm::PeakEwma,
        Algorithm::LeastRequest,
        Algorithm::RoundRobin,
        Algorithm::Random,
        ring(),
        Algorithm::Maglev(hashing()),
    ]
    .map(by)
    .into()
}

pub(super) fn name(balancer: &Balancer) -> &'static str {
    match balancer.algorithm {
        Algorithm::PeakEwma => "peak-ewma",
        Algorithm::LeastRequest => "least-request",
        Algorithm::RoundRobin => "round-robin",
        Algorithm::Random => "random",
        Algorithm::RingHash { .. } => "ring-hash",
        Algorithm::Maglev(_) => "maglev",
    }
}

impl Bench {
    /// How `tries` tries of as many callers are shared, each answered before the next.
    fn shares_of_keys(&mut self, tries: usize) -> Vec<usize> {
        let mut shares = vec![0; self.states.len()];
        for n in 0..tries {
            self.key = Some(hash(format!("user-{n}").as_bytes()));
            shares[self.index(&[], true).expect("an endpoint")] += 1;
        }
        shares
    }

    fn throttle(&mut self, index: usize, retry_after: Option<Duration>) {
        let report = Report {
            class: Class::Throttled,
            could_not_connect: false,
            retry_after,
        };
        let mut asked = self.states[index].admit(self.now).expect("closed");
        asked.observe(&report, &BreakerPolicy::default(), self.now, &mut self.rng);
    }
}

/// The largest part by which a share is off what its weight asks for, of those with weight.
pub(super) fn off(shares: &[usize], weights: &[u32]) -> f64 {
    let tries: usize = shares.iter().sum();
    let all: u32 = weights.iter().sum();
    let off = |(share, weight): (&usize, &u32)| {
        let fair = tries as f64 * f64::from(*weight) / f64::from(all);
        (*share as f64 - fair).abs() / fair
    };
    let weighty = shares
        .iter()
        .zip(weights)
        .filter(|(_, weight)| **weight > 0);
    weighty.map(off).fold(0.0, f64::max)
}

#[test]
fn equal_endpoints_get_equal_shares() {
    for balancer in all() {
        let mut bench = Bench::by(balancer.clone(), &[(1, true); 10]);
        let shares = bench.shares_of_keys(100_000);
        let off = off(&shares, &[1; 10]);
        println!(
            "{}: shares of ten are at most {:.2} % off",
            name(&balancer),
            off * 100.0
        );
        assert!(off <= 0.05, "{}: {shares:?}", name(&balancer));
    }
}

#[test]
fn weights_are_respected() {
    let weights = [1, 2, 3, 4, 0, 5];
    for balancer in all() {
        let kinds = weights.map(|weight| (weight, true));
        let mut bench = Bench::by(balancer.clone(), &kinds);
        let shares = bench.shares_of_keys(150_000);
        let off = off(&shares, &weights);
        println!(
            "{}: weighted shares are at most {:.2} % off",
            name(&balancer),
            off * 100.0
        );
        assert!(
            off <= 0.05 && shares[4] == 0,
            "{}: {shares:?}",
            name(&balancer)
        );
    }
}

#[test]
fn rounds_are_exact_and_go_on_around_those_that_are_out() {
    let mut bench = Bench::by(
        by(Algorithm::RoundRobin),
        &[(5, true), (1, true), (2, true)],
    );
    for _ in 0..5 {
        bench.rotation = bench.another();
        let shares = bench.shares(800);
        // As it begins anywhere in a round, the last may be cut elsewhere.
        let exact = [500, 100, 200].iter().zip(&shares);
        assert!(
            exact.clone().all(|(want, had)| had.abs_diff(*want) <= 1),
            "{shares:?}"
        );
    }
    let mut bench = Bench::by(by(Algorithm::RoundRobin), &[(1, true); 4]);
    assert_eq!(bench.shares(400), [100; 4]);
    bench.break_for(1, seconds(60));
    let shares = bench.shares(300);
    assert_eq!(shares, [100, 0, 100, 100]);
}

#[test]
fn turns_are_kept_by_whoever_asks_and_drawn_for_where_nobody_does() {
    let mut bench = Bench::by(by(Algorithm::RoundRobin), &[(1, true); 4]);
    let mut shares = [0; 4];
    for _ in 0..4_000 {
        let picked = pick(&bench.rotation, &[], true, bench.now, &mut bench.rng).expect("one");
        shares[picked.index] += 1;
    }
    assert!(
        shares.iter().all(|share| (900..1_100).contains(share)),
        "{shares:?}"
    );
    assert_ne!(shares, [1_000; 4]);
}

#[test]
fn a_key_stays_and_goes_to_the_same_second_home() {
    for balancer in [by(ring()), by(Algorithm::Maglev(hashing()))] {
        let mut bench = Bench::by(balancer, &[(1, true); 5]);
        for n in 0..50u64 {
            bench.key = Some(hash(&n.to_be_bytes()));
            let home = bench.index(&[], true).expect("a home");
            assert_eq!(bench.index(&[], true), Some(home));
            let second = bench.index(&[home], true).expect("a second home");
            assert_ne!(second, home);
            assert_eq!(bench.index(&[home], true), Some(second));
        }
        let key = bench.key;
        let home = bench.index(&[], true).expect("a home");
        let second = bench.index(&[home], true);
        bench.break_for(home, seconds(60));
        assert_eq!(bench.index(&[], true), second);
        bench.key = None;
        let met: std::collections::HashSet<_> = (0..200).map(|_| bench.index(&[], true)).collect();
        assert_eq!(met.len(), 4, "without a key by chance");
        bench.key = key;
        bench.throttle(second.expect("one"), None);
        assert!(![Some(home), second].contains(&bench.index(&[], true)));
        bench.now += millis(1_100);
        assert_eq!(bench.index(&[], false), second);
    }
}

#[test]
fn one_key_cannot_sink_an_endpoint() {
    let mut bench = Bench::by(by(ring()), &[(1, true); 10]);
    bench.key = Some(7);
    let held: Vec<_> = (0..1_000)
        .filter_map(|_| bench.pick(&[], true).ok())
        .collect();
    let most = bench.states.iter().map(|state| state.pending()).max();
    println!("1000 requests of one key in flight at 10 endpoints: at most {most:?} at one");
    assert!(held.len() == 1_000 && most <= Some(126));
    assert!(bench.rotation.crowd().spilled(Spill::Load) > 0);
    drop(held);
    assert_eq!(bench.rotation.crowd().in_flight(), 0);
    let unbounded = Algorithm::Maglev(Hashing {
        bounded_load: None,
        ..hashing()
    });
    let mut bench = Bench::by(by(unbounded), &[(1, true); 10]);
    bench.key = Some(7);
    let held: Vec<_> = (0..100)
        .filter_map(|_| bench.pick(&[], true).ok())
        .collect();
    assert_eq!(
        bench.states.iter().map(|state| state.pending()).max(),
        Some(100)
    );
    drop(held);
}

proptest! {
    #[test]
    fn loads_are_bounded_whoever_calls(
        weights in proptest::collection::vec(1u32..4, 1..20),
        on_a_ring: bool,
        keys in 1u64..30,
        steps in proptest::collection::vec((any::<u64>(), any::<u8>()), 1..300),
    ) {
        let algorithm = if on_a_ring { ring() } else { Algorithm::Maglev(hashing()) };
        let kinds: Vec<_> = weights.iter().map(|weight| (*weight, true)).collect();
        let mut bench = Bench::by(by(algorithm), &kinds);
        let all: u32 = weights.iter().sum();
        let mut held: Vec<Picked> = Vec::new();
        for (key, dice) in steps {
            if dice < 80 && !held.is_empty() {
                held.swap_remove(key as usize % held.len());
            }
            bench.key = Some(hash(&(key % keys).to_be_bytes()));
            held.push(bench.pick(&[], true).expect("an endpoint"));
            let picked = held.last().expect("just pushed").index;
            let mean = held.len() as f64 * f64::from(weights[picked]) / f64::from(all);
            let pending = f64::from(bench.states[picked].pending());
            prop_assert!(pending < 1.25 * mean + 1.0, "{pending} where {mean} is the mean");
        }
        drop(held);
        prop_assert_eq!(bench.rotation.crowd().in_flight(), 0);
    }
}

#[test]
fn what_asked_to_be_left_alone_is() {
    for balancer in all() {
        let mut bench = Bench::by(balancer.clone(), &[(1, true); 4]);
        bench.throttle(2, Some(seconds(5)));
        let shares = bench.shares_of_keys(400);
        assert_eq!(shares[2], 0, "{}: {shares:?}", name(&balancer));
        (0..4).for_each(|index| bench.throttle(index, Some(seconds(5))));
        let shares = bench.shares_of_keys(400);
        assert_eq!(shares.iter().sum::<usize>(), 400, "somebody has to");
        bench.now += seconds(60);
        let shares = bench.shares_of_keys(4_000);
        assert!(shares[2] > 800, "{}: {shares:?}", name(&balancer));
    }
}

#[test]
fn the_longer_queue_gets_less() {
    let mut bench = Bench::by(by(Algorithm::LeastRequest), &[(1, true), (1, true)]);
    let waiting = bench.states[0].admit(bench.now).expect("closed");
    assert_eq!(bench.shares(100), [0, 100]);
    drop(waiting);
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(bench.pick(&[], true));
    }
    let pending: Vec<_> = bench.states.iter().map(|state| state.pending()).collect();
    assert!(
        pending.iter().all(|n| (148..=152).contains(n)),
        "{pending:?}"
    );
}
