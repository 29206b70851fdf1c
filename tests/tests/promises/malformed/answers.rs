//! What an application answers is believed only where it can be understood in
//! one way, and only as the answer to what it was asked.

use http::Method;
use selvage_tests::app::RawApp;
use selvage_tests::body;
use selvage_tests::client::{self, Answer, Http1, Http2, request, request2};
use selvage_tests::mesh::{plaintext_caller, traffic_policy};
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait;
use selvage_tests::wire::Head;

/// Nothing is broken off or repeated but by what a row does.
const PATIENT: &str = "  circuitBreaker: { consecutiveFailures: 0 }\n  retry: { attempts: 0 }\n";

/// What must never be understood as an answer.
const POISON: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison";

/// The number that a request's path begins with: `/7`.
fn row(head: &Head) -> usize {
    let path = head.line.split(' ').nth(1).unwrap_or_default();
    let number = path.trim_start_matches('/').split('/').next();
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// An application that answers `/N` by the text of that number, on one connection as often as it is asked.
async fn answering(texts: Vec<String>) -> RawApp {
    RawApp::start(move |mut wire, _| {
        let texts = texts.clone();
        async move {
            while let Some(head) = wire.try_head().await {
                // The peer may have turned away before the end of it.
                if wire.try_send(&texts[row(&head)]).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

/// A sidecar in front of it, without another behind.
async fn caller(app: &RawApp) -> (Pki, Sidecar) {
    plaintext_caller("http", &[app.address], &traffic_policy(PATIENT)).await
}

fn texts(rows: &[(&str, String)]) -> Vec<String> {
    rows.iter().map(|(_, text)| text.clone()).collect()
}

fn head(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_malformed_response_is_a_bad_gateway() {
    let rows = [
        ("a bare CR", head("x: a\rb\r\ncontent-length: 0\r\n")),
        ("a NUL", head("x: a\0b\r\ncontent-length: 0\r\n")),
        ("no HTTP", "hello\r\n\r\n".to_owned()),
        (
            "no status",
            "HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "a status below 100",
            "HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "another version",
            "HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned(),
        ),
        (
            "two lengths",
            head("content-length: 1\r\ncontent-length: 2\r\n") + "ab",
        ),
        ("a list of lengths", head("content-length: 1, 2\r\n") + "ab"),
        ("a length with a plus", head("content-length: +1\r\n") + "a"),
        ("an empty length", head("content-length: \r\n")),
        (
            "a length past 64 bits",
            head("content-length: 18446744073709551617\r\n") + "a",
        ),
        (
            "a length beside a coding",
            head("content-length: 1\r\ntransfer-encoding: chunked\r\n") + "0\r\n\r\n",
        ),
        (
            "a coding nobody knows",
            head("transfer-encoding: xchunked\r\n") + "0\r\n\r\n",
        ),
        (
            "chunked that is not last",
            head("transfer-encoding: chunked, gzip\r\n") + "0\r\n\r\n",
        ),
        (
            "chunked twice",
            head("transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n") + "0\r\n\r\n",
        ),
        (
            "chunks in HTTP/1.0",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
        ),
        (
            "a name with a space",
            head("x y: a\r\ncontent-length: 0\r\n"),
        ),
        ("a space before the colon", head("content-length : 0\r\n")),
        ("a folded line", head("x: a\r\n b\r\ncontent-length: 0\r\n")),
        ("too many fields", head(&"x: a\r\n".repeat(1_000))),
        (
            "a head without end",
            head(&format!("x: {}\r\n", "a".repeat(128 << 10))),
        ),
        (
            "interim answers without end",
            "HTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\n".repeat(1_000),
        ),
        (
            "101 that nobody asked for",
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"
                .to_owned(),
        ),
    ];
    let app = answering(texts(&rows)).await;
    let (_pki, caller) = caller(&app).await;
    for (number, (name, _)) in rows.iter().enumerate() {
        let answer = client::post(caller.outbound(), ORDERS, &format!("/{number}"), "x").await;
        assert_eq!(
            (answer.status.as_u16(), answer.flag()),
            (502, "bad-response"),
            "{name}"
        );
    }
    assert_eq!(app.accepted(), rows.len(), "none of them is asked again");
}

#[tokio::test]
async fn a_malformed_body_is_never_a_clean_end() {
    let chunked = |chunks: &str| head("transfer-encoding: chunked\r\n") + chunks;
    let rows = [
        ("no size", chunked("\r\nab\r\n0\r\n\r\n")),
        ("a size that is none", chunked("2x\r\nab\r\n0\r\n\r\n")),
        ("a negative size", chunked("-2\r\nab\r\n0\r\n\r\n")),
        ("a size with 0x", chunked("0x2\r\nab\r\n0\r\n\r\n")),
        (
            "a size past 64 bits",
            chunked("10000000000000002\r\nab\r\n0\r\n\r\n"),
        ),
        (
            "a chunk longer than it says",
            chunked("1\r\nab\r\n0\r\n\r\n"),
        ),
        ("a chunk that ends with LF", chunked("2\r\nab\n0\r\n\r\n")),
        ("a size that ends with LF", chunked("2\nab\r\n0\r\n\r\n")),
        ("a CR within a size", chunked("2\r;x\r\nab\r\n0\r\n\r\n")),
        (
            "extensions without end",
            chunked(&format!("2;{}\r\nab\r\n0\r\n\r\n", "x".repeat(64 << 10))),
        ),
        (
            "extensions without end, in many chunks",
            chunked(&format!("1;{}\r\na\r\n", "x".repeat(100)).repeat(1_000)),
        ),
        (
            "a trailer that is no field",
            chunked("0\r\nno field\r\n\r\n"),
        ),
        (
            "trailers without end",
            chunked(&format!("0\r\n{}", "x: a\r\n".repeat(50_000))),
        ),
    ];
    let app = answering(texts(&rows)).await;
    let (_pki, caller) = caller(&app).await;
    let address = caller.outbound();
    for (number, (name, _)) in rows.iter().enumerate() {
        let path = format!("/{number}");
        let mut one = Http1::connect(address).await;
        let seen = one
            .call(request(Method::GET, ORDERS, &path, body::empty()))
            .await;
        assert_broken(seen, &format!("{name}, over HTTP/1.1"));
        let two = Http2::connect(address).await;
        let seen = two
            .call(request2(Method::GET, ORDERS, &path, body::empty()))
            .await;
        assert_broken(seen, &format!("{name}, over HTTP/2"));
    }
    assert_eq!(
        app.accepted(),
        2 * rows.len(),
        "none of them is asked again"
    );
}

/// An error of the sidecar's, or an answer that breaks off: nothing that looks whole.
fn assert_broken(seen: Result<Answer, hyper::Error>, what: &str) {
    if let Ok(answer) = seen {
        let seen = (answer.status.as_u16(), answer.flag());
        assert_eq!(seen, (502, "bad-response"), "{what}: {answer:?}");
    }
}

#[tokio::test]
async fn what_was_not_asked_for_answers_nobody() {
    let rows = [
        (
            "behind a body of known length",
            Method::GET,
            head("content-length: 2\r\n") + "ok" + POISON,
        ),
        (
            "behind a chunked body",
            Method::GET,
            head("transfer-encoding: chunked\r\n") + "2\r\nok\r\n0\r\n\r\n" + POISON,
        ),
        (
            "behind no body",
            Method::GET,
            head("content-length: 0\r\n") + POISON,
        ),
        (
            "as the body of HEAD",
            Method::HEAD,
            head(&format!("content-length: {}\r\n", POISON.len())) + POISON,
        ),
        (
            "as the body of 204",
            Method::GET,
            format!("HTTP/1.1 204 No Content\r\n\r\n{POISON}"),
        ),
        (
            "as the body of 304",
            Method::GET,
            format!(
                "HTTP/1.1 304 Not Modified\r\ncontent-length: {}\r\n\r\n{POISON}",
                POISON.len()
            ),
        ),
    ];
    let mut all: Vec<_> = rows.iter().map(|(_, _, text)| text.clone()).collect();
    all.push(head("content-length: 5\r\n") + "clean");
    let app = answering(all).await;
    let (_pki, caller) = caller(&app).await;
    for (number, (name, method, _)) in rows.iter().enumerate() {
        let mut callers = Http1::connect(caller.outbound()).await;
        let path = format!("/{number}");
        let asked = request(method.clone(), ORDERS, &path, body::empty());
        let answer = callers.call(asked).await.expect("an answer");
        assert!(answer.status.as_u16() < 400, "{name}: {answer:?}");
        assert!(!answer.text().contains("poison"), "{name}: {answer:?}");
        let next = request(
            Method::GET,
            ORDERS,
            &format!("/{}", rows.len()),
            body::empty(),
        );
        let next = callers.call(next).await.expect("an answer");
        assert_eq!(next.text(), "clean", "{name}");
    }
    // The clean answer's connection is used again, by the next row; no other is.
    assert_eq!(app.accepted(), rows.len() + 1);
}

#[tokio::test]
async fn what_is_said_between_two_requests_answers_nobody() {
    let (said, says) = tokio::sync::watch::channel(0_usize);
    let said = std::sync::Arc::new(said);
    let app = RawApp::start(move |mut wire, number| {
        let said = said.clone();
        async move {
            if wire.try_head().await.is_none() {
                return;
            }
            wire.send(head("content-length: 5\r\n") + "clean").await;
            // It is heard that the answer has come before anything else is said.
            if wire.try_send(POISON).await.is_ok() {
                said.send_replace(number + 1);
            }
            wire.rest().await.ok();
        }
    })
    .await;
    let (_pki, caller) = caller(&app).await;
    for number in 0..3 {
        let answer = client::get(caller.outbound(), ORDERS, "/").await;
        assert_eq!(answer.text(), "clean", "{number}");
        let mut says = says.clone();
        let spoken = says.wait_for(|said| *said > number);
        wait::soon("the application to speak out of turn", spoken)
            .await
            .expect("it runs");
    }
    assert_eq!(app.accepted(), 3, "a connection for each request");
}
