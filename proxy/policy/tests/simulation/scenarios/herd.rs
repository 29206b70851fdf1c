//! All replicas were down for long and come back together: the first that a
//! caller finds well must not be overrun, nor the others be left out for long.

use std::time::Duration;

use selvage_policy::classify::Class;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{between, failed, ms};
use crate::mesh::{Mesh, Outcome, millis, retries, seconds};
use crate::server::{Mode, Plan};

const CALLERS: usize = 4;
const BREAKS: Duration = seconds(2);
const END: Duration = seconds(30);
const REPLICAS: usize = 6;

#[derive(Debug, Default)]
struct Figures {
    calls: usize,
    /// Calls after it is well that failed.
    failed: usize,
    /// Until the last failed one.
    well: Duration,
    /// Until every caller uses every replica.
    all: Duration,
    overloads: usize,
    /// Requests that one replica got within a second, at most; of those that all callers send.
    most: f64,
}

fn figures(mode: Mode, heals: Duration, capacity: usize) -> Figures {
    let mut sum = Figures::default();
    for seed in SEEDS {
        let plan = Plan {
            capacity,
            patience: millis(100),
            ..Plan::default()
        };
        let plans = vec![plan.during(mode, BREAKS, heals); REPLICAS];
        let load = Load::steady(100.0);
        let mesh = Mesh::new(seed, &retries(), CALLERS, &plans);
        sum.judge(&mesh.run(&load, END), heals);
    }
    sum
}

impl Figures {
    fn judge(&mut self, outcome: &Outcome, heals: Duration) {
        let later = between(&outcome.calls, heals, END);
        self.calls += later.len();
        self.failed += failed(&later);
        let last = later.iter().rev().find(|call| !call.answer.is_ok());
        self.well = self
            .well
            .max(last.map_or(Duration::ZERO, |call| call.at - heals));
        let sent = by_second(outcome.calls.iter().map(|call| call.at));
        for server in &outcome.servers {
            self.overloads += server.overloads();
            for proxy in &outcome.proxies {
                let tries = proxy.watch.tries();
                let well = tries.iter().find(|a| {
                    a.endpoint == server.address && a.at >= heals && a.class == Class::Success
                });
                self.all = self.all.max(well.map_or(END, |a| a.at) - heals);
            }
            let each = by_second(server.seen().iter().map(|seen| seen.at));
            for (seen, sent) in each.iter().zip(&sent).skip(heals.as_secs() as usize) {
                self.most = self.most.max(f64::from(*seen) / f64::from(*sent));
            }
        }
    }

    fn assert(&self) {
        assert!(self.well <= BACKOFF);
        assert!(self.all <= AGAIN + seconds(1));
        assert!(self.most <= 0.6, "callers come back by different replicas");
        assert!(self.overloads * 1000 <= self.calls);
    }

    fn print(&self, name: &str) {
        println!(
            "all of six come back {name}: {} of {} calls failed, the last {} ms after; \
             every caller uses every replica after {} ms; at most {:.0} % of a second's calls at one, {} turned away",
            self.failed,
            self.calls,
            ms(self.well),
            ms(self.all),
            self.most * 100.0,
            self.overloads,
        );
    }
}

/// What is open while nobody stands in has a backoff of 2 s at most.
const BACKOFF: Duration = seconds(2);
/// One whose probe was under way when the first came back may have to wait once more.
const AGAIN: Duration = seconds(4);

/// How many fall on each second.
fn by_second(times: impl Iterator<Item = Duration>) -> Vec<u32> {
    let mut counts = vec![0; END.as_secs() as usize];
    let seconds = times.map(|at| at.as_secs() as usize);
    seconds
        .filter(|second| *second < END.as_secs() as usize)
        .for_each(|second| counts[second] += 1);
    counts
}

#[test]
fn after_refusing() {
    let figures = figures(Mode::Refuses, seconds(14), 2);
    figures.print("after refusing for 12 s");
    // Connects find each of them within a second or two.
    assert!(figures.well <= millis(1500) && figures.all <= millis(2500));
    figures.assert();
}

#[test]
fn after_answering_503() {
    let mode = Mode::Answers {
        status: 503,
        percent: 100,
    };
    let figures = figures(mode, seconds(14), 2);
    figures.print("after 503 for 12 s");
    figures.assert();
}

#[test]
fn after_hanging() {
    let figures = figures(Mode::Hangs, seconds(14), 2);
    figures.print("after hanging for 12 s");
    figures.assert();
}
