//! A server takes on what it said it would: over its rate callers are told
//! when to come again, and a connection that is no request has a place too.

use std::net::SocketAddr;

use http::{HeaderValue, Method};
use selvage_tests::app::{App, RawApp, ok};
use selvage_tests::client::{Answer, Http2, request2};
use selvage_tests::mesh::{Mesh, service};
use selvage_tests::pki::spiffe_id;
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::wire::Wire;
use selvage_tests::{body, grpc};

fn policy(spec: &str) -> String {
    format!(
        "kind: ServerPolicy\nmetadata: {{ name: orders, namespace: shop }}\nspec:\n  \
         targetRefs: [{{ kind: Service, name: orders }}]\n  {spec}\n"
    )
}

async fn mesh(app: SocketAddr, protocol: &str, spec: &str) -> Mesh {
    Mesh::builder(app, protocol)
        .server_resources(&policy(spec))
        .start()
        .await
}

async fn ask(caller: &Http2, headers: &[(&'static str, &'static str)]) -> Answer {
    let mut request = request2(Method::GET, "orders.shop", "/", body::empty());
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        request.headers_mut().insert(*name, value);
    }
    caller.call(request).await.unwrap()
}

#[tokio::test]
async fn over_its_rate_each_caller_is_told_when_to_come_again() {
    let app = App::start(|_| async { ok("done") }).await;
    let spec = "rateLimit: { requests: 1, per: 1h, burst: 5, key: identity }";
    let mesh = mesh(app.address, "http2", spec).await;
    let endpoint = (mesh.server.inbound(), Some(spiffe_id("shop", "orders")));
    let other = Sidecar::builder("other")
        .resources(&service("orders", "http2", &[endpoint]))
        .start(&mesh.pki)
        .await;
    for (caller, asked) in [(&mesh.client, 40), (&other, 6)] {
        let connection = Http2::connect(caller.outbound()).await;
        for nth in 0..asked {
            let answer = ask(&connection, &[]).await;
            if nth < 5 {
                assert_eq!(answer.status, 200, "request {nth}");
                continue;
            }
            assert_eq!(answer.status, 429, "request {nth}");
            assert_eq!(answer.flag(), "rate-limited");
            let wait: u64 = answer.header("retry-after").parse().unwrap();
            assert!((3500..=3600).contains(&wait), "{wait} s");
        }
        let metrics = caller.metrics().await;
        let transitions = metrics.count("selvage_breaker_transitions_total", &[]);
        assert_eq!(transitions, 0, "it is no failure of the server");
    }
    assert_eq!(app.count(), 10);
    let metrics = mesh.server.metrics().await;
    let labels = [("port", "80"), ("reason", "rate-limited")];
    assert_eq!(metrics.count("selvage_shed_total", &labels), 36);
}

#[tokio::test]
async fn a_grpc_caller_is_told_in_its_own_words() {
    let app = grpc::application().await;
    let mesh = mesh(app.address, "grpc", "rateLimit: { requests: 1, per: 1h }").await;
    let connection = Http2::connect(mesh.outbound()).await;
    for (status, flag) in [(0, ""), (8, "rate-limited")] {
        let message = body::full(grpc::frame(b"hello"));
        let request = grpc::request("orders.shop", "Unary", message);
        let outcome = grpc::call(&connection, request).await.unwrap();
        assert_eq!((outcome.http, outcome.status), (200, Some(status)));
        let said = outcome.headers.get("x-selvage-flag");
        let said = said.map_or("", |flag| flag.to_str().unwrap());
        assert_eq!(said, flag);
    }
}

#[tokio::test]
async fn each_value_of_a_header_has_its_own_rate() {
    let app = App::start(|_| async { ok("done") }).await;
    let spec = "rateLimit: { requests: 2, per: 1h, key: 'header:X-User' }";
    let mesh = mesh(app.address, "http2", spec).await;
    let connection = Http2::connect(mesh.outbound()).await;
    for user in ["ann", "bob", "eve"] {
        for expected in [200, 200, 429] {
            let answer = ask(&connection, &[("x-user", user)]).await;
            assert_eq!(answer.status, expected, "{user}");
        }
    }
}

#[tokio::test]
async fn a_caller_says_what_matters_and_nonsense_is_ignored() {
    let app = App::start(|_| async { ok("done") }).await;
    let mesh = mesh(app.address, "http2", "rateLimit: { requests: 1, per: 1h }").await;
    let connection = Http2::connect(mesh.outbound()).await;
    assert_eq!(ask(&connection, &[]).await.status, 200);
    for said in ["critical", "sheddable", "Critical", "vital", "default"] {
        let answer = ask(&connection, &[("x-selvage-criticality", said)]).await;
        assert_eq!(answer.status, 429);
    }
    let metrics = mesh.server.metrics().await;
    for (criticality, count) in [("critical", 1), ("default", 3), ("sheddable", 1)] {
        let labels = [("criticality", criticality)];
        let shed = metrics.count("selvage_shed_total", &labels);
        assert_eq!(shed, count, "{criticality}");
    }
    let caller = mesh.client.metrics().await;
    let header = [("header", "x-selvage-criticality")];
    assert_eq!(caller.count("selvage_headers_ignored_total", &header), 2);
    assert_eq!(metrics.count("selvage_headers_ignored_total", &header), 0);
    assert_eq!(app.last().header("x-selvage-criticality"), "");
}

#[tokio::test]
async fn an_upgrade_has_a_place_of_a_fixed_limit_while_it_lasts() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n")
            .await;
        wire.rest().await.ok();
        wire.send("farewell").await;
    })
    .await;
    let spec = "concurrency: { mode: fixed, max: 1, queueTimeout: 20ms }";
    let mesh = mesh(app.address, "http", spec).await;
    let ask = async || {
        let mut wire = Wire::connect(mesh.outbound()).await;
        wire.send(
            "GET / HTTP/1.1\r\nhost: orders.shop\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        )
        .await;
        let head = wire.head().await;
        let flag = head.header("x-selvage-flag").map(str::to_owned);
        (wire, head.status(), flag)
    };
    let (mut first, status, _) = ask().await;
    assert_eq!(status, 101);
    let (_, status, flag) = ask().await;
    assert_eq!((status, flag.as_deref()), (503, Some("overloaded")));
    first.finish().await;
    assert_eq!(first.rest().await.unwrap(), b"farewell");
    wait::until("the place of the first", PATIENCE, async || {
        ask().await.1 == 101
    })
    .await;
}

#[tokio::test]
async fn an_opaque_connection_counts_for_its_caller() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.send("hello").await;
        wire.rest().await.ok();
    })
    .await;
    let spec = "concurrency: { perCaller: { maxConcurrent: 1 } }";
    let mesh = mesh(app.address, "tcp", spec).await;
    let address = mesh.client.listener(ORDERS, 80);
    let mut first = Wire::connect(address).await;
    assert_eq!(first.exactly(5).await, b"hello");
    let mut second = Wire::connect(address).await;
    let rest = second.rest().await;
    assert!(
        rest.map_or(true, |bytes| bytes.is_empty()),
        "it is turned away"
    );
    assert_eq!(app.accepted(), 1);
    let metrics = mesh.server.metrics().await;
    let labels = [("reason", "per-caller")];
    assert_eq!(metrics.count("selvage_shed_total", &labels), 1);
    let closed = [("direction", "inbound"), ("flag", "overloaded")];
    let name = "selvage_tcp_connections_closed_total";
    assert_eq!(metrics.count(name, &closed), 1);
    first.finish().await;
    drop(first);
    wait::until("the place of the first", PATIENCE, async || {
        let mut next = Wire::connect(address).await;
        next.some().await.is_ok_and(|bytes| bytes.starts_with(b"h"))
    })
    .await;
}

/// Time that a process has spent computing, in ticks of 10 ms.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let fields: Vec<u64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap())
        .collect();
    fields[0] + fields[1]
}

#[tokio::test]
async fn turning_away_is_cheaper_than_serving() {
    const EACH: usize = 3000;
    let app = App::start(|_| async { ok("done") }).await;
    let spec = format!("rateLimit: {{ requests: 1, per: 1h, burst: {EACH} }}");
    let mesh = mesh(app.address, "http2", &spec).await;
    let connection = Http2::connect(mesh.outbound()).await;
    let pid = mesh.server.process.pid();
    let mut spent = Vec::new();
    for status in [200, 429] {
        let before = ticks(pid);
        for _ in 0..EACH {
            assert_eq!(ask(&connection, &[]).await.status, status);
        }
        spent.push(ticks(pid) - before);
    }
    println!(
        "the server's sidecar: {EACH} served in {} ms of processor, as many turned away in {} ms",
        spent[0] * 10,
        spent[1] * 10,
    );
    assert!(spent[1] < spent[0], "{spent:?}");
}
