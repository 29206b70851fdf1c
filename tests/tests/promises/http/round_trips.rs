//! Versions, methods, request forms and trailers arrive as they were sent.

use http::{HeaderMap, HeaderValue, Method, Version};
use selvage_tests::app::{App, RawApp, ok};
use selvage_tests::body;
use selvage_tests::client::{self, Http1, Http2, request, request2};
use selvage_tests::mesh::Mesh;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wire::Wire;

#[tokio::test]
async fn get_and_post_go_there_and_back() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let answer = client::get(mesh.outbound(), ORDERS, "/a/b?c=d").await;
    assert_eq!(
        (answer.status.as_u16(), answer.version),
        (200, Version::HTTP_11)
    );
    let seen = app.last();
    assert_eq!(
        (seen.method, seen.uri.to_string(), seen.version),
        (Method::GET, "/a/b?c=d".to_owned(), Version::HTTP_11)
    );
    assert_eq!(
        seen.headers["host"], ORDERS,
        "the authority is the caller's"
    );

    let answer = client::post(mesh.outbound(), ORDERS, "/p", "some bytes").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "some bytes")
    );
    assert_eq!(
        app.last().header("content-length"),
        "10",
        "a known length stays known"
    );
}

#[tokio::test]
async fn http2_callers_reach_applications_of_both_versions() {
    for (protocol, version) in [("http", Version::HTTP_11), ("http2", Version::HTTP_2)] {
        let app = App::echo().await;
        let mesh = Mesh::of(app.address, protocol).await;
        let caller = Http2::connect(mesh.outbound()).await;
        let answer = caller
            .call(request2(Method::POST, ORDERS, "/x", body::full("abc")))
            .await
            .unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, "abc"),
            "{protocol}"
        );
        let seen = app.last();
        assert_eq!(seen.version, version, "{protocol}");
        assert_eq!(seen.uri.path(), "/x", "{protocol}");
    }
}

#[tokio::test]
async fn every_form_of_the_name_reaches_the_service() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let names = [
        "orders",
        "orders.shop",
        "orders.shop.mesh",
        "orders.shop.svc.cluster.local",
        "orders.shop.localhost",
        "orders:80",
        "orders.shop:80",
        "ORDERS.Shop",
        "orders.shop.mesh.",
    ];
    for name in names {
        let answer = client::get(mesh.outbound(), name, "/").await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.flag());
    }
    for name in [
        "nobody",
        "orders.elsewhere",
        "orders.shop:81",
        "example.com",
        "127.0.0.1",
    ] {
        let answer = client::get(mesh.outbound(), name, "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.flag()),
            (404, "no-service"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_listener_of_its_own_needs_no_name() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let listener = mesh.client.listener(ORDERS, 80);
    let answer = client::get(listener, &listener.to_string(), "/own").await;
    assert_eq!(answer.status, 200, "{}", answer.flag());
    assert_eq!(app.last().uri.path(), "/own");
}

#[tokio::test]
async fn head_keeps_the_length_and_has_no_body() {
    let app = App::start(|_| async { ok("hello") }).await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(b"HEAD / HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
        .await;
    let head = wire.head().await;
    assert_eq!(
        (head.status(), head.header("content-length")),
        (200, Some("5"))
    );
    wire.send(b"GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
        .await;
    let head = wire.head().await;
    assert_eq!(head.status(), 200, "the next response follows at once");
    assert_eq!(wire.exactly(5).await, b"hello");
}

#[tokio::test]
async fn http10_ends_with_the_connection() {
    let app = App::start(|_| async { selvage_tests::app::ok("hello") }).await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(b"GET / HTTP/1.0\r\nhost: orders.shop\r\n\r\n")
        .await;
    let head = wire.head().await;
    assert_eq!(
        (head.status(), head.header("transfer-encoding")),
        (200, None)
    );
    assert_eq!(wire.rest().await.unwrap(), b"hello");
    let seen = app.last();
    assert_eq!(
        seen.version,
        Version::HTTP_10,
        "the application sees the caller's version"
    );
    assert_eq!(seen.header("x-selvage-version"), "");
}

#[tokio::test]
async fn http10_of_unknown_length_is_never_chunked() {
    let app = App::start(|_| async {
        http::Response::new(body::with_trailers("hello", HeaderMap::new()))
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(b"GET / HTTP/1.0\r\nhost: orders.shop\r\nconnection: keep-alive\r\n\r\n")
        .await;
    let head = wire.head().await;
    assert_eq!(
        (head.status(), head.header("transfer-encoding")),
        (200, None)
    );
    assert_eq!(
        wire.rest().await.unwrap(),
        b"hello",
        "the end of the connection is the end of the body"
    );
}

#[tokio::test]
async fn http10_is_kept_alive_when_it_asks() {
    let app = App::start(|_| async { ok("hello") }).await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    for _ in 0..2 {
        wire.send(b"GET / HTTP/1.0\r\nhost: orders.shop\r\nconnection: keep-alive\r\n\r\n")
            .await;
        let head = wire.head().await;
        assert_eq!(
            (head.status(), head.header("connection")),
            (200, Some("keep-alive"))
        );
        assert_eq!(wire.exactly(5).await, b"hello");
    }
}

#[tokio::test]
async fn absolute_form_names_the_service() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    for (target, arrives) in [
        ("http://orders.shop/absolute?q", "/absolute?q"),
        ("http://orders.shop", "/"),
        ("http://orders.shop?q=1", "/?q=1"),
    ] {
        wire.send(format!(
            "GET {target} HTTP/1.1\r\nhost: orders.shop\r\n\r\n"
        ))
        .await;
        let head = wire.head().await;
        assert_eq!(head.status(), 200, "{target}");
        let length = head.header("content-length").expect("an echo has one");
        wire.exactly(length.parse().expect("a count")).await;
        let seen = app.last();
        assert_eq!(
            (seen.uri.to_string().as_str(), seen.header("host")),
            (arrives, ORDERS)
        );
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let app = App::start(|request| async move { ok(request.uri().path().to_owned()) }).await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: orders.shop\r\n\r\n");
    wire.send(one("/1") + &one("/2") + &one("/3")).await;
    for path in ["/1", "/2", "/3"] {
        assert_eq!(wire.head().await.status(), 200);
        assert_eq!(wire.exactly(2).await, path.as_bytes());
    }
}

fn checksum() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", HeaderValue::from_static("42"));
    trailers
}

#[tokio::test]
async fn trailers_cross_over_http2() {
    for protocol in ["http", "http2"] {
        let app = App::echo().await;
        let mesh = Mesh::of(app.address, protocol).await;
        let caller = Http2::connect(mesh.outbound()).await;
        let mut sent = request2(
            Method::POST,
            ORDERS,
            "/",
            body::with_trailers("abc", checksum()),
        );
        sent.headers_mut()
            .insert("te", HeaderValue::from_static("trailers"));
        sent.headers_mut()
            .insert("trailer", HeaderValue::from_static("x-checksum"));
        let answer = caller.call(sent).await.unwrap();
        assert_eq!(answer.text(), "abc", "{protocol}");
        assert_eq!(
            answer.trailers,
            Some(checksum()),
            "{protocol}: there and back"
        );
    }
}

#[tokio::test]
async fn trailers_cross_in_chunked_coding() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(
        b"POST / HTTP/1.1\r\nhost: orders.shop\r\nte: trailers\r\nconnection: te\r\ntrailer: x-checksum\r\n\
          transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nx-checksum: 42\r\n\r\n",
    )
    .await;
    let head = wire.head().await;
    assert_eq!(
        (head.status(), head.header("transfer-encoding")),
        (200, Some("chunked"))
    );
    let (body, trailers) = wire.chunks().await;
    assert_eq!(body, b"abc");
    assert_eq!(trailers.to_ascii_lowercase(), "x-checksum: 42\r\n");
}

#[tokio::test]
async fn responses_without_a_body_have_none() {
    let app = App::start(|request| async move {
        selvage_tests::app::status(if request.uri().path() == "/304" {
            304
        } else {
            204
        })
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut caller = Http1::connect(mesh.outbound()).await;
    for (path, status) in [("/204", 204), ("/304", 304), ("/204", 204)] {
        let answer = caller
            .call(request(Method::GET, ORDERS, path, body::empty()))
            .await
            .unwrap();
        assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0));
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut caller = Http1::connect(mesh.outbound()).await;
    for _ in 0..20 {
        let answer = caller
            .call(request(Method::GET, ORDERS, "/", body::empty()))
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
    }
    for _ in 0..20 {
        assert_eq!(client::get(mesh.outbound(), ORDERS, "/").await.status, 200);
    }
    let connections = app.seen().iter().map(|seen| seen.connection).max().unwrap() + 1;
    assert!(
        connections <= 2,
        "one caller at a time needs no {connections} connections to the application"
    );
    let handshakes = mesh
        .server
        .metrics()
        .await
        .count("selvage_tls_handshakes_total", &[("side", "server")]);
    assert!(
        handshakes <= 2,
        "40 requests needed {handshakes} handshakes"
    );
}

#[tokio::test]
async fn a_close_delimited_response_ends_where_the_application_ends_it() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.head().await;
        wire.send("HTTP/1.1 200 OK\r\n\r\nuntil the end").await;
        wire.finish().await;
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let answer = client::get(mesh.outbound(), ORDERS, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text().as_str()),
        (200, "until the end")
    );
}
