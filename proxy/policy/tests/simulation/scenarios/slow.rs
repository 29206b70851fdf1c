//! One of ten replicas is slow: peak EWMA finds it out without a breaker, and
//! spreads the load over the others.

use std::time::Duration;

use selvage_policy::snapshot::TrafficPolicy;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{between, failed, ms, percentile};
use crate::mesh::{Mesh, millis, seconds};
use crate::server::{Mode, Plan};

const CALLERS: usize = 3;
const SLOWS: Duration = seconds(2);
const HEALS: Duration = seconds(7);
const END: Duration = seconds(34);

#[test]
fn one_of_ten() {
    let (mut calls, mut failures) = (0, 0);
    let (mut healthy, mut meanwhile) = (Duration::ZERO, Duration::ZERO);
    let (mut least, mut most, mut slow, mut back) = (f64::MAX, 0.0_f64, 0.0_f64, f64::MAX);
    for seed in SEEDS {
        let mut plans = vec![Plan::default(); 10];
        plans[4] = Plan::default().during(Mode::Slow(10.0), SLOWS, HEALS);
        let outcome = Mesh::new(seed, &TrafficPolicy::default(), CALLERS, &plans)
            .run(&Load::steady(80.0), END);
        calls += outcome.calls.len();
        failures += failed(&outcome.calls);
        let p99 = |from, to| percentile(&between(&outcome.calls, from, to), 99.0);
        healthy = healthy.max(p99(seconds(1), SLOWS));
        meanwhile = meanwhile.max(p99(SLOWS + millis(500), HEALS));
        let share = |server: usize, from: Duration, to: Duration| {
            let seen = outcome.servers[server].seen();
            let within = seen.iter().filter(|seen| seen.at >= from && seen.at < to);
            within.count() as f64 / between(&outcome.calls, from, to).len() as f64
        };
        for server in (0..10).filter(|server| *server != 4) {
            let share = share(server, SLOWS + seconds(1), HEALS);
            (least, most) = (least.min(share), most.max(share));
        }
        slow = slow.max(share(4, SLOWS + seconds(1), HEALS));
        back = back.min(share(4, END - seconds(7), END));
    }
    println!(
        "one of ten is ten times slower: {calls} calls, {failures} failed; p99 {} ms healthy, {} ms meanwhile; \
         it bears {:.1} %, the others {:.1} to {:.1} %; 20 s after it is well {:.1} %",
        ms(healthy),
        ms(meanwhile),
        slow * 100.0,
        least * 100.0,
        most * 100.0,
        back * 100.0,
    );
    assert_eq!(failures, 0);
    assert!(meanwhile <= healthy.mul_f64(1.5));
    assert!(slow <= 0.02);
    assert!(least >= 0.05 && most <= 0.18);
    assert!(back >= 0.05);
}
