//! Six of ten endpoints fail together, as where they share a zone.

use std::time::Duration;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{between, failed, ms, percentile};
use crate::mesh::{Mesh, retries, seconds};
use crate::server::{Mode, Plan};

const BREAKS: Duration = seconds(2);
const HEALS: Duration = seconds(8);
const END: Duration = seconds(12);

#[derive(Debug)]
struct Figures {
    calls: usize,
    /// Of those in the first second.
    first: usize,
    /// Of those after it.
    later: usize,
    healthy: Duration,
    p99: Duration,
}

impl Figures {
    fn assert(&self) {
        assert_eq!(self.later, 0);
        // Three tries that all go to the six: until five failures have opened each.
        assert!(self.first * 500 <= self.calls);
    }
}

fn figures(mode: Mode, name: &str) -> Figures {
    let (mut calls, mut first, mut later, mut budget) = (0, 0, 0, 0);
    let (mut healthy, mut p99) = (Duration::ZERO, Duration::ZERO);
    for seed in SEEDS {
        let mut plans = vec![Plan::default(); 10];
        plans[..6].fill(Plan::default().during(mode, BREAKS, HEALS));
        let outcome = Mesh::new(seed, &retries(), 4, &plans).run(&Load::steady(100.0), END);
        calls += outcome.calls.len();
        first += failed(&between(&outcome.calls, BREAKS, BREAKS + seconds(1)));
        later += failed(&between(&outcome.calls, BREAKS + seconds(1), END));
        let proxies = outcome.proxies.iter();
        budget += proxies
            .map(|proxy| proxy.watch.out_of_budget())
            .sum::<usize>();
        healthy = healthy.max(percentile(
            &between(&outcome.calls, seconds(1), BREAKS),
            99.0,
        ));
        let meanwhile = between(&outcome.calls, BREAKS + seconds(1), HEALS);
        p99 = p99.max(percentile(&meanwhile, 99.0));
    }
    println!(
        "six of ten {name}: {calls} calls, {first} failed in the first second, {later} later, \
         {budget} retries refused by the budget; p99 {} ms healthy, {} ms after a second",
        ms(healthy),
        ms(p99),
    );
    Figures {
        calls,
        first,
        later,
        healthy,
        p99,
    }
}

#[test]
fn refuse() {
    let figures = figures(Mode::Refuses, "refuse");
    figures.assert();
    assert!(figures.p99 <= figures.healthy.mul_f64(1.5));
}

#[test]
fn answer_503() {
    let mode = Mode::Answers {
        status: 503,
        percent: 100,
    };
    let figures = figures(mode, "answer 503");
    figures.assert();
    assert!(figures.p99 <= figures.healthy.mul_f64(1.5));
}

#[test]
fn hang() {
    let figures = figures(Mode::Hangs, "hang");
    figures.assert();
    // While five tries run out at each, some calls wait for one or two of them.
    assert!(figures.p99 <= seconds(1));
}
