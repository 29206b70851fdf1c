//! What the sidecars of the shop recorded: every hop by name, and encrypted.

use std::net::SocketAddr;

use selvage_tests::client;
use selvage_tests::metrics::Metrics;
use selvage_tests::wait::{self, PATIENCE};
use serde_json::Value;

use super::Shop;

/// Each service with an inbound side, and who calls it.
const CALLERS: [(&str, &[&str]); 3] = [
    ("orders", &["shop/gateway"]),
    ("inventory", &["shop/gateway", "shop/orders"]),
    ("nats", &["shop/notifier", "shop/orders"]),
];

/// What both kinds of inbound calls are counted by.
const CALLS: [&str; 2] = [
    "selvage_http_requests_total",
    "selvage_tcp_connections_opened_total",
];

async fn metrics(sidecar: &Value) -> Metrics {
    let telemetry = sidecar["telemetry"].as_str().expect("an address");
    let telemetry: SocketAddr = telemetry.parse().expect("an address");
    let answer = client::get(telemetry, "localhost", "/metrics").await;
    assert_eq!(answer.status, 200, "/metrics answers");
    Metrics::parse(&answer.text())
}

/// A sum over all sidecars.
pub(super) async fn sum(shop: &Shop, name: &str, labels: &[(&str, &str)]) -> u64 {
    let mut sum = 0;
    for sidecar in shop.sidecars() {
        sum += metrics(&sidecar).await.count(name, labels);
    }
    sum
}

fn workload(sidecar: &Value) -> &str {
    sidecar["workload"].as_str().expect("a name")
}

/// The sidecars of a service.
fn of(shop: &Shop, service: &str) -> Vec<Value> {
    let all = shop.sidecars().into_iter();
    all.filter(|one| workload(one).starts_with(&format!("{service}-")))
        .collect()
}

/// The replica of a service that was called most.
pub(super) async fn busiest(shop: &Shop, service: &str) -> String {
    let mut most = (0, String::new());
    for sidecar in of(shop, service) {
        let calls = inbound(&metrics(&sidecar).await, None);
        most = most.max((calls, workload(&sidecar).to_owned()));
    }
    most.1
}

/// Holds counters, access logs and the applications' own logs against each other.
pub(super) async fn every_hop_is_mutual_tls(shop: &Shop) {
    for (service, callers) in CALLERS {
        let sidecars = of(shop, service);
        for caller in callers {
            let mut calls = 0;
            for sidecar in &sidecars {
                calls += inbound(&metrics(sidecar).await, Some(caller));
            }
            println!("{caller} → shop/{service}: {calls}");
            assert!(calls > 0, "{caller} called {service}");
        }
        for sidecar in &sidecars {
            handshakes_went_well(sidecar, callers).await;
            if service != "nats" {
                requests_came_through(shop, sidecar, callers).await;
            }
        }
    }
}

/// Calls that the inbound side took, from one source or from all.
fn inbound(metrics: &Metrics, source: Option<&str>) -> u64 {
    let mut labels = vec![("direction", "inbound")];
    labels.extend(source.map(|source| ("source", source)));
    CALLS.iter().map(|name| metrics.count(name, &labels)).sum()
}

async fn handshakes_went_well(sidecar: &Value, callers: &[&str]) {
    const HANDSHAKES: &str = "selvage_tls_handshakes_total";
    let metrics = metrics(sidecar).await;
    let ended = |outcome| metrics.count(HANDSHAKES, &[("side", "server"), ("outcome", outcome)]);
    assert!(ended("ok") > 0, "{}", metrics.lines(HANDSHAKES));
    for outcome in ["no-certificate", "expired", "untrusted", "wrong-identity"] {
        assert_eq!(ended(outcome), 0, "{outcome}");
    }
    let named: u64 = callers
        .iter()
        .map(|caller| inbound(&metrics, Some(caller)))
        .sum();
    let lines = CALLS.map(|name| metrics.lines(name)).join("\n");
    assert_eq!(
        inbound(&metrics, None),
        named,
        "no caller without a name: {lines}"
    );
}

/// Each request that the application logged, its sidecar had taken over mutual TLS.
async fn requests_came_through(shop: &Shop, sidecar: &Value, callers: &[&str]) {
    let log = format!("shop/logs/{}.log", workload(sidecar));
    let log = shop.folder.path().join(log);
    let access = sidecar["log"].as_str().expect("a path");
    let mut counts = (0, 0);
    wait::until("the records to be complete", PATIENCE, async || {
        let text = std::fs::read_to_string(&log).expect("an application has a log");
        let requests = text
            .lines()
            .filter(|line| line.starts_with("request ") || line.contains(" HTTP/1.1\" "));
        let text = std::fs::read_to_string(access).expect("a sidecar has a log");
        counts = (requests.count(), passed(&text, callers));
        counts.0 == counts.1
    })
    .await;
    println!(
        "{}: {} requests, {} by mutual TLS",
        workload(sidecar),
        counts.0,
        counts.1
    );
    assert!(counts.0 > 0, "it was asked");
}

/// Inbound records of requests that went on to the application.
fn passed(log: &str, callers: &[&str]) -> usize {
    let mut passed = 0;
    let events = log.lines().filter(|line| line.starts_with('{'));
    for event in events.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        if event["event"] != "access" || event["direction"] != "inbound" {
            continue;
        }
        let source = event["source"].as_str().unwrap_or_default();
        assert!(callers.contains(&source), "{event}");
        assert!(
            event["tls"] == "yes" || event["tls"] == "resumed",
            "{event}"
        );
        // With a flag the sidecar itself answered: there was nobody to pass it on to.
        passed += usize::from(event["flag"] == "-");
    }
    passed
}

/// Neither a service without business there, nor anybody without a certificate, gets in.
pub(super) async fn strangers_are_denied(shop: &Shop) {
    let notifier = &of(shop, "notifier")[0];
    let outbound = notifier["outbound"].as_str().expect("an address");
    let outbound: SocketAddr = outbound.parse().expect("an address");
    for (service, path) in [("inventory", "/stock"), ("orders", "/orders")] {
        let answer = client::get(outbound, &format!("{service}.shop"), path).await;
        assert_eq!(answer.status, 403, "{service}: {}", answer.text());
        assert_eq!(answer.flag(), "denied");
    }
    for sidecar in of(shop, "inventory") {
        let inbound = sidecar["inbound"].as_str().expect("an address");
        let inbound: SocketAddr = inbound.parse().expect("an address");
        let plaintext = client::try_get(inbound, "inventory.shop", "/stock").await;
        assert!(
            plaintext.is_err(),
            "plaintext at {}: {plaintext:?}",
            workload(&sidecar)
        );
    }
}
