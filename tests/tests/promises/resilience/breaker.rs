//! An endpoint that fails is taken out of rotation, probed, and taken back.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use selvage_tests::app::{App, ok, status};
use selvage_tests::client::{self};
use selvage_tests::mesh::{Mesh, plaintext_caller, traffic_policy};
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait::{self, PATIENCE};

#[tokio::test]
async fn a_breaker_opens_probes_once_and_closes() {
    let healthy = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = Arc::clone(&healthy);
    let app = App::start(move |_| {
        let code = if state.load(Ordering::SeqCst) {
            200
        } else {
            503
        };
        async move { status(code) }
    })
    .await;
    let policy = traffic_policy(
        "  circuitBreaker: { consecutiveFailures: 5, backoff: { base: 300ms, max: 1s } }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &[app.address], &policy).await;
    for _ in 0..5 {
        assert_eq!(
            client::get(caller.outbound(), ORDERS, "/").await.flag(),
            "",
            "the application's own 503"
        );
    }
    let transitions = async |to: &str| {
        let labels = [("destination", "shop/orders"), ("to", to)];
        caller
            .metrics()
            .await
            .count("selvage_breaker_transitions_total", &labels)
    };
    let open = client::get(caller.outbound(), ORDERS, "/").await;
    assert_eq!(
        (open.status.as_u16(), open.flag(), app.count()),
        (503, "no-healthy-endpoint", 5),
        "fail fast"
    );
    assert_eq!(transitions("open").await, 1);
    assert_eq!(
        caller
            .metrics()
            .await
            .count("selvage_endpoints", &[("state", "open")]),
        1
    );

    // One real request probes; it fails, and the breaker stays open for longer.
    wait::until("the first probe", PATIENCE, async || {
        client::get(caller.outbound(), ORDERS, "/").await;
        app.count() > 5
    })
    .await;
    assert_eq!((app.count(), transitions("open").await), (6, 2));
    healthy.store(true, Ordering::SeqCst);
    wait::until("recovery", PATIENCE, async || {
        client::get(caller.outbound(), ORDERS, "/").await.status == 200
    })
    .await;
    assert_eq!(
        (app.count(), transitions("closed").await),
        (7, 1),
        "one probe was enough"
    );
    for _ in 0..10 {
        assert_eq!(
            client::get(caller.outbound(), ORDERS, "/").await.status,
            200
        );
    }
}

#[tokio::test]
async fn half_open_admits_one() {
    let slow = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let state = Arc::clone(&slow);
    let app = App::start(move |_| {
        let slow = state.load(Ordering::SeqCst);
        async move {
            if slow {
                tokio::time::sleep(Duration::from_millis(300)).await;
                return status(200);
            }
            status(503)
        }
    })
    .await;
    let policy = traffic_policy(
        "  circuitBreaker: { consecutiveFailures: 1, backoff: { base: 200ms, max: 1s } }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &[app.address], &policy).await;
    assert_eq!(client::get(caller.outbound(), ORDERS, "/").await.flag(), "");
    slow.store(true, Ordering::SeqCst);
    wait::until("half open", PATIENCE, async || {
        caller
            .metrics()
            .await
            .count("selvage_endpoints", &[("state", "half_open")])
            == 1
    })
    .await;
    let calls = (0..20).map(|_| client::get(caller.outbound(), ORDERS, "/"));
    let answers = futures_util::future::join_all(calls).await;
    let served = answers.iter().filter(|answer| answer.status == 200).count();
    let refused = answers
        .iter()
        .filter(|answer| answer.flag() == "no-healthy-endpoint")
        .count();
    assert_eq!((served, refused, app.count()), (1, 19, 2));
}

#[tokio::test]
async fn a_failing_replica_is_isolated_and_others_serve() {
    let bad = App::start(|_| async { status(503) }).await;
    let good = App::start(|_| async { ok("good") }).await;
    let resources = traffic_policy(
        "  retry: { attempts: 2, on: [503], backoff: { base: 1ms, max: 5ms } }\n  circuitBreaker: { backoff: { base: 10s, max: 60s } }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &[bad.address, good.address], &resources).await;
    let mut failed = 0;
    for _ in 0..100 {
        failed += usize::from(client::get(caller.outbound(), ORDERS, "/").await.status != 200);
    }
    assert_eq!(
        failed, 0,
        "retries on the other replica hide the failing one"
    );
    assert!(
        bad.count() <= 5,
        "its breaker opened after at most 5 failures in a row, not {}",
        bad.count()
    );
}

#[tokio::test]
async fn a_service_without_endpoints_fails_fast() {
    let (_pki, caller) = plaintext_caller("http", &[], "").await;
    let answer = client::get(caller.outbound(), ORDERS, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.flag()),
        (503, "no-healthy-endpoint")
    );
}

#[tokio::test]
async fn the_other_sidecars_denial_reaches_no_breaker() {
    let app = App::echo().await;
    let deny = "kind: AuthorizationPolicy\nmetadata: { name: orders, namespace: shop }\nspec:\n  targetRefs: [{ kind: Service, name: orders }]\n  rules: [{ name: nobody, action: deny }]\n";
    let strict = traffic_policy(
        "  circuitBreaker: { consecutiveFailures: 1, successRate: { threshold: 99, window: 10s, minimumRequests: 1 } }\n",
    );
    let mesh = Mesh::builder(app.address, "http")
        .server_resources(deny)
        .client_resources(&strict)
        .start()
        .await;
    for _ in 0..10 {
        assert_eq!(
            client::get(mesh.outbound(), ORDERS, "/").await.flag(),
            "denied"
        );
    }
    assert_eq!(
        mesh.client
            .metrics()
            .await
            .count("selvage_breaker_transitions_total", &[]),
        0
    );
}
