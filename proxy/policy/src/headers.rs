//! Which header fields end at this hop, and which an application may not set.
//!
//! Meets every request and response at the door. It decides and edits a
//! [`HeaderMap`]; it does not know who sent it. Whoever calls
//! [`strip_untrusted`] has established that the sender is an application, or
//! a peer without an identity.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Fields that only Selvage itself sets, beside `x-forwarded-client-cert`.
const OWN_PREFIX: &[u8] = b"x-selvage-";
const CLIENT_CERTIFICATE: &[u8] = b"x-forwarded-client-cert";

/// Whether a field is about one connection and never forwarded (RFC 9110 §7.6.1).
#[must_use]
pub fn is_hop_by_hop(name: &HeaderName) -> bool {
    // A HeaderName is lower case already.
    let name = name.as_str();
    match name.len() {
        2 => name == "te",
        7 => name == "upgrade",
        10 => name == "connection" || name == "keep-alive",
        14 => name == "http2-settings",
        16 => name == "proxy-connection",
        17 => name == "transfer-encoding",
        _ => false,
    }
}

fn is_hop_by_hop_name(name: &str) -> bool {
    HOP_BY_HOP.iter().any(|own| own.eq_ignore_ascii_case(name))
}

const HOP_BY_HOP: [&str; 7] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
    "http2-settings",
];

/// Whether a field is Selvage's to set. `_` counts as `-`, because servers that
/// turn names into variables (CGI, WSGI) cannot tell the two apart.
#[must_use]
pub fn is_untrusted(name: &HeaderName) -> bool {
    let dash = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    let bytes = name.as_str().as_bytes();
    if bytes.first() != Some(&b'x') {
        return false;
    }
    let begins = |own: &[u8]| {
        bytes.len() >= own.len() && bytes.iter().map(dash).zip(own).all(|(a, b)| a == *b)
    };
    begins(OWN_PREFIX) || (bytes.len() == CLIENT_CERTIFICATE.len() && begins(CLIENT_CERTIFICATE))
}

/// Removes what an application, or a peer without an identity, may not say:
/// `x-selvage-*`, `x-forwarded-client-cert`, and their spellings with `_`.
/// Allocates only when something is removed.
pub fn strip_untrusted(headers: &mut HeaderMap) {
    let found: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_untrusted(name))
        .cloned()
        .collect();
    for name in found {
        headers.remove(name);
    }
}

/// Removes the fields that `Connection` names, then those that always are
/// about one connection; of `te` the value `trailers` stays, because gRPC asks
/// its servers for it. `host` and `content-length` are about the message
/// whatever `Connection` says, and stay. Allocates only when `Connection`
/// names a field that is not removed anyway.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Looked for in one pass: most messages hold none, and a lookup by name costs a hash each.
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .filter_map(named_field)
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    let found = found(headers, is_hop_by_hop);
    let trailers = found.iter().flatten().any(|name| *name == TE)
        && headers.get_all(TE).iter().any(wants_trailers);
    for name in found.into_iter().flatten() {
        headers.remove(name);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// The distinct names that `wanted` says yes to; there are at most as many as
/// hop-by-hop fields exist.
fn found(
    headers: &HeaderMap,
    wanted: impl Fn(&HeaderName) -> bool,
) -> [Option<HeaderName>; HOP_BY_HOP.len()] {
    let mut found = [const { None }; HOP_BY_HOP.len()];
    let names = headers.keys().filter(|name| wanted(name));
    for (place, name) in found.iter_mut().zip(names) {
        *place = Some(name.clone());
    }
    found
}

fn named_field(option: &[u8]) -> Option<HeaderName> {
    let option = option.trim_ascii();
    let known = std::str::from_utf8(option).is_ok_and(is_hop_by_hop_name);
    if known || option.eq_ignore_ascii_case(b"close") {
        return None;
    }
    HeaderName::from_bytes(option)
        .ok()
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
}

fn wants_trailers(value: &HeaderValue) -> bool {
    value.as_bytes().split(|byte| *byte == b',').any(|coding| {
        let name = coding
            .split(|byte| *byte == b';')
            .next()
            .unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(b"trailers")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        map
    }

    fn names(map: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = map.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn only_selvage_speaks_of_identity() {
        let mut map = headers(&[
            ("x-selvage-flag", "overflow"),
            ("x_selvage-flag", "overflow"),
            ("x-selvage_deadline_ms", "1"),
            (
                "x-forwarded-client-cert",
                "URI=spiffe://mesh.local/ns/a/sa/b",
            ),
            (
                "x_forwarded_client_cert",
                "URI=spiffe://mesh.local/ns/a/sa/b",
            ),
            ("x-forwarded-client-certificate", "mine"),
            ("x-selvag", "mine"),
            ("accept", "*/*"),
        ]);
        strip_untrusted(&mut map);
        assert_eq!(
            names(&map),
            ["accept", "x-forwarded-client-certificate", "x-selvag"]
        );
    }

    #[test]
    fn what_connection_names_ends_here() {
        let mut map = headers(&[
            ("connection", "close, X-Private"),
            (
                "connection",
                "keep-alive, host,content-length, other, not a name,",
            ),
            ("x-private", "1"),
            ("x-private", "2"),
            ("other", "1"),
            ("host", "ratings"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA"),
            ("trailer", "grpc-status"),
        ]);
        strip_hop_by_hop(&mut map);
        assert_eq!(names(&map), ["content-length", "host", "trailer"]);
    }

    #[test]
    fn te_keeps_trailers_and_nothing_else() {
        for (value, kept) in [
            ("trailers", true),
            ("gzip, Trailers", true),
            ("trailers;q=0.5", true),
            ("gzip", false),
            ("nottrailers", false),
        ] {
            let mut map = headers(&[("te", value)]);
            strip_hop_by_hop(&mut map);
            let expected = kept.then(|| HeaderValue::from_static("trailers"));
            assert_eq!(map.get(TE), expected.as_ref(), "{value}");
        }
    }

    #[test]
    fn what_is_clean_stays_as_it_is() {
        let clean = headers(&[
            ("accept", "*/*"),
            ("x-request-id", "7"),
            ("cookie", "a"),
            ("cookie", "b"),
        ]);
        let mut map = clean.clone();
        strip_untrusted(&mut map);
        strip_hop_by_hop(&mut map);
        assert_eq!(map, clean);
    }
}
