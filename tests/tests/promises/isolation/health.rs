//! Endpoints are asked for their health before requests find out, and the
//! application beside a sidecar is asked in the words it knows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use selvage_tests::app::{App, ok, status};
use selvage_tests::body::{self, Body};
use selvage_tests::client;
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::grpc;
use selvage_tests::load::Load;
use selvage_tests::mesh::{Mesh, plaintext_caller, service, traffic_policy};
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::{Value, json};

const INTERVAL: Duration = Duration::from_millis(400);
const THRESHOLD: u32 = 2;
/// A machine at work may be this many times slower.
const SLACK: u32 = 5;
const GRPC_CHECK: &str = "/grpc.health.v1.Health/Check";

/// An application that answers every request, and whose health is what is said of it.
struct Patient {
    app: App,
    well: Arc<AtomicBool>,
    /// Requests that were no checks.
    served: Arc<AtomicUsize>,
}

impl Patient {
    async fn start() -> Self {
        let well = Arc::new(AtomicBool::new(true));
        let served = Arc::new(AtomicUsize::new(0));
        let (state, count) = (well.clone(), served.clone());
        let app = App::start(move |request| {
            let (well, count) = (state.load(Ordering::SeqCst), count.clone());
            async move {
                match request.uri().path() {
                    "/healthz" => status(if well { 200 } else { 503 }),
                    GRPC_CHECK => grpc_health(request, well).await,
                    _ => {
                        count.fetch_add(1, Ordering::SeqCst);
                        ok("served")
                    }
                }
            }
        })
        .await;
        Self { app, well, served }
    }

    fn becomes(&self, well: bool) {
        self.well.store(well, Ordering::SeqCst);
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }
}

/// As a server of grpc.health.v1 answers that knows `shop.Orders` alone.
async fn grpc_health(request: Request<Incoming>, well: bool) -> Response<Body> {
    let asked = request.into_body().collect().await.map(|it| it.to_bytes());
    // HealthCheckRequest { service: "shop.Orders" }: field 1, eleven bytes.
    let known = grpc::frame(b"\x0a\x0bshop.Orders");
    let (frame, trailers) = if asked.is_ok_and(|asked| asked == known) {
        // HealthCheckResponse { status: SERVING or NOT_SERVING }.
        let message = if well { b"\x08\x01" } else { b"\x08\x02" };
        (grpc::frame(message), grpc::trailers(0, ""))
    } else {
        (Default::default(), grpc::trailers(5, "unknown service"))
    };
    let mut response = Response::new(body::with_trailers(frame, trailers));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

fn policy(question: &str) -> String {
    traffic_policy(&format!(
        "  healthCheck: {{ {question}, interval: {0}ms, timeout: {0}ms, unhealthyThreshold: {THRESHOLD}, healthyThreshold: {THRESHOLD} }}\n",
        INTERVAL.as_millis()
    ))
}

async fn endpoints(caller: &Sidecar, state: &str) -> u64 {
    let labels = [("destination", "shop/orders"), ("state", state)];
    caller.metrics().await.count("selvage_endpoints", &labels)
}

/// Waits until so many endpoints are in a state; that may take a few intervals.
async fn becomes(caller: &Sidecar, state: &str, count: u64) -> Duration {
    let limit = INTERVAL * THRESHOLD * SLACK;
    let what = format!("{count} endpoints that are {state}");
    let took = wait::until(&what, limit, async || {
        endpoints(caller, state).await == count
    })
    .await;
    println!("{what}: after {} ms", took.as_millis());
    took
}

async fn leaves_before_a_request_fails(protocol: &str, question: &str) {
    let (ill, well) = (Patient::start().await, Patient::start().await);
    let addresses = [ill.app.address, well.app.address];
    let (_pki, caller) = plaintext_caller(protocol, &addresses, &policy(question)).await;
    let load = Load::start(caller.outbound(), ORDERS, 4, Duration::from_millis(5));
    load.passes(100).await;
    assert!(ill.served() > 0, "it is healthy until shown otherwise");
    ill.becomes(false);
    becomes(&caller, "unhealthy", 1).await;
    assert_eq!(endpoints(&caller, "closed").await, 1);
    // What was on its way then has arrived after as many more.
    load.passes(20).await;
    let before = ill.served();
    load.passes(200).await;
    assert_eq!(ill.served(), before, "nothing is sent there");
    ill.becomes(true);
    becomes(&caller, "closed", 2).await;
    wait::until("its share", PATIENCE, async || ill.served() > before).await;
    let tally = load.stop().await;
    assert_eq!(tally.failed, 0, "of {}: {:?}", tally.sent, tally.failures);
    let transitions = "selvage_breaker_transitions_total";
    assert_eq!(caller.metrics().await.count(transitions, &[]), 0);
}

#[tokio::test]
async fn an_endpoint_whose_healthz_turns_503_leaves_before_a_request_fails() {
    leaves_before_a_request_fails("http", "http: { path: /healthz }").await;
}

#[tokio::test]
async fn an_endpoint_that_stops_serving_by_grpc_leaves_before_a_request_fails() {
    leaves_before_a_request_fails("http2", "grpc: { service: shop.Orders }").await;
}

#[tokio::test]
async fn checks_cross_to_the_application_of_another_sidecar() {
    let table = [
        ("http", "http: { path: /healthz, host: orders.example }"),
        ("grpc", "grpc: { service: shop.Orders }"),
    ];
    for (protocol, question) in table {
        let patient = Patient::start().await;
        let mesh = Mesh::builder(patient.app.address, protocol)
            .client_resources(&policy(question))
            .start()
            .await;
        let flag = async || client::get(mesh.outbound(), ORDERS, "/").await;
        assert_eq!(flag().await.status, 200);
        patient.becomes(false);
        becomes(&mesh.client, "unhealthy", 1).await;
        let answer = flag().await;
        assert_eq!(
            (answer.status.as_u16(), answer.flag()),
            (503, "no-healthy-endpoint"),
            "where all are unhealthy callers hear it at once"
        );
        patient.becomes(true);
        becomes(&mesh.client, "closed", 1).await;
        assert_eq!(flag().await.status, 200);
        let asked = patient.app.seen();
        let checks = asked.iter().filter(|seen| seen.uri.path() != "/");
        let identified = checks.filter(|seen| !seen.header("x-forwarded-client-cert").is_empty());
        assert!(identified.count() >= 4, "by mutual TLS: {}", asked.len());
    }
}

#[tokio::test]
async fn a_check_that_is_denied_says_nothing_of_the_application() {
    let patient = Patient::start().await;
    let deny = "kind: AuthorizationPolicy\nmetadata: { name: orders, namespace: shop }\nspec:\n  targetRefs: [{ kind: Service, name: orders }]\n  rules:\n    - { name: health, action: deny, to: [{ paths: [{ type: Exact, value: /healthz }] }] }\n    - { name: rest, action: allow }\n";
    let mesh = Mesh::builder(patient.app.address, "http")
        .server_resources(deny)
        .client_resources(&policy("http: { path: /healthz }"))
        .start()
        .await;
    wait::until("denied checks", PATIENCE, async || {
        let denied = [("decision", "deny")];
        let metrics = mesh.server.metrics().await;
        metrics.count("selvage_authorization_decisions_total", &denied) > u64::from(2 * THRESHOLD)
    })
    .await;
    assert_eq!(endpoints(&mesh.client, "closed").await, 1);
    assert_eq!(client::get(mesh.outbound(), ORDERS, "/").await.status, 200);
}

#[tokio::test]
async fn a_policy_that_goes_takes_its_verdict_along() {
    let patient = Patient::start().await;
    patient.becomes(false);
    let check = policy("http: { path: /healthz }");
    let (_pki, caller) = plaintext_caller("http", &[patient.app.address], &check).await;
    becomes(&caller, "unhealthy", 1).await;
    let orders = service("orders", "http", &[(patient.app.address, None)]);
    // The same service, and a check that any application passes.
    let tcp = policy("tcp: {}");
    caller.write_resources(&format!("{orders}\n---\n{tcp}"));
    becomes(&caller, "closed", 1).await;
    caller.write_resources(&format!("{orders}\n---\n{check}"));
    becomes(&caller, "unhealthy", 1).await;
    caller.write_resources(&orders);
    becomes(&caller, "closed", 1).await;
    assert_eq!(
        client::get(caller.outbound(), ORDERS, "/").await.status,
        200
    );
}

#[tokio::test]
async fn the_registry_hears_what_the_application_says_by_grpc() {
    let patient = Patient::start().await;
    let control = ControlPlane::start().await;
    let health = json!({
        "grpc": { "service": "shop.Orders" }, "interval": "200ms", "timeout": "200ms",
        "unhealthyThreshold": 2, "healthyThreshold": 2,
    });
    let port = json!({
        "port": patient.app.address.port(), "servicePort": 80, "protocol": "grpc", "health": health,
    });
    let sidecar = control
        .sidecar("orders-1", "orders")
        .await
        .application(80, patient.app.address, "grpc")
        .set("inbound.ports", json!([port]))
        .start(&Pki::new())
        .await;
    control.registered("orders", 1).await;
    patient.becomes(false);
    control.registered("orders", 0).await;
    patient.becomes(true);
    control.registered("orders", 1).await;
    let told = events(sidecar.admin()).await;
    let said: Vec<_> = told
        .iter()
        .map(|event| (event["kind"].clone(), event["reason"].clone()))
        .collect();
    let lost = "2 checks in a row failed, the last: NOT_SERVING";
    let expected = [lost, "2 checks in a row passed"];
    let expected = expected.map(|reason| (json!("application"), json!(reason)));
    assert_eq!(said, expected);
}

async fn events(admin: SocketAddr) -> Vec<Value> {
    let answer = client::get(admin, "localhost", "/events").await;
    serde_json::from_slice(&answer.body).expect("a list")
}
