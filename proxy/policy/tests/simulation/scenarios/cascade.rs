//! A dependency is down. The service in the middle answers 503 on the routes
//! that need it, and is well on all others: it must not be taken out of
//! rotation for what is broken below it.
//!
//! Two rules see to that: an answer that is marked as asked for in vain is no
//! hard failure of who passes it on, and it is marked also where the sidecar in
//! the middle found no endpoint left to ask.

use std::rc::Rc;
use std::time::Duration;

use super::SEEDS;
use crate::client::{Call, Calls, Load, calls};
use crate::clock::Clock;
use crate::figures::{between, failed, ms, percentile};
use crate::mesh::{address, millis, proxy_of, retries, seconds, seed_of, start};
use crate::proxy::{Proxy, Rules};
use crate::server::{Mode, Plan, Route, Server};

const CALLERS: u64 = 4;
const MIDDLE: u16 = 3;
const DEPENDENCY: u16 = 2;
const BREAKS: Duration = seconds(2);
const HEALS: Duration = seconds(12);
const END: Duration = seconds(18);
/// The longest try of callers, and of the service in the middle: it is to hear
/// of what hangs before its callers give up, or they blame it.
const TRY: Duration = seconds(1);
const TRY_BELOW: Duration = millis(150);

const NEITHER: Rules = Rules {
    marks: true,
    from_below: false,
    nobody: false,
};
const FROM_BELOW: Rules = Rules {
    from_below: true,
    ..NEITHER
};
const BOTH: Rules = Rules {
    nobody: true,
    ..FROM_BELOW
};

#[derive(Debug, Default)]
struct Figures {
    /// While the dependency is down, of the routes that do without it.
    calls: usize,
    failed: usize,
    p99: Duration,
    /// Until the last failure of a route that needs it, after it is well.
    well: Duration,
}

fn figures(mode: Mode, rules: Rules) -> Figures {
    let mut sum = Figures::default();
    for seed in SEEDS {
        let calls = run(seed, mode, rules);
        let (shallow, deep): (Vec<_>, Vec<_>) = calls
            .into_iter()
            .partition(|call| call.route == Route::Shallow);
        let meanwhile = between(&shallow, BREAKS, HEALS);
        sum.calls += meanwhile.len();
        sum.failed += failed(&meanwhile);
        sum.p99 = sum.p99.max(percentile(&meanwhile, 99.0));
        let later = between(&deep, HEALS, END);
        let last = later.iter().filter(|call| !call.answer.is_ok());
        let last = last.map(|call| call.at - HEALS).max();
        sum.well = sum.well.max(last.unwrap_or_default());
    }
    sum
}

fn run(seed: u64, mode: Mode, rules: Rules) -> Vec<Call> {
    let clock = Clock::new(start());
    let proxy = |number: u64, servers: &[Rc<Server>], each: Duration| -> Rc<Proxy> {
        let seed = seed_of(seed, 2, number);
        let mut policy = retries();
        policy.timeouts.backend_request = Some(each);
        let proxy = proxy_of(&clock, number as usize, &policy, servers, seed);
        proxy.follows(rules);
        proxy
    };
    let server = |hop: u8, n: u16, plan: &Plan, below: Option<Rc<Proxy>>| {
        let seed = seed_of(seed, 1, u64::from(hop) * 100 + u64::from(n));
        Server::new(&clock, address(hop, n), plan.clone(), below, seed)
    };
    let plan = Plan::default().during(mode, BREAKS, HEALS);
    let dependency: Vec<_> = (0..DEPENDENCY).map(|n| server(2, n, &plan, None)).collect();
    let in_the_middle = |n| {
        let sidecar = proxy(100 + u64::from(n), &dependency, TRY_BELOW);
        server(1, n, &Plan::default(), Some(sidecar))
    };
    let middle: Vec<_> = (0..MIDDLE).map(in_the_middle).collect();
    let load = Load {
        others: (50, Route::Deep),
        ..Load::steady(100.0)
    };
    let made = Calls::default();
    for n in 0..CALLERS {
        let (proxy, made, seed) = (
            proxy(n, &middle, TRY),
            Rc::clone(&made),
            seed_of(seed, 3, n),
        );
        clock.spawn(calls(clock.clone(), proxy, load.clone(), END, made, seed));
    }
    clock.run(clock.at(END + seconds(3)));
    made.take()
}

/// With neither rule, with the first, and with both.
fn compare(name: &str, mode: Mode) -> [Figures; 3] {
    let all = [NEITHER, FROM_BELOW, BOTH].map(|rules| figures(mode, rules));
    let percent = |it: &Figures| it.failed as f64 * 100.0 / it.calls as f64;
    let [neither, from_below, both] = &all;
    println!(
        "a dependency {name}: of {} calls on other routes {:.1} % failed without either rule, {:.1} % by what is from below alone, \
         {} with both (p99 {} ms); the routes that need it fail until {} ms after it is well",
        both.calls,
        percent(neither),
        percent(from_below),
        both.failed,
        ms(both.p99),
        ms(both.well),
    );
    all
}

fn check(name: &str, mode: Mode) {
    let [neither, _, both] = compare(name, mode);
    assert!(
        neither.failed * 2 > neither.calls,
        "the rules have something to do"
    );
    assert_eq!(both.failed, 0);
    assert!(both.p99 <= millis(70));
    assert!(both.well <= seconds(2) + TRY_BELOW);
}

#[test]
fn answers_503() {
    let mode = Mode::Answers {
        status: 503,
        percent: 100,
    };
    check("answers 503", mode);
}

#[test]
fn refuses() {
    check("refuses", Mode::Refuses);
}

#[test]
fn hangs() {
    check("hangs", Mode::Hangs);
}
