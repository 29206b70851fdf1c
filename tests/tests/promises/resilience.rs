//! When an endpoint fails, the cloth holds: retries where nothing was
//! processed or the policy says so, breakers, timeouts, and failing fast.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use selvage_tests::app::{App, ClosedPort, RawApp, ok, status};
use selvage_tests::client::{self, Answer, Http1, Http2, request};
use selvage_tests::mesh::{Mesh, plaintext_caller, service, traffic_policy};
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
    let caller = Sidecar::builder("client")
        .resources(&resources)
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
async fn a_service_without_endpoints_fails_fast() {
    let (_pki, caller) = plaintext_caller("http", &[], "").await;
    let answer = client::get(caller.outbound(), ORDERS, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.flag()),
        (503, "no-healthy-endpoint")
    );
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
