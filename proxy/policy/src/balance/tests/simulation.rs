//! Ten replicas of which one is slow, in time that is only counted: what
//! callers wait for under each algorithm.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;
use crate::hash::hash;

/// Requests, and their mean distance: a tenth of them keeps the slow replica busy for 80 % of the time.
const REQUESTS: u64 = 40_000;
const EVERY_MICROS: f64 = 2_500.0;
/// What a replica takes for a request, one after the other.
const QUICK_MICROS: u64 = 2_000;
const SLOW_MICROS: u64 = 20_000;

fn micros(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// The 50th and the 99th percentile of what callers wait, in milliseconds.
fn waits(balancer: Balancer) -> (f64, f64) {
    let mut bench = Bench::by(balancer, &[(1, true); 10]);
    let start = bench.now;
    let mut free = [0u64; 10];
    let mut running: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
    let mut held: std::collections::HashMap<u64, Picked> = std::collections::HashMap::new();
    let (mut at, mut waits) = (0.0, Vec::new());
    for n in 0..REQUESTS {
        at -= bench.rng.f64().max(1e-9).ln() * EVERY_MICROS;
        let now = at as u64;
        while let Some(Reverse((end, id))) = running
            .peek()
            .copied()
            .filter(|Reverse((end, _))| *end <= now)
        {
            running.pop();
            bench.now = start + micros(end);
            let mut picked = held.remove(&id).expect("it runs");
            picked.in_flight.first_byte(bench.now);
            bench.succeed(picked.in_flight);
        }
        bench.now = start + micros(now);
        bench.key = Some(hash(&n.to_be_bytes()));
        let picked = bench.pick(&[], true).expect("an endpoint");
        let takes = if picked.index == 4 {
            SLOW_MICROS
        } else {
            QUICK_MICROS
        };
        let end = free[picked.index].max(now) + takes;
        free[picked.index] = end;
        running.push(Reverse((end, n)));
        held.insert(n, picked);
        waits.push(end - now);
    }
    waits.sort_unstable();
    let percentile = |of: usize| waits[waits.len() * of / 100] as f64 / 1000.0;
    (percentile(50), percentile(99))
}

#[test]
fn peak_ewma_keeps_away_from_the_slow_one() {
    let mut found = Vec::new();
    for balancer in algorithms::all() {
        let name = format!("{:?}", balancer.algorithm);
        let (p50, p99) = waits(balancer);
        println!(
            "{}: p50 {p50:.1} ms, p99 {p99:.1} ms",
            name.split([' ', '(']).next().unwrap_or_default()
        );
        found.push(p99);
    }
    let [ewma, _, rounds, ..] = found[..] else {
        panic!("all algorithms");
    };
    assert!(
        rounds >= 3.0 * ewma,
        "round robin {rounds} ms, peak EWMA {ewma} ms"
    );
}
