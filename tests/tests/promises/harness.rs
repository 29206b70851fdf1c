//! The harness itself, with nothing in between: what a caller sends is what an
//! application receives. A promise that fails is then not the harness's fault.

use std::time::{Duration, Instant};

use http::Method;
use selvage_tests::app::{App, ClosedPort, ok};
use selvage_tests::client::{self, Http2, request2};
use selvage_tests::open_loop::{OpenLoop, Target};
use selvage_tests::replica::{Fault, Nature, Replica};
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::wire::Wire;
use selvage_tests::{body, grpc};
use tokio::net::TcpStream;

#[tokio::test]
async fn an_application_answers_both_versions() {
    let app = App::start(|_| async { ok("hello") }).await;
    let answer = client::get(app.address, "orders.shop", "/a").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "hello")
    );
    let connection = Http2::connect(app.address).await;
    let answer = connection
        .call(request2(Method::GET, "orders.shop", "/b", body::empty()))
        .await
        .unwrap();
    assert_eq!(answer.text(), "hello");
    let seen = app.seen();
    assert_eq!(seen.len(), 2);
    assert_eq!((seen[0].uri.path(), seen[1].uri.path()), ("/a", "/b"));
    assert_ne!(seen[0].connection, seen[1].connection);
}

#[tokio::test]
async fn a_grpc_application_serves_all_four_kinds() {
    let app = grpc::application().await;
    let connection = Http2::connect(app.address).await;
    for (method, sent, expected) in [
        ("Unary", vec!["ab"], vec!["ab"]),
        ("ServerStream", vec!["ab"], vec!["a", "b"]),
        ("ClientStream", vec!["a", "b"], vec!["ab"]),
        ("Bidi", vec!["a", "b"], vec!["a", "b"]),
    ] {
        let bytes: Vec<u8> = sent
            .iter()
            .flat_map(|message| grpc::frame(message.as_bytes()))
            .collect();
        let outcome = grpc::call(
            &connection,
            grpc::request("orders.shop", method, body::full(bytes)),
        )
        .await
        .unwrap();
        assert_eq!(outcome.messages, expected, "{method}");
        assert_eq!(outcome.status, Some(0), "{method}");
    }
}

#[tokio::test]
async fn raw_bytes_reach_an_application_as_they_are() {
    let app = App::start(|_| async { ok("x") }).await;
    let bytes = Wire::exchange(
        app.address,
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(String::from_utf8_lossy(&bytes).ends_with("\r\n\r\nx"));
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let closed = ClosedPort::new();
    assert!(TcpStream::connect(closed.address).await.is_err());
}

#[tokio::test]
async fn a_replica_breaks_as_it_is_told_and_the_load_sees_how() {
    let replica = Replica::start(Nature {
        takes: Duration::from_millis(1),
        slots: None,
    });
    let begin = Instant::now();
    for (fault, expected) in [
        (Fault::None, "200 -"),
        (Fault::Status(503), "503 -"),
        (Fault::ResetMidBody, "0 "),
        (Fault::Refuse, "0 Connection refused"),
        (Fault::Hang, "0 no answer in time"),
        (Fault::Slow(20), "200 -"),
    ] {
        let _ = replica.turn(fault);
        // Its listener goes and comes at the next turn of its task.
        wait::until("the replica to turn", PATIENCE, async || {
            TcpStream::connect(replica.address).await.is_err() == (fault == Fault::Refuse)
        })
        .await;
        let target = Target {
            address: replica.address,
            authority: "orders.shop",
            patience: Duration::from_millis(200),
        };
        let load = OpenLoop::start(target, 200);
        load.passes(20).await;
        let shots = load.stop().await;
        let kinds = shots.kinds();
        assert!(
            kinds.len() == 1 && kinds[0].1.starts_with(expected),
            "{fault:?}: {kinds:?}"
        );
        let is_slow = shots.latency(0.5) >= Duration::from_millis(20);
        assert_eq!(is_slow, matches!(fault, Fault::Hang | Fault::Slow(_)));
    }
    let requests = replica.requests_between(begin, Instant::now());
    assert!(requests >= 5 * 20, "{requests}");
}
