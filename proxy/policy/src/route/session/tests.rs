//! Tokens there and back, their two ways, their two ends; cookies and paths as tables.

use proptest::prelude::*;
use regex::Regex;

use super::*;
use crate::route::matches::whole;
use crate::route::{Filters, GrpcMatch, Match};
use crate::snapshot::ServiceName;
use crate::testing::{endpoint, seconds};

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
}

fn persistence(carrier: SessionCarrier) -> SessionPersistence {
    SessionPersistence {
        name: "at".into(),
        carrier,
        absolute_timeout: None,
        idle_timeout: None,
    }
}

const COOKIES: SessionCarrier = SessionCarrier::Cookie { permanent: false };
const PLACE: Place<'_> = Place {
    path: "/v1",
    secure: false,
};

/// What a client sends back of what it was told.
fn sent_back(told: &(HeaderName, HeaderValue)) -> HeaderMap {
    let value = told.1.to_str().expect("ASCII");
    let mut headers = HeaderMap::new();
    if told.0 == SET_COOKIE {
        let pair = value.split(';').next().expect("a pair");
        let value = format!("other=1; {pair}; at2=x");
        headers.insert(COOKIE, HeaderValue::try_from(value).expect("a value"));
    } else {
        headers.insert(told.0.clone(), told.1.clone());
    }
    headers
}

#[test]
fn a_token_comes_back_as_it_went() {
    for carrier in [
        COOKIES,
        SessionCarrier::Cookie { permanent: true },
        SessionCarrier::Header,
    ] {
        let it = persistence(carrier);
        let session = Session::begin(7, u64::MAX, at(0));
        let told = it.tell(session, None, PLACE, at(0)).expect("it is new");
        let headers = sent_back(&told);
        let found: Vec<_> = it.carried(&headers, at(1_000_000)).collect();
        assert_eq!(found, [session], "{carrier:?}");
        assert_eq!(
            it.tell(session, found.first().copied(), PLACE, at(5)),
            None,
            "it is known"
        );
        let moved = Session::begin(7, 8, at(5));
        assert!(
            it.tell(moved, found.first().copied(), PLACE, at(5))
                .is_some()
        );
    }
}

#[test]
fn a_session_ends_at_its_time() {
    let limits = SessionPersistence {
        absolute_timeout: Some(seconds(100)),
        idle_timeout: Some(seconds(10)),
        ..persistence(COOKIES)
    };
    let mut carried = Session::begin(1, 2, at(0));
    let mut headers = sent_back(&limits.tell(carried, None, PLACE, at(0)).expect("new"));
    assert_eq!(limits.carried(&headers, at(11)).count(), 0, "unused");
    for second in (10..=100).step_by(10) {
        let found = limits
            .carried(&headers, at(second))
            .next()
            .expect("in time");
        assert_eq!(found.begun, carried.begun, "used, not begun again");
        let told = limits
            .tell(found, Some(carried), PLACE, at(second))
            .expect("told each time");
        headers = sent_back(&told);
        carried = found;
    }
    assert_eq!(
        limits.carried(&headers, at(101)).count(),
        0,
        "however much it is used"
    );
}

#[test]
fn moments_of_the_future_are_believed_within_reason() {
    let it = persistence(SessionCarrier::Header);
    for (ahead, expected) in [(0, 1), (60, 1), (61, 0), (1_000_000, 0)] {
        let session = Session::begin(1, 2, at(ahead));
        let headers = sent_back(&it.tell(session, None, PLACE, at(ahead)).expect("new"));
        assert_eq!(it.carried(&headers, at(0)).count(), expected, "{ahead}");
    }
    assert_eq!(Session::begin(1, 2, UNIX_EPOCH - seconds(1)).begun, 0);
}

#[test]
fn a_cookie_says_where_and_how_long() {
    let token = |text: &str| {
        text.split_once('=')
            .map(|(_, rest)| rest[LENGTH..].to_owned())
    };
    let lasting = |permanent| SessionPersistence {
        absolute_timeout: Some(seconds(100)),
        idle_timeout: Some(seconds(50)),
        ..persistence(SessionCarrier::Cookie { permanent })
    };
    let carried = Session::begin(1, 2, at(0));
    let table = [
        (
            persistence(COOKIES),
            None,
            0,
            false,
            "; Path=/v1; HttpOnly; SameSite=Strict",
        ),
        (
            persistence(COOKIES),
            None,
            0,
            true,
            "; Path=/v1; HttpOnly; SameSite=Strict; Secure",
        ),
        (
            lasting(false),
            None,
            0,
            false,
            "; Path=/v1; HttpOnly; SameSite=Strict",
        ),
        (
            lasting(true),
            None,
            0,
            false,
            "; Path=/v1; Max-Age=100; HttpOnly; SameSite=Strict",
        ),
        (
            lasting(true),
            Some(carried),
            30,
            false,
            "; Path=/v1; Max-Age=70; HttpOnly; SameSite=Strict",
        ),
        (
            lasting(true),
            Some(carried),
            100,
            false,
            "; Path=/v1; Max-Age=1; HttpOnly; SameSite=Strict",
        ),
    ];
    for (it, carried, second, secure, expected) in table {
        let (name, value) = it
            .tell(
                Session::begin(1, 2, at(second)),
                carried,
                Place {
                    path: "/v1",
                    secure,
                },
                at(second),
            )
            .expect("told");
        assert_eq!(name, SET_COOKIE);
        assert_eq!(
            token(value.to_str().expect("ASCII")).as_deref(),
            Some(expected)
        );
    }
}

#[test]
fn what_is_malformed_is_as_if_it_were_not_there() {
    let good = Session::begin(1, 2, at(0)).token();
    let (short, long, other) = (&good[1..], format!("{good}0"), format!("2{}", &good[1..]));
    let signed = format!("1+{}", &good[2..]);
    for bad in ["", "1", short, &long, &other, &signed, "1zz", "\u{e9}"] {
        assert_eq!(Session::parse(bad.as_bytes()), None, "{bad}");
    }
    // Not the name; then one that is, after too many that were none.
    for (cookie, expected) in [
        (format!("xat={good}; AT={good}; at ={good}"), 0),
        (format!("at=; at={good}"), 1),
        (format!("{}at={good}", "at=1; ".repeat(TOKENS - 1)), 1),
        (format!("{}at={good}", "at=1; ".repeat(TOKENS)), 0),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::try_from(&cookie).expect("a value"));
        assert_eq!(
            persistence(COOKIES).carried(&headers, at(0)).count(),
            expected,
            "{cookie}"
        );
    }
}

#[test]
fn tags_stay_the_same_for_ever() {
    let backend = Backend {
        service: ServiceName::new("shop", "ratings"),
        port: Some(80),
    };
    let tag = backend_tag("shop/route/0", &backend);
    assert_eq!(tag, 0x1987_15e3_02a5_e5fe);
    assert_ne!(
        tag,
        backend_tag("shop/route/1", &backend),
        "rules share no sessions"
    );
    assert_eq!(endpoint_tag(&endpoint(1, 1, true)), 0x960f_dd12_a531_15dd);
    // Whatever its weight, its health and its address.
    assert_eq!(
        endpoint_tag(&endpoint(1, 0, false)),
        endpoint_tag(&endpoint(1, 1, true))
    );
}

#[test]
fn endpoints_are_found_by_their_tags() {
    let all: Vec<_> = (0..50).map(|n| endpoint(n, 1, true)).collect();
    let tags = Tags::of(&all);
    for (index, endpoint) in all.iter().enumerate() {
        assert_eq!(tags.find(endpoint_tag(endpoint)), Some(index));
    }
    assert_eq!(tags.find(endpoint_tag(&endpoint(50, 1, true))), None);
    assert_eq!(Tags::of(&[]).find(0), None);
}

fn rule(paths: Vec<PathMatch>) -> Rule {
    let of = |path| Match {
        path,
        ..Match::every()
    };
    Rule {
        label: "shop/route/0".into(),
        matches: paths.into_iter().map(of).collect(),
        filters: Filters::default(),
        backends: Vec::new(),
        session: None,
        response: None,
        rate_limit: None,
    }
}

#[test]
fn a_cookie_is_for_the_path_that_matched() {
    let regex = |text: &str| PathMatch::Regex(whole(text).expect("an expression"));
    let grpc = |service: Option<&str>, method: Option<&str>| {
        let text = |it: &str| TextMatch::Exact(it.into());
        PathMatch::Grpc(GrpcMatch {
            service: service.map(text),
            method: method.map(text),
        })
    };
    let table = [
        (vec![], Some("/"), "/a", "/"),
        (vec![PathMatch::Any], None, "/a", "/"),
        (
            vec![PathMatch::Prefix("/a".into())],
            Some("/a"),
            "/a/b",
            "/a",
        ),
        (
            vec![
                PathMatch::Exact("/b".into()),
                PathMatch::Exact("/a/b".into()),
            ],
            None,
            "/a/b",
            "/a/b",
        ),
        (
            vec![regex("^(?:/p1/p2/.*/p3)$")],
            None,
            "/p1/p2/x/p3",
            "/p1/p2",
        ),
        (vec![regex("^/p1/p2.*$")], None, "/p1/p2", "/p1"),
        (vec![regex("^(?:/a|/b)$")], None, "/b", "/"),
        (vec![regex("^/a/?$")], None, "/a", "/a"),
        (vec![regex("^.*$")], None, "/a", "/"),
        (vec![regex("/a/b")], None, "/a/b", "/a/b"),
        (
            vec![grpc(Some("shop.Carts"), Some("Get"))],
            None,
            "/shop.Carts/Get",
            "/shop.Carts/Get",
        ),
        (
            vec![grpc(Some("shop.Carts"), None)],
            None,
            "/shop.Carts/Get",
            "/shop.Carts",
        ),
        (vec![grpc(None, Some("Get"))], None, "/shop.Carts/Get", "/"),
        (
            vec![PathMatch::Prefix("/a;b".into())],
            Some("/a;b"),
            "/a;b",
            "/",
        ),
        (
            vec![PathMatch::Prefix("/x/a;b".into())],
            Some("/x/a;b"),
            "/x/a;b",
            "/x",
        ),
        (vec![PathMatch::Exact("*".into())], None, "*", "/"),
    ];
    for (paths, prefix, path, expected) in table {
        let rule = rule(paths);
        assert_eq!(
            cookie_path(&rule, prefix, path),
            expected,
            "{:?}",
            rule.matches
        );
    }
}

proptest! {
    #[test]
    fn no_token_panics_and_all_come_back(bytes: Vec<u8>, backend: u64, endpoint: u64, begun in 0..=LAST, used in 0..=LAST) {
        let _ = Session::parse(&bytes);
        let session = Session { backend, endpoint, begun, used };
        prop_assert_eq!(Session::parse(session.token().as_bytes()), Some(session));
        prop_assert_eq!(session.token().len(), LENGTH);
    }

    #[test]
    fn no_path_panics(path in "\\PC{0,20}", expression in "[/a-z.*|?()\\\\^$\\[\\]]{0,12}") {
        let paths = vec![PathMatch::Grpc(GrpcMatch { service: Some(TextMatch::Exact("a".into())), method: None })];
        let _ = cookie_path(&rule(paths), None, &path);
        prop_assert!(literal(&expression).is_empty() || path.len() < 100);
        if let Ok(regex) = Regex::new(&expression) {
            let rule = rule(vec![PathMatch::Regex(regex)]);
            prop_assert!(cookie_path(&rule, None, &path).starts_with('/'));
        }
    }
}
