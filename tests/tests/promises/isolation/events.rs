//! Why an endpoint is out, since when and until when: told by the proxy that
//! took it out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use selvage_tests::app::{App, ok, status};
use selvage_tests::client;
use selvage_tests::mesh::{plaintext_caller, service, traffic_policy};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::{Value, json};
use tokio::sync::Notify;

async fn admin(caller: &Sidecar, path: &str) -> Value {
    let answer = client::get(caller.admin(), "localhost", path).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

/// What `/clusters` says of one endpoint.
async fn endpoint(caller: &Sidecar, address: SocketAddr) -> Value {
    let clusters = admin(caller, "/clusters").await;
    let of_port = clusters["services"]["shop/orders"]["80"].clone();
    let all = of_port.as_array().cloned().unwrap_or_default();
    let one = all
        .into_iter()
        .find(|one| one["address"] == address.to_string());
    one.unwrap_or_else(|| panic!("{address} is not in {clusters}"))
}

/// Before there is an answer nobody knows who fails: each endpoint gets half of it.
async fn all_at_once(caller: &Sidecar) {
    let outbound = caller.outbound();
    let calls = (0..40).map(|_| client::get(outbound, ORDERS, "/"));
    futures_util::future::join_all(calls).await;
}

#[tokio::test]
async fn an_ejected_endpoint_explains_itself() {
    let bad = App::start(|_| async { status(503) }).await;
    let good = App::start(|_| async { ok("good") }).await;
    let policy = traffic_policy(
        "  retry: { attempts: 2, on: [503], backoff: { base: 1ms, max: 5ms }, budget: { percent: 100 } }\n  circuitBreaker: { backoff: { base: 10s, max: 60s } }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &[bad.address, good.address], &policy).await;
    all_at_once(&caller).await;
    let path = format!("/events?service=shop/orders&endpoint={}", bad.address);
    let told = admin(&caller, &path).await;
    let [event] = told.as_array().expect("a list").as_slice() else {
        panic!("one event: {told}");
    };
    let expected = json!({
        "kind": "breaker", "service": "shop/orders", "port": 80,
        "endpoint": bad.address.to_string(), "from": "closed", "to": "open",
        "reason": "5 hard failures in a row",
        "time": event["time"], "openForMs": event["openForMs"],
    });
    assert_eq!(*event, expected);
    let open_for = event["openForMs"].as_u64().expect("a number");
    assert!((5_000..=10_000).contains(&open_for), "half to all of 10 s");
    for nobody in [
        format!("/events?endpoint={}", good.address),
        "/events?service=shop/ratings".to_owned(),
    ] {
        assert_eq!(admin(&caller, &nobody).await, json!([]), "{nobody}");
    }

    let shown = endpoint(&caller, bad.address).await;
    assert_eq!(shown["breaker"], "open");
    assert_eq!(shown["reason"], "5 hard failures in a row");
    assert_eq!(shown["successRatePercent"], 0.0);
    assert_eq!(shown["windowRequests"], 5);
    assert_eq!(
        (&shown["healthy"], &shown["checks"]),
        (&json!(true), &json!(null))
    );
    let text = |field: &str| shown[field].as_str().unwrap_or_default().to_owned();
    // RFC 3339 in one zone: later is larger.
    let (since, until) = (text("since"), text("ejectedUntil"));
    assert!(!since.is_empty() && since < until, "{since} {until}");
    let shown = endpoint(&caller, good.address).await;
    assert_eq!(
        (&shown["breaker"], &shown["reason"]),
        (&json!("closed"), &json!(null))
    );
    assert_eq!(shown["successRatePercent"], 100.0);
}

#[tokio::test]
async fn a_success_rate_is_told_with_its_numbers() {
    let count = Arc::new(AtomicUsize::new(0));
    let odd = count.clone();
    let bad = App::start(move |_| {
        let failed = odd.fetch_add(1, Ordering::SeqCst) % 2 == 1;
        async move { status(if failed { 500 } else { 200 }) }
    })
    .await;
    let good = App::start(|_| async { ok("good") }).await;
    let policy = traffic_policy(
        "  circuitBreaker: { consecutiveFailures: 0, successRate: { threshold: 80, window: 600s, minimumRequests: 4 }, backoff: { base: 60s, max: 60s } }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &[bad.address, good.address], &policy).await;
    all_at_once(&caller).await;
    let told = admin(&caller, "/events").await;
    assert_eq!(told[0]["endpoint"], bad.address.to_string());
    let reason = told[0]["reason"].as_str().unwrap_or_default();
    let numbers: Vec<u32> = reason
        .split(' ')
        .filter_map(|word| word.parse().ok())
        .collect();
    let [rate, requests, 80] = numbers[..] else {
        panic!("{reason}");
    };
    assert_eq!(
        reason,
        format!("success rate {rate} % of {requests} under 80 %")
    );
    assert!((4..=20).contains(&requests) && rate < 80, "{reason}");
}

#[tokio::test]
async fn an_endpoint_that_left_drains_until_its_last_answer() {
    let go = Arc::new(Notify::new());
    let waits = go.clone();
    let slow = App::start(move |_| {
        let waits = waits.clone();
        async move {
            waits.notified().await;
            ok("late")
        }
    })
    .await;
    let (_pki, caller) = plaintext_caller("http", &[slow.address], "").await;
    let outbound = caller.outbound();
    let asked = tokio::spawn(async move { client::get(outbound, ORDERS, "/").await });
    wait::until("the request", PATIENCE, async || slow.count() == 1).await;
    let states = async |state: &str| {
        let labels = [("destination", "shop/orders"), ("state", state)];
        caller.metrics().await.count("selvage_endpoints", &labels)
    };
    assert_eq!((states("closed").await, states("draining").await), (1, 0));
    caller.write_resources(&service("orders", "http", &[]));
    wait::until("its departure", PATIENCE, async || {
        states("draining").await == 1
    })
    .await;
    assert_eq!(states("closed").await, 0);
    let shown = endpoint(&caller, slow.address).await;
    assert_eq!(
        (&shown["draining"], &shown["pending"]),
        (&json!(true), &json!(1))
    );
    go.notify_one();
    assert_eq!(asked.await.expect("no panic").status, 200);
    wait::until("its end", PATIENCE, async || states("draining").await == 0).await;
}
