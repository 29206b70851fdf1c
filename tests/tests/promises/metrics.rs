//! What the proxies count is what the caller counted, not merely something.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::Stdio;

use http::Method;
use selvage_tests::app::{App, status};
use selvage_tests::client::{self, Http1, Http2, request, request2};
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::mesh::Mesh;
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::{body, grpc};

/// An application that answers the status its path names.
async fn application() -> App {
    App::start(|request| async move {
        status(
            request
                .uri()
                .path()
                .trim_start_matches('/')
                .parse()
                .unwrap_or(200),
        )
    })
    .await
}

#[tokio::test]
async fn both_sides_count_what_the_caller_counted() {
    let app = application().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut counted: BTreeMap<u16, u64> = BTreeMap::new();
    let mut one = Http1::connect(mesh.outbound()).await;
    let two = Http2::connect(mesh.outbound()).await;
    for (number, path) in ["/200", "/201", "/404", "/500", "/200"]
        .iter()
        .cycle()
        .take(200)
        .enumerate()
    {
        let answer = if number % 2 == 0 {
            one.call(request(Method::GET, ORDERS, path, body::empty()))
                .await
        } else {
            two.call(request2(Method::POST, ORDERS, path, body::full("x")))
                .await
        };
        *counted.entry(answer.unwrap().status.as_u16()).or_default() += 1;
    }
    assert_eq!(counted.values().sum::<u64>(), 200);
    for (sidecar, direction) in [(&mesh.client, "outbound"), (&mesh.server, "inbound")] {
        let metrics = sidecar.metrics().await;
        for (code, count) in &counted {
            let code = code.to_string();
            let labels = [
                ("direction", direction),
                ("source", "shop/client"),
                ("destination", "shop/orders"),
                ("route", "default"),
                ("code", &code),
                ("grpc_status", "-"),
                ("flag", "-"),
            ];
            let seen = metrics.count("selvage_http_requests_total", &labels);
            assert_eq!(
                seen,
                *count,
                "{direction} {code}: {}",
                metrics.lines("selvage_http_requests_total")
            );
        }
        assert_eq!(
            metrics.count("selvage_http_requests_total", &[("direction", direction)]),
            200
        );
        let labels = [("direction", direction), ("destination", "shop/orders")];
        assert_eq!(
            metrics.count("selvage_http_request_duration_seconds_count", &labels),
            200
        );
        assert!(metrics.sum("selvage_http_request_duration_seconds_sum", &labels) > 0.0);
        assert_eq!(metrics.count("selvage_http_active_requests", &[]), 0);
        assert_eq!(metrics.count("selvage_http_retries_total", &[]), 0);
    }
    let endpoints = mesh.client.metrics().await;
    let labels = [("destination", "shop/orders"), ("state", "closed")];
    assert_eq!(endpoints.count("selvage_endpoints", &labels), 1);
    assert_eq!(
        mesh.client.metrics().await.count(
            "selvage_tls_handshakes_total",
            &[("side", "client"), ("outcome", "ok")]
        ),
        mesh.server.metrics().await.count(
            "selvage_tls_handshakes_total",
            &[("side", "server"), ("outcome", "ok")]
        )
    );
}

#[tokio::test]
async fn grpc_statuses_are_counted_from_trailers() {
    let app = grpc::application().await;
    let mesh = Mesh::of(app.address, "grpc").await;
    let connection = Http2::connect(mesh.outbound()).await;
    for method in ["Unary", "Unary", "Fail", "FailLate"] {
        grpc::call(
            &connection,
            grpc::request(ORDERS, method, body::full(grpc::frame(b"x"))),
        )
        .await
        .unwrap();
    }
    for sidecar in [&mesh.client, &mesh.server] {
        let metrics = sidecar.metrics().await;
        for (status, count) in [("0", 2), ("9", 1), ("14", 1)] {
            let labels = [("code", "200"), ("grpc_status", status)];
            assert_eq!(
                metrics.count("selvage_http_requests_total", &labels),
                count,
                "{}",
                metrics.lines("selvage_http_requests")
            );
        }
    }
}

/// What `promtool check metrics` has to say.
fn promtool(exposition: &str) -> (bool, String) {
    let child = std::process::Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.expect("promtool is there: it comes with Debian's package prometheus");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(exposition.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output.status.success(), said)
}

#[tokio::test]
async fn promtool_has_nothing_to_say() {
    let app = application().await;
    let mesh = Mesh::of(app.address, "http").await;
    for path in ["/200", "/500"] {
        client::get(mesh.outbound(), ORDERS, path).await;
    }
    for sidecar in [&mesh.client, &mesh.server] {
        let text = sidecar.metrics().await.text;
        assert_eq!(promtool(&text), (true, String::new()));
    }
}

#[tokio::test]
async fn promtool_has_nothing_to_say_of_the_control_plane() {
    let app = application().await;
    let control = ControlPlane::start().await;
    let sidecar = control.sidecar("orders-1", "orders").await;
    let _sidecar = sidecar
        .application(80, app.address, "http")
        .start(&Pki::new())
        .await;
    control.registered("orders", 1).await;
    let text = control.metrics().await.text;
    assert!(
        text.contains("selvage_registered_endpoints{service=\"shop/orders\"} 1"),
        "{text}"
    );
    assert_eq!(promtool(&text), (true, String::new()));
}

#[tokio::test]
async fn every_metric_of_the_design_is_there() {
    let app = application().await;
    let mesh = Mesh::of(app.address, "http").await;
    client::get(mesh.outbound(), ORDERS, "/200").await;
    let text = mesh.client.metrics().await.text;
    for name in [
        "selvage_http_requests_total",
        "selvage_http_request_duration_seconds",
        "selvage_http_active_requests",
        "selvage_endpoints",
        "selvage_tls_handshakes_total",
        "selvage_certificate_expiry_timestamp_seconds",
        "selvage_snapshot_version",
        "selvage_build_info",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(
            text.contains(&format!("# TYPE {name} ")),
            "{name} is missing"
        );
    }
    assert!(
        !text.contains("selvage_discovery_connected"),
        "of a control plane that it does not have, a sidecar says nothing"
    );
}

#[tokio::test]
async fn labels_are_bounded() {
    let app = application().await;
    let config = "kind: MeshConfig\nmetadata: { name: mesh }\nspec: { trustDomain: mesh.local, telemetry: { seriesLimit: 300 } }";
    let mesh = Mesh::builder(app.address, "http")
        .client_resources(config)
        .start()
        .await;
    let mut caller = Http1::connect(mesh.outbound()).await;
    for number in 0..300 {
        // Names that nobody knows, paths that differ: none may become a label.
        caller
            .call(request(
                Method::GET,
                &format!("stranger{number}.shop"),
                "/",
                body::empty(),
            ))
            .await
            .unwrap();
        caller
            .call(request(
                Method::GET,
                ORDERS,
                &format!("/{}", 200 + number),
                body::empty(),
            ))
            .await
            .unwrap();
    }
    let metrics = mesh.client.metrics().await;
    let lines = metrics
        .text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .count();
    assert!(lines <= 330, "{lines} lines of exposition");
    assert!(!metrics.text.contains("stranger"));
    assert_eq!(
        metrics.count("selvage_http_requests_total", &[]),
        600,
        "what is over is still counted, as overflow"
    );
}
