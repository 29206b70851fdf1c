//! A partition between the callers and one replica, or all of them, heals.

use std::time::Duration;

use selvage_policy::classify::Class;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{between, failed, ms, percentile};
use crate::mesh::{Mesh, Outcome, millis, retries, seconds};
use crate::server::{Mode, Plan};

const CALLERS: usize = 4;
const BREAKS: Duration = seconds(2);
const HEALS: Duration = seconds(14);
const END: Duration = seconds(18);

#[derive(Debug, Default)]
struct Figures {
    calls: usize,
    failed: usize,
    /// From when packets pass until the last proxy uses the replica again.
    back: Duration,
    p99: Duration,
}

fn figures(plan: &Plan, cut: usize) -> Figures {
    let mut sum = Figures::default();
    for seed in SEEDS {
        let mut plans = vec![Plan::default(); 3];
        plans[..cut].fill(plan.clone());
        let load = Load::steady(100.0);
        sum.judge(
            &Mesh::new(seed, &retries(), CALLERS, &plans).run(&load, END),
            cut,
        );
    }
    sum
}

impl Figures {
    fn judge(&mut self, outcome: &Outcome, cut: usize) {
        self.calls += outcome.calls.len();
        self.failed += failed(&outcome.calls);
        let meanwhile = between(&outcome.calls, BREAKS + seconds(1), HEALS);
        self.p99 = self.p99.max(percentile(&meanwhile, 99.0));
        for proxy in &outcome.proxies {
            for server in &outcome.servers[..cut] {
                let tries = proxy.watch.tries();
                let well = |a: &&crate::watch::Try| {
                    a.endpoint == server.address && a.at >= HEALS && a.class == Class::Success
                };
                let back = tries.iter().find(well).map_or(END, |a| a.at);
                self.back = self.back.max(back - HEALS);
            }
        }
    }

    fn print(&self, name: &str) {
        println!(
            "a partition of 12 s, {name}: {} calls, {} failed, p99 {} ms meanwhile; used again {} ms after it heals",
            self.calls,
            self.failed,
            ms(self.p99),
            ms(self.back)
        );
    }
}

/// Its connections are gone too, as after a restart of either side.
fn cut_and_connections_gone() -> Plan {
    let plan = Plan::default().during(Mode::Unreachable, BREAKS + millis(10), HEALS);
    Plan {
        schedule: [vec![(BREAKS, Mode::Refuses)], plan.schedule].concat(),
        ..plan
    }
}

fn cut() -> Plan {
    Plan::default().during(Mode::Unreachable, BREAKS, HEALS)
}

#[test]
fn the_same_seed_is_the_same_run() {
    let run = |seed| {
        let plans = [cut(), cut_and_connections_gone(), Plan::default()];
        let load = Load::steady(100.0);
        let outcome = Mesh::new(seed, &retries(), CALLERS, &plans).run(&load, END);
        let calls = outcome.calls.iter();
        calls
            .map(|call| (call.at, call.took, call.answer))
            .collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn of_one_replica_that_must_be_connected_to() {
    let figures = figures(&cut_and_connections_gone(), 1);
    figures.print("one of three, no connection left");
    assert_eq!(figures.failed, 0);
    assert!(figures.back <= millis(2500));
}

#[test]
fn of_all_replicas_that_must_be_connected_to() {
    let figures = figures(&cut_and_connections_gone(), 3);
    figures.print("all of three, no connection left");
    assert!(figures.back <= millis(2500));
}

#[test]
fn of_one_replica_with_its_connections() {
    let figures = figures(&cut(), 1);
    figures.print("one of three, connections stay");
    assert_eq!(figures.failed, 0);
    assert!(figures.back <= millis(2500));
}

#[test]
fn of_all_replicas_with_their_connections() {
    let figures = figures(&cut(), 3);
    figures.print("all of three, connections stay");
    assert!(figures.back <= millis(2500));
}
