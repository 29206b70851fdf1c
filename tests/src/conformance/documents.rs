//! Documents that a scene makes or looks for: certificates, gateways that many
//! tests attach to, and where a document is in the operator API.

use serde_json::{Value, json};

use crate::pki::{Identity, Leaf, Pki};

/// A certificate for these hosts.
pub(super) fn certificate(pki: &Pki, hosts: &[&str]) -> Identity {
    pki.issue(&Leaf {
        uris: Vec::new(),
        names: hosts.iter().map(|host| (*host).to_owned()).collect(),
        ..Leaf::of("")
    })
}

/// A Secret with a certificate and its key.
pub(super) fn secret(name: &str, identity: &Identity) -> Value {
    let read =
        |path: &std::path::Path| std::fs::read_to_string(path).expect("a certificate was written");
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": name, "namespace": "infra" },
        "stringData": {
            "tls.crt": read(&identity.certificate),
            "tls.key": read(&identity.key),
        },
    })
}

/// Gateways that many tests attach to, told apart by the namespaces they take routes of.
pub(super) fn gateways() -> Vec<Value> {
    let gateway = |name: &str, namespaces: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": { "name": name, "namespace": "infra" },
            "spec": {
                "gatewayClassName": "selvage",
                "listeners": [{
                    "name": "http", "port": 80, "protocol": "HTTP",
                    "allowedRoutes": { "namespaces": namespaces },
                }],
            },
        })
    };
    vec![
        gateway("same", json!({ "from": "Same" })),
        gateway("all", json!({ "from": "All" })),
        gateway(
            "backend",
            json!({ "from": "Selector", "selector": { "matchLabels": { "conformance": "backend" } } }),
        ),
    ]
}

/// The document of a gateway, of the case or of those that many attach to.
pub(super) fn gateway_of(documents: &[Value], name: &str) -> Value {
    let usual = gateways();
    let all = documents.iter().chain(&usual);
    let mut these = all.filter(|one| {
        let (namespace, short) = (&one["metadata"]["namespace"], &one["metadata"]["name"]);
        one["kind"] == "Gateway"
            && name
                == format!(
                    "{}/{}",
                    namespace.as_str().unwrap_or_default(),
                    short.as_str().unwrap_or_default()
                )
    });
    these
        .next()
        .unwrap_or_else(|| panic!("there is no Gateway `{name}`"))
        .clone()
}

/// The path of a document in the operator API.
pub(super) fn path_of(document: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, metadata) = (text(&document["kind"]), &document["metadata"]);
    let name = text(&metadata["name"]);
    match metadata["namespace"].as_str() {
        Some(namespace) => format!("/api/v1/{kind}/{namespace}/{name}"),
        None => format!("/api/v1/{kind}/{name}"),
    }
}
