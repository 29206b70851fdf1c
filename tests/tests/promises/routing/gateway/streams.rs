//! Whole connections: TLS passed on by its server name, TLS ended here with
//! opaque bytes in it, and bare TCP.

use selvage_tests::app::RawApp;
use selvage_tests::gateway::Gateway;
use selvage_tests::mesh::service;
use selvage_tests::pki::{self, Pki, spiffe_id};
use selvage_tests::sidecar::Sidecar;
use selvage_tests::wire::Wire;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio_rustls::TlsAcceptor;

use super::{all, backend, certificate, connect, gateway, listener, route, with_files};

/// Reads to the end, and answers with its name and what it read.
async fn counting(name: &'static str) -> RawApp {
    RawApp::start(move |mut wire, _| async move {
        let received = wire.rest().await.unwrap();
        wire.send(format!("{name} {}", String::from_utf8_lossy(&received)))
            .await;
        wire.finish().await;
    })
    .await
}

/// A TLSRoute for hosts.
fn tls_route(name: &str, section: &str, hosts: &[&str], backends: &[(&str, u32)]) -> String {
    let mut document: Value =
        serde_json::from_str(&route("TLSRoute", name, section, backends)).unwrap();
    document["spec"]["hostnames"] = json!(hosts);
    document.to_string()
}

#[tokio::test]
async fn tcp_goes_by_weight_and_each_direction_ends_on_its_own() {
    let (one, two) = (counting("one").await, counting("two").await);
    let resources = all(&[
        backend("one", "tcp", one.address),
        backend("two", "tcp", two.address),
        gateway(&[listener("tcp", 5432, "TCP", "")]),
        route("TCPRoute", "db", "tcp", &[("one", 3), ("two", 1)]),
    ]);
    let mut edge = Gateway::builder(&[5432])
        .resources(&resources)
        .start()
        .await;
    let address = edge.port(5432).await;
    for number in 0..40 {
        let mut wire = Wire::connect(address).await;
        wire.send(number.to_string()).await;
        wire.finish().await;
        let said = String::from_utf8(wire.rest().await.unwrap()).unwrap();
        assert!(said.ends_with(&format!(" {number}")), "{said}");
    }
    assert_eq!((one.accepted(), two.accepted()), (30, 10));
    let labels = [("direction", "outbound"), ("destination", "shop/one")];
    let metrics = edge.metrics().await;
    let opened = metrics.count("selvage_tcp_connections_opened_total", &labels);
    assert_eq!(opened, 30);
}

#[tokio::test]
async fn tls_passes_unopened_to_whom_its_server_name_says() {
    let pki = Pki::new();
    let served = certificate(&pki, &["a.example.com", "x.b.org"]);
    let config = Arc::new(served.server(&[]));
    // The application ends the TLS itself.
    let app = RawApp::start(move |wire, _| {
        let acceptor = TlsAcceptor::from(config.clone());
        async move {
            let (stream, _) = wire.into_parts();
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut received = vec![0; 4];
            stream.read_exact(&mut received).await.unwrap();
            let mut wire = Wire::of(stream);
            wire.send(received).await;
            wire.finish().await;
        }
    })
    .await;
    let resources = all(&[
        backend("app", "tcp", app.address),
        gateway(&[
            json!({ "name": "raw", "port": 443, "protocol": "TLS", "hostname": "*.example.com",
                    "tls": { "mode": "Passthrough" } }),
            json!({ "name": "any", "port": 443, "protocol": "TLS", "hostname": "*.b.org",
                    "tls": { "mode": "Passthrough" } }),
        ]),
        tls_route("one", "raw", &["a.example.com"], &[("app", 1)]),
        tls_route("two", "any", &["*.b.org"], &[("app", 1)]),
    ]);
    let mut edge = Gateway::builder(&[443]).resources(&resources).start().await;
    let address = edge.port(443).await;
    for name in ["a.example.com", "x.b.org"] {
        let stream = connect(address, name, pki.trusting_client(&[]))
            .await
            .unwrap();
        let mut wire = Wire::of(stream);
        wire.send("ping").await;
        assert_eq!(wire.exactly(4).await, b"ping", "{name}");
    }
    for name in ["b.example.com", "example.org"] {
        let refused = connect(address, name, pki::anonymous_client(&[])).await;
        let said = refused.err().unwrap().to_string();
        assert!(said.contains("UnrecognisedName"), "{name}: {said}");
    }
    assert_eq!(app.accepted(), 2);
    let astray = [("destination", "-"), ("flag", "no-route")];
    let metrics = edge.metrics().await;
    let closed = metrics.count("selvage_tcp_connections_closed_total", &astray);
    assert_eq!(closed, 2);
}

#[tokio::test]
async fn tls_ends_at_the_gateway_and_what_is_in_it_crosses_the_mesh() {
    let pki = Pki::new();
    let app = counting("app").await;
    let mut sidecar = Sidecar::builder("db")
        .application(80, app.address, "tcp")
        .set("telemetry.accessLog", "json")
        .start(&pki)
        .await;
    let endpoint = (sidecar.inbound(), Some(spiffe_id("shop", "db")));
    let served = certificate(&pki, &["db.example.com"]);
    let resources = all(&[
        service("db", "tcp", &[endpoint]),
        gateway(&[with_files(
            listener("db", 443, "TLS", "db.example.com"),
            &served,
        )]),
        tls_route("db", "db", &["db.example.com"], &[("db", 1)]),
    ]);
    let mut edge = Gateway::builder(&[443])
        .identity(&pki.account("shop", "gateway"))
        .resources(&resources)
        .start()
        .await;
    let config = pki.trusting_client(&[]);
    let address = edge.port(443).await;
    let stream = connect(address, "db.example.com", config).await.unwrap();
    let mut wire = Wire::of(stream);
    wire.send("select 1").await;
    wire.finish().await;
    assert_eq!(wire.rest().await.unwrap(), b"app select 1");
    let line = sidecar.accessed(&["shop/gateway"]).await;
    assert_eq!(line["source_identity"], spiffe_id("shop", "gateway"));
    assert_eq!(line["protocol"], "tcp");
    assert_eq!(line["tls"], "yes");
}
