//! One of three replicas fails in one way or another: callers whose requests
//! may be retried see none of it, and the replica is used again once it is well.

use std::time::Duration;

use selvage_policy::breaker::BreakerState;
use selvage_policy::classify::Class;

use super::SEEDS;
use crate::client::{Call, Load};
use crate::figures::{between, failed, ms, percentile};
use crate::mesh::{Mesh, Outcome, millis, retries, seconds};
use crate::server::{Mode, Plan};
use crate::watch::Change;

const CALLERS: usize = 4;
const RATE: f64 = 100.0;
const BREAKS: Duration = seconds(2);
const HEALS: Duration = seconds(13);
const END: Duration = seconds(20);
/// Shorter than by default, so that all come back before the end.
const BACKOFF: Duration = seconds(4);

fn run(seed: u64, mode: Mode) -> Outcome {
    let plans = [
        Plan::default(),
        Plan::default().during(mode, BREAKS, HEALS),
        Plan::default(),
    ];
    let mut policy = retries();
    policy.breaker.backoff.max = BACKOFF;
    Mesh::new(seed, &policy, CALLERS, &plans).run(&Load::steady(RATE), END)
}

/// What is summed or is the worst over all seeds.
#[derive(Debug, Default)]
struct Figures {
    calls: usize,
    failed: usize,
    /// Failed within one proxy, at most.
    failed_of_one: usize,
    /// Of those, after the first opening.
    failed_later: usize,
    retried: usize,
    p99_healthy: Duration,
    p99_broken: Duration,
    /// How often a proxy opened it.
    openings: usize,
    /// Of those, after a probe.
    reopenings: usize,
    /// From when its backoff is over until a proxy uses it again, where it was open.
    late: Duration,
    /// From when it is well.
    back: Duration,
    /// The least part of a proxy's calls that it answers at the end.
    share: f64,
    /// Real requests that failed on it, beyond one per opening.
    beyond: usize,
}

fn figures(mode: Mode) -> Figures {
    let mut sum = Figures::default();
    for seed in SEEDS {
        let outcome = run(seed, mode);
        let calls = &outcome.calls;
        sum.calls += calls.len();
        sum.failed += failed(calls);
        let healthy = percentile(&between(calls, seconds(1), BREAKS), 99.0);
        let broken = percentile(&between(calls, BREAKS + seconds(1), HEALS), 99.0);
        sum.p99_healthy = sum.p99_healthy.max(healthy);
        sum.p99_broken = sum.p99_broken.max(broken);
        for proxy in &outcome.proxies {
            let own: Vec<_> = calls
                .iter()
                .filter(|call| call.caller == proxy.number())
                .cloned()
                .collect();
            sum.failed_of_one = sum.failed_of_one.max(failed(&own));
            sum.retried += proxy.watch.retried();
            sum.judge(&outcome, proxy.number(), &own);
        }
    }
    sum
}

impl Figures {
    /// What one proxy did with the replica.
    fn judge(&mut self, outcome: &Outcome, proxy: usize, own: &[Call]) {
        let watch = &outcome.proxies[proxy].watch;
        let replica = outcome.servers[1].address;
        let of_replica = |change: &&Change| change.endpoint == replica;
        let changes = watch.changes();
        let opened = changes
            .iter()
            .filter(of_replica)
            .filter(|change| change.transition.to == BreakerState::Open);
        let opened: Vec<_> = opened.copied().collect();
        self.openings += opened.len();
        self.reopenings += opened.len().saturating_sub(1);
        let tries = watch.tries();
        let tries = || tries.iter().filter(|a| a.endpoint == replica);
        let mut due = HEALS;
        if let (Some(first), Some(last)) = (opened.first(), opened.last()) {
            due = due.max(last.at + last.transition.open_for.expect("open for some time"));
            // What was in flight when it opened is a matter of the network.
            let later = first.at + millis(300);
            self.failed_later += failed(&between(own, later, END));
            let real = tries().filter(|a| a.at > later && a.class.is_failure());
            self.beyond += real.count().saturating_sub(opened.len() - 1);
        }
        let mut well = tries().filter(|a| a.at >= HEALS && a.class == Class::Success);
        let back = well.next().expect("it is used again").at;
        self.back = self.back.max(back - HEALS);
        if due > HEALS {
            self.late = self.late.max(back.saturating_sub(due));
        }
        let last_second = |at: Duration| at >= END - seconds(1);
        let seen = outcome.servers[1].seen();
        let answered = seen.iter().filter(|a| a.from == proxy && last_second(a.at));
        let sent = own.iter().filter(|call| last_second(call.at));
        let share = answered.count() as f64 / sent.count() as f64;
        self.share = if self.share > 0.0 {
            self.share.min(share)
        } else {
            share
        };
    }

    fn print(&self, name: &str) {
        println!(
            "one of three {name}: {} calls, {} failed ({} of one proxy at most, {} after opening), \
             {} retried, {} openings; p99 {} ms healthy, {} ms meanwhile; \
             back {} ms after it is well, {} ms after its backoff, with a share of {:.2}; \
             {} failed tries beyond one per backoff",
            self.calls,
            self.failed,
            self.failed_of_one,
            self.failed_later,
            self.retried,
            self.openings,
            ms(self.p99_healthy),
            ms(self.p99_broken),
            ms(self.back),
            ms(self.late),
            self.share,
            self.beyond,
        );
    }
}

#[test]
fn refuses() {
    let figures = figures(Mode::Refuses);
    figures.print("refuses");
    assert_eq!(figures.failed, 0);
    assert_eq!(figures.beyond, 0);
    assert!(figures.p99_broken <= figures.p99_healthy.mul_f64(1.5));
    assert!(figures.late <= seconds(1));
    assert!(figures.back <= seconds(3), "connects bring it back");
}

#[test]
fn hangs() {
    let figures = figures(Mode::Hangs);
    figures.print("hangs");
    assert_eq!(figures.failed, 0);
    assert_eq!(figures.beyond, 0);
    assert!(figures.late <= seconds(1));
}

#[test]
fn answers_503() {
    let figures = figures(Mode::Answers {
        status: 503,
        percent: 100,
    });
    figures.print("answers 503");
    assert_eq!(figures.failed, 0);
    assert_eq!(figures.beyond, 0);
    assert!(figures.p99_broken <= figures.p99_healthy.mul_f64(1.5));
    assert!(figures.late <= seconds(1));
}

#[test]
fn resets_bodies() {
    let figures = figures(Mode::BreaksBodies);
    figures.print("resets bodies");
    // Between the head of a probe and its end it is in rotation.
    assert!(figures.beyond * 10 <= figures.reopenings);
    // Five that open it, and one for each backoff of about 1, 2, 4 and 4 seconds:
    // what has reached the caller in part cannot be sent again.
    assert!(figures.failed_of_one <= 10);
    assert!(figures.failed_later <= figures.reopenings + figures.beyond);
    assert!(figures.late <= seconds(1));
}

#[test]
fn is_ten_times_slower() {
    let figures = figures(Mode::Slow(10.0));
    figures.print("is ten times slower");
    assert_eq!((figures.failed, figures.openings), (0, 0));
    assert!(figures.p99_broken <= figures.p99_healthy.mul_f64(2.0));
}
