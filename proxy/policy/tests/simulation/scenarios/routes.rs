//! The requests are to blame: one route always answers 500, on every endpoint.

use std::time::Duration;

use selvage_policy::breaker::{BreakerState, Reason};
use selvage_policy::flag::Flag;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{failed, ms, percentile};
use crate::mesh::{Mesh, retries, seconds};
use crate::server::{Plan, Route};

const END: Duration = seconds(12);

#[derive(Debug, Default)]
struct Figures {
    calls: usize,
    /// Of the routes that are well.
    failed: usize,
    nobody: usize,
    by_rate: usize,
    by_row: usize,
    most_open: usize,
    p99: Duration,
}

fn figures(endpoints: usize, poisoned_percent: u32) -> Figures {
    let mut sum = Figures::default();
    for seed in SEEDS {
        let plans = vec![Plan::default(); endpoints];
        let load = Load {
            others: (poisoned_percent, Route::Poisoned),
            ..Load::steady(100.0)
        };
        let outcome = Mesh::new(seed, &retries(), 4, &plans).run(&load, END);
        let calls = outcome.calls.iter();
        let well: Vec<_> = calls
            .clone()
            .filter(|call| call.route == Route::Shallow)
            .cloned()
            .collect();
        sum.calls += outcome.calls.len();
        sum.failed += failed(&well);
        sum.p99 = sum.p99.max(percentile(&well, 99.0));
        let nobody = |flag| flag == Some(Flag::NoHealthyEndpoint);
        sum.nobody += calls.filter(|call| nobody(call.answer.flag)).count();
        for proxy in &outcome.proxies {
            let mut open = 0;
            for change in proxy.watch.changes().iter() {
                let transition = change.transition;
                match transition.reason {
                    Reason::SuccessRate { .. } => sum.by_rate += 1,
                    Reason::ConsecutiveFailures { .. } => sum.by_row += 1,
                    _ => {}
                }
                open += usize::from(transition.from == BreakerState::Closed);
                open -= usize::from(transition.to == BreakerState::Closed);
                sum.most_open = sum.most_open.max(open);
            }
        }
    }
    sum
}

impl Figures {
    fn print(&self, name: &str) {
        println!(
            "a route that answers 500, {name}: {} calls, {} failed on other routes (p99 {} ms), {} found nobody; \
             opened {} times by rate, {} by failures in a row, {} at once at most",
            self.calls,
            self.failed,
            ms(self.p99),
            self.nobody,
            self.by_rate,
            self.by_row,
            self.most_open
        );
    }
}

#[test]
fn takes_a_tenth_of_the_traffic() {
    let figures = figures(4, 10);
    figures.print("10 % of calls to four");
    assert_eq!((figures.failed, figures.nobody, figures.by_row), (0, 0, 0));
}

#[test]
fn takes_nine_tenths_of_the_traffic() {
    let figures = figures(4, 90);
    figures.print("90 % of calls to four");
    assert_eq!((figures.failed, figures.nobody, figures.by_row), (0, 0, 0));
    assert_eq!(figures.most_open, 2, "the share, and no more");
}

#[test]
fn the_last_endpoint_is_never_opened_for_it() {
    let two = figures(2, 90);
    two.print("90 % of calls to two");
    assert_eq!((two.failed, two.nobody, two.most_open), (0, 0, 1));
    let one = figures(1, 90);
    one.print("90 % of calls to one");
    assert_eq!((one.failed, one.nobody, one.most_open), (0, 0, 0));
}
