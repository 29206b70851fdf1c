//! A retry storm: four hops of three tries each, and the last service fails
//! every request. What it has to bear, of what callers send.

use std::rc::Rc;
use std::time::Duration;

use selvage_policy::snapshot::TrafficPolicy;

use super::SEEDS;
use crate::client::{Calls, Load, calls};
use crate::clock::Clock;
use crate::mesh::{address, proxy_of, retries, seconds, seed_of, start};
use crate::proxy::{Proxy, Rules};
use crate::server::{Mode, Plan, Route, Server};

const HOPS: u8 = 4;
const REPLICAS: u16 = 2;
const CALLERS: u64 = 2;
const END: Duration = seconds(14);

/// What a variant does without.
#[derive(Debug, Clone, Copy)]
struct Variant {
    breaker: bool,
    budget: bool,
    marks: bool,
}

fn policy(variant: Variant) -> TrafficPolicy {
    let mut policy = retries();
    policy.timeouts.backend_request = None;
    if !variant.breaker {
        policy.breaker.consecutive_failures = 0;
        policy.breaker.success_rate = None;
    }
    if !variant.budget {
        policy.budget.percent = 100_000;
    }
    policy
}

/// Requests that reached the last service for each that a caller sent.
fn load_of_the_last(variant: Variant, rate: f64) -> f64 {
    let (mut sent, mut seen) = (0, 0);
    for seed in SEEDS {
        let (calls, last) = run(seed, variant, rate);
        sent += calls;
        seen += last;
    }
    seen as f64 / sent as f64
}

/// Calls made, and requests that the last service saw.
fn run(seed: u64, variant: Variant, rate: f64) -> (usize, usize) {
    let clock = Clock::new(start());
    let policy = policy(variant);
    let proxy = |number: u64, servers: &[Rc<Server>]| -> Rc<Proxy> {
        let seed = seed_of(seed, 2, number);
        let proxy = proxy_of(&clock, number as usize, &policy, servers, seed);
        proxy.follows(Rules {
            marks: variant.marks,
            ..Rules::default()
        });
        proxy
    };
    let fails = Mode::Answers {
        status: 503,
        percent: 100,
    };
    let last: Vec<_> = (0..REPLICAS)
        .map(|n| {
            let plan = Plan {
                schedule: vec![(Duration::ZERO, fails)],
                ..Plan::default()
            };
            Server::new(
                &clock,
                address(HOPS, n),
                plan,
                None,
                seed_of(seed, 1, n.into()),
            )
        })
        .collect();
    let mut below = last.clone();
    for hop in (1..HOPS).rev() {
        below = (0..REPLICAS)
            .map(|n| {
                let number = u64::from(hop) * 100 + u64::from(n);
                let calls = Some(proxy(number, &below));
                let seed = seed_of(seed, 1, number);
                Server::new(&clock, address(hop, n), Plan::default(), calls, seed)
            })
            .collect();
    }
    let made = Calls::default();
    for caller in 0..CALLERS {
        let proxy = proxy(caller, &below);
        let load = Load {
            others: (100, Route::Deep),
            ..Load::steady(rate)
        };
        let seed = seed_of(seed, 3, caller);
        clock.spawn(calls(
            clock.clone(),
            proxy,
            load,
            END,
            Rc::clone(&made),
            seed,
        ));
    }
    clock.run(clock.at(END + seconds(3)));
    let seen = last.iter().map(|server| server.seen().len()).sum();
    (made.take().len(), seen)
}

fn print(name: &str, load: f64) {
    println!(
        "retry storm over four hops, {name}: the last service bears {load:.2} times what callers send"
    );
}

#[test]
fn budgets_and_marks_hold_it() {
    let variant = Variant {
        breaker: false,
        budget: true,
        marks: true,
    };
    let load = load_of_the_last(variant, 100.0);
    print("no breakers", load);
    assert!((1.0..=1.3).contains(&load));
}

#[test]
fn budgets_alone_multiply() {
    let variant = Variant {
        breaker: false,
        budget: true,
        marks: false,
    };
    let load = load_of_the_last(variant, 100.0);
    print("no breakers, no marks", load);
    assert!(load > 1.5, "the mark has something to do");
}

#[test]
fn marks_alone_bound_it() {
    let variant = Variant {
        breaker: false,
        budget: false,
        marks: true,
    };
    let load = load_of_the_last(variant, 50.0);
    print("no breakers, no budgets", load);
    assert!(load <= 3.01, "three tries at the last hop, none above");
}

#[test]
fn nothing_at_all_is_a_storm() {
    let variant = Variant {
        breaker: false,
        budget: false,
        marks: false,
    };
    let load = load_of_the_last(variant, 2.0);
    print("nothing of it", load);
    assert!(load > 75.0, "81 tries for each request");
}

#[test]
fn breakers_relieve_it() {
    let variant = Variant {
        breaker: true,
        budget: true,
        marks: true,
    };
    let load = load_of_the_last(variant, 100.0);
    print("all of it", load);
    assert!(load <= 0.2);
}
