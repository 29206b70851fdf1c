//! Every limit has its flag and its status, and what is over it goes no further.

use std::time::{Duration, Instant};

use selvage_tests::app::App;
use selvage_tests::client::{self, Http2, request2};
use selvage_tests::mesh::Mesh;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wire::{Head, Wire};
use selvage_tests::{body, wait};

async fn mesh(app: &App) -> Mesh {
    Mesh::builder(app.address, "http")
        .client_set("limits.headerBytes", "8KiB")
        .client_set("limits.headerCount", 20)
        .client_set("limits.uriBytes", "2KiB")
        .client_set("limits.headerTimeout", "500ms")
        .start()
        .await
}

async fn answer(mesh: &Mesh, request: &str) -> Head {
    let mut wire = Wire::connect(mesh.outbound()).await;
    // The proxy may have refused before all is sent.
    let _ = wire.try_send(request).await;
    wire.head().await
}

fn refused(head: &Head) -> (u16, Option<&str>) {
    (head.status(), head.header("x-selvage-flag"))
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused() {
    let app = App::echo().await;
    let mesh = mesh(&app).await;
    let large = format!(
        "GET / HTTP/1.1\r\nhost: orders.shop\r\nx: {}\r\n\r\n",
        "a".repeat(9 << 10)
    );
    assert_eq!(
        refused(&answer(&mesh, &large).await),
        (431, Some("headers-too-large"))
    );
    let many = format!(
        "GET / HTTP/1.1\r\nhost: orders.shop\r\n{}\r\n",
        "x: a\r\n".repeat(30)
    );
    assert_eq!(
        refused(&answer(&mesh, &many).await),
        (431, Some("headers-too-large"))
    );
    let long = format!(
        "GET /{} HTTP/1.1\r\nhost: orders.shop\r\n\r\n",
        "a".repeat(3 << 10)
    );
    assert_eq!(
        refused(&answer(&mesh, &long).await),
        (414, Some("uri-too-long"))
    );
    assert_eq!(app.count(), 0);
    assert_eq!(
        client::get(mesh.outbound(), ORDERS, "/").await.status,
        200,
        "others are served"
    );
}

#[tokio::test]
async fn http2_heads_have_the_same_limits() {
    let app = App::echo().await;
    let mesh = mesh(&app).await;
    let caller = Http2::connect(mesh.outbound()).await;
    let mut many = request2(http::Method::GET, ORDERS, "/", body::empty());
    for _ in 0..30 {
        many.headers_mut().append("x", "a".parse().unwrap());
    }
    let answer = caller.call(many).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.flag()),
        (431, "headers-too-large")
    );
    let path = format!("/{}", "a".repeat(3 << 10));
    let answer = caller
        .call(request2(http::Method::GET, ORDERS, &path, body::empty()))
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.flag()),
        (414, "uri-too-long")
    );
    let answer = caller
        .call(request2(http::Method::GET, ORDERS, "/", body::empty()))
        .await
        .unwrap();
    assert_eq!(answer.status, 200, "the connection goes on");
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_refused() {
    let app = App::echo().await;
    let mesh = mesh(&app).await;
    let start = Instant::now();
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send("GET / HTTP/1.1\r\nhost: orders.sh").await;
    let head = wire.head().await;
    assert_eq!(refused(&head), (408, Some("slow-request")));
    assert!(
        start.elapsed() > Duration::from_millis(400),
        "not before its time"
    );
    assert!(
        wire.rest().await.unwrap().is_empty(),
        "and the connection ends"
    );
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn the_server_side_has_limits_of_its_own() {
    let app = App::echo().await;
    let mesh = Mesh::builder(app.address, "http")
        .server_set("limits.headerBytes", "8KiB")
        .start()
        .await;
    let path = "/";
    let mut sent = request2(http::Method::GET, ORDERS, path, body::empty());
    sent.headers_mut()
        .insert("x", "a".repeat(12 << 10).parse().unwrap());
    let status = Http2::connect(mesh.outbound())
        .await
        .call(sent)
        .await
        .unwrap()
        .status
        .as_u16();
    assert!((400..=503).contains(&status), "{status}");
    assert_eq!(app.count(), 0);
    assert_eq!(
        client::get(mesh.outbound(), ORDERS, "/").await.status,
        200,
        "others are served"
    );
}

#[tokio::test]
async fn connections_are_limited_and_come_back() {
    let app = App::echo().await;
    let mesh = Mesh::builder(app.address, "http")
        .client_set("limits.connections", 4)
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::connect(mesh.outbound()).await;
        wire.send("GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
            .await;
        assert_eq!(wire.head().await.status(), 200);
        held.push(wire);
    }
    let mut one_more = Wire::connect(mesh.outbound()).await;
    let _ = one_more
        .try_send("GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
        .await;
    if let Some(head) = wait::soon("a refusal", one_more.try_head()).await {
        assert_eq!(head.status(), 503, "never served beyond the limit");
    }
    held.clear();
    wait::until("a free place", wait::PATIENCE, || async {
        client::try_get(mesh.outbound(), ORDERS, "/")
            .await
            .is_ok_and(|answer| answer.status == 200)
    })
    .await;
}
