//! Bodies of any size flow at the pace of the slower side, and no proxy holds
//! one whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response};
use http_body_util::BodyExt;
use selvage_tests::app::{App, RawApp, ok};
use selvage_tests::client::{Http1, Http2, request, request2};
use selvage_tests::mesh::{Mesh, plaintext_caller};
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wire::Wire;
use selvage_tests::{body, wait};
use tokio::sync::Notify;

const MIB: u64 = 1 << 20;

/// What a body of the size below may add to the memory of one proxy.
const HELD: u64 = 24 * MIB;

/// Far more than all buffers on the way together.
const LARGE: u64 = 256 * MIB;

/// A send that takes this long is held back.
const STALL: Duration = Duration::from_millis(500);

fn grown(mesh: &Mesh, before: (u64, u64)) -> (u64, u64) {
    let now = (
        mesh.client.process.resident(),
        mesh.server.process.resident(),
    );
    (
        now.0.saturating_sub(before.0),
        now.1.saturating_sub(before.1),
    )
}

fn assert_small(mesh: &Mesh, before: (u64, u64), what: &str) {
    let (client, server) = grown(mesh, before);
    assert!(
        client < HELD && server < HELD,
        "{what}: the sidecars grew by {client} and {server} bytes"
    );
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back_upward() {
    for http2 in [false, true] {
        let go = Arc::new(Notify::new());
        let wait = Arc::clone(&go);
        let app = App::start(move |request| {
            let wait = Arc::clone(&wait);
            async move {
                wait.notified().await;
                let mut body = request.into_body();
                let mut total = 0;
                while let Some(Ok(frame)) = body.frame().await {
                    total += frame.data_ref().map_or(0, Bytes::len);
                }
                ok(total.to_string())
            }
        })
        .await;
        let mesh = Mesh::of(app.address, "http").await;
        let before = (
            mesh.client.process.resident(),
            mesh.server.process.resident(),
        );
        let (feed, sent_body) = body::channel();
        let address = mesh.outbound();
        let answer = tokio::spawn(async move {
            if http2 {
                Http2::connect(address)
                    .await
                    .call(request2(Method::PUT, ORDERS, "/", sent_body))
                    .await
            } else {
                Http1::connect(address)
                    .await
                    .call(request(Method::PUT, ORDERS, "/", sent_body))
                    .await
            }
        });
        let piece = Bytes::from(vec![0; 64 * 1024]);
        let mut sent = 0;
        while tokio::time::timeout(STALL, feed.data(piece.clone()))
            .await
            .is_ok()
        {
            sent += piece.len() as u64;
            assert!(
                sent < LARGE / 4,
                "nobody reads, yet {sent} bytes were taken"
            );
        }
        assert_small(&mesh, before, "while nobody reads");
        go.notify_one();
        while sent < LARGE {
            assert!(
                feed.data(piece.clone()).await,
                "the body is read to its end"
            );
            sent += piece.len() as u64;
        }
        assert_small(&mesh, before, "while it flows");
        drop(feed);
        let answer = answer.await.unwrap().unwrap();
        // The send that was held back was cancelled before its frame was queued.
        assert_eq!(answer.text(), sent.to_string(), "every byte arrives once");
    }
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back_downward() {
    for http2 in [false, true] {
        let app = App::start(|_| async { Response::new(body::zeros(LARGE, 64 * 1024)) }).await;
        let mesh = Mesh::of(app.address, "http").await;
        let before = (
            mesh.client.process.resident(),
            mesh.server.process.resident(),
        );
        let (mut one, two);
        let response = if http2 {
            two = Http2::connect(mesh.outbound()).await;
            two.send(request2(Method::GET, ORDERS, "/", body::empty()))
                .await
                .unwrap()
        } else {
            one = Http1::connect(mesh.outbound()).await;
            one.send(request(Method::GET, ORDERS, "/", body::empty()))
                .await
                .unwrap()
        };
        let mut body = response.into_body();
        let mut total = 0;
        while let Some(frame) = wait::soon("the next piece", body.frame()).await {
            total += frame
                .unwrap()
                .into_data()
                .map_or(0, |data| data.len() as u64);
            if total < MIB {
                // As slow as it gets, until every buffer on the way has filled.
                tokio::time::sleep(Duration::from_millis(20)).await;
                assert_small(&mesh, before, "while it is read slowly");
            }
        }
        assert_eq!(total, LARGE, "every byte arrives once");
        assert_small(&mesh, before, "after it was read");
    }
}

#[tokio::test]
async fn an_endless_response_ends_with_its_reader() {
    let (gone, mut told) = tokio::sync::mpsc::channel(1);
    let app = App::start(move |_| {
        let gone = gone.clone();
        async move {
            let (feed, body) = body::channel();
            tokio::spawn(async move {
                while feed.data(vec![0; 64 * 1024]).await {}
                gone.send(()).await.ok();
            });
            Response::new(body)
        }
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut caller = Http1::connect(mesh.outbound()).await;
    let mut body = caller
        .send(request(Method::GET, ORDERS, "/", body::empty()))
        .await
        .unwrap()
        .into_body();
    let mut total = 0;
    while total < 32 * MIB {
        let frame = wait::soon("the next piece", body.frame())
            .await
            .unwrap()
            .unwrap();
        total += frame.into_data().map_or(0, |data| data.len() as u64);
    }
    drop((body, caller));
    wait::soon("the end of the application's stream", told.recv()).await;
}

#[tokio::test]
async fn an_endless_request_may_be_answered_early() {
    let app = App::start(|request| async move {
        let mut body = request.into_body();
        let mut total = 0;
        while total < 8 * MIB {
            total += body
                .frame()
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .map_or(0, |data| data.len() as u64);
        }
        // It goes on reading: an application that closed now would reset its own answer.
        tokio::spawn(async move { while let Some(Ok(_)) = body.frame().await {} });
        ok("enough")
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    for _ in 0..2 {
        let caller = Http2::connect(mesh.outbound()).await;
        let sent = request2(Method::POST, ORDERS, "/", body::zeros(u64::MAX, 64 * 1024));
        let response = caller.send(sent).await.unwrap();
        assert_eq!(response.status(), 200);
        let text = wait::soon("the body", response.into_body().collect())
            .await
            .unwrap()
            .to_bytes();
        assert_eq!(text, "enough");
    }
}

#[tokio::test]
async fn an_upload_that_is_accepted_early_arrives_whole() {
    const SIZE: u64 = 64 * MIB;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = App::start(move |request| {
        let tell = tell.clone();
        async move {
            tokio::spawn(async move {
                let read = request.into_body().collect().await;
                let _ = tell.send(read.map(|body| body.to_bytes().len() as u64).ok());
            });
            let mut accepted = ok("accepted");
            *accepted.status_mut() = http::StatusCode::ACCEPTED;
            accepted
        }
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let caller = Http2::connect(mesh.outbound()).await;
    let sent = request2(Method::POST, ORDERS, "/", body::zeros(SIZE, 64 * 1024));
    let answer = caller.call(sent).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (202, "accepted")
    );
    let arrived = wait::soon("the end of the upload", told.recv()).await;
    assert_eq!(arrived, Some(Some(SIZE)));
}

#[tokio::test]
async fn an_upload_that_is_accepted_early_without_a_word_arrives_whole() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let app = RawApp::start(move |mut wire, _| {
        let tell = tell.clone();
        async move {
            wire.head().await;
            wire.send("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
                .await;
            let _ = tell.send(wire.exactly(10).await);
        }
    })
    .await;
    let (_pki, caller) = plaintext_caller("http", &[app.address], "").await;
    let mut wire = Wire::connect(caller.outbound()).await;
    wire.send("POST / HTTP/1.1\r\nhost: orders.shop\r\ncontent-length: 10\r\n\r\nabc")
        .await;
    assert_eq!(wire.head().await.status(), 202);
    wire.send("defghij").await;
    let arrived = wait::soon("the end of the upload", told.recv()).await;
    assert_eq!(arrived.as_deref(), Some(&b"abcdefghij"[..]));
    let total = "selvage_http_requests_total";
    let metrics = caller.metrics().await;
    let accepted = metrics.count(total, &[("code", "202"), ("flag", "-")]);
    assert_eq!(accepted, 1, "{}", metrics.lines(total));
}

#[tokio::test]
async fn an_unread_request_body_does_not_poison_the_next_request() {
    let app = App::start(|_| async { ok("early") }).await;
    let mesh = Mesh::of(app.address, "http").await;
    let hidden = "GET /HIDDEN HTTP/1.1\r\nhost: orders.shop\r\n\r\n";
    for _ in 0..5 {
        let mut caller = Http1::connect(mesh.outbound()).await;
        let answer = caller
            .call(request(Method::GET, ORDERS, "/early", body::full(hidden)))
            .await
            .unwrap();
        assert_eq!(answer.text(), "early");
        if caller.is_open().await {
            let answer = caller
                .call(request(Method::GET, ORDERS, "/next", body::empty()))
                .await
                .unwrap();
            assert_eq!(answer.status, 200);
        }
    }
    assert!(
        app.seen().iter().all(|seen| seen.uri.path() != "/HIDDEN"),
        "a body became a request"
    );
}
