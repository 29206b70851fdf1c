//! No identity, no service: what the wire refuses, in both directions.

use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use selvage_tests::app::{App, RawApp};
use selvage_tests::client;
use selvage_tests::mesh::service;
use selvage_tests::pki::{Identity, Leaf, Pki, TRUST_DOMAIN, anonymous_client, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::wire::Wire;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Certificates that no side may accept, with the reason that the metric gives.
fn malformed(pki: &Pki, other: &Pki, account: &str) -> Vec<(&'static str, Identity, &'static str)> {
    let proper = || Leaf::of(&spiffe_id("shop", account));
    let issue = |change: fn(&mut Leaf)| {
        let mut leaf = proper();
        change(&mut leaf);
        pki.issue(&leaf)
    };
    vec![
        (
            "another authority, same identity",
            other.issue(&proper()),
            "untrusted",
        ),
        (
            "expired",
            issue(|leaf| leaf.lasts = Duration::ZERO),
            "expired",
        ),
        (
            "signed by itself",
            issue(|leaf| leaf.self_signed = true),
            "untrusted",
        ),
        (
            "another trust domain",
            issue(|leaf| leaf.uris = vec!["spiffe://other.local/ns/shop/sa/client".to_owned()]),
            "",
        ),
        (
            "two URIs",
            issue(|leaf| {
                leaf.uris
                    .push("spiffe://mesh.local/ns/shop/sa/second".to_owned())
            }),
            "",
        ),
        (
            "no URI, a DNS name",
            issue(|leaf| (leaf.uris, leaf.names) = (vec![], vec!["orders.shop".to_owned()])),
            "",
        ),
        (
            "an authority as leaf",
            issue(|leaf| leaf.authority = true),
            "",
        ),
        (
            "no extended key usage for its side",
            issue(|leaf| leaf.usages = vec![rcgen::ExtendedKeyUsagePurpose::CodeSigning]),
            "",
        ),
        (
            "not valid yet",
            issue(|leaf| (leaf.age, leaf.starts_in) = (Duration::ZERO, Duration::from_secs(1800))),
            "",
        ),
    ]
}

/// Handshakes with `address`, then GETs: the answer's status, or why there is none.
async fn call(
    address: std::net::SocketAddr,
    config: ClientConfig,
    sni: &str,
) -> Result<u16, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from(sni.to_owned()).expect("a test's SNI is a name");
    let connector = TlsConnector::from(Arc::new(config));
    let stream = wait::soon("a handshake", connector.connect(name, stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut wire = Wire::of(stream);
    wire.try_send("GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
        .await
        .map_err(|error| error.to_string())?;
    // In TLS 1.3 a refusal of the client's certificate arrives after the client's own end of the handshake.
    match wire.some().await {
        Ok(bytes) if bytes.is_empty() => Err("closed".to_owned()),
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            Ok(text
                .split(' ')
                .nth(1)
                .and_then(|status| status.parse().ok())
                .unwrap_or(0))
        }
        Err(error) => Err(error.to_string()),
    }
}

fn sni() -> String {
    format!("p80.orders.shop.{TRUST_DOMAIN}")
}

async fn server(pki: &Pki, app: &App) -> Sidecar {
    Sidecar::builder("orders")
        .application(80, app.address, "http")
        .start(pki)
        .await
}

async fn handshakes(sidecar: &Sidecar, side: &str, outcome: &str) -> u64 {
    let labels = [("side", side), ("outcome", outcome)];
    sidecar
        .metrics()
        .await
        .count("selvage_tls_handshakes_total", &labels)
}

#[tokio::test]
async fn a_proper_caller_is_served() {
    let (pki, app) = (Pki::new(), App::echo().await);
    let server = server(&pki, &app).await;
    let config = pki.account("shop", "client").client(&["http/1.1"]);
    assert_eq!(call(server.inbound(), config, &sni()).await, Ok(200));
    assert_eq!(handshakes(&server, "server", "ok").await, 1);
    assert!(
        app.last()
            .header("x-forwarded-client-cert")
            .ends_with("/sa/client")
    );
}

#[tokio::test]
async fn callers_without_a_proper_certificate_are_refused() {
    let (pki, other, app) = (Pki::new(), Pki::new(), App::echo().await);
    let server = server(&pki, &app).await;
    let refused = call(server.inbound(), anonymous_client(&["http/1.1"]), &sni()).await;
    assert!(refused.is_err(), "no certificate: {refused:?}");
    wait::until("the refusal's record", PATIENCE, || async {
        handshakes(&server, "server", "no-certificate").await == 1
    })
    .await;
    for (name, identity, outcome) in malformed(&pki, &other, "client") {
        let refused = call(server.inbound(), identity.client(&["http/1.1"]), &sni()).await;
        assert!(refused.is_err(), "{name}: {refused:?}");
        if !outcome.is_empty() {
            wait::until(
                &format!("{name}: a record as {outcome}"),
                PATIENCE,
                || async { handshakes(&server, "server", outcome).await >= 1 },
            )
            .await;
        }
    }
    assert_eq!(app.count(), 0);
    assert_eq!(handshakes(&server, "server", "ok").await, 0);
}

#[tokio::test]
async fn plaintext_is_refused_where_mutual_tls_is_due() {
    let (pki, app) = (Pki::new(), App::echo().await);
    let server = server(&pki, &app).await;
    let answer = Wire::exchange(
        server.inbound(),
        b"GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n",
    )
    .await;
    assert!(
        !String::from_utf8_lossy(&answer).contains("HTTP/1.1"),
        "{}",
        answer.escape_ascii()
    );
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn a_tls_1_2_caller_is_refused() {
    let (pki, app) = (Pki::new(), App::echo().await);
    let server = server(&pki, &app).await;
    // A ClientHello of TLS 1.2: two suites, no supported_versions.
    let body = [
        [3, 3].as_slice(),
        &[7; 32],
        &[0],
        &[0, 4, 0xC0, 0x2B, 0xC0, 0x2F],
        &[1, 0],
        &[
            0, 22, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3, 0, 11, 0, 2, 1, 0,
        ],
    ]
    .concat();
    let length = u8::try_from(body.len()).unwrap();
    let hello = [[22, 3, 1, 0, length + 4, 1, 0, 0, length].as_slice(), &body].concat();
    let answer = Wire::exchange(server.inbound(), &hello).await;
    assert_eq!(
        answer.first(),
        Some(&21),
        "an alert, not a handshake: {}",
        answer.escape_ascii()
    );
    assert_eq!(answer.get(6), Some(&70), "protocol_version");
}

#[tokio::test]
async fn what_flows_must_be_agreed_on() {
    let (pki, app) = (Pki::new(), App::echo().await);
    let server = server(&pki, &app).await;
    let caller = pki.account("shop", "client");
    for alpn in [&["smtp"][..], &["selvage-tcp"]] {
        let refused = call(server.inbound(), caller.client(alpn), &sni()).await;
        assert!(
            refused.is_err(),
            "{alpn:?} toward an HTTP port: {refused:?}"
        );
    }
    assert_eq!(app.count(), 0);
    // A peer that speaks SPIFFE but names nothing gets plain HTTP/1.1 at the only port, or a refusal: never a mix-up.
    if let Ok(status) = call(server.inbound(), caller.client(&[]), &sni()).await {
        assert_eq!(status, 200);
    }
}

#[tokio::test]
async fn sni_chooses_a_port_and_nothing_else() {
    let (pki, app) = (Pki::new(), App::echo().await);
    let server = server(&pki, &app).await;
    let caller = pki.account("shop", "client");
    let at = |sni: &'static str| call(server.inbound(), caller.client(&["http/1.1"]), sni);
    assert_eq!(at("p80.orders.shop.mesh.local").await, Ok(200));
    assert_eq!(
        at("orders.example.com").await,
        Ok(200),
        "outside the trust domain: the only port is meant"
    );
    assert_eq!(
        at("127.0.0.1").await,
        Ok(200),
        "no SNI: the only port is meant"
    );
    for stranger in [
        "p81.orders.shop.mesh.local",
        "p80.other.shop.mesh.local",
        "p80.orders.bar.mesh.local",
        "mesh.local",
    ] {
        let refused = at(stranger).await;
        assert!(refused.is_err(), "{stranger}: {refused:?}");
    }
    assert_eq!(app.count(), 3);
}

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
