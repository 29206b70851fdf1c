//! A port declared `detect` is told from its first bytes: HTTP/1, the HTTP/2
//! preface, TLS, else opaque.

use std::sync::Arc;

use http::{Method, Version};
use rustls_pki_types::ServerName;
use selvage_tests::app::{App, RawApp};
use selvage_tests::body;
use selvage_tests::client::{self, Http2, request2};
use selvage_tests::mesh::Mesh;
use selvage_tests::pki::{Pki, anonymous_client};
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::wire::Wire;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Requests that the server's sidecar has counted as HTTP.
async fn counted(mesh: &Mesh) -> u64 {
    mesh.server
        .metrics()
        .await
        .count("selvage_http_requests_total", &[("direction", "inbound")])
}

#[tokio::test]
async fn http1_is_told_from_its_first_line() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "detect").await;
    let listener = mesh.client.listener(ORDERS, 80);
    let answer = client::get(listener, ORDERS, "/one").await;
    assert_eq!(answer.status, 200, "{}", answer.flag());
    assert_eq!(
        (app.last().version, counted(&mesh).await),
        (Version::HTTP_11, 1)
    );
}

#[tokio::test]
async fn http1_is_told_however_slowly_it_comes() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "detect").await;
    let mut wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    for byte in b"GET /slow HTTP/1.1\r\nhost: orders.shop\r\n\r\n" {
        wire.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(wire.head().await.status(), 200);
    assert_eq!(counted(&mesh).await, 1);
}

#[tokio::test]
async fn http2_is_told_from_its_preface() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "detect").await;
    let listener = mesh.client.listener(ORDERS, 80);
    let caller = Http2::connect(listener).await;
    let answer = caller
        .call(request2(Method::GET, ORDERS, "/two", body::empty()))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "{}", answer.flag());
    assert_eq!(
        (app.last().version, counted(&mesh).await),
        (Version::HTTP_2, 1)
    );
}

#[tokio::test]
async fn tls_passes_unopened() {
    let pki = Pki::new();
    let acceptor = TlsAcceptor::from(Arc::new(
        pki.account("elsewhere", "server").server(&["echo"]),
    ));
    let app = RawApp::start(move |wire, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(wire.into_parts().0).await else {
                return;
            };
            let mut wire = Wire::of(stream);
            let line = wire.until(b"\n").await.unwrap();
            wire.send(line).await;
            wire.finish().await;
        }
    })
    .await;
    let mesh = Mesh::of(app.address, "detect").await;
    let (stream, _) = Wire::connect(mesh.client.listener(ORDERS, 80))
        .await
        .into_parts();
    let connector = TlsConnector::from(Arc::new(anonymous_client(&["echo"])));
    let name = ServerName::try_from("secret.example").unwrap();
    let stream = wait::soon("a handshake end to end", connector.connect(name, stream))
        .await
        .unwrap();
    assert_eq!(
        stream.get_ref().1.alpn_protocol(),
        Some(b"echo".as_slice()),
        "the application's own handshake"
    );
    let mut wire = Wire::of(stream);
    wire.send("through\n").await;
    assert_eq!(wire.until(b"\n").await.unwrap(), b"through\n");
    assert_eq!(counted(&mesh).await, 0);
}

#[tokio::test]
async fn anything_else_is_opaque() {
    let app = RawApp::start(|mut wire, _| async move {
        let received = wire.rest().await.unwrap();
        wire.send(received).await;
        wire.finish().await;
    })
    .await;
    let mesh = Mesh::of(app.address, "detect").await;
    let listener = mesh.client.listener(ORDERS, 80);
    for bytes in [
        b"\x00\x01\x02\x03".as_slice(),
        b"*1\r\n$4\r\nPING\r\n",
        b"\x16\x09nothing like TLS",
        b"P",
        b"PRI",
    ] {
        let mut wire = Wire::connect(listener).await;
        wire.send(bytes).await;
        wire.finish().await;
        assert_eq!(
            wire.rest().await.unwrap(),
            bytes,
            "{}",
            bytes.escape_ascii()
        );
    }
    assert_eq!(counted(&mesh).await, 0);
    wait::until("the connections' records", PATIENCE, || async {
        let labels = [("direction", "inbound"), ("source", "shop/client")];
        mesh.server
            .metrics()
            .await
            .count("selvage_tcp_connections_closed_total", &labels)
            == 5
    })
    .await;
}
