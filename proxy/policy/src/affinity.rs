//! The key of a request, for algorithms that hash: the first thing it has of
//! those that policy names.
//!
//! Asked once per request and only under such an algorithm; all tries of the
//! request share the key. A caller without the cookie that policy asks for is
//! given one: its value is drawn by chance and says nothing of any endpoint, so
//! that a change of endpoints moves as few callers as any other key. It knows
//! no endpoints.

use std::fmt::Write as _;
use std::net::IpAddr;

use http::header::{COOKIE, HeaderValue};
use http::{HeaderMap, Uri};

use crate::hash::hash;
use crate::snapshot::{AffinityCookie, HashOn};

/// What a key is read from.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The request's header fields.
    pub headers: &'a HeaderMap,
    /// Its target.
    pub uri: &'a Uri,
    /// The caller's address.
    pub source: IpAddr,
}

/// The key of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// It has one.
    Had(u64),
    /// It was given one: the caller gets this `Set-Cookie` with its answer.
    Given(u64, Box<HeaderValue>),
    /// It has none of what was named: any endpoint will do.
    None,
}

impl Key {
    /// What an endpoint is chosen by.
    #[must_use]
    pub const fn key(&self) -> Option<u64> {
        match self {
            Self::Had(key) | Self::Given(key, _) => Some(*key),
            Self::None => None,
        }
    }

    /// What the caller is given with its answer.
    #[must_use]
    pub fn cookie(&self) -> Option<&HeaderValue> {
        match self {
            Self::Given(_, cookie) => Some(cookie),
            Self::Had(_) | Self::None => None,
        }
    }
}

/// The key of an HTTP request.
#[must_use]
pub fn of_request(on: &[HashOn], told: Told<'_>, rng: &mut fastrand::Rng) -> Key {
    for each in on {
        let found = match each {
            HashOn::Header(name) => told.headers.get(name).map(|value| hash(value.as_bytes())),
            HashOn::Query(name) => parameter(told.uri, name).map(|value| hash(value.as_bytes())),
            HashOn::SourceIp => Some(of_address(told.source)),
            HashOn::Cookie(cookie) => match carried(told.headers, &cookie.name) {
                Some(value) => Some(hash(value)),
                None => return given(cookie, rng),
            },
        };
        if let Some(key) = found {
            return Key::Had(key);
        }
    }
    Key::None
}

/// The key of a connection of opaque bytes, which has nothing but its address.
#[must_use]
pub fn of_connection(on: &[HashOn], source: IpAddr) -> Option<u64> {
    on.contains(&HashOn::SourceIp).then(|| of_address(source))
}

fn of_address(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()),
    }
}

fn parameter<'a>(uri: &'a Uri, name: &str) -> Option<&'a str> {
    let pairs = uri.query()?.split('&');
    let mut values = pairs.filter_map(|pair| {
        let (found, value) = pair.split_once('=').unwrap_or((pair, ""));
        (found == name).then_some(value)
    });
    values.next()
}

/// The value of a cookie that the request carries; an empty one is none.
fn carried<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let mut pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?;
        let value = value.strip_prefix(b"=")?;
        (!value.is_empty()).then_some(value)
    })
}

fn given(cookie: &AffinityCookie, rng: &mut fastrand::Rng) -> Key {
    let value = format!("{:032x}", rng.u128(..));
    let key = hash(value.as_bytes());
    let mut text = format!("{}={value}", cookie.name);
    // Writing to a String cannot fail.
    if let Some(path) = &cookie.path {
        let _ = write!(text, "; Path={path}");
    }
    if let Some(ttl) = cookie.ttl {
        let _ = write!(text, "; Max-Age={}", ttl.as_secs().max(1));
    }
    text.push_str("; HttpOnly");
    match HeaderValue::try_from(text) {
        Ok(value) => Key::Given(key, Box::new(value)),
        // Names and paths were checked when they were applied.
        Err(_) => Key::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{seconds, seeded};

    const CALLER: [u8; 4] = [10, 1, 2, 3];

    fn cookie(ttl: Option<u64>, path: Option<&str>) -> HashOn {
        HashOn::Cookie(AffinityCookie {
            name: "at".into(),
            ttl: ttl.map(seconds),
            path: path.map(Into::into),
        })
    }

    fn key(on: &[HashOn], headers: &[(&'static str, &'static str)], uri: &'static str) -> Key {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let told = Told {
            headers: &map,
            uri: &Uri::from_static(uri),
            source: CALLER.into(),
        };
        of_request(on, told, &mut seeded())
    }

    #[test]
    fn the_first_that_is_there_counts() {
        let user = || HashOn::Header(http::HeaderName::from_static("x-user"));
        let query = || HashOn::Query("user".into());
        let had = |bytes: &[u8]| Key::Had(hash(bytes));
        let table = [
            (vec![user()], vec![("x-user", "ada")], "/", had(b"ada")),
            (
                vec![user()],
                vec![("x-user", "ada"), ("x-user", "b")],
                "/",
                had(b"ada"),
            ),
            (vec![user()], vec![], "/", Key::None),
            (
                vec![user(), query()],
                vec![],
                "/a?user=bob&user=c",
                had(b"bob"),
            ),
            (vec![query()], vec![], "/a?users=x&user", had(b"")),
            (vec![query()], vec![], "/a", Key::None),
            (
                vec![query(), user()],
                vec![("x-user", "ada")],
                "/?user=bob",
                had(b"bob"),
            ),
            (vec![user(), HashOn::SourceIp], vec![], "/", had(&CALLER)),
            (
                vec![cookie(None, None)],
                vec![("cookie", "a=1; at=xyz")],
                "/",
                had(b"xyz"),
            ),
            (
                vec![cookie(None, None)],
                vec![("cookie", "a=1"), ("cookie", "at=xyz")],
                "/",
                had(b"xyz"),
            ),
            (
                vec![cookie(None, None), user()],
                vec![("cookie", "at=q")],
                "/",
                had(b"q"),
            ),
        ];
        for (on, headers, uri, expected) in table {
            assert_eq!(
                key(&on, &headers, uri),
                expected,
                "{on:?} {headers:?} {uri}"
            );
        }
    }

    #[test]
    fn a_missing_cookie_is_given_and_comes_back_as_the_same_key() {
        let table = [
            (cookie(None, None), "; HttpOnly"),
            (
                cookie(Some(3600), Some("/cart")),
                "; Path=/cart; Max-Age=3600; HttpOnly",
            ),
            (cookie(Some(0), None), "; Max-Age=1; HttpOnly"),
        ];
        for (on, attributes) in table {
            for headers in [&[][..], &[("cookie", "at2=x; xat=y; at=")]] {
                let Key::Given(first, value) = key(std::slice::from_ref(&on), headers, "/") else {
                    panic!("a cookie is given");
                };
                let value = value.to_str().expect("ASCII").to_owned();
                let (pair, rest) = value.split_at("at=".len() + 32);
                assert_eq!(rest, attributes);
                let pair: &'static str = pair.to_owned().leak();
                assert_eq!(
                    key(std::slice::from_ref(&on), &[("cookie", pair)], "/"),
                    Key::Had(first)
                );
            }
        }
    }

    #[test]
    fn values_that_are_given_differ() {
        let mut rng = seeded();
        let HashOn::Cookie(cookie) = cookie(None, None) else {
            panic!("a cookie");
        };
        let mut all: Vec<_> = (0..1000)
            .map(|_| match given(&cookie, &mut rng) {
                Key::Given(key, _) => key,
                other => panic!("{other:?}"),
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 1000);
    }

    #[test]
    fn a_connection_has_only_its_address() {
        let mapped = "::ffff:10.1.2.3".parse().expect("an address");
        assert_eq!(
            of_connection(&[HashOn::SourceIp], CALLER.into()),
            Some(hash(&CALLER))
        );
        assert_eq!(
            of_connection(&[HashOn::SourceIp], mapped),
            Some(hash(&CALLER))
        );
        assert_eq!(of_connection(&[cookie(None, None)], CALLER.into()), None);
    }
}
