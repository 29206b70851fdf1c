//! What counts as a failure of an endpoint: what the service says, and nothing
//! that was somebody else's doing.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use selvage_tests::app::{App, ok, status};
use selvage_tests::body;
use selvage_tests::client::{self, Http1, Http2, request};
use selvage_tests::grpc;
use selvage_tests::mesh::{Mesh, plaintext_caller, traffic_policy};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::Value;

/// Whose breakers opened, so far.
async fn opened(caller: &Sidecar) -> Vec<String> {
    let answer = client::get(caller.admin(), "localhost", "/events").await;
    let events: Vec<Value> = serde_json::from_slice(&answer.body).expect("a list");
    let opened = events.iter().filter(|event| event["to"] == "open");
    let of = |event: &Value| event["endpoint"].as_str().unwrap_or_default().to_owned();
    opened.map(of).collect()
}

#[tokio::test]
async fn a_service_says_what_counts_as_a_failure() {
    // What the service says, what it answers three times, and whether that opens its breaker.
    let table = [
        ("", 404, false),
        ("", 500, false),
        ("", 503, true),
        ("  failures: { hardStatuses: [404, 5xx] }\n", 404, true),
        ("  failures: { hardStatuses: [404, 5xx] }\n", 500, true),
        ("  failures: { hardStatuses: [429] }\n", 429, true),
        ("  failures: { hardStatuses: [429] }\n", 503, false),
        (
            "  failures: { statuses: [], hardStatuses: [] }\n",
            503,
            false,
        ),
    ];
    for (failures, code, expected) in table {
        let app = App::start(move |_| async move { status(code) }).await;
        let breaker = "  circuitBreaker: { consecutiveFailures: 3 }\n";
        let policy = traffic_policy(&format!("{breaker}{failures}"));
        let (_pki, caller) = plaintext_caller("http", &[app.address], &policy).await;
        for _ in 0..3 {
            let answer = client::get(caller.outbound(), ORDERS, "/").await;
            assert_eq!((answer.status.as_u16(), answer.flag()), (code, ""));
        }
        let is_open = !opened(&caller).await.is_empty();
        assert_eq!(is_open, expected, "{code} with {failures:?}");
    }
}

#[tokio::test]
async fn grpc_statuses_count_from_trailers_too() {
    // `FailLate` says 14 in its trailers, after a message; `Fail` says 9 in its headers.
    let table = [
        ("", "FailLate", true),
        ("", "Fail", false),
        (
            "  failures: { hardGrpcStatuses: [FAILED_PRECONDITION] }\n",
            "Fail",
            true,
        ),
        (
            "  failures: { hardGrpcStatuses: [], grpcStatuses: [] }\n",
            "FailLate",
            false,
        ),
    ];
    for (failures, method, expected) in table {
        let app = grpc::application().await;
        let breaker =
            "  circuitBreaker: { consecutiveFailures: 3, backoff: { base: 10s, max: 60s } }\n";
        let policy = traffic_policy(&format!("{breaker}{failures}"));
        let (_pki, caller) = plaintext_caller("grpc", &[app.address], &policy).await;
        let connection = Http2::connect(caller.outbound()).await;
        for _ in 0..3 {
            let body = body::full(grpc::frame(b"x"));
            let call = grpc::call(&connection, grpc::request(ORDERS, method, body));
            let status = call.await.expect("an answer").status;
            assert!(matches!(status, Some(9 | 14)), "{status:?}");
        }
        let is_open = !opened(&caller).await.is_empty();
        assert_eq!(is_open, expected, "{method} with {failures:?}");
    }
}

#[tokio::test]
async fn a_probing_call_decides_by_its_status_though_no_policy_repeats_it() {
    let app = App::start(|_| async {
        let (feed, body) = body::channel();
        tokio::spawn(async move {
            feed.trailers(grpc::trailers(14, "still ill")).await;
        });
        let mut response = http::Response::new(body);
        let kind = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", kind);
        response
    })
    .await;
    let policy = traffic_policy(
        "  circuitBreaker: { consecutiveFailures: 2, backoff: { base: 100ms, max: 100ms } }\n",
    );
    let (_pki, caller) = plaintext_caller("grpc", &[app.address], &policy).await;
    let connection = Http2::connect(caller.outbound()).await;
    wait::until("three openings", PATIENCE, async || {
        let body = body::full(grpc::frame(b"x"));
        let call = grpc::call(&connection, grpc::request(ORDERS, "Unary", body));
        assert_eq!(call.await.expect("an answer").status, Some(14));
        opened(&caller).await.len() == 3
    })
    .await;
    assert_eq!(app.count(), 4, "two opened it, and each probe again");
    let metrics = caller.metrics().await;
    let closed = [("to", "closed")];
    let transitions = metrics.count("selvage_breaker_transitions_total", &closed);
    assert_eq!(transitions, 0, "headers alone say nothing");
}

/// One request with a deadline of its own.
async fn hurried(address: SocketAddr, milliseconds: u32) -> u16 {
    let mut caller = Http1::connect(address).await;
    let mut asked = request(Method::GET, ORDERS, "/", body::empty());
    let deadline = milliseconds.into();
    asked
        .headers_mut()
        .insert("x-selvage-deadline-ms", deadline);
    caller.call(asked).await.expect("an answer").status.as_u16()
}

#[tokio::test]
async fn a_caller_in_a_hurry_opens_no_breaker() {
    let app = App::start(|_| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        ok("in its own time")
    })
    .await;
    let policy = traffic_policy("  circuitBreaker: { consecutiveFailures: 2 }\n");
    let mesh = Mesh::builder(app.address, "http")
        .client_resources(&policy)
        .start()
        .await;
    let outbound = mesh.outbound();
    // The other sidecar hears the deadline pass as early as this one.
    let answers = futures_util::future::join_all((0..20).map(|n| hurried(outbound, 20 + 5 * n)));
    assert!(answers.await.iter().all(|status| *status == 504));
    assert_eq!(opened(&mesh.client).await, Vec::<String>::new());
    assert_eq!(client::get(outbound, ORDERS, "/").await.status, 200);
}

/// The defect this keeps away: of two replicas one is frozen. Tries there use up
/// the time of their requests; the rest of it is too short for the other
/// replica, which answers every request that it is given time for.
#[tokio::test]
async fn what_a_frozen_replica_has_used_up_is_not_held_against_the_other() {
    let frozen = App::start(|_| std::future::pending()).await;
    let sound = App::start(|_| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        ok("sound")
    })
    .await;
    let policy = traffic_policy(
        "  timeouts: { request: 1s, backendRequest: 850ms }\n  retry: { attempts: 1, on: [timeout], backoff: { base: 1ms, max: 1ms }, budget: { percent: 100 } }\n  circuitBreaker: { backoff: { base: 20s, max: 60s } }\n",
    );
    let addresses = [frozen.address, sound.address];
    let (_pki, caller) = plaintext_caller("http", &addresses, &policy).await;
    let outbound = caller.outbound();
    let calls = (0..40).map(|_| client::get(outbound, ORDERS, "/"));
    let answers = futures_util::future::join_all(calls).await;
    let late = answers.iter().filter(|it| it.flag() == "timeout").count();
    println!("{late} of 40 began at the frozen replica and ended with their retry");
    assert!(
        late > 5,
        "enough to open the other's breaker, one after the other"
    );
    wait::until("the frozen replica is out", PATIENCE, async || {
        client::get(outbound, ORDERS, "/").await;
        opened(&caller).await.contains(&frozen.address.to_string())
    })
    .await;
    let opened = opened(&caller).await;
    assert!(!opened.contains(&sound.address.to_string()), "{opened:?}");
    for _ in 0..5 {
        let answer = client::get(outbound, ORDERS, "/").await;
        assert_eq!((answer.status.as_u16(), answer.flag()), (200, ""));
    }
}
