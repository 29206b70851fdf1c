//! Fifty endpoints, ten of them bad: none of the ten is forgotten or favoured
//! by the probes, whoever the callers are.

use std::time::Duration;

use selvage_policy::breaker::BreakerState;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{between, failed, ms, percentile};
use crate::mesh::{Mesh, Outcome, retries, seconds};
use crate::server::{Mode, Plan};

const CALLERS: usize = 2;
const BREAKS: Duration = seconds(2);
const HEALS: Duration = seconds(12);
const END: Duration = seconds(24);
const BAD: usize = 10;

#[derive(Debug, Default)]
struct Figures {
    calls: usize,
    failed: usize,
    p99: Duration,
    probes: usize,
    /// From when a backoff is over until its probe is sent.
    waited: Duration,
    /// From when all are well, or a backoff is over, until the endpoint is closed.
    late: Duration,
    /// Endpoints that were not closed in the end.
    left: usize,
    fewest: usize,
    most: usize,
}

fn figures(post_percent: u32) -> Figures {
    let mut sum = Figures {
        fewest: usize::MAX,
        ..Figures::default()
    };
    for seed in SEEDS {
        let mode = Mode::Answers {
            status: 503,
            percent: 100,
        };
        let mut plans = vec![Plan::default(); 50];
        plans[..BAD].fill(Plan::default().during(mode, BREAKS, HEALS));
        let load = Load {
            post_percent,
            ..Load::steady(200.0)
        };
        let mut policy = retries();
        policy.breaker.consecutive_failures = 1;
        sum.judge(&Mesh::new(seed, &policy, CALLERS, &plans).run(&load, END));
    }
    sum
}

impl Figures {
    fn judge(&mut self, outcome: &Outcome) {
        self.calls += outcome.calls.len();
        let later = between(&outcome.calls, BREAKS + seconds(1), END);
        self.failed += failed(&later);
        let meanwhile = between(&outcome.calls, BREAKS + seconds(1), HEALS);
        self.p99 = self.p99.max(percentile(&meanwhile, 99.0));
        for proxy in &outcome.proxies {
            for server in &outcome.servers[..BAD] {
                let changes = proxy.watch.changes();
                let own = changes.iter().filter(|c| c.endpoint == server.address);
                let own: Vec<_> = own.copied().collect();
                for two in own.windows(2) {
                    if let (Some(open_for), BreakerState::HalfOpen) =
                        (two[0].transition.open_for, two[1].transition.to)
                    {
                        self.probes += 1;
                        self.waited = self.waited.max(two[1].at - two[0].at - open_for);
                    }
                }
                let mut opened = own.iter().filter(|c| c.transition.to == BreakerState::Open);
                self.fewest = self.fewest.min(opened.clone().count());
                self.most = self.most.max(opened.clone().count());
                let Some(last) = opened.next_back() else {
                    continue;
                };
                let backoff = last.transition.open_for.unwrap_or_default();
                let due = HEALS.max(last.at + backoff);
                match own
                    .iter()
                    .rev()
                    .find(|c| c.at > last.at && c.transition.to == BreakerState::Closed)
                {
                    Some(closed) => self.late = self.late.max(closed.at.saturating_sub(due)),
                    None if due + seconds(2) < END => self.left += 1,
                    None => {}
                }
            }
        }
    }

    fn print(&self, name: &str) {
        println!(
            "ten of fifty answer 503, {name}: {} calls, {} failed after the first second, p99 {} ms meanwhile; {} probes, sent {} ms after their time at most; \
             each opened {} to {} times; closed {} ms after its time at most, {} left open",
            self.calls,
            self.failed,
            ms(self.p99),
            self.probes,
            ms(self.waited),
            self.fewest,
            self.most,
            ms(self.late),
            self.left,
        );
    }
}

#[test]
fn retryable_requests_probe_at_once() {
    let figures = figures(0);
    figures.print("all GET");
    assert_eq!((figures.failed, figures.left), (0, 0));
    assert!(figures.waited <= seconds(1));
    assert!(figures.late <= seconds(1));
}

#[test]
fn retryable_ones_are_preferred() {
    let figures = figures(90);
    figures.print("90 % POST");
    assert_eq!(figures.left, 0);
    assert!(figures.waited <= seconds(1));
}

#[test]
fn others_probe_after_their_patience() {
    let figures = figures(100);
    figures.print("all POST");
    assert_eq!(figures.left, 0);
    assert!(figures.waited <= seconds(2));
}
