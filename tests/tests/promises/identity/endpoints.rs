//! Who is called must be the one that is meant, and never gets a byte otherwise.

use std::sync::Arc;
use std::time::Duration;

use selvage_tests::app::{App, RawApp};
use selvage_tests::client;
use selvage_tests::mesh::service;
use selvage_tests::pki::{Identity, Leaf, Pki, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::wire::Wire;
use tokio_rustls::TlsAcceptor;

use super::{handshakes, malformed};

/// An endpoint that is not the sidecar it should be: the caller must see `tls-failure`, the endpoint no request.
async fn assert_server_refused(
    pki: &Pki,
    name: &str,
    identity: &Identity,
    expected: &str,
    alpn: &[&str],
) {
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(alpn)));
    let (sender, mut received) = tokio::sync::mpsc::channel(16);
    let endpoint = RawApp::start(move |wire, _| {
        let (acceptor, sender) = (acceptor.clone(), sender.clone());
        async move {
            if let Ok(stream) = acceptor.accept(wire.into_parts().0).await {
                let bytes = Wire::of(stream).some().await.unwrap_or_default();
                if !bytes.is_empty() {
                    sender.send(bytes).await.ok();
                }
            }
        }
    })
    .await;
    let resources = service(
        "orders",
        "http",
        &[(endpoint.address, Some(expected.to_owned()))],
    );
    let caller = Sidecar::builder("client")
        .resources(&resources)
        .start(pki)
        .await;
    let answer = client::get(caller.outbound(), ORDERS, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.flag()),
        (503, "tls-failure"),
        "{name}"
    );
    assert!(
        received.try_recv().is_err(),
        "{name}: bytes reached an endpoint that is not who it should be"
    );
    assert_eq!(handshakes(&caller, "client", "ok").await, 0, "{name}");
}

#[tokio::test]
async fn endpoints_without_a_proper_certificate_are_refused() {
    let (pki, other) = (Pki::new(), Pki::new());
    let expected = spiffe_id("shop", "orders");
    for (name, identity, _) in malformed(&pki, &other, "orders") {
        assert_server_refused(&pki, name, &identity, &expected, &["h2", "http/1.1"]).await;
    }
}

#[tokio::test]
async fn an_endpoint_must_be_the_one_that_is_meant() {
    let pki = Pki::new();
    let other = pki.account("shop", "ratings");
    assert_server_refused(
        &pki,
        "another service's identity",
        &other,
        &spiffe_id("shop", "orders"),
        &["h2", "http/1.1"],
    )
    .await;
    let right = pki.account("shop", "orders");
    assert_server_refused(
        &pki,
        "no protocol in common",
        &right,
        &spiffe_id("shop", "orders"),
        &["smtp"],
    )
    .await;
}

#[tokio::test]
async fn there_is_no_fallback_to_plaintext() {
    let pki = Pki::new();
    let app = App::echo().await;
    let resources = service(
        "orders",
        "http",
        &[(app.address, Some(spiffe_id("shop", "orders")))],
    );
    let caller = Sidecar::builder("client")
        .resources(&resources)
        .start(&pki)
        .await;
    let answer = client::get(caller.outbound(), ORDERS, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.flag()),
        (503, "tls-failure")
    );
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn new_certificates_are_taken_without_dropping_a_connection() {
    let (pki, app) = (Pki::new(), App::echo().await);
    let identity = pki.account("shop", "orders");
    let server = Sidecar::builder("orders")
        .identity(identity.clone())
        .application(80, app.address, "http")
        .start(&pki)
        .await;
    let resources = service(
        "orders",
        "http",
        &[(server.inbound(), Some(spiffe_id("shop", "orders")))],
    );
    let caller = Sidecar::builder("client")
        .resources(&resources)
        .start(&pki)
        .await;
    let mut connection = client::Http1::connect(caller.outbound()).await;
    let get = || client::request(http::Method::GET, ORDERS, "/", selvage_tests::body::empty());
    assert_eq!(connection.call(get()).await.unwrap().status, 200);
    let expiry = || async {
        server.metrics().await.sum(
            "selvage_certificate_expiry_timestamp_seconds",
            &[("kind", "leaf")],
        )
    };
    let before = expiry().await;
    let mut longer = Leaf::of(&spiffe_id("shop", "orders"));
    longer.lasts = Duration::from_secs(7200);
    let renewed = pki.issue(&longer);
    std::fs::copy(&renewed.key, &identity.key).unwrap();
    std::fs::copy(&renewed.certificate, &identity.certificate).unwrap();
    wait::until("the new certificate", PATIENCE, async || {
        assert_eq!(
            connection.call(get()).await.unwrap().status,
            200,
            "meanwhile"
        );
        expiry().await > before + 1800.0
    })
    .await;
    assert_eq!(connection.call(get()).await.unwrap().status, 200);
    assert_eq!(
        handshakes(&server, "server", "ok").await,
        1,
        "the open connection stayed"
    );
}
