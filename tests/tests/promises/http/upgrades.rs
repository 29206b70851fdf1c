//! Upgrades take a connection of their own, and only once both sides agree.

use http::Method;
use selvage_tests::app::{App, RawApp};
use selvage_tests::body;
use selvage_tests::client::{Http2, request2};
use selvage_tests::mesh::{Mesh, plaintext_caller, traffic_policy};
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait;
use selvage_tests::wire::Wire;

/// An application that agrees to any upgrade and echoes until the caller ends.
async fn upgrading() -> RawApp {
    RawApp::start(|mut wire, _| async move {
        let head = wire.head().await;
        let protocol = head.header("upgrade").unwrap_or("none").to_owned();
        let accept = if protocol == "websocket" { "sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" } else { "" };
        wire.send(format!("HTTP/1.1 101 Switching Protocols\r\nupgrade: {protocol}\r\nconnection: upgrade\r\n{accept}\r\n")).await;
        while let Ok(bytes) = wire.some().await {
            if bytes.is_empty() {
                break;
            }
            wire.send(bytes).await;
        }
        wire.send("farewell").await;
    })
    .await
}

#[tokio::test]
async fn websockets_carry_bytes_both_ways() {
    let app = upgrading().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(
        "GET /chat HTTP/1.1\r\nhost: orders.shop\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    let head = wire.head().await;
    assert_eq!(
        (head.status(), head.header("upgrade")),
        (101, Some("websocket"))
    );
    assert_eq!(
        head.header("sec-websocket-accept"),
        Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
    );
    for message in ["\u{81}one", "\u{81}two"] {
        wire.send(message).await;
        assert_eq!(wire.exactly(message.len()).await, message.as_bytes());
    }
    wire.finish().await;
    assert_eq!(
        wire.rest().await.unwrap(),
        b"farewell",
        "a half-closed upgrade still carries the other direction"
    );
}

#[tokio::test]
async fn an_upgrade_counts_as_a_connection_while_it_lasts() {
    let app = upgrading().await;
    let one = traffic_policy("  limits: { maxConnections: 1 }\n");
    let (_pki, caller) = plaintext_caller("http", &[app.address], &one).await;
    let ask = async || {
        let mut wire = Wire::connect(caller.outbound()).await;
        wire.send(
            "GET / HTTP/1.1\r\nhost: orders.shop\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        )
        .await;
        let head = wire.head().await;
        (
            wire,
            head.status(),
            head.header("x-selvage-flag").map(str::to_owned),
        )
    };
    let (mut first, status, _) = ask().await;
    assert_eq!(status, 101);
    for _ in 0..3 {
        let (_, status, flag) = ask().await;
        assert_eq!((status, flag.as_deref()), (503, Some("overflow")));
    }
    first.finish().await;
    assert_eq!(first.rest().await.unwrap(), b"farewell");
    wait::until("the place of the first", wait::PATIENCE, async || {
        ask().await.1 == 101
    })
    .await;
}

#[tokio::test]
async fn other_upgrades_are_carried_too() {
    let app = upgrading().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(
        "GET / HTTP/1.1\r\nhost: orders.shop\r\nupgrade: homemade/2\r\nconnection: Upgrade\r\n\r\n",
    )
    .await;
    let head = wire.head().await;
    assert_eq!(
        (head.status(), head.header("upgrade")),
        (101, Some("homemade/2"))
    );
    wire.send("any bytes").await;
    assert_eq!(wire.exactly(9).await, b"any bytes");
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let app = App::start(|_| async { selvage_tests::app::status(426) }).await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    // The bytes after the head must stay here: nobody has agreed to a tunnel.
    wire.send(
        "GET / HTTP/1.1\r\nhost: orders.shop\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 9\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    assert_eq!(wire.head().await.status(), 426);
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn bytes_sent_ahead_of_an_upgrade_stay_behind_until_it_is_agreed() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
        let rest = wire.rest().await.unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&rest).contains("HIDDEN"),
            "the hidden request arrived"
        );
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(
        "GET / HTTP/1.1\r\nhost: orders.shop\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n\
         GET /HIDDEN HTTP/1.1\r\nhost: nobody.shop\r\n\r\n",
    )
    .await;
    assert_eq!(wire.head().await.status(), 200);
    // What follows is a request of its own, judged as one: it names no service.
    if let Some(head) = wire.try_head().await {
        assert_eq!(head.status(), 404);
    }
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_not_passed_on() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(
        "GET / HTTP/1.1\r\nhost: orders.shop\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n\
         connection: upgrade, http2-settings\r\n\r\n",
    )
    .await;
    assert_eq!(
        wire.head().await.status(),
        200,
        "answered as the plain request it also is"
    );
    let seen = app.last();
    assert_eq!(
        (seen.header("upgrade"), seen.header("http2-settings")),
        ("", "")
    );
}

#[tokio::test]
async fn connect_is_refused_cleanly() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send("CONNECT orders.shop:80 HTTP/1.1\r\nhost: orders.shop:80\r\n\r\n")
        .await;
    let status = wire.head().await.status();
    assert!(
        (400..=501).contains(&status),
        "CONNECT was answered {status}"
    );

    let caller = Http2::connect(mesh.outbound()).await;
    let mut sent = request2(Method::CONNECT, ORDERS, "/", body::empty());
    *sent.uri_mut() = http::Uri::from_static("orders.shop:80");
    let status = caller
        .send(sent)
        .await
        .expect("an answer, not a broken connection")
        .status()
        .as_u16();
    assert!(
        (400..=501).contains(&status),
        "CONNECT over HTTP/2 was answered {status}"
    );
    let answer = caller
        .call(request2(Method::GET, ORDERS, "/", body::empty()))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "the connection goes on");
    assert_eq!(app.count(), 1);
}
