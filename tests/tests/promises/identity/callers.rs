//! Who calls must prove who it is, and say what it wants to speak.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use selvage_tests::app::App;
use selvage_tests::pki::{Pki, TRUST_DOMAIN, anonymous_client};
use selvage_tests::sidecar::Sidecar;
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::wire::Wire;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{handshakes, malformed};

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
