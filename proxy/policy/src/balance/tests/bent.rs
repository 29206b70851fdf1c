//! What bends a choice: slow starts, and the caller's zone first.

use std::collections::BTreeMap;

use super::algorithms::{by, name, off};
use super::*;
use crate::crowd::Spill;
use crate::snapshot::{Algorithm, Locality, SlowStart, ZONE_LABEL};

impl Bench {
    /// The same endpoints after a while, in which nothing happened.
    fn later(&self, passed: Duration) -> Self {
        Self {
            endpoints: self.endpoints.clone(),
            states: self.states.clone(),
            rotation: Arc::clone(&self.rotation),
            balancer: self.balancer.clone(),
            turns: Turns::default(),
            key: None,
            now: self.now + passed,
            rng: seeded(),
        }
    }
}

fn slow(algorithm: Algorithm) -> Balancer {
    Balancer {
        slow_start: Some(SlowStart {
            window: seconds(10),
            aggression: 1.0,
            min_weight_percent: 10,
        }),
        ..by(algorithm)
    }
}

#[test]
fn who_came_back_gets_its_share_little_by_little() {
    let algorithms = [
        Algorithm::PeakEwma,
        Algorithm::LeastRequest,
        Algorithm::RoundRobin,
        Algorithm::Random,
    ];
    for algorithm in algorithms {
        let balancer = slow(algorithm);
        let mut bench = Bench::by(
            balancer.clone(),
            &[(1, true), (1, true), (1, true), (1, true)],
        );
        let share = |bench: &mut Bench| bench.shares(20_000)[3] as f64 / 20_000.0;
        let before = share(&mut bench);
        assert!(
            (before - 0.25).abs() < 0.02,
            "all were there from the start: {before}"
        );
        bench.states[3].warm_up(bench.now);
        // (second, part of its weight)
        for (second, part) in [(0, 0.1), (1, 0.1), (4, 0.4), (8, 0.8), (10, 1.0)] {
            let mut then = bench.later(seconds(second));
            let (found, fair) = (share(&mut then), part / (3.0 + part));
            println!(
                "{} after {second} s: {:.1} % of requests, {:.1} % by weight",
                name(&balancer),
                found * 100.0,
                fair * 100.0
            );
            assert!(
                (found - fair).abs() < 0.025,
                "{} {second}: {found} {fair}",
                name(&balancer)
            );
        }
    }
}

#[test]
fn a_breaker_that_closes_and_health_that_returns_begin_slowly() {
    let mut bench = Bench::by(slow(Algorithm::Random), &[(1, true), (1, true)]);
    let policy = bench.balancer.slow_start.expect("slow start");
    bench.break_endpoint(0);
    bench.now += seconds(2);
    let probe = bench.pick(&[], true).expect("a probe");
    assert!(bench.succeed(probe.in_flight).is_some());
    assert!((bench.states[0].warmth(&policy, bench.now) - 0.1).abs() < 1e-6);
    assert!((bench.rotation.share_of(&bench.states[1], bench.now) - 1.0).abs() < 1e-6);
    bench.now += seconds(20);
    assert!((bench.rotation.share_of(&bench.states[0], bench.now) - 1.0).abs() < 1e-6);
    let healthy = bench.endpoints.clone();
    bench.endpoints[1] = endpoint(1, 1, false);
    bench.rotation = bench.another();
    assert_eq!(bench.shares(10), [10, 0]);
    bench.endpoints = healthy;
    bench.rotation = bench.another();
    let shares = bench.shares(1_000);
    assert!((50..150).contains(&shares[1]), "{shares:?}");
}

#[test]
fn all_that_warm_up_alike_share_alike() {
    for algorithm in [
        Algorithm::PeakEwma,
        Algorithm::RoundRobin,
        Algorithm::Random,
    ] {
        let mut bench = Bench::by(slow(algorithm), &[(1, true); 3]);
        for state in &bench.states {
            state.warm_up(bench.now);
        }
        assert!(off(&bench.shares(30_000), &[1; 3]) < 0.05);
    }
}

fn zoned(n: u16, zone: Option<&str>, healthy: bool) -> Arc<Endpoint> {
    let plain = endpoint(n, 1, healthy);
    let label = zone.map(|zone| (ZONE_LABEL.to_owned(), zone.to_owned()));
    Arc::new(Endpoint {
        key: plain.key.clone(),
        id: Arc::clone(&plain.id),
        weight: 1,
        labels: BTreeMap::from_iter(label),
        healthy,
    })
}

#[test]
fn the_callers_zone_comes_first_while_enough_of_it_is_healthy() {
    // Of ten in the zone: those withheld by the registry, those open; the share that stays.
    let table = [
        (0, 0, 100),
        (3, 0, 100),
        (0, 3, 100),
        (1, 3, 86),
        (5, 0, 71),
        (4, 5, 14),
        (0, 10, 0),
        (10, 0, 0),
    ];
    for algorithm in [
        Algorithm::PeakEwma,
        Algorithm::LeastRequest,
        Algorithm::RoundRobin,
        Algorithm::Random,
    ] {
        for (withheld, open, expected) in table {
            let balancer = Balancer {
                locality: Some(Locality {
                    min_healthy_percent: 70,
                }),
                ..by(algorithm.clone())
            };
            let here = (0..10).map(|n| zoned(n, Some("here"), n >= withheld));
            let there = (10..15)
                .map(|n| zoned(n, Some("there"), true))
                .chain([zoned(15, None, true)]);
            // Those of the zone need not be the first.
            let mut bench = Bench::of(balancer.clone(), there.chain(here).collect());
            for index in (0..open).map(|n| 6 + usize::from(withheld) + n) {
                bench.break_for(index, seconds(600));
            }
            let shares = bench.shares(10_000);
            let stayed = shares[6..].iter().sum::<usize>() as f64 / 100.0;
            assert!(
                (stayed - f64::from(expected)).abs() < 2.0,
                "{} {withheld} {open}: {stayed} % of {expected} %",
                name(&balancer)
            );
            let spilled = bench.rotation.crowd().spilled(Spill::Zone);
            assert_eq!(
                spilled > 0,
                (1..100).contains(&expected) || open == 10,
                "{spilled}"
            );
            let evenly = |of: &[usize]| {
                let busy: Vec<_> = of.iter().filter(|share| **share > 0).collect();
                let (least, most) = (busy.iter().min(), busy.iter().max());
                least
                    .zip(most)
                    .is_none_or(|(least, most)| **least * 2 > **most)
            };
            assert!(evenly(&shares[..6]) && evenly(&shares[6..]), "{shares:?}");
        }
    }
}

#[test]
fn a_retry_leaves_the_zone_rather_than_go_back() {
    let balancer = Balancer {
        locality: Some(Locality {
            min_healthy_percent: 70,
        }),
        ..Balancer::default()
    };
    let endpoints = vec![zoned(0, Some("here"), true), zoned(1, Some("there"), true)];
    let mut bench = Bench::of(balancer, endpoints);
    assert_eq!(bench.shares(50), [50, 0]);
    assert_eq!(bench.index(&[0], true), Some(1));
    assert!(bench.index(&[0, 1], true).is_some());
}

#[test]
fn without_a_zone_all_are_alike() {
    let balancer = Balancer {
        locality: Some(Locality {
            min_healthy_percent: 70,
        }),
        ..Balancer::default()
    };
    for zones in [[Some("there"); 2], [Some("here"); 2], [None; 2]] {
        let endpoints = vec![zoned(0, zones[0], true), zoned(1, zones[1], true)];
        let mut bench = Bench::of(balancer.clone(), endpoints);
        assert!(off(&bench.shares(10_000), &[1; 2]) < 0.05, "{zones:?}");
    }
}
