//! All replicas are restarted one after the other, in order or by force.

use std::rc::Rc;
use std::time::Duration;

use super::SEEDS;
use crate::client::Load;
use crate::figures::{failed, ms, percentile};
use crate::mesh::{Mesh, Outcome, millis, retries, seconds, snapshot};
use crate::server::{Mode, Plan};

const REPLICAS: u64 = 4;
const END: Duration = seconds(15);
/// Until callers hear of it.
const DISCOVERY: Duration = millis(150);

fn begins(replica: u64) -> Duration {
    seconds(2 + 3 * replica)
}

/// Says GOAWAY, finishes, ends a second later, is back after another half.
fn in_order(replica: u64) -> Plan {
    let at = begins(replica);
    Plan {
        schedule: vec![
            (at, Mode::Drains),
            (at + seconds(1), Mode::Refuses),
            (at + millis(1500), Mode::Up),
        ],
        ..Plan::default()
    }
}

/// Is killed, and back after a second and a half.
fn by_force(replica: u64) -> Plan {
    Plan::default().during(
        Mode::Refuses,
        begins(replica),
        begins(replica) + millis(1500),
    )
}

fn run(seed: u64, plan: fn(u64) -> Plan, told: bool) -> Outcome {
    let plans: Vec<_> = (0..REPLICAS).map(plan).collect();
    let policy = retries();
    let mesh = Mesh::new(seed, &policy, 4, &plans);
    let all: Vec<_> = mesh.servers.iter().map(|server| server.address).collect();
    for replica in 0..REPLICAS {
        let without = (0..).zip(&all).filter(|(n, _)| *n != replica);
        let without: Vec<_> = without.map(|(_, address)| *address).collect();
        let back = begins(replica) + millis(1500);
        for (at, offered) in [(begins(replica), without), (back, all.clone())] {
            if !told {
                continue;
            }
            for proxy in &mesh.proxies {
                let (proxy, clock) = (Rc::clone(proxy), mesh.clock.clone());
                let snapshot = snapshot(&policy, &offered);
                mesh.clock.spawn(async move {
                    clock.sleep(at + DISCOVERY).await;
                    proxy.learns(&snapshot);
                });
            }
        }
    }
    mesh.run(&Load::steady(100.0), END)
}

fn check(name: &str, plan: fn(u64) -> Plan, told: bool) {
    let (mut calls, mut failures, mut retried, mut p99) = (0, 0, 0, Duration::ZERO);
    for seed in SEEDS {
        let outcome = run(seed, plan, told);
        calls += outcome.calls.len();
        failures += failed(&outcome.calls);
        let proxies = outcome.proxies.iter();
        retried += proxies.map(|proxy| proxy.watch.retried()).sum::<usize>();
        p99 = p99.max(percentile(&outcome.calls, 99.0));
    }
    println!(
        "a rolling restart of four {name}: {calls} calls, {failures} failed, {retried} retried, p99 {} ms",
        ms(p99)
    );
    assert_eq!(failures, 0);
    assert!(p99 <= millis(70));
}

#[test]
fn in_order_nobody_notices() {
    check("in order, callers are told", in_order, true);
    check("in order, callers are not told", in_order, false);
}

#[test]
fn by_force_nobody_notices() {
    check("by force, callers are told", by_force, true);
    check("by force, callers are not told", by_force, false);
}
