//! What speaks of identity or of one hop never passes; everything else does.

use http::{HeaderValue, Method};
use selvage_tests::app::App;
use selvage_tests::body;
use selvage_tests::client::{self, Http1, Http2, request, request2};
use selvage_tests::mesh::Mesh;
use selvage_tests::pki::spiffe_id;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wire::Wire;

#[tokio::test]
async fn the_application_learns_who_calls() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    client::get(mesh.outbound(), ORDERS, "/").await;
    let by = spiffe_id("shop", "orders");
    let uri = spiffe_id("shop", "client");
    assert_eq!(
        app.last().header("x-forwarded-client-cert"),
        format!("By={by};URI={uri}")
    );
}

#[tokio::test]
async fn nobody_speaks_of_identity_but_the_proxy() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let forged = HeaderValue::from_static(
        "By=spiffe://mesh.local/ns/shop/sa/orders;URI=spiffe://mesh.local/ns/shop/sa/admin",
    );
    for name in [
        "x-forwarded-client-cert",
        "x_forwarded_client_cert",
        "X-Forwarded_Client-Cert",
    ] {
        let mut caller = Http1::connect(mesh.outbound()).await;
        let mut sent = request(Method::GET, ORDERS, "/", body::empty());
        sent.headers_mut().insert(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            forged.clone(),
        );
        assert_eq!(caller.call(sent).await.unwrap().status, 200);
        let seen = app.last();
        let text = format!("{:?}", seen.headers);
        assert!(!text.contains("admin"), "{name} passed: {text}");
        assert!(
            seen.header("x-forwarded-client-cert")
                .ends_with("/sa/client"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn selvage_headers_of_applications_are_removed() {
    let app = App::start(|_| async {
        let mut response = selvage_tests::app::ok("x");
        response
            .headers_mut()
            .insert("x-selvage-flag", HeaderValue::from_static("denied"));
        response
            .headers_mut()
            .insert("x-selvage-anything", HeaderValue::from_static("1"));
        response
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut sent = request(Method::GET, ORDERS, "/", body::empty());
    for name in ["x-selvage-version", "x-selvage-retried", "x_selvage_flag"] {
        sent.headers_mut()
            .insert(name, HeaderValue::from_static("1.0"));
    }
    let answer = Http1::connect(mesh.outbound())
        .await
        .call(sent)
        .await
        .unwrap();
    assert_eq!(answer.status, 200);
    let left = |headers: &http::HeaderMap| {
        headers
            .keys()
            .map(|name| name.as_str().replace('_', "-"))
            .find(|name| name.starts_with("x-selvage"))
    };
    assert_eq!(left(&app.last().headers), None, "of the request");
    assert_eq!(left(&answer.headers), None, "of the response");
    assert_eq!(
        app.last().version,
        http::Version::HTTP_11,
        "an application cannot forge the version"
    );
}

#[tokio::test]
async fn what_connection_names_stays_on_its_hop() {
    let app = App::start(|_| async {
        let mut response = selvage_tests::app::ok("x");
        for (name, value) in [
            ("connection", "x-private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("x-public", "1"),
        ] {
            response
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        response
    })
    .await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(
        "GET / HTTP/1.1\r\nhost: orders.shop\r\nconnection: x-private, x-forwarded-client-cert, host\r\nx-private: 1\r\n\
         keep-alive: timeout=5\r\nproxy-connection: keep-alive\r\nte: gzip\r\nx-public: 1\r\n\r\n",
    )
    .await;
    let head = wire.head().await;
    assert_eq!(
        (
            head.status(),
            head.header("x-private"),
            head.header("keep-alive")
        ),
        (200, None, None)
    );
    assert_eq!(head.header("x-public"), Some("1"));
    let seen = app.last();
    for name in ["x-private", "keep-alive", "proxy-connection", "te"] {
        assert_eq!(seen.header(name), "", "{name}");
    }
    assert_eq!(seen.header("x-public"), "1");
    assert!(
        seen.header("x-forwarded-client-cert")
            .ends_with("/sa/client"),
        "the proxy's own headers come after the strip"
    );
    assert_eq!(seen.header("host"), ORDERS);
}

#[tokio::test]
async fn ordinary_headers_arrive_as_they_were() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let caller = Http2::connect(mesh.outbound()).await;
    let mut sent = request2(Method::GET, ORDERS, "/", body::empty());
    sent.headers_mut()
        .append("x-many", HeaderValue::from_static("1"));
    sent.headers_mut()
        .append("x-many", HeaderValue::from_static("2"));
    sent.headers_mut()
        .insert("cookie", HeaderValue::from_static("a=b; c=d"));
    sent.headers_mut()
        .insert("x-bytes", HeaderValue::from_bytes(b"\xe9\xff").unwrap());
    assert_eq!(caller.call(sent).await.unwrap().status, 200);
    let seen = app.last();
    let many: Vec<_> = seen.headers.get_all("x-many").iter().collect();
    assert_eq!(many, ["1", "2"]);
    assert_eq!(seen.header("cookie"), "a=b; c=d");
    assert_eq!(seen.headers["x-bytes"].as_bytes(), b"\xe9\xff");
}
