//! A request's body ends where its caller ends it: whatever its method, however
//! its length is told, and also where the answer does not wait for it.

use std::time::Duration;

use http::{Method, Version};
use http_body_util::BodyExt;
use selvage_tests::app::{App, RawApp, ok};
use selvage_tests::client::{Http2, request2};
use selvage_tests::mesh::Mesh;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wire::Wire;
use selvage_tests::{body, wait};
use tokio::time::{Instant, timeout_at};

/// An application that reads its request whole, then answers with it.
async fn reading() -> App {
    App::start(|request| async {
        match request.into_body().collect().await {
            Ok(read) => ok(read.to_bytes()),
            Err(error) => ok(format!("broken off: {error}")),
        }
    })
    .await
}

#[tokio::test]
async fn a_get_in_chunks_arrives_whole() {
    let app = reading().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send("GET /chunks HTTP/1.1\r\nhost: orders.shop\r\ntransfer-encoding: chunked\r\n\r\n")
        .await;
    for chunk in ["4\r\nabcd\r\n", "3\r\nefg\r\n", "0\r\n\r\n"] {
        wire.send(chunk).await;
    }
    let answer = wire.head().await;
    assert_eq!(
        (answer.status(), answer.header("content-length")),
        (200, Some("7"))
    );
    assert_eq!(wire.exactly(7).await, b"abcdefg");
    let seen = app.last();
    assert_eq!(seen.method, Method::GET);
    assert_eq!(seen.version, Version::HTTP_11);
    wire.send("GET /next HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
        .await;
    let next = wire.head().await;
    assert_eq!(next.status(), 200);
    let seen = app.last();
    assert_eq!(seen.uri.path(), "/next");
    assert_eq!(
        seen.header("transfer-encoding"),
        "",
        "a GET without a body has none"
    );
    assert_eq!(app.count(), 2, "no body became a request");
}

#[tokio::test]
async fn an_http2_get_with_a_body_of_unknown_length_arrives_whole() {
    let app = reading().await;
    let mesh = Mesh::of(app.address, "http").await;
    let caller = Http2::connect(mesh.outbound()).await;
    let (feed, sent_body) = body::channel();
    let feeding = tokio::spawn(async move {
        for piece in ["abcd", "efg"] {
            assert!(feed.data(piece).await);
        }
    });
    let answer = caller
        .call(request2(Method::GET, ORDERS, "/stream", sent_body))
        .await
        .unwrap();
    feeding.await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "abcdefg")
    );
    let seen = app.last();
    assert_eq!((seen.method, seen.version), (Method::GET, Version::HTTP_11));
    assert_eq!(app.count(), 1, "no body became a request");
}

/// Keeps what comes within `limit`; false when the peer has ended the connection.
async fn listen(wire: &mut Wire, came: &mut Vec<u8>, limit: Duration) -> bool {
    let end = Instant::now() + limit;
    loop {
        match timeout_at(end, wire.some()).await {
            Ok(Ok(bytes)) if !bytes.is_empty() => came.extend(bytes),
            Ok(_) => return false,
            Err(_) => return true,
        }
    }
}

/// Neither sidecar has counted anything that it took for a malformed or slow head.
async fn assert_well_formed(mesh: &Mesh, what: &str) {
    let name = "selvage_http_requests_total";
    for sidecar in [&mesh.client, &mesh.server] {
        wait::until("the record of the request", wait::PATIENCE, || async {
            sidecar.metrics().await.count(name, &[]) > 0
        })
        .await;
        let metrics = sidecar.metrics().await;
        for flag in ["bad-request", "slow-request"] {
            let counted = metrics.count(name, &[("flag", flag)]);
            assert_eq!(counted, 0, "{what}: {}", metrics.lines(name));
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_answered_early_has_one_answer() {
    const PACE: Duration = Duration::from_millis(300);
    const LINES: &str = "one\ntwo words: three\n\nfour\n";
    const PIECES: usize = 5;
    let app = RawApp::start(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
        // An end or a reset: how the upload ends is the proxy's affair.
        let _ = wire.rest().await;
    })
    .await;
    let framings = [
        (
            format!("content-length: {}", PIECES * LINES.len()),
            LINES.to_owned(),
            "",
        ),
        (
            "transfer-encoding: chunked".to_owned(),
            format!("{:x}\r\n{LINES}\r\n", LINES.len()),
            "0\r\n\r\n",
        ),
    ];
    for (framing, piece, end) in framings {
        let mesh = Mesh::builder(app.address, "http")
            .set("limits.headerTimeout", "500ms")
            .start()
            .await;
        let mut wire = Wire::connect(mesh.outbound()).await;
        wire.send(format!(
            "POST /lines HTTP/1.1\r\nhost: orders.shop\r\n{framing}\r\n\r\n{piece}"
        ))
        .await;
        let mut came = Vec::new();
        let mut pieces = 1;
        // The proxy may end the connection instead of reading on.
        while listen(&mut wire, &mut came, PACE).await
            && pieces < PIECES
            && wire.try_send(&piece).await.is_ok()
        {
            pieces += 1;
        }
        let _ = wire.try_send(end).await;
        // Longer than a head may take: what follows the answer must not be taken for one.
        listen(&mut wire, &mut came, 4 * PACE).await;
        let text = String::from_utf8_lossy(&came).into_owned();
        assert!(text.starts_with("HTTP/1.1 200"), "{framing}: {text:?}");
        assert_eq!(
            text.matches("HTTP/1.1 ").count(),
            1,
            "{framing}: one answer: {text:?}"
        );
        assert_well_formed(&mesh, &framing).await;
    }
}
