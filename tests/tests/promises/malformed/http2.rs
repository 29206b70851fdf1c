//! What HTTP/2 can carry and HTTP/1 cannot is refused before it is translated.

use super::recording;

use selvage_tests::mesh::Mesh;
use selvage_tests::wait;
use selvage_tests::wire::Wire;

/// One HTTP/2 request in hand-made frames.
mod frames {
    /// A header block, literal and without indexing.
    pub(super) fn block(headers: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        for (name, value) in headers {
            block.push(0);
            for text in [name, value] {
                block.push(u8::try_from(text.len()).unwrap());
                block.extend(text.as_bytes());
            }
        }
        block
    }

    pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Preface, SETTINGS, HEADERS, and DATA if there is a body.
    pub(super) fn request(headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
        let end = if body.is_some() { 0 } else { 1 };
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(4, 0, 0, &[]));
        bytes.extend(frame(1, 4 | end, 1, &block(headers)));
        if let Some(body) = body {
            bytes.extend(frame(0, 1, 1, body));
        }
        bytes
    }
}

/// How a proxy answered stream 1: the code of RST_STREAM or GOAWAY, or the status of its HEADERS.
async fn refusal(wire: &mut Wire) -> String {
    loop {
        let head = wire.exactly(9).await;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let payload = wire.exactly(length).await;
        match head[3] {
            1 if payload.first() == Some(&0x8c) => return "400".to_owned(),
            1 => {
                return format!(
                    "a response that begins with {:?}",
                    &payload[..payload.len().min(8)]
                );
            }
            3 => return "RST_STREAM".to_owned(),
            7 => return "GOAWAY".to_owned(),
            _ => {}
        }
    }
}

#[tokio::test]
async fn malformed_http2_requests_are_rejected() {
    let (app, received) = recording().await;
    let mesh = Mesh::of(app.address, "http").await;
    let proper = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "orders.shop"),
        (":path", "/"),
    ];
    let with =
        |name: &'static str, value: &'static str| [proper.as_slice(), &[(name, value)]].concat();
    let instead = |name: &str, value: &'static str| {
        let row = |(known, old): &(&'static str, &'static str)| {
            (*known, if *known == name { value } else { *old })
        };
        proper.iter().map(row).collect::<Vec<_>>()
    };
    let rows = [
        ("CRLF in a value", with("x", "a\r\nhidden: b"), None),
        ("NUL in a value", with("x", "a\0b"), None),
        ("a colon in a name", with("x:y", "a"), None),
        ("a space in a name", with("x y", "a"), None),
        ("upper case in a name", with("X-Upper", "a"), None),
        ("an empty name", with("", "a"), None),
        (
            "transfer-encoding",
            with("transfer-encoding", "chunked"),
            None,
        ),
        ("connection", with("connection", "close"), None),
        ("te beyond trailers", with("te", "gzip"), None),
        (
            "a length unlike the data",
            with("content-length", "2"),
            Some(b"abc".as_slice()),
        ),
        ("a length without data", with("content-length", "2"), None),
        ("a path with a space", instead(":path", "/a b"), None),
        ("a path without a slash", instead(":path", "a"), None),
        ("an absolute path", instead(":path", "http://evil/"), None),
        ("an empty path", instead(":path", ""), None),
        ("a path above the root", instead(":path", "/../a"), None),
        (
            "a host unlike the authority",
            with("host", "other.shop"),
            None,
        ),
        (
            "an authority with userinfo",
            instead(":authority", "a@orders.shop"),
            None,
        ),
        (
            "a method with CRLF",
            instead(":method", "GET / HTTP/1.1\r\nhost: evil\r\n"),
            None,
        ),
        ("a method with a space", instead(":method", "GET /x"), None),
        ("a pseudo header nobody knows", with(":hidden", "a"), None),
        (
            "a pseudo header after others",
            [&[("x", "a")], proper.as_slice()].concat(),
            None,
        ),
        ("two methods", with(":method", "GET"), None),
    ];
    let mut wrong = Vec::new();
    for (name, headers, body) in rows {
        let mut wire = Wire::connect(mesh.outbound()).await;
        wire.send(frames::request(&headers, body)).await;
        let refusal = wait::soon(name, refusal(&mut wire)).await;
        if !["400", "RST_STREAM", "GOAWAY"].contains(&refusal.as_str()) {
            wrong.push(format!("{name}: {refusal}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // A length that does not match is known only after the head has gone on: then the body breaks off.
    let arrived = String::from_utf8_lossy(&received.lock().unwrap()).into_owned();
    assert!(
        !arrived.contains("hidden") && !arrived.contains("evil"),
        "{arrived}"
    );
}
