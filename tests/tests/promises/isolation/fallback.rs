//! Where a service fails something may stand in for it: the caller is told so,
//! the failure stays on record, and what stands in is asked once.

use std::time::Duration;

use http::{HeaderValue, Method, Response};
use http_body_util::BodyExt;
use selvage_tests::app::{App, ok, status};
use selvage_tests::client::{self, Http1, Http2, request};
use selvage_tests::mesh::{plaintext_caller, service, traffic_policy};
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::{body, grpc};

const FALLBACKS: &str = "selvage_fallbacks_total";

/// A caller of `orders.shop`, answered by `orders`, and of `spare.shop`, answered by `spare`.
async fn caller(orders: &App, spare: &App, policies: &str) -> (Pki, Sidecar) {
    let pki = Pki::new();
    let sidecar = Sidecar::builder("client")
        .set("telemetry.accessLog", "json")
        .resources(&service("orders", "http", &[(orders.address, None)]))
        .resources(&service("spare", "http", &[(spare.address, None)]))
        .resources(policies);
    let sidecar = sidecar.start(&pki).await;
    (pki, sidecar)
}

#[tokio::test]
async fn another_service_answers_and_the_failure_stays_on_record() {
    let orders = App::start(|request| async {
        let body = request.into_body().collect().await;
        body.expect("a whole body");
        status(503)
    })
    .await;
    let spare = App::start(|request| async {
        let body = request.into_body().collect().await.expect("a whole body");
        ok([b"spare: ", &body.to_bytes()[..]].concat())
    })
    .await;
    let policy = traffic_policy(
        "  retry: { attempts: 1, on: [503], methods: [POST], backoff: { base: 1ms } }\n  fallback: { name: spare, on: [503, no-healthy-endpoint], service: { name: spare } }\n",
    );
    let (_pki, mut sidecar) = caller(&orders, &spare, &policy).await;
    // A body that was not kept cannot be sent on.
    let large = client::post(sidecar.outbound(), ORDERS, "/", vec![b'a'; 100 << 10]).await;
    assert_eq!((large.status.as_u16(), spare.count()), (503, 0));
    let answer = client::post(sidecar.outbound(), ORDERS, "/a?b", "body").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, "spare: body".to_owned())
    );
    assert_eq!(answer.header("x-selvage-fallback"), "spare");
    assert_eq!((orders.count(), spare.count()), (3, 1), "after the retry");
    assert_eq!(spare.last().uri.to_string(), "/a?b");
    // Five failures in a row open the breaker: then it is a flag that is stood in for.
    for _ in 0..4 {
        client::post(sidecar.outbound(), ORDERS, "/", "more").await;
    }
    let line = sidecar.accessed(&["\"path\":\"/a\""]).await;
    assert_eq!(line["status"], 200);
    assert_eq!(line["tries"], 3, "two of the first, one of the second");
    let line = sidecar.accessed(&["no-healthy-endpoint"]).await;
    assert_eq!(line["status"], 200);
    assert_eq!(line["flag"], "no-healthy-endpoint");
    assert_eq!(line["destination"], "shop/orders");
    assert_eq!(spare.count(), 5);
    let metrics = sidecar.metrics().await;
    let labels = [("destination", "shop/orders"), ("name", "spare")];
    assert_eq!(
        metrics.count(FALLBACKS, &labels),
        5,
        "{}",
        metrics.lines(FALLBACKS)
    );
    let flagged = [
        ("code", "200"),
        ("flag", "no-healthy-endpoint"),
        ("destination", "shop/orders"),
    ];
    assert!(metrics.count("selvage_http_requests_total", &flagged) > 0);
}

#[tokio::test]
async fn a_known_answer_is_given_with_its_headers() {
    let hanging = App::start(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        ok("late")
    })
    .await;
    let policy = traffic_policy(
        "  timeouts: { request: 200ms }\n  fallback:\n    name: none-yet\n    on: [timeout]\n    response: { status: 203, headers: [{ name: Content-Type, value: application/json }], body: '[]' }\n",
    );
    let (_pki, sidecar) = plaintext_caller("http", &[hanging.address], &policy).await;
    let answer = client::get(sidecar.outbound(), ORDERS, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (203, "[]".to_owned())
    );
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-selvage-fallback"), "none-yet");
    let head = request(Method::HEAD, ORDERS, "/", body::empty());
    let answer = Http1::connect(sidecar.outbound())
        .await
        .call(head)
        .await
        .expect("an answer");
    assert_eq!(
        (answer.header("content-length"), answer.body.len()),
        ("2", 0)
    );
    let metrics = sidecar.metrics().await;
    let flagged = [("code", "203"), ("flag", "timeout")];
    assert_eq!(metrics.count("selvage_http_requests_total", &flagged), 2);
}

#[tokio::test]
async fn what_stands_in_is_under_its_own_policy_and_is_not_stood_in_for() {
    let orders = App::start(|_| async { status(503) }).await;
    let spare = App::start(|_| async { status(500) }).await;
    let stands_in = |of: &str, by: &str, retry: &str| {
        format!(
            "kind: TrafficPolicy\nmetadata: {{ name: {of}, namespace: shop }}\nspec:\n  targetRefs: [{{ kind: Service, name: {of} }}]\n{retry}  fallback: {{ name: {by}, on: [500, 503], service: {{ name: {by} }} }}\n"
        )
    };
    // Each would stand in for the other.
    let retry = "  retry: { attempts: 2, on: [500], backoff: { base: 1ms } }\n";
    let policies = [
        stands_in("orders", "spare", ""),
        stands_in("spare", "orders", retry),
    ]
    .join("---\n");
    let (_pki, sidecar) = caller(&orders, &spare, &policies).await;
    let answer = client::get(sidecar.outbound(), ORDERS, "/").await;
    assert_eq!(answer.status, 500, "its own answer, however bad");
    assert_eq!(answer.header("x-selvage-fallback"), "spare");
    assert_eq!(
        (orders.count(), spare.count()),
        (1, 3),
        "retried as its own policy has it"
    );
    // The breakers learn of each alone.
    let clusters = client::get(sidecar.admin(), "localhost", "/clusters")
        .await
        .text();
    assert_eq!(
        clusters.matches("\"breaker\":\"closed\"").count(),
        2,
        "{clusters}"
    );
    assert_eq!(clusters.matches("\"pending\":0").count(), 2, "{clusters}");
}

/// A gRPC application that ends every call with `status`, in trailers.
async fn grpc_application(status: u32) -> App {
    App::start(move |_| async move {
        let (feed, body) = body::channel();
        tokio::spawn(async move {
            if status == 0 {
                feed.data(grpc::frame(b"pong")).await;
            }
            feed.trailers(grpc::trailers(status, "")).await;
        });
        let mut response = Response::new(body);
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", kind);
        response
    })
    .await
}

#[tokio::test]
async fn a_grpc_call_falls_back_by_its_status_in_the_trailers() {
    let failing = grpc_application(14).await;
    let spare = grpc_application(0).await;
    let pki = Pki::new();
    let policy = traffic_policy(
        "  fallback: { name: spare, on: [UNAVAILABLE], service: { name: spare } }\n",
    );
    let sidecar = Sidecar::builder("client")
        .resources(&service("orders", "grpc", &[(failing.address, None)]))
        .resources(&service("spare", "grpc", &[(spare.address, None)]))
        .resources(&policy);
    let sidecar = sidecar.start(&pki).await;
    let connection = Http2::connect(sidecar.outbound()).await;
    let request = grpc::request(ORDERS, "Unary", body::full(grpc::frame(b"ping")));
    let outcome = grpc::call(&connection, request).await.expect("an answer");
    assert_eq!(outcome.status, Some(0));
    assert_eq!(outcome.headers["x-selvage-fallback"], "spare");
    assert_eq!((failing.count(), spare.count()), (1, 1));
}
