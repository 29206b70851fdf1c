//! What HTTP/1 leaves to misunderstanding is refused, not guessed at.

use super::recording;

use selvage_tests::app::App;
use selvage_tests::client;
use selvage_tests::mesh::Mesh;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait;
use selvage_tests::wire::Wire;

/// What follows a smuggling request: it must never be understood as one.
const HIDDEN: &str = "GET /HIDDEN HTTP/1.1\r\nhost: orders.shop\r\n\r\n";

fn rows() -> Vec<(&'static str, String)> {
    let post = |headers: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nhost: orders.shop\r\n{headers}\r\n{body}{HIDDEN}")
    };
    let get = |headers: &str| format!("GET / HTTP/1.1\r\nhost: orders.shop\r\n{headers}\r\n");
    vec![
        (
            "length and coding",
            post(
                "content-length: 6\r\ntransfer-encoding: chunked\r\n",
                "0\r\n\r\nX",
            ),
        ),
        (
            "coding and length",
            post(
                "transfer-encoding: chunked\r\ncontent-length: 4\r\n",
                "5c\r\n",
            ),
        ),
        (
            "a coding nobody knows",
            post("transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
        ),
        (
            "a coding with a tab and more",
            post("transfer-encoding:\tchunked, identity\r\n", "0\r\n\r\n"),
        ),
        (
            "a coding with a vertical tab",
            post("transfer-encoding: \x0bchunked\r\n", "0\r\n\r\n"),
        ),
        (
            "chunked that is not last",
            post("transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n"),
        ),
        (
            "chunked twice",
            post(
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
                "0\r\n\r\n",
            ),
        ),
        (
            "two lengths",
            post("content-length: 0\r\ncontent-length: 44\r\n", ""),
        ),
        ("a list of lengths", post("content-length: 0, 44\r\n", "")),
        (
            "a length with a plus",
            post("content-length: +5\r\n", "12345"),
        ),
        (
            "a length in hexadecimal",
            post("content-length: 0x5\r\n", "12345"),
        ),
        (
            "a length past 64 bits",
            post("content-length: 18446744073709551621\r\n", "12345"),
        ),
        ("a negative length", post("content-length: -1\r\n", "")),
        ("an empty length", post("content-length: \r\n", "")),
        (
            "a bare LF that ends a header",
            "GET / HTTP/1.1\r\nhost: orders.shop\r\nx: a\nx-b: c\r\n\r\n".to_owned(),
        ),
        ("a bare CR in a header", get("x: a\rb\r\n")),
        ("a NUL in a header", get("x: a\0b\r\n")),
        ("a folded header", get("x: a\r\n b\r\n")),
        ("a space before the colon", get("content-length : 5\r\n")),
        ("a header with no name", get(": a\r\n")),
        ("a name with a space", get("x y: a\r\n")),
        ("no host", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("two hosts", get("host: other.shop\r\n")),
        (
            "a host with a path",
            "GET / HTTP/1.1\r\nhost: orders.shop/x\r\n\r\n".to_owned(),
        ),
        (
            "a host with userinfo",
            "GET / HTTP/1.1\r\nhost: a@orders.shop\r\n\r\n".to_owned(),
        ),
        (
            "an authority unlike its host",
            "GET http://orders.shop/ HTTP/1.1\r\nhost: a@b/c\r\n\r\n".to_owned(),
        ),
        (
            "a target with a space",
            "GET /a b HTTP/1.1\r\nhost: orders.shop\r\n\r\n".to_owned(),
        ),
        (
            "a target without a slash",
            "GET a HTTP/1.1\r\nhost: orders.shop\r\n\r\n".to_owned(),
        ),
        (
            "a target above the root",
            "GET /../a HTTP/1.1\r\nhost: orders.shop\r\n\r\n".to_owned(),
        ),
        (
            "a target hidden above the root",
            "GET /a/%2e%2e/%2E%2e/b HTTP/1.1\r\nhost: orders.shop\r\n\r\n".to_owned(),
        ),
        (
            "a method with brackets",
            "G(T / HTTP/1.1\r\nhost: orders.shop\r\n\r\n".to_owned(),
        ),
        (
            "a version nobody speaks",
            "GET / HTTP/9.9\r\nhost: orders.shop\r\n\r\n".to_owned(),
        ),
        (
            "HTTP/1.0 in chunks",
            format!(
                "POST / HTTP/1.0\r\nhost: orders.shop\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}"
            ),
        ),
        ("no HTTP at all", "\x01\x02\x03\x04\r\n\r\n".to_owned()),
    ]
}

#[tokio::test]
async fn malformed_heads_are_rejected_at_the_door() {
    let (app, received) = recording().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wrong = Vec::new();
    for (name, bytes) in rows() {
        let (answer, closed) = Wire::try_exchange(mesh.outbound(), bytes.as_bytes()).await;
        if !closed {
            wrong.push(format!("{name}: the connection stays open"));
        }
        let text = String::from_utf8_lossy(&answer).into_owned();
        if !text.starts_with("HTTP/1.1 400") && !text.starts_with("HTTP/1.0 400") {
            wrong.push(format!(
                "{name}: {:?}",
                text.lines().next().unwrap_or("closed without an answer")
            ));
        }
        if text.matches("HTTP/1.").count() > 1 {
            wrong.push(format!("{name}: answered more than once"));
        }
    }
    let arrived = String::from_utf8_lossy(&received.lock().unwrap()).into_owned();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(arrived, "", "not one byte at the origin");
    assert_eq!(
        client::get(mesh.outbound(), ORDERS, "/").await.status,
        200,
        "others are served"
    );
}

#[tokio::test]
async fn a_malformed_head_behind_a_good_one_is_rejected_too() {
    let (app, received) = recording().await;
    let mesh = Mesh::of(app.address, "http").await;
    let rows = [
        (
            "length and coding",
            "content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nX",
        ),
        (
            "coding and length",
            "transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n0\r\n\r\n",
        ),
        ("a bare LF", "x: a\ncontent-length: 0\r\n\r\n"),
    ];
    for (name, second) in rows {
        let bytes = format!(
            "GET /FIRST HTTP/1.1\r\nhost: orders.shop\r\n\r\n\
             POST /SECOND HTTP/1.1\r\nhost: orders.shop\r\n{second}{HIDDEN}"
        );
        let answer = Wire::exchange(mesh.outbound(), bytes.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        // The first may be served or not: what counts is that nothing follows the refusal.
        let last = text.rfind("HTTP/1.1 ").unwrap_or(0);
        assert!(
            text[last..].starts_with("HTTP/1.1 400") && text.matches("HTTP/1.1 ").count() <= 2,
            "{name}: {text}"
        );
    }
    assert_eq!(
        client::get(mesh.outbound(), ORDERS, "/LATER").await.status,
        200,
        "others are served"
    );
    let arrived = String::from_utf8_lossy(&received.lock().unwrap()).into_owned();
    assert!(arrived.contains("LATER"), "{arrived}");
    assert!(
        !arrived.contains("SECOND") && !arrived.contains("HIDDEN"),
        "not one byte of the second at the origin: {arrived}"
    );
}

#[tokio::test]
async fn malformed_chunks_end_the_connection() {
    let (app, received) = recording().await;
    let mesh = Mesh::of(app.address, "http").await;
    let rows = [
        ("a size with an underscore", "0_2e\r\n"),
        ("a size with 0x", "0x3\r\nabc\r\n0\r\n\r\n"),
        ("a size past 64 bits", "fffffffffffffffff\r\nabc"),
        ("an extension with a bare LF", "3;a\nb\r\nabc\r\n0\r\n\r\n"),
        ("two CR", "3\r\r\nabc\r\n0\r\n\r\n"),
        ("data longer than its size", "3\r\nabcdef\r\n0\r\n\r\n"),
        ("a negative size", "-1\r\n"),
        ("no size", "\r\n\r\n"),
    ];
    for (name, body) in rows {
        let bytes = format!(
            "POST /chunks HTTP/1.1\r\nhost: orders.shop\r\ntransfer-encoding: chunked\r\n\r\n{body}{HIDDEN}"
        );
        let answer = Wire::exchange(mesh.outbound(), bytes.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(!text.contains("HTTP/1.1 200"), "{name}: {text}");
    }
    let arrived = String::from_utf8_lossy(&received.lock().unwrap()).into_owned();
    assert!(
        !arrived.contains("HIDDEN"),
        "a hidden request arrived: {arrived}"
    );
}

#[tokio::test]
async fn forbidden_trailers_are_dropped() {
    let (app, received) = recording().await;
    let mesh = Mesh::of(app.address, "http").await;
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send(
        "POST / HTTP/1.1\r\nhost: orders.shop\r\ntrailer: content-length, host, x-forwarded-client-cert\r\n\
         transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\ncontent-length: 99\r\nhost: evil\r\n\
         transfer-encoding: chunked\r\nx-forwarded-client-cert: By=evil\r\n\r\n",
    )
    .await;
    wait::soon("an answer", wire.try_head()).await;
    let arrived = String::from_utf8_lossy(&received.lock().unwrap()).into_owned();
    assert!(
        !arrived.contains("evil") && !arrived.contains("99"),
        "{arrived}"
    );
}

#[tokio::test]
async fn odd_expectations_hide_nothing() {
    let (app, received) = recording().await;
    let mesh = Mesh::of(app.address, "http").await;
    for expectation in [
        "y 100-continue",
        "100-Continue ",
        "\t100-continue",
        "100-continue\r\nexpect: other",
    ] {
        let bytes = format!(
            "POST / HTTP/1.1\r\nhost: orders.shop\r\nexpect: {expectation}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{HIDDEN}",
            HIDDEN.len()
        );
        let answer = Wire::exchange(mesh.outbound(), bytes.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let finals = text.matches("HTTP/1.1 ").count() - text.matches("HTTP/1.1 100").count();
        assert_eq!(
            finals, 1,
            "{expectation:?}: one request, one answer: {text}"
        );
    }
    let arrived = String::from_utf8_lossy(&received.lock().unwrap()).into_owned();
    let declared = arrived
        .matches(&format!("content-length: {}", HIDDEN.len()))
        .count();
    assert!(
        arrived.matches("HIDDEN").count() <= declared,
        "only ever as a body: {arrived}"
    );
}

#[tokio::test]
async fn one_path_counts_for_policy_and_application() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    for (sent, arrives) in [
        ("/a/./b", "/a/b"),
        ("/a/x/../b", "/a/b"),
        ("/%61/b", "/a/b"),
        ("/a/%2e/b", "/a/b"),
        ("/a%20b?%61=/../", "/a%20b?%61=/../"),
    ] {
        assert_eq!(
            client::get(mesh.outbound(), ORDERS, sent).await.status,
            200,
            "{sent}"
        );
        assert_eq!(app.last().uri.to_string(), arrives, "{sent}");
    }
}
