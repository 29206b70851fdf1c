//! Either side may go away at every stage: the other one sees an error, never
//! a clean end, and nothing is left behind.

use http::Method;
use http_body_util::BodyExt;
use selvage_tests::app::{App, RawApp};
use selvage_tests::body;
use selvage_tests::client::{self, Answer, Http1, Http2, request, request2};
use selvage_tests::mesh::{Mesh, plaintext_caller, traffic_policy};
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::wire::Wire;

/// Failures in a row are the subject here: no breaker may cut them short.
const PATIENT: &str = "kind: MeshConfig\nmetadata: { name: mesh }\nspec: { trustDomain: mesh.local, defaults: { circuitBreaker: { consecutiveFailures: 0, successRate: { threshold: 0, window: 10s, minimumRequests: 20 } } } }";

/// Waits until neither sidecar has a request in flight.
async fn idle(mesh: &Mesh) {
    for sidecar in [&mesh.client, &mesh.server] {
        wait::until("no request in flight", PATIENCE, || async {
            sidecar
                .metrics()
                .await
                .count("selvage_http_active_requests", &[])
                == 0
        })
        .await;
    }
}

#[tokio::test]
async fn a_caller_may_leave_at_every_stage() {
    let app = App::start(|request| async move {
        if request.uri().path() == "/hang" {
            std::future::pending::<()>().await;
        }
        let (feed, body) = body::channel();
        tokio::spawn(async move {
            // Half a response: the rest comes when the request has ended, or never.
            feed.data("half").await;
            let _ = request.into_body().collect().await;
            feed.closed().await;
        });
        http::Response::new(body)
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let stages = [
        ("within the head", "GET / HTTP/1.1\r\nhost: ord", None),
        (
            "within the body",
            "POST / HTTP/1.1\r\nhost: orders.shop\r\ncontent-length: 10\r\n\r\nabc",
            Some("half"),
        ),
        (
            "within a chunk",
            "POST / HTTP/1.1\r\nhost: orders.shop\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc",
            Some("half"),
        ),
        (
            "before the response",
            "GET /hang HTTP/1.1\r\nhost: orders.shop\r\n\r\n",
            None,
        ),
        (
            "within the response",
            "GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n",
            Some("half"),
        ),
    ];
    for (stage, bytes, awaited) in stages {
        for reset in [false, true] {
            let before = app.count();
            let mut wire = Wire::connect(mesh.outbound()).await;
            wire.send(bytes).await;
            if let Some(awaited) = awaited {
                assert!(wire.until(awaited.as_bytes()).await.is_some(), "{stage}");
            } else if bytes.ends_with("\r\n\r\n") {
                wait::until("the request at the application", PATIENCE, || async {
                    app.count() > before
                })
                .await;
            }
            if reset {
                wire.reset();
            } else {
                drop(wire);
            }
            idle(&mesh).await;
        }
    }
    assert!(
        mesh.client.readiness().await == Some(200) && mesh.server.readiness().await == Some(200)
    );
}

#[tokio::test]
async fn a_cancelled_stream_is_cancelled_to_its_end() {
    let (gone, mut told) = tokio::sync::mpsc::channel(1);
    let app = App::start(move |request| {
        let gone = gone.clone();
        async move {
            let (feed, body) = body::channel();
            tokio::spawn(async move {
                feed.data("first").await;
                feed.closed().await;
                gone.send(()).await.ok();
                drop(request);
            });
            http::Response::new(body)
        }
    })
    .await;
    let mesh = Mesh::of(app.address, "http2").await;
    let caller = Http2::connect(mesh.outbound()).await;
    let mut body = caller
        .send(request2(Method::GET, ORDERS, "/", body::empty()))
        .await
        .unwrap()
        .into_body();
    wait::soon("the first piece", body.frame())
        .await
        .unwrap()
        .unwrap();
    drop(body);
    wait::soon("the cancellation at the application", told.recv()).await;
    idle(&mesh).await;
}

/// Where an application breaks off, and what it has sent until then.
const BROKEN_HEADS: [(&str, &str); 3] = [
    ("before the head", ""),
    ("within the status line", "HTTP/1.1 2"),
    ("within the head", "HTTP/1.1 200 OK\r\ncontent-le"),
];

const BROKEN_BODIES: [(&str, &str); 4] = [
    (
        "after the head",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n",
    ),
    (
        "within the body",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc",
    ),
    (
        "within a chunk",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc",
    ),
    (
        "between chunks",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ),
];

/// An application that breaks off as the request's path says: `/STAGE`, or `/STAGE/reset`.
async fn breaking(stages: &'static [(&'static str, &'static str)]) -> RawApp {
    RawApp::start(move |mut wire, _| async move {
        let Some(head) = wire.try_head().await else {
            return;
        };
        let path = head.line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut parts = path.trim_start_matches('/').split('/');
        let stage: usize = parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
        wire.send(stages[stage].1).await;
        if parts.next() == Some("reset") {
            wire.reset();
        }
    })
    .await
}

#[tokio::test]
async fn an_application_that_leaves_before_its_head_is_an_error() {
    let app = breaking(&BROKEN_HEADS).await;
    let mesh = Mesh::builder(app.address, "http")
        .client_resources(PATIENT)
        .server_resources(PATIENT)
        .start()
        .await;
    for (stage, (name, _)) in BROKEN_HEADS.iter().enumerate() {
        for suffix in ["", "/reset"] {
            let answer =
                client::post(mesh.outbound(), ORDERS, &format!("/{stage}{suffix}"), "x").await;
            let seen = (answer.status.as_u16(), answer.flag());
            assert!(
                seen == (503, "reset") || seen == (502, "bad-response"),
                "{name}{suffix}: {seen:?}"
            );
        }
    }
    idle(&mesh).await;
}

#[tokio::test]
async fn a_broken_body_is_never_a_clean_end() {
    let app = breaking(&BROKEN_BODIES).await;
    let mesh = Mesh::builder(app.address, "http")
        .client_resources(PATIENT)
        .server_resources(PATIENT)
        .start()
        .await;
    for (stage, (name, _)) in BROKEN_BODIES.iter().enumerate() {
        for suffix in ["", "/reset"] {
            let path = format!("/{stage}{suffix}");
            let one = Http1::connect(mesh.outbound())
                .await
                .send(request(Method::GET, ORDERS, &path, body::empty()))
                .await;
            assert_broken(one, &format!("{name}{suffix} over HTTP/1.1")).await;
            let caller = Http2::connect(mesh.outbound()).await;
            let two = caller
                .send(request2(Method::GET, ORDERS, &path, body::empty()))
                .await;
            assert_broken(two, &format!("{name}{suffix} over HTTP/2")).await;
        }
    }
    idle(&mesh).await;
}

async fn assert_broken(
    response: Result<http::Response<hyper::body::Incoming>, hyper::Error>,
    what: &str,
) {
    // The head may already have failed: that is an error too.
    let Ok(response) = response else { return };
    if response.status().as_u16() >= 500 {
        return;
    }
    let read = Answer::read(response).await;
    assert!(read.is_err(), "{what}: looks whole: {read:?}");
}

#[tokio::test]
async fn a_caller_that_aborts_its_body_is_seen_as_that() {
    let (sender, mut outcome) = tokio::sync::mpsc::channel(4);
    let app = App::start(move |request| {
        let sender = sender.clone();
        async move {
            let mut body = request.into_body();
            let first = body.frame().await.is_some_and(|frame| frame.is_ok());
            sender.send(first).await.ok();
            let read = body.collect().await;
            sender.send(read.is_err()).await.ok();
            selvage_tests::app::ok("x")
        }
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    for http2 in [false, true] {
        let (feed, sent_body) = body::channel();
        let address = mesh.outbound();
        let caller = tokio::spawn(async move {
            if http2 {
                let _ = Http2::connect(address)
                    .await
                    .send(request2(Method::POST, ORDERS, "/", sent_body))
                    .await;
            } else {
                let _ = Http1::connect(address)
                    .await
                    .send(request(Method::POST, ORDERS, "/", sent_body))
                    .await;
            }
        });
        assert!(feed.data("half of it").await);
        let first = wait::soon("the first half at the application", outcome.recv()).await;
        assert_eq!(first, Some(true));
        feed.abort().await;
        let broken = wait::soon("the application's end of the body", outcome.recv()).await;
        assert_eq!(
            broken,
            Some(true),
            "a truncated request must not look whole (HTTP/2: {http2})"
        );
        caller.await.unwrap();
    }
}

#[tokio::test]
async fn a_body_broken_off_after_the_answer_has_begun_is_nobody_elses_fault() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
            .await;
        // Waits for the rest, as the caller waits for it.
        let _ = wire.rest().await;
    })
    .await;
    let strict = traffic_policy("  circuitBreaker: { consecutiveFailures: 1 }\n");
    let (_pki, caller) = plaintext_caller("http", &[app.address], &strict).await;
    let mut wire = Wire::connect(caller.outbound()).await;
    wire.send("POST / HTTP/1.1\r\nhost: orders.shop\r\ncontent-length: 10\r\n\r\nabc")
        .await;
    assert_eq!(wire.head().await.status(), 200);
    wire.finish().await;
    let rest = wait::soon("the end of the connection", wire.rest()).await;
    assert!(!rest.is_ok_and(|rest| rest.ends_with(b"0\r\n\r\n")));
    let total = "selvage_http_requests_total";
    wait::until("the record of the request", PATIENCE, async || {
        caller.metrics().await.count(total, &[]) == 1
    })
    .await;
    let metrics = caller.metrics().await;
    let unflagged = metrics.count(total, &[("flag", "-")]);
    assert_eq!(unflagged, 1, "{}", metrics.lines(total));
    let transitions = metrics.count("selvage_breaker_transitions_total", &[]);
    assert_eq!(transitions, 0, "the endpoint did nothing wrong");
}
