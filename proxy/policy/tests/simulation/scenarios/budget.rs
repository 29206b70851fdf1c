//! A service that fails at random while its load falls to a tenth: what the
//! budget grants is of the load of ten seconds, which others never see so.

use std::time::Duration;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{between, failed};
use crate::mesh::{Mesh, retries, seconds};
use crate::server::{Mode, Plan};

const FALLS: Duration = seconds(12);
const END: Duration = seconds(36);

#[test]
fn follows_the_load_within_its_interval() {
    let (mut before, mut after, mut sent, mut refused) = (0.0_f64, 0.0_f64, 0, 0);
    let mut lost = 0;
    for seed in SEEDS {
        let fails = Mode::Answers {
            status: 503,
            percent: 60,
        };
        let plan = Plan {
            schedule: vec![(Duration::ZERO, fails)],
            ..Plan::default()
        };
        let load = Load {
            rates: vec![(Duration::ZERO, 500.0), (FALLS, 50.0)],
            ..Load::steady(0.0)
        };
        let mut policy = retries();
        policy.breaker.consecutive_failures = 0;
        policy.breaker.success_rate = None;
        let outcome = Mesh::new(seed, &policy, 1, &vec![plan; 3]).run(&load, END);
        let ratio = |from: Duration, to: Duration| {
            let calls = between(&outcome.calls, from, to);
            let tries: u32 = calls.iter().map(|call| call.answer.tries).sum();
            f64::from(tries) / calls.len() as f64
        };
        before = before.max(ratio(FALLS - seconds(8), FALLS));
        after = after.max(ratio(FALLS + seconds(11), END));
        sent += outcome.proxies[0].watch.retried();
        refused += outcome.proxies[0].watch.out_of_budget();
        lost += failed(&outcome.calls);
    }
    println!(
        "load falls to a tenth: {before:.2} tries a call before, {after:.2} after the interval; \
         {sent} retries sent, {refused} refused, {lost} calls failed"
    );
    assert!(before <= 1.2 + 0.02);
    assert!(after <= 1.2 + 1.0 / 50.0 + 0.02);
    assert!(refused > 0);
}
