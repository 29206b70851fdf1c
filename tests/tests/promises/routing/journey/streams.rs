//! Whole connections: TCPRoutes by weight, TLSRoutes for TLS alone, which
//! passes unopened.

use std::sync::Arc;

use rustls_pki_types::ServerName;
use selvage_tests::app::RawApp;
use selvage_tests::pki::{Pki, anonymous_client};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{services, to};

const CLOSED: &str = "selvage_tcp_connections_closed_total";

/// Says its name when it has heard something, to the end.
async fn greeter(name: &'static str) -> RawApp {
    RawApp::start(move |mut wire, _| async move {
        if wire.rest().await.is_ok_and(|heard| !heard.is_empty()) {
            wire.send(name).await;
        }
    })
    .await
}

fn document(kind: &str, name: &str, hostnames: &[&str], backends: &Value) -> String {
    let mut spec = json!({
        "parentRefs": [{ "group": "", "kind": "Service", "name": "orders" }],
        "rules": [{ "backendRefs": backends }],
    });
    if !hostnames.is_empty() {
        spec["hostnames"] = json!(hostnames);
    }
    let version = if kind == "TLSRoute" { "v1" } else { "v1alpha2" };
    let document = json!({
        "apiVersion": format!("gateway.networking.k8s.io/{version}"),
        "kind": kind,
        "metadata": { "name": name, "namespace": "shop" },
        "spec": spec,
    });
    document.to_string()
}

async fn caller(documents: &[String]) -> (Pki, Sidecar) {
    let pki = Pki::new();
    let sidecar = Sidecar::builder("client")
        .set("telemetry.accessLog", "json")
        .listener(ORDERS, 80)
        .resources(&documents.join("\n---\n"))
        .start(&pki)
        .await;
    (pki, sidecar)
}

/// What is heard after saying `bytes`; empty where the connection is closed or reset.
async fn said(sidecar: &Sidecar, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(sidecar.listener(ORDERS, 80))
        .await
        .unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    let _ = wait::soon("an answer or an end", stream.read_to_end(&mut heard)).await;
    String::from_utf8_lossy(&heard).into_owned()
}

/// The beginning of TLS, as a client that asks for `name` says it.
fn hello(name: &'static str) -> Vec<u8> {
    let config = Arc::new(anonymous_client(&[]));
    let name = ServerName::try_from(name).unwrap();
    let mut client = rustls::ClientConnection::new(config, name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_tcp_route_shares_connections_out_by_weight() {
    let (orders, one, two) = (
        greeter("orders").await,
        greeter("one").await,
        greeter("two").await,
    );
    let known = [
        ("orders", &[orders.address][..]),
        ("one", &[one.address]),
        ("two", &[two.address]),
    ];
    let backends = json!([to("one", 3), to("two", 1), to("none", 0)]);
    let documents = [
        services("tcp", &known),
        document("TCPRoute", "orders", &[], &backends),
    ];
    let (_pki, mut sidecar) = caller(&documents).await;
    let mut counted = [0, 0];
    for _ in 0..40 {
        match said(&sidecar, b"\x01\x02").await.as_str() {
            "one" => counted[0] += 1,
            "two" => counted[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(counted, [30, 10]);
    assert_eq!(orders.accepted(), 0);
    let line = sidecar.accessed(&["shop/two"]).await;
    assert_eq!(line["route"], "shop/orders/0");
}

#[tokio::test]
async fn a_tls_route_takes_its_server_names_unopened_and_lets_nothing_else_through() {
    let (orders, one) = (greeter("orders").await, greeter("one").await);
    let known = [
        ("orders", &[orders.address][..]),
        ("one", &[one.address][..]),
    ];
    let route = document(
        "TLSRoute",
        "orders",
        &["one.example"],
        &json!([to("one", 1)]),
    );
    let (_pki, sidecar) = caller(&[services("tcp", &known), route]).await;
    assert_eq!(said(&sidecar, &hello("one.example")).await, "one");
    assert_eq!(
        said(&sidecar, &hello("other.example")).await,
        "",
        "no route's server name"
    );
    let stranger = b"SSH-2.0-somebody\r\n";
    assert_eq!(said(&sidecar, stranger).await, "", "no TLS at all");
    wait::until("both turned away", wait::PATIENCE, async || {
        let labels = [("flag", "no-route")];
        sidecar.metrics().await.count(CLOSED, &labels) == 2
    })
    .await;
    assert_eq!((orders.accepted(), one.accepted()), (0, 1));
}
