//! A proxy that is asked to end finishes what it has begun.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::Signal;
use rustls_pki_types::ServerName;
use selvage_tests::app::{App, ok};
use selvage_tests::body;
use selvage_tests::client::{self, Http1, Http2, request, request2};
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::load::Load;
use selvage_tests::mesh::{Mesh, service};
use selvage_tests::pki::{Pki, TRUST_DOMAIN, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::wire::Wire;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const LIMIT: Duration = Duration::from_secs(15);

#[tokio::test]
async fn readiness_goes_first_and_requests_in_flight_finish() {
    let app = App::start(|_| async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        ok("finished")
    })
    .await;
    let mut mesh = Mesh::builder(app.address, "http")
        .set("drain.delay", "300ms")
        .start()
        .await;
    let address = mesh.outbound();
    let in_flight: Vec<_> = (0..4)
        .map(|_| tokio::spawn(client::try_get_owned(address)))
        .collect();
    wait::until("the requests at the application", PATIENCE, async || {
        app.count() == 4
    })
    .await;
    mesh.server.terminate();
    wait::until("not ready", PATIENCE, async || {
        mesh.server.readiness().await != Some(200)
    })
    .await;
    assert!(
        !mesh.server.process.has_ended(),
        "what is in flight is finished first"
    );
    for one in in_flight {
        assert_eq!(one.await.unwrap(), Ok(200));
    }
    assert_eq!(mesh.server.process.exit(LIMIT).await.code(), Some(0));
}

#[tokio::test]
async fn a_drain_under_load_costs_no_request() {
    let (pki, app) = (Pki::new(), App::echo().await);
    let start = || {
        Sidecar::builder("orders")
            .application(80, app.address, "http")
            .set("drain.delay", "500ms")
            .start(&pki)
    };
    let (mut first, second) = (start().await, start().await);
    let id = || Some(spiffe_id("shop", "orders"));
    let both = service(
        "orders",
        "http",
        &[(first.inbound(), id()), (second.inbound(), id())],
    );
    let caller = Sidecar::builder("client")
        .resources(&both)
        .start(&pki)
        .await;
    let load = Load::start(caller.outbound(), ORDERS, 8, Duration::ZERO);
    load.passes(200).await;
    first.terminate();
    assert_eq!(first.process.exit(LIMIT).await.code(), Some(0));
    load.passes(200).await;
    let tally = load.stop().await;
    assert_eq!(tally.failed, 0, "{tally:?}");
    drop(second);
}

#[tokio::test]
async fn open_connections_are_told_to_go() {
    let app = App::echo().await;
    let mut mesh = Mesh::builder(app.address, "http")
        .set("drain.delay", "0s")
        .set("drain.timeout", "5s")
        .start()
        .await;
    let mut one = Http1::connect(mesh.outbound()).await;
    let two = Http2::connect(mesh.outbound()).await;
    assert_eq!(
        one.call(request(Method::GET, ORDERS, "/", body::empty()))
            .await
            .unwrap()
            .status,
        200
    );
    assert_eq!(
        two.call(request2(Method::GET, ORDERS, "/", body::empty()))
            .await
            .unwrap()
            .status,
        200
    );
    let start = Instant::now();
    mesh.client.terminate();
    assert_eq!(mesh.client.process.exit(LIMIT).await.code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "idle connections hold nobody up: {:?}",
        start.elapsed()
    );
    assert!(!one.is_open().await);
}

#[tokio::test]
async fn outbound_serves_until_inbound_is_idle() {
    let pki = Pki::new();
    let other = App::start(|_| async { ok("other") }).await;
    let (asked, ask) = (
        Arc::new(tokio::sync::Notify::new()),
        Arc::new(tokio::sync::Notify::new()),
    );
    let (address, addresses) = tokio::sync::watch::channel(None);
    let (told, go) = (Arc::clone(&asked), Arc::clone(&ask));
    // An application that calls another service while it answers.
    let app = App::start(move |_| {
        let (told, go, mut addresses) = (Arc::clone(&told), Arc::clone(&go), addresses.clone());
        async move {
            let outbound = addresses.wait_for(Option::is_some).await.unwrap().unwrap();
            told.notify_one();
            go.notified().await;
            let answer = client::get(outbound, "other.shop", "/").await;
            ok(format!("{} {}", answer.status.as_u16(), answer.text()))
        }
    })
    .await;
    let resources = service("other", "http", &[(other.address, None)]);
    let mut server = Sidecar::builder("orders")
        .application(80, app.address, "http")
        .resources(&resources)
        .start(&pki)
        .await;
    address.send_replace(Some(server.outbound()));
    let orders = service(
        "orders",
        "http",
        &[(server.inbound(), Some(spiffe_id("shop", "orders")))],
    );
    let caller = Sidecar::builder("client")
        .resources(&orders)
        .start(&pki)
        .await;
    let outbound = caller.outbound();
    let answer = tokio::spawn(async move { client::get(outbound, ORDERS, "/").await.text() });
    wait::soon("the request at the application", asked.notified()).await;
    server.terminate();
    wait::until("not ready", PATIENCE, async || {
        server.readiness().await != Some(200)
    })
    .await;
    ask.notify_one();
    assert_eq!(answer.await.unwrap(), "200 other");
    assert_eq!(server.process.exit(LIMIT).await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let app = App::start(|_| std::future::pending()).await;
    let mut mesh = Mesh::builder(app.address, "http")
        .set("drain.timeout", "60s")
        .start()
        .await;
    let address = mesh.outbound();
    let _held = tokio::spawn(client::try_get_owned(address));
    wait::until("the request at the application", PATIENCE, async || {
        app.count() == 1
    })
    .await;
    mesh.server.terminate();
    wait::until("not ready", PATIENCE, async || {
        mesh.server.readiness().await != Some(200)
    })
    .await;
    assert!(!mesh.server.process.has_ended());
    mesh.server.terminate();
    mesh.server.process.exit(Duration::from_secs(2)).await;
}

#[tokio::test]
async fn a_drain_ends_at_its_timeout() {
    let app = App::start(|_| std::future::pending()).await;
    let mut mesh = Mesh::builder(app.address, "http")
        .set("drain.timeout", "1s")
        .start()
        .await;
    let address = mesh.outbound();
    let _held = tokio::spawn(client::try_get_owned(address));
    wait::until("the request at the application", PATIENCE, async || {
        app.count() == 1
    })
    .await;
    let start = Instant::now();
    mesh.server.terminate();
    mesh.server.process.exit(Duration::from_secs(5)).await;
    assert!(
        start.elapsed() >= Duration::from_millis(900),
        "not before its time: {:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn the_admin_port_drains_too() {
    let app = App::echo().await;
    let mut mesh = Mesh::of(app.address, "http").await;
    assert_ne!(
        client::get(mesh.server.admin(), "localhost", "/drain")
            .await
            .status,
        200,
        "GET changes nothing"
    );
    assert_eq!(mesh.server.readiness().await, Some(200));
    let answer = client::post(mesh.server.admin(), "localhost", "/quitquitquit", "").await;
    assert!(answer.status.is_success(), "{}", answer.status);
    mesh.server.process.exit(LIMIT).await;
}

/// A peer finishes mutual TLS toward an inbound, agrees on HTTP/2, sends
/// `said` and falls silent: the drain must end long before its timeout.
async fn assert_silence_holds_no_drain(said: &[u8]) {
    let (pki, app) = (Pki::new(), App::echo().await);
    let mut server = Sidecar::builder("orders")
        .application(80, app.address, "http")
        .set("limits.headerTimeout", "1s")
        .set("drain.delay", "0s")
        .set("drain.timeout", "20s")
        .start(&pki)
        .await;
    let config = pki.account("shop", "client").client(&["h2"]);
    let stream = TcpStream::connect(server.inbound()).await.unwrap();
    let name = ServerName::try_from(format!("p80.orders.shop.{TRUST_DOMAIN}")).unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let stream = wait::soon("a handshake", connecting).await.unwrap();
    let agreed = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    assert_eq!(agreed.as_deref(), Some(b"h2".as_slice()));
    let mut peer = Wire::of(stream);
    peer.send(said).await;
    wait::until("the handshake at the inbound", PATIENCE, async || {
        let labels = [("side", "server"), ("outcome", "ok")];
        let metrics = server.metrics().await;
        metrics.count("selvage_tls_handshakes_total", &labels) == 1
    })
    .await;
    server.terminate();
    let status = server.process.exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0));
    drop(peer); // it was there to the end
}

#[tokio::test]
async fn a_peer_that_is_silent_after_its_handshake_holds_no_drain() {
    assert_silence_holds_no_drain(b"").await;
}

#[tokio::test]
async fn a_peer_that_is_silent_after_its_preface_holds_no_drain() {
    assert_silence_holds_no_drain(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
}

#[tokio::test]
async fn nobody_needs_to_read_the_log() {
    let mut control = ControlPlane::start().await;
    control.process.close_log();
    control.stop(Signal::TERM).await;
    let app = App::echo().await;
    let mut mesh = Mesh::of(app.address, "http").await;
    mesh.client.process.close_log();
    mesh.client.terminate();
    assert_eq!(mesh.client.process.exit(LIMIT).await.code(), Some(0));
}
