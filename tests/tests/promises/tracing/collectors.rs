//! A collector that is away, slow or refuses costs no request and no memory,
//! and what it did not get is counted; one that is there gets the last span too.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{SPAN, call, parts};
use selvage_tests::app::{App, ClosedPort, ok};
use selvage_tests::client::{self, Http1, request};
use selvage_tests::collector::Collector;
use selvage_tests::mesh::Mesh;
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::{body, pki};

const QUEUE: u64 = 64;
const REQUESTS: u64 = 1500;

/// How many spans had this outcome.
async fn spans(sidecar: &Sidecar, outcome: &str) -> u64 {
    let metrics = sidecar.metrics().await;
    metrics.count("selvage_spans_total", &[("outcome", outcome)])
}

async fn costs_no_request(mut variables: Vec<(&'static str, String)>) {
    let more = [
        ("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE.to_string()),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", (QUEUE / 2).to_string()),
        ("OTEL_BSP_EXPORT_TIMEOUT", "300".to_owned()),
    ];
    variables.extend(more);
    let app = App::start(|_| async { ok("") }).await;
    let mesh = Mesh::builder(app.address, "http")
        .environment(&variables)
        .start()
        .await;
    let mut caller = Http1::connect(mesh.outbound()).await;
    let mut resident = 0;
    let begun = Instant::now();
    for number in 0..REQUESTS {
        if number == REQUESTS / 3 {
            resident = mesh.client.process.resident();
        }
        let sent = request(http::Method::GET, ORDERS, "/a", body::empty());
        assert_eq!(caller.call(sent).await.unwrap().status, 200);
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    let grown = mesh.client.process.resident().saturating_sub(resident);
    assert!(grown < 2 << 20, "{grown} bytes for {REQUESTS} requests");
    for sidecar in [&mesh.client, &mesh.server] {
        assert!(spans(sidecar, "dropped").await > 0);
        // Each span is counted, once its batch is given up.
        wait::until("the end of the queue", PATIENCE, async || {
            spans(sidecar, "dropped").await + spans(sidecar, "failed").await == REQUESTS
        })
        .await;
        assert_eq!(spans(sidecar, "exported").await, 0);
        sidecar.logged(&["WARN", "spans are not exported"]).await;
    }
}

#[tokio::test]
async fn one_that_is_away_costs_no_request() {
    let closed = ClosedPort::new();
    let endpoint = format!("http://{}", closed.address);
    for protocol in ["grpc", "http/protobuf"] {
        costs_no_request(vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.clone()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ])
        .await;
    }
}

#[tokio::test]
async fn one_that_never_answers_costs_no_request() {
    let collector = Collector::with(&["--hang"]).await;
    for protocol in ["grpc", "http/protobuf"] {
        costs_no_request(collector.variables(protocol)).await;
    }
}

#[tokio::test]
async fn one_that_is_full_costs_no_request() {
    let collector = Collector::with(&["--answer", "503"]).await;
    for protocol in ["grpc", "http/protobuf"] {
        costs_no_request(collector.variables(protocol)).await;
    }
}

#[tokio::test]
async fn the_last_spans_leave_with_the_drain() {
    let collector = Collector::start().await;
    let mut variables = collector.variables("grpc");
    variables.retain(|(name, _)| *name != "OTEL_BSP_SCHEDULE_DELAY");
    variables.push(("OTEL_BSP_SCHEDULE_DELAY", "3600000".to_owned()));
    let app = App::start(|_| async { ok("") }).await;
    let mut mesh = Mesh::builder(app.address, "http")
        .environment(&variables)
        .start()
        .await;
    client::get(mesh.outbound(), ORDERS, "/").await;
    let (trace, ..) = parts(app.last().header("traceparent"));
    assert_eq!(
        collector.spans_now(&trace).len(),
        0,
        "an hour has not passed"
    );
    for sidecar in [&mut mesh.client, &mut mesh.server] {
        sidecar.process.signal(Signal::TERM);
        let status = sidecar.process.exit(Duration::from_secs(10)).await;
        assert!(status.success());
    }
    collector.spans(&trace, 2).await;
}

#[tokio::test]
async fn one_that_is_reached_through_the_mesh_is_not_told_of_itself() {
    let collector = Collector::start().await;
    // Its requests pass the very sidecar whose spans they carry.
    let pki = pki::Pki::new();
    let plain = selvage_tests::mesh::service("collector", "grpc", &[(collector.grpc, None)]);
    let app = App::start(|_| async { ok("") }).await;
    let orders = selvage_tests::mesh::service("orders", "http", &[(app.address, None)]);
    // A port that is free now; nobody else binds to it in between.
    let port = ClosedPort::new();
    let listener =
        serde_json::json!([{ "address": port.address, "service": "collector.shop", "port": 80 }]);
    let address = port.address;
    drop(port);
    let sidecar = Sidecar::builder("client")
        .resources(&plain)
        .resources(&orders)
        .set("outbound.listeners", listener)
        .environment("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"))
        .environment("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
        .environment("OTEL_BSP_SCHEDULE_DELAY", "20")
        .start(&pki)
        .await;
    let traceparent = format!("00-{}-{SPAN}-01", super::TRACE);
    let exported = || async {
        let metrics = sidecar.metrics().await;
        let sent = [("destination", "shop/collector")];
        (
            metrics.count("selvage_http_requests_total", &sent),
            spans(&sidecar, "exported").await,
        )
    };
    // What the first export began would be exported before, or with, the second.
    for count in 1..=2_u8 {
        call(sidecar.outbound(), &[("traceparent", &traceparent)]).await;
        collector.spans(super::TRACE, usize::from(count)).await;
        wait::until("the count of the export", PATIENCE, async || {
            exported().await == (u64::from(count), u64::from(count))
        })
        .await;
    }
}

#[tokio::test]
async fn what_is_not_supported_is_refused_at_the_start() {
    let pki = pki::Pki::new();
    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4317"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
    ] {
        let written = Sidecar::builder("client")
            .environment("OTEL_TRACES_EXPORTER", "otlp")
            .environment(name, value)
            .write(&pki);
        let (code, log) = written.fail(name, PATIENCE).await;
        assert_eq!(code, Some(1), "{log}");
        assert!(
            log.contains(name) && log.contains("not supported yet"),
            "{log}"
        );
    }
}
