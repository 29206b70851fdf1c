//! A request is sent again only where nothing was processed, or where the policy
//! says that it may be repeated; never past its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Method;
use selvage_tests::app::{App, ClosedPort, RawApp, ok, status};
use selvage_tests::client::{self, Answer, Http1, Http2, request};
use selvage_tests::mesh::{plaintext_caller, service, traffic_policy};
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::{body, grpc};

const RETRIES: &str = "  retry: { attempts: 2, on: [connect-failure, reset, 503], backoff: { base: 1ms, max: 5ms } }\n  circuitBreaker: { consecutiveFailures: 0 }\n";

/// An application that answers `code` to the first `failures` requests, then 200.
async fn failing_first(failures: usize, code: u16) -> App {
    let count = Arc::new(AtomicUsize::new(0));
    App::start(move |request| {
        let failed = count.fetch_add(1, Ordering::SeqCst) < failures;
        async move {
            // Read whole first: what was not taken yet could still be sent to another.
            let body = http_body_util::BodyExt::collect(request.into_body())
                .await
                .unwrap()
                .to_bytes();
            if failed { status(code) } else { ok(body) }
        }
    })
    .await
}

async fn call(caller: &Sidecar, method: Method, body: body::Body) -> Answer {
    Http1::connect(caller.outbound())
        .await
        .call(request(method, ORDERS, "/", body))
        .await
        .unwrap()
}

async fn retries(caller: &Sidecar, outcome: &str) -> u64 {
    let labels = [("destination", "shop/orders"), ("outcome", outcome)];
    caller
        .metrics()
        .await
        .count("selvage_http_retries_total", &labels)
}

#[tokio::test]
async fn a_refused_connection_costs_no_request_not_even_a_post() {
    let (closed, app) = (ClosedPort::new(), App::echo().await);
    let (_pki, caller) = plaintext_caller("http", &[closed.address, app.address], "").await;
    for number in 0..40 {
        let answer = client::post(caller.outbound(), ORDERS, "/", number.to_string()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (200, number.to_string()),
            "{}",
            answer.flag()
        );
    }
    assert_eq!(app.count(), 40, "each exactly once");
}

#[tokio::test]
async fn a_dead_application_behind_its_sidecar_costs_no_request() {
    let pki = Pki::new();
    let (closed, app) = (ClosedPort::new(), App::echo().await);
    let dead = Sidecar::builder("orders")
        .application(80, closed.address, "http")
        .start(&pki)
        .await;
    let live = Sidecar::builder("orders")
        .application(80, app.address, "http")
        .start(&pki)
        .await;
    let id = || Some(spiffe_id("shop", "orders"));
    let resources = service(
        "orders",
        "http",
        &[(dead.inbound(), id()), (live.inbound(), id())],
    );
    // In turn, so that every other request is for the dead one.
    let in_turn = traffic_policy("  loadBalancer: { algorithm: round-robin }\n");
    let caller = Sidecar::builder("client")
        .resources(&resources)
        .resources(&in_turn)
        .start(&pki)
        .await;
    for number in 0..20 {
        let answer = client::post(caller.outbound(), ORDERS, "/", number.to_string()).await;
        assert_eq!(
            answer.status,
            200,
            "the other sidecar's connect-failure is retried: {}",
            answer.flag()
        );
    }
    assert_eq!(app.count(), 20, "each exactly once");
}

#[tokio::test]
async fn a_failure_is_retried_by_policy_only_where_it_may_be_repeated() {
    for (method, resources, code, tries) in [
        (Method::GET, traffic_policy(RETRIES), 200, 2),
        (Method::PUT, traffic_policy(RETRIES), 200, 2),
        (Method::POST, traffic_policy(RETRIES), 503, 1),
        (Method::GET, String::new(), 503, 1),
    ] {
        let app = failing_first(1, 503).await;
        let (_pki, caller) = plaintext_caller("http", &[app.address], &resources).await;
        let answer = call(&caller, method.clone(), body::empty()).await;
        assert_eq!(
            (answer.status.as_u16(), app.count()),
            (code, tries),
            "{method} {resources}"
        );
        assert_eq!(answer.flag(), "", "{method}: the application's own answer");
    }
}

#[tokio::test]
async fn retries_end_at_their_limit_and_are_counted() {
    let app = App::start(|_| async { status(503) }).await;
    let (_pki, caller) = plaintext_caller("http", &[app.address], &traffic_policy(RETRIES)).await;
    assert_eq!(
        call(&caller, Method::GET, body::empty()).await.status,
        503,
        "the original failure"
    );
    assert_eq!(app.count(), 3, "two retries are three tries");
    assert_eq!(
        retries(&caller, "failure").await + retries(&caller, "limit").await,
        2 + 1,
        "{}",
        caller.metrics().await.lines("selvage_http_retries")
    );
}

#[tokio::test]
async fn a_body_is_replayed_whole_or_not_at_all() {
    for (size, code, tries) in [(60_000, 200, 2), (70_000, 503, 1)] {
        let app = failing_first(1, 503).await;
        let (_pki, caller) =
            plaintext_caller("http", &[app.address], &traffic_policy(RETRIES)).await;
        let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
        let answer = call(&caller, Method::PUT, body::full(bytes.clone())).await;
        assert_eq!(
            (answer.status.as_u16(), app.count()),
            (code, tries),
            "{size} bytes of the 64 KiB that are kept"
        );
        if code == 200 {
            assert!(answer.body == bytes, "the replay is the body");
        }
    }
}

#[tokio::test]
async fn a_reset_is_retried_when_the_policy_says_so() {
    let app = RawApp::start(|mut wire, number| async move {
        let Some(_) = wire.try_head().await else {
            return;
        };
        if number == 0 {
            return wire.reset();
        }
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
        wire.rest().await.ok();
    })
    .await;
    let (_pki, caller) = plaintext_caller("http", &[app.address], &traffic_policy(RETRIES)).await;
    assert_eq!(call(&caller, Method::GET, body::empty()).await.status, 200);
    assert_eq!((app.accepted(), retries(&caller, "success").await), (2, 1));
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_request() {
    // Each connection serves one request and then closes without a word.
    let app = RawApp::start(|mut wire, _| async move {
        let Some(_) = wire.try_head().await else {
            return;
        };
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let (_pki, caller) = plaintext_caller("http", &[app.address], "").await;
    let mut connection = Http1::connect(caller.outbound()).await;
    for _ in 0..50 {
        let answer = connection
            .call(request(Method::GET, ORDERS, "/", body::empty()))
            .await
            .unwrap();
        assert_eq!(answer.status, 200, "{}", answer.flag());
    }
}

#[tokio::test]
async fn an_application_that_restarts_costs_no_request_however_many_connections_it_had() {
    // Fewer than an application keeps in its backlog: one whose connection is dropped there tries again.
    const CONNECTIONS: usize = 100;
    let (restart, restarts) = tokio::sync::watch::channel(false);
    let together = std::sync::Arc::new(tokio::sync::Barrier::new(CONNECTIONS));
    let app = RawApp::start(move |mut wire, number| {
        let (mut restarts, together) = (restarts.clone(), together.clone());
        async move {
            wire.head().await;
            if number >= CONNECTIONS {
                wire.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nnew")
                    .await;
                wire.rest().await.ok();
                return;
            }
            // None is answered before all are there: each has a connection of its own.
            together.wait().await;
            wire.send("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nold")
                .await;
            restarts.wait_for(|restarts| *restarts).await.ok();
        }
    })
    .await;
    let (_pki, caller) = plaintext_caller("http", &[app.address], "").await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..CONNECTIONS {
        let address = caller.outbound();
        asking.spawn(async move {
            client::try_get(address, ORDERS, "/")
                .await
                .map(|answer| answer.text())
                .ok()
        });
    }
    let answers = asking.join_all().await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_deref() == Some("old"))
    );
    restart.send_replace(true);
    wait::until("the old connections to be closed", PATIENCE, async || {
        restart.receiver_count() == 1
    })
    .await;
    // Not idempotent: nothing repeats it.
    let answer = call(&caller, Method::POST, body::full("x")).await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "new"),
        "{}",
        answer.flag()
    );
}

#[tokio::test]
async fn an_exhausted_budget_returns_the_original_failure() {
    let app = App::start(|_| async { status(503) }).await;
    let policy = "  retry: { attempts: 1, on: [503], backoff: { base: 1ms, max: 1ms }, budget: { percent: 10, interval: 10s, minPerSecond: 0 } }\n  circuitBreaker: { consecutiveFailures: 0 }\n";
    let (_pki, caller) = plaintext_caller("http", &[app.address], &traffic_policy(policy)).await;
    for _ in 0..100 {
        let answer = call(&caller, Method::GET, body::empty()).await;
        assert_eq!((answer.status.as_u16(), answer.flag()), (503, ""));
    }
    let extra = app.count() - 100;
    assert!(
        (5..=10).contains(&extra),
        "100 requests at 10 % may add 10, and added {extra}"
    );
    let exhausted = caller.metrics().await.count(
        "selvage_retry_budget_exhausted_total",
        &[("destination", "shop/orders")],
    );
    assert_eq!(exhausted as usize, 100 - extra);
}

#[tokio::test]
async fn grpc_is_retried_only_where_its_status_is_listed() {
    for (on, expected) in [("[UNAVAILABLE]", 2), ("[503]", 1)] {
        let count = Arc::new(AtomicUsize::new(0));
        let app = App::start(move |_| {
            let failed = count.fetch_add(1, Ordering::SeqCst) == 0;
            async move {
                let mut response = ok("");
                *response.headers_mut() = grpc::trailers(if failed { 14 } else { 0 }, "");
                response
                    .headers_mut()
                    .insert("content-type", "application/grpc".parse().unwrap());
                response
            }
        })
        .await;
        let policy = traffic_policy(&format!(
            "  retry: {{ attempts: 2, on: {on}, backoff: {{ base: 1ms, max: 5ms }} }}\n"
        ));
        let (_pki, caller) = plaintext_caller("grpc", &[app.address], &policy).await;
        let connection = Http2::connect(caller.outbound()).await;
        let sent = grpc::request(ORDERS, "Unary", body::full(grpc::frame(b"x")));
        let outcome = grpc::call(&connection, sent).await.unwrap();
        assert_eq!(
            (app.count(), outcome.status),
            (expected, Some(if expected == 2 { 0 } else { 14 })),
            "{on}"
        );
    }
}
