//! Heads as tables: what is a message and what is not.

use http::HeaderMap;

use super::*;

fn reading(fields: &[(&str, &str)]) -> Reading {
    let mut reading = Reading::new(64 * 1024);
    for (name, value) in fields {
        assert!(reading.take(field(name, value)));
    }
    reading
}

fn field(name: &str, value: &str) -> Field {
    let pseudo = match name {
        ":method" => Pseudo::Method,
        ":scheme" => Pseudo::Scheme,
        ":authority" => Pseudo::Authority,
        ":path" => Pseudo::Path,
        ":protocol" => Pseudo::Protocol,
        ":status" => Pseudo::Status,
        _ => {
            return match HeaderName::from_lowercase(name.as_bytes()) {
                Ok(name) => Field::Header(name, HeaderValue::from_str(value).expect("a value")),
                Err(_) => Field::Malformed(name.len(), value.len()),
            };
        }
    };
    Field::Pseudo(pseudo, Bytes::copy_from_slice(value.as_bytes()))
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "b.shop"),
    (":path", "/v1?q=1"),
];

fn with(more: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&GET[..], more].concat()
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    GET.into_iter()
        .filter(|(other, _)| *other != name)
        .collect()
}

fn request(fields: &[(&str, &str)]) -> Result<Asked, Fault> {
    reading(fields).request(&mut Authorities::default())
}

#[test]
fn a_request_is_what_its_fields_say() {
    let Asked {
        parts,
        length,
        waits,
    } = request(&with(&[("content-length", "12"), ("te", "trailers")])).expect("valid");
    assert!(!waits);
    assert_eq!(parts.method, Method::GET);
    assert_eq!(parts.uri, "https://b.shop/v1?q=1");
    assert_eq!(parts.version, Version::HTTP_2);
    assert_eq!(parts.headers.len(), 2);
    assert_eq!(length, Some(12));
}

#[test]
fn targets_take_the_forms_that_there_are() {
    let table: [(&[(&str, &str)], &str); 4] = [
        (
            &[(":method", "GET"), (":scheme", "http"), (":path", "/x")],
            "/x",
        ),
        (
            &[(":method", "CONNECT"), (":authority", "b.shop:443")],
            "b.shop:443",
        ),
        (
            &[(":method", "OPTIONS"), (":scheme", "http"), (":path", "*")],
            "*",
        ),
        (
            &[
                (":method", "GET"),
                (":scheme", "ftp"),
                (":authority", "[::1]:21"),
                (":path", "/"),
            ],
            "ftp://[::1]:21/",
        ),
    ];
    for (fields, uri) in table {
        let asked = request(fields).expect(uri);
        assert_eq!(asked.parts.uri.to_string(), uri);
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let table: Vec<(&str, Vec<(&str, &str)>)> = vec![
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("status", with(&[(":status", "200")])),
        ("protocol", with(&[(":protocol", "websocket")])),
        ("twice", with(&[(":path", "/")])),
        (
            "late",
            vec![GET[0], GET[1], ("accept", "*/*"), GET[2], GET[3]],
        ),
        ("connection", with(&[("connection", "close")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("upgrade", with(&[("upgrade", "h2c")])),
        ("keep-alive", with(&[("keep-alive", "5")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("te", with(&[("te", "gzip")])),
        ("space before", with(&[("x", " 1")])),
        ("tab behind", with(&[("x", "1\t")])),
        (
            "empty scheme",
            vec![GET[0], (":scheme", ""), GET[2], GET[3]],
        ),
        ("upper case", with(&[("Accept", "*/*")])),
        ("length", with(&[("content-length", "+1")])),
        (
            "lengths",
            with(&[("content-length", "1"), ("content-length", "2")]),
        ),
        ("length list", with(&[("content-length", "1, 1")])),
        ("empty path", vec![GET[0], GET[1], GET[2], (":path", "")]),
        (
            "relative path",
            vec![GET[0], GET[1], GET[2], (":path", "x")],
        ),
        ("star", vec![GET[0], GET[1], GET[2], (":path", "*")]),
        (
            "user",
            vec![GET[0], GET[1], (":authority", "me@b.shop"), GET[3]],
        ),
        (
            "empty authority",
            vec![GET[0], GET[1], (":authority", ""), GET[3]],
        ),
        ("method", vec![(":method", "G T"), GET[1], GET[2], GET[3]]),
        (
            "connect with path",
            vec![(":method", "CONNECT"), GET[2], GET[3]],
        ),
        ("connect to nobody", vec![(":method", "CONNECT")]),
    ];
    for (name, fields) in table {
        assert!(request(&fields).is_err(), "{name}");
    }
}

#[test]
fn a_length_that_is_said_twice_alike_is_one() {
    let asked = request(&with(&[("content-length", "7"), ("content-length", "7")])).expect("valid");
    assert_eq!(asked.length, Some(7));
}

#[test]
fn a_response_has_a_status_and_nothing_of_requests() {
    let (parts, _) = reading(&[(":status", "204"), ("server", "x")])
        .response()
        .expect("valid");
    assert_eq!(parts.status, StatusCode::NO_CONTENT);
    for fields in [
        &[("server", "x")][..],
        &[(":status", "20")],
        &[(":status", "101")],
        &[(":status", "200"), (":path", "/")],
        &[(":status", "200"), (":status", "200")],
        &[(":status", "200"), ("connection", "close")],
    ] {
        assert!(reading(fields).response().is_err(), "{fields:?}");
    }
}

#[test]
fn trailers_have_no_pseudo_fields() {
    assert!(reading(&[("grpc-status", "0")]).trailers().is_ok());
    assert!(
        reading(&[("grpc-status", "0"), (":status", "200")])
            .trailers()
            .is_err()
    );
    assert!(reading(&[("upgrade", "x")]).trailers().is_err());
}

#[test]
fn a_head_may_be_as_large_as_said_and_is_read_on_a_while() {
    let field = || field("x", "123456789");
    let size = field().size();
    let mut reading = Reading::new(2 * size);
    assert!(reading.take(field()) && reading.take(field()));
    assert!(!reading.is_too_large());
    let mut more = 0;
    while reading.take(field()) {
        assert!(reading.is_too_large());
        more += 1;
        assert!(more < 100);
    }
    assert_eq!(more + 2, 2 * BEYOND);
    assert_eq!(reading.headers.len(), 2);
}

#[test]
fn the_last_authority_is_not_parsed_again_and_another_is() {
    let mut authorities = Authorities::default();
    for authority in ["a.shop", "a.shop", "b.shop", "a.shop:80"] {
        let found = authorities.parse(&Bytes::from(authority)).expect("valid");
        assert_eq!(found, authority);
    }
}

#[test]
fn what_is_written_is_read_again() {
    let mut encoder = Encoder::new();
    let mut decoder = crate::hpack::Decoder::new(4096);
    for uri in ["http://b.shop/x?y", "/only/path", "https://b.shop"] {
        for method in [Method::GET, Method::OPTIONS] {
            let mut sent = http::Request::builder().method(&method).uri(uri);
            let headers = sent.headers_mut().expect("valid");
            headers.insert("x-one", HeaderValue::from_static("1"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            let (sent, ()) = sent.body(()).expect("valid").into_parts();
            let mut out = Vec::new();
            encoder.begin(&mut out);
            write_request(&sent, &mut encoder, &mut out);
            let mut reading = Reading::new(1024);
            decoder
                .decode(Bytes::from(out), &mut |field| reading.take(field))
                .expect("valid");
            let Asked { parts, .. } = reading.request(&mut Authorities::default()).expect("valid");
            assert_eq!(parts.method, method);
            assert_eq!(parts.uri.authority(), sent.uri.authority());
            let mut headers = HeaderMap::new();
            headers.insert("x-one", HeaderValue::from_static("1"));
            assert_eq!(parts.headers, headers);
        }
    }
}

#[test]
fn a_sender_that_waits_is_seen() {
    for (value, waits) in [
        ("100-continue", true),
        ("100-Continue", true),
        ("200-ok", false),
    ] {
        let asked = request(&with(&[("expect", value)])).expect("valid");
        assert_eq!(asked.waits, waits, "{value}");
    }
}
