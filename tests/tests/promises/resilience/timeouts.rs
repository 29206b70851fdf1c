//! Whatever takes too long or is too much is ended, and nobody else pays for it.

use std::time::{Duration, Instant};

use http::Method;
use selvage_tests::app::App;
use selvage_tests::client::{self, Answer, Http1, Http2, request};
use selvage_tests::mesh::{plaintext_caller, traffic_policy};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::{body, grpc};

async fn call(caller: &Sidecar, method: Method, body: body::Body) -> Answer {
    Http1::connect(caller.outbound())
        .await
        .call(request(method, ORDERS, "/", body))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_hanging_application_is_cut_at_its_timeout() {
    let app = App::start(|_| std::future::pending()).await;
    for (policy, least) in [
        ("  timeouts: { request: 300ms }\n", 300),
        ("  timeouts: { backendRequest: 200ms }\n", 200),
    ] {
        let (_pki, caller) =
            plaintext_caller("http", &[app.address], &traffic_policy(policy)).await;
        let start = Instant::now();
        let answer = call(&caller, Method::GET, body::empty()).await;
        let took = start.elapsed();
        assert_eq!(
            (answer.status.as_u16(), answer.flag()),
            (504, "timeout"),
            "{policy}"
        );
        assert!(
            took >= Duration::from_millis(least) && took < Duration::from_millis(least + 700),
            "{policy}: {took:?}"
        );
    }
}

#[tokio::test]
async fn a_callers_deadline_is_shorter_and_counts_against_nobody() {
    let app = App::start(|_| std::future::pending()).await;
    let policy = traffic_policy("  circuitBreaker: { consecutiveFailures: 1 }\n");
    let (_pki, caller) = plaintext_caller("grpc", &[app.address], &policy).await;
    let connection = Http2::connect(caller.outbound()).await;
    for _ in 0..3 {
        let mut sent = grpc::request(ORDERS, "Unary", body::full(grpc::frame(b"x")));
        sent.headers_mut()
            .insert("grpc-timeout", "200m".parse().unwrap());
        let outcome = grpc::call(&connection, sent).await.unwrap();
        assert_eq!(
            (
                outcome.status,
                outcome.headers["x-selvage-flag"].to_str().unwrap()
            ),
            (Some(4), "timeout")
        );
    }
    assert_eq!(
        caller
            .metrics()
            .await
            .count("selvage_breaker_transitions_total", &[]),
        0
    );
    assert_eq!(app.count(), 3);
}

#[tokio::test]
async fn over_a_limit_is_overflow_at_once() {
    let app = App::start(|_| std::future::pending()).await;
    let policy = traffic_policy(
        "  limits: { maxRequests: 2 }\n  circuitBreaker: { consecutiveFailures: 1 }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &[app.address], &policy).await;
    let held: Vec<_> = (0..2)
        .map(|_| {
            let address = caller.outbound();
            tokio::spawn(async move { client::try_get(address, ORDERS, "/").await.is_ok() })
        })
        .collect();
    wait::until("two requests at the application", PATIENCE, async || {
        app.count() == 2
    })
    .await;
    for _ in 0..3 {
        let answer = client::get(caller.outbound(), ORDERS, "/").await;
        assert_eq!((answer.status.as_u16(), answer.flag()), (503, "overflow"));
    }
    assert_eq!(
        caller
            .metrics()
            .await
            .count("selvage_breaker_transitions_total", &[]),
        0,
        "the proxy's own limit is nobody's fault"
    );
    held.iter().for_each(tokio::task::JoinHandle::abort);
    wait::until("free places", PATIENCE, async || {
        caller
            .metrics()
            .await
            .count("selvage_http_active_requests", &[("direction", "outbound")])
            == 0
    })
    .await;
}

#[tokio::test]
async fn a_black_hole_costs_the_connect_timeout() {
    // A socket whose backlog is full takes no more connections and refuses none.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket
        .bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fillers = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(
        Duration::from_millis(200),
        tokio::net::TcpStream::connect(address),
    )
    .await
    {
        fillers.push(stream);
    }
    let policy = traffic_policy("  timeouts: { connect: 200ms }\n");
    let (_pki, caller) = plaintext_caller("http", &[address], &policy).await;
    let start = Instant::now();
    let answer = client::post(caller.outbound(), ORDERS, "/", "x").await;
    assert!(
        answer.status == 503 || answer.status == 504,
        "{}",
        answer.status
    );
    assert!(
        ["connect-failure", "timeout"].contains(&answer.flag()),
        "{}",
        answer.flag()
    );
    assert!(
        start.elapsed() < Duration::from_secs(2),
        "three tries of 200 ms, not {:?}",
        start.elapsed()
    );
    drop(fillers);
}
