//! Faults injected on purpose strike whom they are meant for, as often as they
//! are meant to, and are held against nobody.

use std::time::{Duration, Instant};

use http::Method;
use selvage_tests::app::App;
use selvage_tests::client::{self, Http1, Http2, request, request2};
use selvage_tests::mesh::{plaintext_caller, traffic_policy};
use selvage_tests::sidecar::ORDERS;
use selvage_tests::{body, grpc};

const FAULTS: &str = "selvage_faults_total";
const REQUESTS: &str = "selvage_http_requests_total";

#[tokio::test]
async fn an_abort_strikes_its_share_and_no_breaker() {
    const SENT: u64 = 400;
    let app = App::echo().await;
    let policy = traffic_policy("  fault: { abort: { percent: 25, status: 503 } }\n");
    let (_pki, sidecar) = plaintext_caller("http", &[app.address], &policy).await;
    let mut connection = Http1::connect(sidecar.outbound()).await;
    let mut struck = 0;
    for _ in 0..SENT {
        let answer = connection
            .call(request(Method::GET, ORDERS, "/", body::empty()))
            .await;
        let answer = answer.expect("an answer");
        match answer.status.as_u16() {
            200 => assert_eq!(answer.flag(), ""),
            503 => {
                assert_eq!(answer.flag(), "fault");
                struck += 1;
            }
            other => panic!("{other}"),
        }
    }
    // Six standard deviations on either side.
    assert!((48..=152).contains(&struck), "{struck} of {SENT}");
    assert_eq!(
        app.count() as u64,
        SENT - struck,
        "what is struck is not sent"
    );
    let metrics = sidecar.metrics().await;
    assert_eq!(
        metrics.count(FAULTS, &[("kind", "abort")]),
        struck,
        "{}",
        metrics.lines(FAULTS)
    );
    assert_eq!(
        metrics.count(REQUESTS, &[("code", "503"), ("flag", "fault")]),
        struck
    );
    assert_eq!(metrics.count("selvage_breaker_transitions_total", &[]), 0);
    assert_eq!(metrics.count("selvage_http_retries_total", &[]), 0);
}

#[tokio::test]
async fn a_delay_counts_within_the_time_of_the_request() {
    let app = App::echo().await;
    let fault = "  fault: { delay: { percent: 100, duration: 300ms }, match: { headers: [{ name: X-Chaos, value: slow }] } }\n";
    let limits = "  timeouts: { request: 1s }\n";
    let (_pki, sidecar) = plaintext_caller(
        "http",
        &[app.address],
        &traffic_policy(&format!("{limits}{fault}")),
    )
    .await;
    let connection = Http2::connect(sidecar.outbound()).await;
    let ask = async |chaos: Option<&'static str>, deadline: Option<&'static str>| {
        let mut request = request2(Method::GET, ORDERS, "/", body::empty());
        if let Some(chaos) = chaos {
            request
                .headers_mut()
                .insert("x-chaos", chaos.parse().expect("a value"));
        }
        if let Some(deadline) = deadline {
            let headers = request.headers_mut();
            headers.insert("grpc-timeout", deadline.parse().expect("a value"));
        }
        let begun = Instant::now();
        let answer = connection.call(request).await.expect("an answer");
        (answer, begun.elapsed())
    };
    let (answer, took) = ask(Some("slow"), None).await;
    assert_eq!(answer.status, 200);
    assert!(took >= Duration::from_millis(300), "{took:?}");
    for chaos in [None, Some("fast")] {
        assert_eq!(ask(chaos, None).await.0.status, 200);
    }
    let (answer, took) = ask(Some("slow"), Some("100m")).await;
    assert_eq!((answer.status.as_u16(), answer.flag()), (504, "timeout"));
    assert!(took >= Duration::from_millis(90), "{took:?}");
    assert_eq!(app.count(), 3, "the late one was not sent");
    let metrics = sidecar.metrics().await;
    assert_eq!(
        metrics.count(FAULTS, &[("kind", "delay")]),
        2,
        "{}",
        metrics.lines(FAULTS)
    );
    assert_eq!(
        metrics.count(REQUESTS, &[("code", "200"), ("flag", "fault")]),
        1
    );
    assert_eq!(
        metrics.count(REQUESTS, &[("code", "504"), ("flag", "fault")]),
        1
    );
}

#[tokio::test]
async fn a_reset_is_no_answer_at_all() {
    let app = App::echo().await;
    let policy = traffic_policy(
        "  fault: { abort: { percent: 100, reset: true }, match: { headers: [{ name: x-chaos, value: 'on' }] } }\n",
    );
    let (_pki, sidecar) = plaintext_caller("http", &[app.address], &policy).await;
    let chaos = || "on".parse().expect("a value");
    let mut one = Http1::connect(sidecar.outbound()).await;
    let mut struck = request(Method::GET, ORDERS, "/", body::empty());
    struck.headers_mut().insert("x-chaos", chaos());
    assert!(one.call(struck).await.is_err());
    let two = Http2::connect(sidecar.outbound()).await;
    let mut struck = request2(Method::GET, ORDERS, "/", body::empty());
    struck.headers_mut().insert("x-chaos", chaos());
    assert!(two.call(struck).await.is_err());
    let other = two
        .call(request2(Method::GET, ORDERS, "/", body::empty()))
        .await;
    assert_eq!(other.expect("the stream alone is reset").status, 200);
    assert_eq!(
        client::get(sidecar.outbound(), ORDERS, "/").await.status,
        200
    );
    assert_eq!(app.count(), 2);
    let metrics = sidecar.metrics().await;
    assert_eq!(
        metrics.count(FAULTS, &[("kind", "reset")]),
        2,
        "{}",
        metrics.lines(FAULTS)
    );
    assert_eq!(
        metrics.count(REQUESTS, &[("code", "-"), ("flag", "fault")]),
        2
    );
}

#[tokio::test]
async fn a_grpc_call_gets_a_grpc_status_and_a_fallback_bears_it() {
    let app = grpc::application().await;
    let policy = "  fault: { abort: { percent: 100, grpcStatus: DATA_LOSS } }\n";
    let (_pki, sidecar) = plaintext_caller("grpc", &[app.address], &traffic_policy(policy)).await;
    let connection = Http2::connect(sidecar.outbound()).await;
    let request = grpc::request(ORDERS, "Unary", body::full(grpc::frame(b"ping")));
    let outcome = grpc::call(&connection, request).await.expect("an answer");
    assert_eq!(outcome.status, Some(15));
    assert_eq!(app.count(), 0);
    // What callers see of a fault is stood in for like any failure.
    let policy = "  fault: { abort: { percent: 0.0001, status: 418 }, delay: { percent: 100, duration: 1ms } }\n  fallback: { name: plan-b, on: [fault], response: { status: 200, body: calm } }\n";
    let (_pki, sidecar) = plaintext_caller("http", &[app.address], &traffic_policy(policy)).await;
    let answer = client::get(sidecar.outbound(), ORDERS, "/").await;
    assert_eq!(
        answer.header("x-selvage-fallback"),
        "",
        "a delay alone is no failure"
    );
    let policy = policy.replace("0.0001", "100");
    let (_pki, sidecar) = plaintext_caller("http", &[app.address], &traffic_policy(&policy)).await;
    let answer = client::get(sidecar.outbound(), ORDERS, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, "calm".to_owned())
    );
}
