//! An expectation is the application's to meet. Other interim responses end at
//! the sidecar (hyper's server cannot send them) and disturb nothing.

use selvage_tests::app::{App, RawApp, ok};
use selvage_tests::mesh::Mesh;
use selvage_tests::wire::Wire;

#[tokio::test]
async fn early_hints_leave_the_answer_whole() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n")
            .await;
        wire.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await;
        wire.rest().await.ok();
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send("GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
        .await;
    let answer = wire.head().await;
    assert_eq!((answer.status(), answer.header("link")), (200, None));
    assert_eq!(wire.exactly(2).await, b"ok");
}

#[tokio::test]
async fn continue_comes_from_the_application() {
    let app = App::start(|request| async {
        let read = http_body_util::BodyExt::collect(request.into_body()).await;
        ok(read.expect("the body comes").to_bytes())
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(
        "POST / HTTP/1.1\r\nhost: orders.shop\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
    )
    .await;
    assert_eq!(
        wire.head().await.status(),
        100,
        "the application reads, so the caller may send"
    );
    wire.send("abc").await;
    assert_eq!(wire.head().await.status(), 200);
}

#[tokio::test]
async fn no_continue_where_the_application_refuses() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n")
            .await;
        wire.rest().await.ok();
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(
        "POST / HTTP/1.1\r\nhost: orders.shop\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n",
    )
    .await;
    assert_eq!(
        wire.head().await.status(),
        401,
        "the body was never asked for"
    );
}

#[tokio::test]
async fn an_unknown_expectation_fails() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    for expectation in ["200-ok", "100-continue, other"] {
        let mut wire = Wire::connect(mesh.outbound()).await;
        let request = format!(
            "POST / HTTP/1.1\r\nhost: orders.shop\r\nexpect: {expectation}\r\ncontent-length: 0\r\n\r\n"
        );
        wire.send(request).await;
        let head = wire.head().await;
        assert_eq!(
            (head.status(), head.header("x-selvage-flag")),
            (417, Some("expectation-failed")),
            "{expectation}"
        );
    }
    assert_eq!(app.count(), 0);
}
