//! Opaque bytes cross as they are, and each direction ends on its own.

use std::io;

use selvage_tests::app::{ClosedPort, RawApp};
use selvage_tests::mesh::{Mesh, plaintext_caller};
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::wire::Wire;

#[tokio::test]
async fn the_caller_may_finish_first() {
    let app = RawApp::start(|mut wire, _| async move {
        let received = wire.rest().await.unwrap();
        wire.send(received.len().to_string()).await;
        wire.finish().await;
    })
    .await;
    let mesh = Mesh::of(app.address, "tcp").await;
    let mut wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    wire.send(vec![0xA5; 300_000]).await;
    wire.finish().await;
    assert_eq!(wire.rest().await.unwrap(), b"300000");
}

#[tokio::test]
async fn the_application_may_finish_first() {
    let (sender, mut received) = tokio::sync::mpsc::channel(1);
    let app = RawApp::start(move |mut wire, _| {
        let sender = sender.clone();
        async move {
            wire.send("farewell").await;
            wire.finish().await;
            sender.send(wire.rest().await.unwrap()).await.ok();
        }
    })
    .await;
    let mesh = Mesh::of(app.address, "tcp").await;
    let mut wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    assert_eq!(wire.rest().await.unwrap(), b"farewell");
    wire.send("still talking").await;
    wire.finish().await;
    assert_eq!(
        wait::soon("the other direction", received.recv())
            .await
            .unwrap(),
        b"still talking"
    );
}

#[tokio::test]
async fn a_server_may_speak_first() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.send("220 ready\r\n").await;
        let line = wire.until(b"\r\n").await.unwrap();
        wire.send([b"250 ".to_vec(), line].concat()).await;
        wire.rest().await.ok();
    })
    .await;
    let mesh = Mesh::of(app.address, "tcp").await;
    let mut wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    assert_eq!(
        wire.until(b"\r\n").await.unwrap(),
        b"220 ready\r\n",
        "before the caller has said a word"
    );
    wire.send("HELO me\r\n").await;
    assert_eq!(wire.until(b"\r\n").await.unwrap(), b"250 HELO me\r\n");
}

#[tokio::test]
async fn bytes_that_look_like_http_are_opaque_on_a_declared_port() {
    let app = RawApp::start(|mut wire, _| async move {
        let received = wire.until(b"\r\n\r\n").await.unwrap();
        wire.send(received).await;
        wire.finish().await;
    })
    .await;
    let mesh = Mesh::of(app.address, "tcp").await;
    let mut wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    wire.send("GET / HTTP/1.1\r\nHost: whatever\r\n\r\n").await;
    assert_eq!(
        wire.rest().await.unwrap(),
        b"GET / HTTP/1.1\r\nHost: whatever\r\n\r\n"
    );
}

#[tokio::test]
async fn a_reset_is_never_a_clean_end() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.send("some").await;
        wire.exactly(2).await;
        wire.reset();
    })
    .await;
    let mesh = Mesh::of(app.address, "tcp").await;
    let mut wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    assert_eq!(wire.exactly(4).await, b"some");
    wire.send("ok").await;
    let end = wire.rest().await;
    assert_eq!(
        end.map_err(|error| error.kind()),
        Err(io::ErrorKind::ConnectionReset),
        "through two sidecars"
    );
}

#[tokio::test]
async fn a_callers_reset_reaches_the_application() {
    let (sender, mut ended) = tokio::sync::mpsc::channel(1);
    let app = RawApp::start(move |mut wire, _| {
        let sender = sender.clone();
        async move {
            wire.exactly(2).await;
            wire.send("go").await;
            sender
                .send(wire.rest().await.map_err(|error| error.kind()))
                .await
                .ok();
        }
    })
    .await;
    let mesh = Mesh::of(app.address, "tcp").await;
    let mut wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    wire.send("ok").await;
    assert_eq!(wire.exactly(2).await, b"go");
    wire.reset();
    let end = wait::soon("the end at the application", ended.recv())
        .await
        .unwrap();
    assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn an_application_that_refuses_ends_the_connection() {
    let closed = ClosedPort::new();
    let (_pki, caller) = plaintext_caller("tcp", &[closed.address], "").await;
    // The end may come so soon that even connecting reports it.
    let connecting = tokio::net::TcpStream::connect(caller.listener(ORDERS, 80));
    if let Ok(stream) = wait::soon("a connection", connecting).await {
        let end = Wire::of(stream).rest().await;
        assert!(
            end.as_ref().is_err() || end.as_ref().is_ok_and(Vec::is_empty),
            "not one byte: {end:?}"
        );
    }
    wait::until("the connection's record", PATIENCE, || async {
        let labels = [
            ("direction", "outbound"),
            ("destination", "shop/orders"),
            ("flag", "connect-failure"),
        ];
        caller
            .metrics()
            .await
            .count("selvage_tcp_connections_closed_total", &labels)
            == 1
    })
    .await;
}

#[tokio::test]
async fn large_transfers_are_whole_in_both_directions() {
    let app = RawApp::start(|mut wire, _| async move {
        while let Ok(bytes) = wire.some().await {
            if bytes.is_empty() {
                break;
            }
            wire.send(bytes).await;
        }
        wire.finish().await;
    })
    .await;
    let mesh = Mesh::of(app.address, "tcp").await;
    let wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    let (stream, _) = wire.into_parts();
    let (mut reader, mut writer) = stream.into_split();
    let size: usize = 32 << 20;
    let sending = tokio::spawn(async move {
        let pattern: Vec<u8> = (0..=250).cycle().take(size).collect();
        tokio::io::AsyncWriteExt::write_all(&mut writer, &pattern)
            .await
            .unwrap();
    });
    let mut received = Vec::with_capacity(size);
    let reading = tokio::io::AsyncReadExt::read_to_end(&mut reader, &mut received);
    wait::within("32 MiB there and back", 6 * PATIENCE, reading)
        .await
        .unwrap();
    sending.await.unwrap();
    assert_eq!(received.len(), size);
    assert!(
        received
            .iter()
            .zip((0..=250).cycle())
            .all(|(one, other)| *one == other),
        "every byte in its place"
    );
    wait::until("the byte counts", PATIENCE, || async {
        let sent = |metrics: &selvage_tests::metrics::Metrics, flow| {
            metrics.count(
                "selvage_tcp_bytes_total",
                &[("direction", "outbound"), ("flow", flow)],
            )
        };
        let metrics = mesh.client.metrics().await;
        (sent(&metrics, "sent"), sent(&metrics, "received")) == (size as u64, size as u64)
    })
    .await;
}
