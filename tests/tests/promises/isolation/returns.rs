//! An endpoint that was out of rotation is used again as soon as it is well,
//! and not before.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use selvage_tests::app::{App, RawApp, ok, status};
use selvage_tests::client;
use selvage_tests::mesh::{plaintext_caller, traffic_policy};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::Value;
use tokio::sync::Barrier;

/// For how long its endpoint was taken out, each time, in milliseconds.
async fn openings(caller: &Sidecar) -> Vec<u64> {
    let answer = client::get(caller.admin(), "localhost", "/events").await;
    let events: Vec<Value> = serde_json::from_str(&answer.text()).expect("a list of events");
    let opened = events.iter().filter(|event| event["to"] == "open");
    opened
        .filter_map(|event| event["openForMs"].as_u64())
        .collect()
}

#[tokio::test]
async fn a_probe_whose_body_breaks_takes_it_out_for_longer() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
            .await;
    })
    .await;
    let policy = traffic_policy(
        "  circuitBreaker: { consecutiveFailures: 1, backoff: { base: 200ms, max: 10s } }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &[app.address], &policy).await;
    let mut opened = Vec::new();
    wait::until("two probes", PATIENCE, async || {
        let broken = client::try_get(caller.outbound(), ORDERS, "/").await;
        assert!(
            broken.is_err() || broken.is_ok_and(|answer| answer.flag() == "no-healthy-endpoint")
        );
        opened = openings(&caller).await;
        opened.len() >= 3
    })
    .await;
    // Twice the base and no more: no other endpoint stands in.
    let ranges = [100..=200, 200..=400, 200..=400];
    let fit = ranges
        .iter()
        .zip(&opened)
        .all(|(range, ms)| range.contains(ms));
    assert!(fit, "each time for longer: {opened:?}");
    assert_eq!(app.accepted(), 3, "one request for each time");
}

#[tokio::test]
async fn a_connection_of_before_is_not_probed_with() {
    let again = Arc::new(AtomicUsize::new(0));
    let (both, counted) = (Arc::new(Barrier::new(2)), Arc::clone(&again));
    // Of the first two connections one answers well and one does not; then both are dead.
    let app = RawApp::start(move |mut wire, number| {
        let (both, again) = (Arc::clone(&both), Arc::clone(&counted));
        async move {
            wire.head().await;
            let first = number < 2;
            if first {
                both.wait().await;
            }
            let code = if number == 1 { 503 } else { 200 };
            wire.send(format!("HTTP/1.1 {code} So\r\ncontent-length: 0\r\n\r\n"))
                .await;
            while wire.try_head().await.is_some() {
                if first {
                    again.fetch_add(1, Ordering::SeqCst);
                } else {
                    wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                        .await;
                }
            }
        }
    })
    .await;
    let policy = traffic_policy(
        "  circuitBreaker: { consecutiveFailures: 1, backoff: { base: 200ms, max: 10s } }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &[app.address], &policy).await;
    let get = || client::get(caller.outbound(), ORDERS, "/");
    let (one, other) = tokio::join!(get(), get());
    let mut codes = [one.status.as_u16(), other.status.as_u16()];
    codes.sort_unstable();
    assert_eq!(codes, [200, 503]);
    assert_eq!(openings(&caller).await.len(), 1);
    wait::until("a probe that is answered", PATIENCE, async || {
        get().await.status == 200
    })
    .await;
    for _ in 0..5 {
        assert_eq!(get().await.status, 200);
    }
    assert_eq!(again.load(Ordering::SeqCst), 0, "sent on dead connections");
    assert_eq!(openings(&caller).await.len(), 1);
}

#[tokio::test]
async fn what_is_reached_again_is_used_before_its_backoff_is_over() {
    let app = App::start(|_| async { status(503) }).await;
    let address = app.address;
    let policy = traffic_policy(
        "  circuitBreaker: { consecutiveFailures: 1, backoff: { base: 60s, max: 60s } }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &[address], &policy).await;
    assert_eq!(client::get(caller.outbound(), ORDERS, "/").await.flag(), "");
    let opened = openings(&caller).await;
    assert!(opened.len() == 1 && opened[0] >= 30_000, "{opened:?}");
    drop(app);
    // The sidecar connects once a second, and says nothing where it cannot.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let _app = App::start_at(address, |_| async { ok("back") }).await;
    let took = wait::until("it is used", PATIENCE, async || {
        client::get(caller.outbound(), ORDERS, "/").await.status == 200
    })
    .await;
    println!("used {} ms after it is back", took.as_millis());
}
