//! A response that Selvage made says so, in the same words everywhere: status,
//! `Proxy-Status`, `x-selvage-flag`, the gRPC status, the metric, the log.

use http::Method;
use selvage_tests::app::{App, ClosedPort, RawApp, ok};
use selvage_tests::client::{self, Answer, Http1, Http2, request};
use selvage_tests::mesh::{Mesh, plaintext_caller, service, traffic_policy};
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::{body, grpc};

/// Every flag of the design that can be raised here, with its HTTP status and its gRPC status.
const TABLE: [(&str, u16, u32); 8] = [
    ("no-service", 404, 12),
    ("no-healthy-endpoint", 503, 14),
    ("connect-failure", 503, 14),
    ("tls-failure", 503, 14),
    ("reset", 503, 14),
    ("bad-response", 502, 14),
    ("timeout", 504, 4),
    ("denied", 403, 7),
];

/// A service whose caller sees `flag`, with whatever must live meanwhile.
async fn scene(flag: &str, protocol: &str) -> (Sidecar, Box<dyn std::any::Any>) {
    match flag {
        "no-healthy-endpoint" => {
            let (pki, caller) = plaintext_caller(protocol, &[], "").await;
            (caller, Box::new(pki))
        }
        "connect-failure" | "no-service" => {
            let closed = ClosedPort::new();
            let (pki, caller) = plaintext_caller(protocol, &[closed.address], "").await;
            (caller, Box::new((pki, closed)))
        }
        "tls-failure" => {
            let (pki, app) = (Pki::new(), App::echo().await);
            let resources = service(
                "orders",
                protocol,
                &[(app.address, Some(spiffe_id("shop", "orders")))],
            );
            let caller = Sidecar::builder("client")
                .resources(&resources)
                .start(&pki)
                .await;
            (caller, Box::new((pki, app)))
        }
        "reset" | "bad-response" => {
            let garbage = flag == "bad-response";
            let app = RawApp::start(move |mut wire, _| async move {
                wire.some().await.ok();
                if garbage {
                    wire.try_send("this is no HTTP of any version\r\n\r\n")
                        .await
                        .ok();
                    wire.rest().await.ok();
                }
            })
            .await;
            let (pki, caller) = plaintext_caller(protocol, &[app.address], "").await;
            (caller, Box::new((pki, app)))
        }
        "timeout" => {
            let app = App::start(|_| std::future::pending()).await;
            let policy = traffic_policy("  timeouts: { request: 200ms }\n");
            let (pki, caller) = plaintext_caller(protocol, &[app.address], &policy).await;
            (caller, Box::new((pki, app)))
        }
        "denied" => {
            let app = App::echo().await;
            let deny = "kind: AuthorizationPolicy\nmetadata: { name: orders, namespace: shop }\nspec:\n  targetRefs: [{ kind: Service, name: orders }]\n  rules: [{ name: nobody, action: deny }]\n";
            let Mesh {
                pki,
                client,
                server,
            } = Mesh::builder(app.address, protocol)
                .server_resources(deny)
                .start()
                .await;
            (client, Box::new((pki, server, app)))
        }
        _ => panic!("no scene raises {flag}"),
    }
}

fn authority(flag: &str) -> &'static str {
    if flag == "no-service" {
        "nobody.shop"
    } else {
        ORDERS
    }
}

fn assert_says(answer: &Answer, flag: &str) {
    assert_eq!(answer.flag(), flag);
    let proxy_status = answer.header("proxy-status");
    assert!(
        proxy_status.starts_with("selvage; error="),
        "{flag}: {proxy_status}"
    );
    assert!(
        proxy_status.contains(&format!("details=\"{flag}\"")),
        "{flag}: {proxy_status}"
    );
}

#[tokio::test]
async fn every_flag_has_its_status_and_its_words() {
    for (flag, status, _) in TABLE {
        let (caller, _held) = scene(flag, "http").await;
        let answer = client::post(caller.outbound(), authority(flag), "/", "x").await;
        assert_eq!(answer.status, status, "{flag}: {}", answer.flag());
        assert_says(&answer, flag);
        let metrics = caller.metrics().await;
        let code = status.to_string();
        let labels = [
            ("direction", "outbound"),
            ("flag", flag),
            ("code", code.as_str()),
        ];
        assert_eq!(
            metrics.count("selvage_http_requests_total", &labels),
            1,
            "{flag}: {}",
            metrics.lines("selvage_http_requests_total")
        );
    }
}

#[tokio::test]
async fn every_flag_has_its_grpc_status() {
    for (flag, _, status) in TABLE {
        let (caller, _held) = scene(flag, "grpc").await;
        let connection = Http2::connect(caller.outbound()).await;
        let sent = grpc::request(authority(flag), "Unary", body::full(grpc::frame(b"x")));
        let outcome = grpc::call(&connection, sent).await.unwrap();
        assert_eq!(
            (outcome.http, outcome.status),
            (200, Some(status)),
            "{flag}: {:?}",
            outcome.headers
        );
        assert_eq!(outcome.headers["x-selvage-flag"], flag);
        let labels = [("flag", flag), ("grpc_status", &*status.to_string())];
        let metrics = caller.metrics().await;
        assert_eq!(
            metrics.count("selvage_http_requests_total", &labels),
            1,
            "{flag}: {}",
            metrics.lines("selvage_http_requests_total")
        );
    }
}

#[tokio::test]
async fn the_other_sidecars_flag_arrives() {
    let closed = ClosedPort::new();
    let mesh = Mesh::of(closed.address, "http").await;
    let answer = client::post(mesh.outbound(), ORDERS, "/", "x").await;
    assert_eq!(answer.status, 503);
    assert_says(&answer, "connect-failure");
}

#[tokio::test]
async fn an_applications_own_error_is_not_ours() {
    let app = App::start(|_| async { selvage_tests::app::status(503) }).await;
    let mesh = Mesh::of(app.address, "http").await;
    let answer = client::get(mesh.outbound(), ORDERS, "/").await;
    assert_eq!(
        (
            answer.status.as_u16(),
            answer.flag(),
            answer.header("proxy-status")
        ),
        (503, "", "")
    );
    for sidecar in [&mesh.client, &mesh.server] {
        let labels = [("code", "503"), ("flag", "-")];
        assert_eq!(
            sidecar
                .metrics()
                .await
                .count("selvage_http_requests_total", &labels),
            1
        );
    }
}

#[tokio::test]
async fn a_request_that_comes_back_is_cut() {
    // An application that calls itself by name through its own sidecar, as a loop of configuration would.
    let pki = Pki::new();
    let sidecar = Sidecar::builder("client")
        .without_readiness()
        .start(&pki)
        .await;
    let resources = service("orders", "http", &[(sidecar.outbound(), None)]);
    sidecar.write_resources(&format!("kind: MeshConfig\nmetadata: {{ name: mesh }}\nspec: {{ trustDomain: mesh.local }}\n---\n{resources}"));
    selvage_tests::wait::until(
        "the new resources",
        selvage_tests::wait::PATIENCE,
        async || client::get(sidecar.outbound(), ORDERS, "/").await.flag() != "no-service",
    )
    .await;
    let answer = client::get(sidecar.outbound(), ORDERS, "/").await;
    assert_eq!((answer.status.as_u16(), answer.flag()), (508, "loop"));
}

#[tokio::test]
async fn the_access_log_says_the_same_in_one_line() {
    let app = App::start(|_| async { ok("hello") }).await;
    let mut mesh = Mesh::builder(app.address, "http")
        .set("telemetry.accessLog", "json")
        .start()
        .await;
    let mut sent = request(Method::GET, ORDERS, "/path?secret=1", body::empty());
    sent.headers_mut().insert(
        "user-agent",
        http::HeaderValue::from_bytes(b"evil\t\"}{").unwrap(),
    );
    assert_eq!(
        Http1::connect(mesh.outbound())
            .await
            .call(sent)
            .await
            .unwrap()
            .status,
        200
    );
    client::get(mesh.outbound(), "nobody.shop", "/").await;
    let refused = mesh.client.accessed(&["no-service", "404"]).await;
    assert!(refused["destination"].is_null(), "{refused}");
    mesh.client.accessed(&["shop/orders", "200", "/path"]).await;
    let record = mesh.server.accessed(&["shop/client", "200", "/path"]).await;
    assert!(
        !record.to_string().contains("secret"),
        "a query may carry secrets: {record}"
    );
}
