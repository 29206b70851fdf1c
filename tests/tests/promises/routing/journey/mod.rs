//! What routes attached to a service do to the requests of its callers.

mod answers; // by whom, and as whose they are counted
mod changes; // of routes, under load
mod stays; // with one endpoint
mod streams; // whole connections

use std::net::SocketAddr;

use selvage_tests::app::{App, ok};
use selvage_tests::mesh::service;
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::Sidecar;
use serde_json::{Value, json};

/// An application that says its name.
async fn app(name: &'static str) -> App {
    App::start(move |_| async move { ok(name) }).await
}

/// An HTTPRoute `shop/orders`, attached to the service `orders`, with these rules.
fn route(rules: &Value) -> String {
    let document = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "orders", "namespace": "shop" },
        "spec": {
            "parentRefs": [{ "group": "", "kind": "Service", "name": "orders" }],
            "rules": rules,
        },
    });
    document.to_string()
}

/// A backend of a rule.
fn to(name: &str, weight: u32) -> Value {
    json!({ "name": name, "port": 80, "weight": weight })
}

/// Documents of services of plain applications, port 80.
fn services(protocol: &str, all: &[(&str, &[SocketAddr])]) -> String {
    let documents: Vec<String> = all
        .iter()
        .map(|(name, addresses)| {
            let endpoints: Vec<_> = addresses.iter().map(|address| (*address, None)).collect();
            service(name, protocol, &endpoints)
        })
        .collect();
    documents.join("\n---\n")
}

/// A caller's sidecar that knows these documents, and keeps its access log.
async fn caller(documents: &[String]) -> (Pki, Sidecar) {
    let pki = Pki::new();
    let sidecar = Sidecar::builder("client")
        .set("telemetry.accessLog", "json")
        .resources(&documents.join("\n---\n"))
        .start(&pki)
        .await;
    (pki, sidecar)
}
