//! A replica that is well and broken by turns.

use std::time::Duration;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{failed, ms, percentile};
use crate::mesh::{Mesh, millis, retries, seconds};
use crate::server::{Mode, Plan};

const END: Duration = seconds(18);

#[derive(Debug, Default)]
struct Figures {
    calls: usize,
    failed: usize,
    /// Of what the replica was sent while it was broken, for each flap and caller.
    wasted: f64,
    p99: Duration,
}

fn figures(mode: Mode, post_percent: u32) -> Figures {
    let mut sum = Figures::default();
    let flaps: Vec<_> = (1..4).map(|n| seconds(4 * n)).collect();
    for seed in SEEDS {
        let flapping = flaps.iter().fold(Plan::default(), |plan, at| {
            plan.during(mode, *at, *at + seconds(2))
        });
        let plans = [Plan::default(), flapping, Plan::default()];
        let load = Load {
            post_percent,
            ..Load::steady(100.0)
        };
        let outcome = Mesh::new(seed, &retries(), 4, &plans).run(&load, END);
        sum.calls += outcome.calls.len();
        sum.failed += failed(&outcome.calls);
        sum.p99 = sum.p99.max(percentile(&outcome.calls, 99.0));
        let replica = outcome.servers[1].address;
        let tries = outcome.proxies.iter().map(|proxy| {
            let tries = proxy.watch.tries();
            let wasted = tries
                .iter()
                .filter(|a| a.endpoint == replica && a.class.is_failure());
            wasted.count()
        });
        let wasted: usize = tries.sum();
        sum.wasted += wasted as f64 / (flaps.len() * 4 * SEEDS.count()) as f64;
    }
    sum
}

impl Figures {
    fn print(&self, name: &str) {
        println!(
            "a replica of three flaps, {name}: {} calls, {} failed, p99 {} ms; {:.1} tries wasted by each caller each time",
            self.calls,
            self.failed,
            ms(self.p99),
            self.wasted
        );
    }
}

#[test]
fn requests_that_may_be_retried_do_not_notice() {
    for (mode, name) in [
        (Mode::Refuses, "refuses"),
        (
            Mode::Answers {
                status: 503,
                percent: 100,
            },
            "answers 503",
        ),
    ] {
        let figures = figures(mode, 0);
        figures.print(name);
        assert_eq!(figures.failed, 0);
        assert!(figures.p99 <= millis(70));
    }
}

#[test]
fn requests_that_may_not_fail_seldom() {
    let figures = figures(
        Mode::Answers {
            status: 503,
            percent: 100,
        },
        100,
    );
    figures.print("answers 503 to POST");
    assert!(figures.wasted <= 5.0, "five open it");
}
