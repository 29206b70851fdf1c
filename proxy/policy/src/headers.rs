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

/// What a request's head has of all that is asked about at the door: one pass
/// over the names costs less than a look for each, and most heads have nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Seen(u8);

impl Seen {
    const CODING: u8 = 1;
    const EXPECT: u8 = 1 << 1;
    const UPGRADE: u8 = 1 << 2;
    const HOP_BY_HOP: u8 = 1 << 3;
    const UNTRUSTED: u8 = 1 << 4;
    const SAID: u8 = 1 << 5;

    /// Looks a head over.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |seen, name| seen | Self::by(name)))
    }

    fn by(name: &HeaderName) -> u8 {
        match name.as_str() {
            "transfer-encoding" => Self::CODING | Self::HOP_BY_HOP,
            "upgrade" => Self::UPGRADE | Self::HOP_BY_HOP,
            "expect" => Self::EXPECT,
            "grpc-timeout" | "traceparent" | "b3" | "x-b3-traceid" => Self::SAID,
            text if !text.starts_with('x') => match is_hop_by_hop(name) {
                true => Self::HOP_BY_HOP,
                false => 0,
            },
            // What only Selvage sets is also what a hop before may have to say.
            _ if is_untrusted(name) => Self::UNTRUSTED | Self::SAID,
            _ => 0,
        }
    }

    /// `transfer-encoding`.
    #[must_use]
    pub const fn coding(self) -> bool {
        self.0 & Self::CODING != 0
    }

    /// `expect`.
    #[must_use]
    pub const fn expect(self) -> bool {
        self.0 & Self::EXPECT != 0
    }

    /// `upgrade`.
    #[must_use]
    pub const fn upgrade(self) -> bool {
        self.0 & Self::UPGRADE != 0
    }

    /// Anything about this connection alone.
    #[must_use]
    pub const fn hop_by_hop(self) -> bool {
        self.0 & Self::HOP_BY_HOP != 0
    }

    /// Anything that is Selvage's to set.
    #[must_use]
    pub const fn untrusted(self) -> bool {
        self.0 & Self::UNTRUSTED != 0
    }

    /// Anything that [`crate::said::Said`] may have to read.
    #[must_use]
    pub const fn said(self) -> bool {
        self.0 & Self::SAID != 0
    }
}

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
/// Allocates only for more names than a sidecar sets.
pub fn strip_untrusted(headers: &mut HeaderMap) {
    let mut names = headers.keys().filter(|name| is_untrusted(name)).cloned();
    let first = [names.next(), names.next(), names.next(), names.next()];
    let others: Vec<HeaderName> = names.collect();
    for name in first.into_iter().flatten().chain(others) {
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
    fn one_look_finds_whatever_the_door_asks_about() {
        type Row = (&'static str, fn(Seen) -> bool);
        let table: [Row; 12] = [
            ("transfer-encoding", |seen| {
                seen.coding() && seen.hop_by_hop()
            }),
            ("upgrade", |seen| seen.upgrade() && seen.hop_by_hop()),
            ("expect", Seen::expect),
            ("te", Seen::hop_by_hop),
            ("connection", Seen::hop_by_hop),
            ("grpc-timeout", Seen::said),
            ("traceparent", Seen::said),
            ("x-b3-traceid", Seen::said),
            ("x-selvage-attempt", |seen| seen.said() && seen.untrusted()),
            ("x-selvage-version", Seen::untrusted),
            ("x_selvage-flag", Seen::untrusted),
            ("x-forwarded-client-cert", Seen::untrusted),
        ];
        for (name, finds) in table {
            let alone = Seen::of(&headers(&[(name, "1")]));
            let among = Seen::of(&headers(&[("accept", "*/*"), (name, "1"), ("x-own", "1")]));
            assert!(finds(alone), "{name}");
            assert_eq!(alone, among, "{name}");
        }
        for name in HOP_BY_HOP {
            assert!(Seen::of(&headers(&[(name, "1")])).hop_by_hop(), "{name}");
        }
        let nothing = headers(&[("accept", "*/*"), ("x-own", "1"), ("tracestate", "a=b")]);
        assert_eq!(Seen::of(&nothing), Seen::default());
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
