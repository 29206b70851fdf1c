//! Callers outside the mesh, through the listeners of a Gateway.

mod changes; // listeners and certificates come and go
mod command; // the right configuration for the right command
mod control; // from a control plane, into the mesh
mod http; // listeners of plain HTTP
mod strangers; // who means no good
mod streams; // whole connections
mod tls; // listeners of HTTPS

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::Request;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use selvage_tests::app::{App, ok};
use selvage_tests::mesh::service;
use selvage_tests::pki::{Identity, Leaf, Pki};
use selvage_tests::wait;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

/// An application that says its name.
async fn named(name: &'static str) -> App {
    App::start(move |request| async move {
        hear_out(request).await;
        ok(name)
    })
    .await
}

/// Reads a request to its end: a server that answers without may close the
/// connection, perhaps as the next request is on its way, and that may be no
/// one to repeat.
async fn hear_out(request: Request<Incoming>) {
    let _ = request.into_body().collect().await;
}

/// A service of one plaintext endpoint, with its port 80.
fn backend(name: &str, protocol: &str, address: SocketAddr) -> String {
    service(name, protocol, &[(address, None)])
}

/// Documents, one after the other.
fn all(documents: &[String]) -> String {
    documents.join("\n---\n")
}

/// The Gateway `shop/public` with these listeners.
fn gateway(listeners: &[Value]) -> String {
    let document = json!({
        "apiVersion": GATEWAY_API, "kind": "Gateway",
        "metadata": { "name": "public", "namespace": "shop" },
        "spec": { "gatewayClassName": "selvage", "listeners": listeners },
    });
    document.to_string()
}

/// A listener; an empty hostname is none.
fn listener(name: &str, port: u16, protocol: &str, hostname: &str) -> Value {
    let mut listener = json!({ "name": name, "port": port, "protocol": protocol });
    if !hostname.is_empty() {
        listener["hostname"] = json!(hostname);
    }
    listener
}

/// The same with TLS that ends here, with a certificate from files.
fn ending(mut listener: Value, certificate: &str, key: &str) -> Value {
    listener["tls"] = json!({
        "mode": "Terminate",
        "options": {
            "selvage.dev/certificate": format!("file:{certificate}"),
            "selvage.dev/key": format!("file:{key}"),
        },
    });
    listener
}

/// [`ending`] with one of the files of a [`Pki`].
fn with_files(listener: Value, identity: &Identity) -> Value {
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    ending(listener, &text(&identity.certificate), &text(&identity.key))
}

/// A route of `kind` to `backends` by weight, attached to a listener of the gateway.
fn route(kind: &str, name: &str, section: &str, backends: &[(&str, u32)]) -> String {
    attached(
        kind,
        name,
        section,
        &json!([{ "backendRefs": refs(backends) }]),
    )
}

fn refs(backends: &[(&str, u32)]) -> Value {
    let to = |(name, weight): &(&str, u32)| json!({ "name": name, "port": 80, "weight": weight });
    backends.iter().map(to).collect()
}

fn attached(kind: &str, name: &str, section: &str, rules: &Value) -> String {
    let document = json!({
        "apiVersion": GATEWAY_API, "kind": kind,
        "metadata": { "name": name, "namespace": "shop" },
        "spec": { "parentRefs": [{ "name": "public", "sectionName": section }], "rules": rules },
    });
    document.to_string()
}

/// A certificate for hosts.
fn certificate(pki: &Pki, hosts: &[&str]) -> Identity {
    pki.issue(&Leaf {
        names: hosts.iter().map(|host| (*host).to_owned()).collect(),
        ..Leaf::of("spiffe://unused/one")
    })
}

/// A TLS connection to `name`, trusting what `config` trusts.
async fn connect(
    address: SocketAddr,
    name: &str,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    wait::soon("a handshake", connecting).await
}
