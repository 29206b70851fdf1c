//! All replicas are down: callers are told at once, and the service is left
//! alone but for one request per endpoint, backoff and caller.

use std::time::Duration;

use selvage_policy::breaker::BreakerState;
use selvage_policy::flag::Flag;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{between, ms, percentile};
use crate::mesh::{Mesh, Outcome, millis, retries, seconds};
use crate::server::{Mode, Plan};

const CALLERS: usize = 4;
const BREAKS: Duration = seconds(2);
const END: Duration = seconds(16);
/// Where it is to come back.
const HEALS: Duration = seconds(22);
/// The longest backoff where nobody stands in.
const ALONE: Duration = seconds(2);
/// The longest try.
const TRY: Duration = millis(250);

#[derive(Debug, Default)]
struct Figures {
    calls: usize,
    at_once: usize,
    p99: Duration,
    /// The last opening of an endpoint that was closed.
    opened: Duration,
    openings: usize,
    /// Real requests that were sent to an endpoint once it had been opened.
    sent: usize,
    dials: usize,
    connect_probes: usize,
}

fn figures(mode: Mode) -> Figures {
    let mut sum = Figures::default();
    for seed in SEEDS {
        let plan = Plan::default().during(mode, BREAKS, seconds(60));
        let plans = vec![plan; 3];
        let load = Load::steady(100.0);
        sum.judge(&Mesh::new(seed, &retries(), CALLERS, &plans).run(&load, END));
    }
    sum
}

impl Figures {
    fn judge(&mut self, outcome: &Outcome) {
        let mut all_open = BREAKS;
        for proxy in &outcome.proxies {
            for server in &outcome.servers {
                let changes = proxy.watch.changes();
                let opened = changes.iter().filter(|change| {
                    change.endpoint == server.address && change.transition.to == BreakerState::Open
                });
                let opened: Vec<_> = opened.map(|change| change.at).collect();
                let first = *opened.first().expect("every endpoint is opened");
                all_open = all_open.max(first);
                self.openings += opened.len() - 1;
                let tries = proxy.watch.tries();
                // Tries of before that end later are no tries of an open endpoint.
                let probes = tries
                    .iter()
                    .filter(|a| a.endpoint == server.address && a.probe);
                self.sent += probes.count();
                self.dials += proxy.link(server.address).dials();
            }
            self.connect_probes += proxy.watch.connect_probes();
        }
        self.opened = self.opened.max(all_open - BREAKS);
        let later = between(&outcome.calls, all_open, END);
        let at_once = |flag| flag == Some(Flag::NoHealthyEndpoint);
        self.calls += later.len();
        self.at_once += later
            .iter()
            .filter(|call| at_once(call.answer.flag))
            .count();
        let untried: Vec<_> = later
            .into_iter()
            .filter(|call| call.answer.tries == 0)
            .collect();
        self.p99 = self.p99.max(percentile(&untried, 99.0));
    }

    fn print(&self, name: &str) {
        println!(
            "all of three {name}: open after {} ms; then {} of {} calls are told at once (p99 {} ms), \
             {} requests are sent in {} backoffs; {} connects, {} of them by the proxies themselves",
            ms(self.opened),
            self.at_once,
            self.calls,
            ms(self.p99),
            self.sent,
            self.openings,
            self.dials,
            self.connect_probes,
        );
    }

    fn assert(&self) {
        assert!(
            self.sent <= self.openings,
            "one per endpoint, backoff and caller"
        );
        assert!(self.p99 == Duration::ZERO, "nobody waits");
        assert!(self.at_once * 100 >= self.calls * 95);
        assert!(self.opened <= seconds(1));
    }

    /// A connect that succeeds at once says nothing: there is none after it.
    fn assert_reachable(&self) {
        let opened = self.openings + 3 * CALLERS * SEEDS.count();
        assert!(self.connect_probes <= opened, "one for each opening");
    }
}

/// Until the last call that failed was sent, after all are well again.
fn last_failure(mode: Mode, replicas: usize) -> Duration {
    let mut last = Duration::ZERO;
    for seed in SEEDS {
        let plans = vec![Plan::default().during(mode, BREAKS, HEALS); replicas];
        let load = Load::steady(100.0);
        let outcome = Mesh::new(seed, &retries(), CALLERS, &plans).run(&load, HEALS + seconds(6));
        let later = between(&outcome.calls, HEALS, HEALS + seconds(6));
        let failed = later.iter().filter(|call| !call.answer.is_ok());
        last = last.max(failed.map(|call| call.at - HEALS).max().unwrap_or_default());
    }
    last
}

#[test]
fn are_used_again_within_two_seconds() {
    let answers = Mode::Answers {
        status: 503,
        percent: 100,
    };
    for (name, mode) in [
        ("answers 503", answers),
        ("refuses", Mode::Refuses),
        ("hangs", Mode::Hangs),
    ] {
        let [one, three] = [1, 3].map(|replicas| last_failure(mode, replicas));
        println!(
            "all of a service {name} for 20 s: the last call fails {} ms after it is well, of three replicas {} ms",
            ms(one),
            ms(three)
        );
        assert!(one.max(three) <= ALONE + TRY);
    }
}

#[test]
fn refuse() {
    let figures = figures(Mode::Refuses);
    figures.print("refuse");
    figures.assert();
    // At most one a second by the proxy itself; the rest are real tries, one each.
    let seconds = (END + seconds(5) - BREAKS).as_secs() as usize;
    let most = seconds * 3 * CALLERS * SEEDS.count();
    assert!(figures.connect_probes <= most, "{most}");
}

#[test]
fn hang() {
    let figures = figures(Mode::Hangs);
    figures.print("hang");
    figures.assert();
    figures.assert_reachable();
}

#[test]
fn answer_503() {
    let figures = figures(Mode::Answers {
        status: 503,
        percent: 100,
    });
    figures.print("answer 503");
    figures.assert();
    figures.assert_reachable();
}
