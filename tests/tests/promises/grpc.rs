//! gRPC crosses the mesh in all four kinds, and what the proxy itself has to
//! say it says as a gRPC status.

use bytes::Bytes;
use selvage_tests::app::ClosedPort;
use selvage_tests::body;
use selvage_tests::client::Http2;
use selvage_tests::grpc::{self, Messages, frame};
use selvage_tests::mesh::{Mesh, plaintext_caller};
use selvage_tests::sidecar::ORDERS;

#[tokio::test]
async fn a_unary_call_goes_there_and_back() {
    let app = grpc::application().await;
    let mesh = Mesh::of(app.address, "grpc").await;
    let connection = Http2::connect(mesh.outbound()).await;
    let outcome = grpc::call(
        &connection,
        grpc::request(ORDERS, "Unary", body::full(frame(b"hello"))),
    )
    .await
    .unwrap();
    assert_eq!((outcome.http, outcome.status), (200, Some(0)));
    assert_eq!(outcome.messages, ["hello"]);
    assert_eq!(outcome.headers["content-type"], "application/grpc");
    assert_eq!(app.last().header("te"), "trailers");
}

#[tokio::test]
async fn a_server_stream_arrives_message_by_message() {
    let app = grpc::application().await;
    let mesh = Mesh::of(app.address, "grpc").await;
    let connection = Http2::connect(mesh.outbound()).await;
    let sent = grpc::request(ORDERS, "ServerStream", body::full(frame(&[7; 500])));
    let outcome = grpc::call(&connection, sent).await.unwrap();
    assert_eq!((outcome.messages.len(), outcome.status), (500, Some(0)));
    assert!(
        outcome
            .messages
            .iter()
            .all(|message| *message == Bytes::from_static(&[7]))
    );
}

#[tokio::test]
async fn a_client_stream_arrives_whole() {
    let app = grpc::application().await;
    let mesh = Mesh::of(app.address, "grpc").await;
    let connection = Http2::connect(mesh.outbound()).await;
    let (feed, sent_body) = body::channel();
    let feeding = tokio::spawn(async move {
        for part in ["a", "b", "c"] {
            assert!(feed.data(frame(part.as_bytes())).await);
        }
    });
    let outcome = grpc::call(
        &connection,
        grpc::request(ORDERS, "ClientStream", sent_body),
    )
    .await
    .unwrap();
    feeding.await.unwrap();
    assert_eq!(
        (outcome.messages, outcome.status),
        (vec![Bytes::from("abc")], Some(0))
    );
}

#[tokio::test]
async fn a_two_way_stream_answers_each_message_before_the_next() {
    let app = grpc::application().await;
    let mesh = Mesh::of(app.address, "grpc").await;
    let connection = Http2::connect(mesh.outbound()).await;
    let (feed, sent_body) = body::channel();
    let response = connection
        .send(grpc::request(ORDERS, "Bidi", sent_body))
        .await
        .unwrap();
    let mut messages = Messages::of(response.into_body());
    for part in ["one", "two", "three"] {
        assert!(feed.data(frame(part.as_bytes())).await);
        assert_eq!(
            messages.next().await.unwrap().as_deref(),
            Some(part.as_bytes())
        );
    }
    drop(feed);
    assert_eq!(messages.next().await.unwrap(), None);
    assert_eq!(messages.status(), Some(0));
}

#[tokio::test]
async fn statuses_of_the_application_arrive_as_they_are() {
    let app = grpc::application().await;
    let mesh = Mesh::of(app.address, "grpc").await;
    let connection = Http2::connect(mesh.outbound()).await;
    let failed = grpc::call(
        &connection,
        grpc::request(ORDERS, "Fail", body::full(frame(b"x"))),
    )
    .await
    .unwrap();
    assert_eq!(
        (failed.http, failed.status, failed.messages.len()),
        (200, Some(9), 0)
    );
    assert_eq!(failed.headers["grpc-message"], "as you wish");
    let late = grpc::call(
        &connection,
        grpc::request(ORDERS, "FailLate", body::full(frame(b"x"))),
    )
    .await
    .unwrap();
    assert_eq!(
        (late.http, late.status, late.messages.len()),
        (200, Some(14), 1)
    );
}

#[tokio::test]
async fn hundreds_of_calls_share_the_connections() {
    let app = grpc::application().await;
    let mesh = Mesh::of(app.address, "grpc").await;
    let connection = Http2::connect(mesh.outbound()).await;
    let calls = (0..300_u32).map(|number| {
        let message = number.to_be_bytes();
        let connection = &connection;
        async move {
            let sent = grpc::request(ORDERS, "Unary", body::full(frame(&message)));
            let outcome = grpc::call(connection, sent).await.unwrap();
            assert_eq!(
                (outcome.messages, outcome.status),
                (vec![Bytes::copy_from_slice(&message)], Some(0))
            );
        }
    });
    futures_util::future::join_all(calls).await;
    assert_eq!(app.count(), 300);
    let connections = app.seen().iter().map(|seen| seen.connection).max().unwrap() + 1;
    assert!(
        connections <= 16,
        "300 calls took {connections} connections"
    );
}

#[tokio::test]
async fn calls_beyond_a_connections_streams_take_another_connection() {
    const STREAMS: u32 = 10;
    let app = grpc::narrow_application(STREAMS).await;
    let mesh = Mesh::of(app.address, "grpc").await;
    let connection = Http2::connect(mesh.outbound()).await;
    let mut held = Vec::new();
    for number in 0..STREAMS {
        let (feed, sent_body) = body::channel();
        let response = connection
            .send(grpc::request(ORDERS, "Bidi", sent_body))
            .await
            .unwrap();
        let mut messages = Messages::of(response.into_body());
        assert!(feed.data(frame(b"held")).await);
        let echo = messages.next().await.unwrap();
        assert_eq!(
            echo.as_deref(),
            Some(b"held".as_slice()),
            "stream {number} is open"
        );
        held.push((feed, messages));
    }
    let sent = grpc::request(ORDERS, "Unary", body::full(frame(b"one more")));
    let outcome = grpc::call(&connection, sent).await.unwrap();
    assert_eq!(
        (outcome.messages, outcome.status),
        (vec![Bytes::from("one more")], Some(0))
    );
    let connections = app.seen().iter().map(|seen| seen.connection).max().unwrap() + 1;
    assert!(connections > 1, "{STREAMS} streams were all open on one");
    for (feed, mut messages) in held {
        drop(feed);
        assert_eq!(messages.next().await.unwrap(), None);
        assert_eq!(messages.status(), Some(0), "what was held ends well");
    }
}

#[tokio::test]
async fn errors_of_the_proxy_are_grpc_statuses() {
    let closed = ClosedPort::new();
    let (_pki, caller) = plaintext_caller("grpc", &[closed.address], "").await;
    let connection = Http2::connect(caller.outbound()).await;
    let refused = grpc::call(
        &connection,
        grpc::request(ORDERS, "Unary", body::full(frame(b"x"))),
    )
    .await
    .unwrap();
    assert_eq!(
        (refused.http, refused.status),
        (200, Some(14)),
        "UNAVAILABLE: {:?}",
        refused.headers
    );
    assert_eq!(refused.headers["x-selvage-flag"], "connect-failure");
    assert!(refused.headers.contains_key("grpc-message"));
    assert_eq!(refused.headers["content-type"], "application/grpc");
    let unknown = grpc::call(
        &connection,
        grpc::request("nobody.shop", "Unary", body::full(frame(b"x"))),
    )
    .await
    .unwrap();
    assert_eq!(
        (unknown.http, unknown.status),
        (200, Some(12)),
        "UNIMPLEMENTED: {:?}",
        unknown.headers
    );
    assert_eq!(unknown.headers["x-selvage-flag"], "no-service");
}

#[tokio::test]
async fn a_deadline_travels_shortened() {
    let app = grpc::application().await;
    let mesh = Mesh::of(app.address, "grpc").await;
    let connection = Http2::connect(mesh.outbound()).await;
    let mut sent = grpc::request(ORDERS, "Unary", body::full(frame(b"x")));
    sent.headers_mut()
        .insert("grpc-timeout", "5S".parse().unwrap());
    assert_eq!(grpc::call(&connection, sent).await.unwrap().status, Some(0));
    let text = app.last().header("grpc-timeout").to_owned();
    let (digits, unit) = text.split_at(text.len() - 1);
    let seconds = match unit {
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "S" => 1.0,
        _ => panic!("grpc-timeout: {text}"),
    } * digits.parse::<f64>().unwrap();
    assert!(
        seconds > 3.0 && seconds < 5.0,
        "the time spent is taken off: {text}"
    );
}
