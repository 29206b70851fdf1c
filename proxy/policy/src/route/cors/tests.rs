//! Preflights and responses as tables; origins that any text may hold.

use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn texts(list: &[&str]) -> Vec<Arc<str>> {
    list.iter().map(|&text| text.into()).collect()
}

/// Of two origins, with everything said.
fn shop() -> Cors {
    Cors {
        allow_origins: texts(&["https://www.foo.example", "https://*.bar.example"]),
        allow_credentials: true,
        allow_methods: texts(&["GET", "OPTIONS"]),
        allow_headers: texts(&["x-one", "x-two"]),
        expose_headers: texts(&["x-three", "x-four"]),
        max_age: Duration::from_secs(3600),
    }
}

fn any(credentials: bool) -> Cors {
    Cors {
        allow_origins: texts(&["*"]),
        allow_credentials: credentials,
        allow_methods: texts(&["*"]),
        allow_headers: texts(&["*"]),
        expose_headers: texts(&["*"]),
        max_age: Duration::from_secs(5),
    }
}

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, HeaderValue::from_static(value));
    }
    map
}

fn said(headers: &HeaderMap) -> Vec<String> {
    let mut all: Vec<_> = headers
        .iter()
        .map(|(name, value)| {
            let name = name.as_str();
            let short = name.strip_prefix("access-control-").unwrap_or(name);
            format!("{short}: {}", value.to_str().expect("ASCII"))
        })
        .collect();
    all.sort_unstable();
    all
}

fn preflight(cors: &Cors, fields: &[(&'static str, &'static str)]) -> Vec<String> {
    match cors.judge(&Method::OPTIONS, &headers(fields)) {
        Visit::Preflight(answer) => said(&answer),
        other => panic!("{other:?}"),
    }
}

const PUT: (&str, &str) = ("access-control-request-method", "PUT");
const WANTS: (&str, &str) = ("access-control-request-headers", "x-one, X-Nine");

#[test]
fn a_preflight_hears_what_is_listed() {
    for origin in [
        "https://www.foo.example",
        "https://a.bar.example",
        "https://a.b.bar.example",
    ] {
        assert_eq!(
            preflight(&shop(), &[("origin", origin), PUT, WANTS]),
            [
                "allow-credentials: true".to_owned(),
                "allow-headers: x-one, x-two".to_owned(),
                "allow-methods: GET, OPTIONS".to_owned(),
                format!("allow-origin: {origin}"),
                "expose-headers: x-three, x-four".to_owned(),
                "max-age: 3600".to_owned(),
                "vary: origin".to_owned(),
            ]
        );
    }
}

#[test]
fn any_is_answered_by_what_was_asked() {
    let common = [
        "allow-headers: x-one, X-Nine",
        "allow-methods: PUT",
        "allow-origin: https://a.example:1",
        "max-age: 5",
        "vary: origin",
    ];
    let asks = [("origin", "https://a.example:1"), PUT, WANTS];
    let mut expected: Vec<_> = common.to_vec();
    expected.insert(3, "expose-headers: *");
    assert_eq!(preflight(&any(false), &asks), expected);
    let mut expected: Vec<_> = common.to_vec();
    expected.insert(0, "allow-credentials: true");
    assert_eq!(preflight(&any(true), &asks), expected);
    // Without a wish for headers none are allowed by name.
    assert!(
        !preflight(&any(true), &asks[..2])
            .iter()
            .any(|it| it.starts_with("allow-headers"))
    );
}

#[test]
fn another_origin_hears_nothing() {
    for origin in [
        "https://foobar.example",
        "http://www.foo.example",
        "https://www.foo.example:8443",
        "https://bar.example",
        "null",
        "",
    ] {
        assert_eq!(
            preflight(&shop(), &[("origin", origin), PUT]),
            ["vary: origin"],
            "{origin}"
        );
        assert_eq!(
            shop().judge(&Method::GET, &headers(&[("origin", origin)])),
            Visit::Unshared
        );
    }
    let twice = headers(&[
        ("origin", "https://www.foo.example"),
        ("origin", "https://www.foo.example"),
        PUT,
    ]);
    assert_eq!(shop().judge(&Method::OPTIONS, &twice), Visit::Unshared);
}

#[test]
fn only_options_with_a_wish_is_a_preflight() {
    let origin = ("origin", "https://www.foo.example");
    let allowed = Visit::Allowed(HeaderValue::from_static(origin.1));
    assert_eq!(
        shop().judge(&Method::GET, &headers(&[origin, PUT])),
        allowed
    );
    assert_eq!(shop().judge(&Method::OPTIONS, &headers(&[origin])), allowed);
    assert_eq!(
        shop().judge(&Method::OPTIONS, &headers(&[PUT])),
        Visit::Unshared
    );
    assert_eq!(shop().judge(&Method::GET, &headers(&[])), Visit::Unshared);
}

#[test]
fn a_response_says_who_may_read_it_whatever_the_backend_says() {
    let backend = [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "PUT"),
        ("content-type", "text/plain"),
        ("set-cookie", "a=b"),
        ("vary", "Accept, ORIGIN"),
    ];
    let origin = HeaderValue::from_static("https://www.foo.example");
    let table = [
        (
            shop(),
            Some(&origin),
            vec![
                "allow-credentials: true",
                "allow-origin: https://www.foo.example",
                "expose-headers: x-three, x-four",
            ],
        ),
        (
            any(true),
            Some(&origin),
            vec![
                "allow-credentials: true",
                "allow-origin: https://www.foo.example",
                "expose-headers: content-type",
            ],
        ),
        (
            any(false),
            Some(&origin),
            vec!["allow-origin: https://www.foo.example", "expose-headers: *"],
        ),
        (shop(), None, vec![]),
    ];
    for (cors, allowed, expected) in table {
        let mut response = headers(&backend);
        cors.share(allowed, &mut response);
        let mut expected = expected;
        expected.extend([
            "content-type: text/plain",
            "set-cookie: a=b",
            "vary: Accept, ORIGIN",
        ]);
        expected.sort_unstable();
        assert_eq!(said(&response), expected);
    }
    let mut bare = headers(&[("vary", "accept")]);
    shop().share(None, &mut bare);
    assert_eq!(said(&bare), ["vary: accept", "vary: origin"]);
}

#[test]
fn what_is_not_listed_is_not_said() {
    let bare = Cors {
        allow_origins: vec![],
        allow_methods: vec![],
        allow_headers: vec![],
        expose_headers: vec![],
        ..any(true)
    };
    let answer = preflight(&bare, &[("origin", "https://app.example"), PUT, WANTS]);
    assert_eq!(
        answer,
        [
            "allow-credentials: true",
            "allow-origin: https://app.example",
            "max-age: 5",
            "vary: origin"
        ]
    );
}

#[test]
fn origins_are_compared_part_by_part() {
    let table = [
        ("*", "https://a.example", true),
        ("*", "null", true),
        ("https://a.example", "https://a.example", true),
        ("https://A.example", "HTTPS://a.EXAMPLE", true),
        ("https://a.example", "https://a.example:443", true),
        ("https://a.example:443", "https://a.example", true),
        ("http://a.example:80", "http://a.example", true),
        ("https://a.example", "https://a.example:80", false),
        ("https://a.example", "http://a.example", false),
        ("https://a.example", "https://a.example.evil", false),
        ("https://*", "https://a.b", true),
        ("https://*", "https://a.b:8443", false),
        ("https://*:8443", "https://a.b:8443", true),
        ("https://*.a.example", "https://b.a.example", true),
        ("https://*.a.example", "https://c.b.a.example", true),
        ("https://*.a.example", "https://a.example", false),
        ("https://*.a.example", "https://evil-a.example", false),
        ("https://shop*.a.example", "https://shop-7.a.example", true),
        (
            "https://shop*.a.example",
            "https://a.shop-7.a.example",
            false,
        ),
        ("https://*.a.*.example", "https://x.a.y.example", true),
        ("https://*.a.*.example", "https://x.b.y.example", false),
        ("https://a*a", "https://a", false),
        ("http://[::1]", "http://[::1]:80", true),
        ("http://[::1]:8080", "http://[::1]", false),
        ("app://local", "app://local", true),
        ("app://local", "app://local:1", false),
        ("https://a.example", "null", false),
        ("https://a.example", "a.example", false),
    ];
    for (listed, origin, expected) in table {
        assert_eq!(is_meant(listed, origin), expected, "{listed} {origin}");
    }
}

proptest! {
    #[test]
    fn stars_are_as_an_expression_has_them(pattern in "[ab.*]{0,8}", host in "[ab.]{0,8}") {
        let expression = format!("^{}$", pattern.replace('.', "\\.").replace('*', ".*"));
        let expected = regex::Regex::new(&expression).expect("an expression").is_match(&host);
        prop_assert_eq!(covers(&pattern, &host), expected, "{} {}", pattern, host);
    }

    #[test]
    fn no_request_panics(origin: Vec<u8>, listed in "\\PC{0,12}", wish: Vec<u8>, credentials: bool) {
        let mut asked = HeaderMap::new();
        for (name, bytes) in [("origin", origin), ("access-control-request-method", wish)] {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                asked.insert(name, value);
            }
        }
        let cors = Cors { allow_origins: texts(&[&listed]), ..any(credentials) };
        for method in [Method::OPTIONS, Method::GET] {
            if let Visit::Allowed(origin) = cors.judge(&method, &asked) {
                cors.share(Some(&origin), &mut asked);
            }
        }
    }
}
