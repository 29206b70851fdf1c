//! Heads made safe: what a request must look like before anything is decided
//! on it, and how it is written for the next hop. Nothing of HTTP/1's framing
//! or of our own headers crosses from one side to the other.

use http::header::{CONNECTION, COOKIE, EXPECT, HOST, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Uri, Version};
use selvage_policy::flag::Flag;
use selvage_policy::headers::{Seen, strip_hop_by_hop, strip_untrusted};
use selvage_policy::server::{CRITICALITY, Criticality, UnknownCriticality};

use super::VERSION;
use crate::error::ProxyError;

/// Bounds of a request's head, from `limits` of the configuration.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of the request target.
    pub uri: usize,
    /// Header fields.
    pub count: usize,
}

/// What was read from a request's head before it was cleaned.
#[derive(Debug)]
pub struct Asked {
    /// Host and port the request is for, as given; `None` only for HTTP/1.0.
    pub authority: Option<Authority>,
    /// The protocol an HTTP/1.1 request wants to change to.
    pub upgrade: Option<HeaderValue>,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    /// The version the application spoke.
    pub version: Version,
    /// How much it is said to matter.
    pub criticality: Option<Result<Criticality, UnknownCriticality>>,
}

fn bad(detail: &'static str) -> ProxyError {
    ProxyError::new(Flag::BadRequest, detail)
}

/// Checks a request's head and takes from it what must not travel on.
///
/// `seen` is what its head has. `from_mesh`: it came from an authenticated peer, whose word on the version
/// is believed.
pub fn sanitize<B>(
    request: &mut Request<B>,
    seen: Seen,
    limits: HeadLimits,
    from_mesh: bool,
) -> Result<Asked, ProxyError> {
    check_target(request.uri(), request.method(), limits.uri)?;
    if request.headers().len() > limits.count {
        return Err(ProxyError::new(
            Flag::HeadersTooLarge,
            "more fields than limits.headerCount",
        ));
    }
    let wire = request.version();
    let authority = authority(request)?;
    let headers = request.headers_mut();
    if seen.coding() {
        check_coding(headers, wire)?;
    }
    let expects_continue = seen.expect() && expectation(headers)?;
    let upgrade = if wire == Version::HTTP_11 && seen.upgrade() {
        upgrade(headers)
    } else {
        None
    };
    let version = if from_mesh && seen.untrusted() {
        original_version(headers, wire)
    } else {
        wire
    };
    let criticality = if seen.untrusted() {
        let value = headers.get(CRITICALITY);
        value.map(|value| Criticality::parse(value.as_bytes()))
    } else {
        None
    };
    if seen.hop_by_hop() {
        strip_hop_by_hop(headers);
    }
    if seen.untrusted() {
        strip_untrusted(headers);
    }
    if seen.expect() {
        headers.remove(EXPECT);
    }
    Ok(Asked {
        authority,
        upgrade,
        expects_continue,
        version,
        criticality,
    })
}

fn check_target(uri: &Uri, method: &Method, limit: usize) -> Result<(), ProxyError> {
    let path = uri.path();
    let length = path.len() + uri.query().map_or(0, |query| query.len() + 1);
    if length > limit {
        return Err(ProxyError::new(
            Flag::UriTooLong,
            "target over limits.uriBytes",
        ));
    }
    if *method == Method::CONNECT {
        return Err(bad("CONNECT is not offered"));
    }
    let of_the_server = *method == Method::OPTIONS && path == "*";
    if !path.starts_with('/') && !of_the_server {
        return Err(bad("target is not a path"));
    }
    if path
        .bytes()
        .any(|byte| byte == b'#' || byte <= b' ' || byte == 0x7f)
    {
        return Err(bad("target holds a character that no path may hold"));
    }
    Ok(())
}

/// One authority, wherever it stands: `:authority` or an absolute target, and
/// `Host`. Two that differ are refused: routing and policy must see the same.
fn authority<B>(request: &Request<B>) -> Result<Option<Authority>, ProxyError> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one Host"));
    }
    let host = match host {
        None => None,
        Some(value) if value.is_empty() => None,
        Some(value) => {
            Some(Authority::try_from(value.as_bytes()).map_err(|_| bad("malformed Host"))?)
        }
    };
    let target = request.uri().authority();
    match (target, host) {
        (Some(target), Some(host)) => {
            let http2 = request.version() == Version::HTTP_2;
            if http2 && !target.as_str().eq_ignore_ascii_case(host.as_str()) {
                return Err(bad(":authority and Host differ"));
            }
            // RFC 9112 §3.2.2: of an absolute target, Host is ignored.
            Ok(Some(target.clone()))
        }
        (Some(target), None) if request.version() != Version::HTTP_11 => Ok(Some(target.clone())),
        (None, Some(host)) => Ok(Some(host)),
        (None, None) if request.version() <= Version::HTTP_10 => Ok(None),
        _ => Err(bad("no Host")),
    }
}

/// The one coding that is understood alike everywhere.
fn check_coding(headers: &HeaderMap, wire: Version) -> Result<(), ProxyError> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    if wire <= Version::HTTP_10 {
        return Err(bad("transfer-encoding in HTTP/1.0"));
    }
    if codings.next().is_some() || !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
        return Err(bad("a transfer-encoding other than one `chunked`"));
    }
    Ok(())
}

fn expectation(headers: &HeaderMap) -> Result<bool, ProxyError> {
    let mut expected = false;
    for value in headers.get_all(EXPECT) {
        if !value.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err(ProxyError::new(
                Flag::ExpectationFailed,
                "unknown expectation",
            ));
        }
        expected = true;
    }
    Ok(expected)
}

/// The protocol to change to, if the request is a well-formed upgrade. Toward
/// HTTP/2 there is none: it would smuggle requests past every check.
fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let value = headers.get(UPGRADE)?;
    let named = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case("upgrade"));
    let text = value.to_str().ok()?;
    let to_http2 = text.split(',').any(|token| {
        let token = token.trim();
        token.eq_ignore_ascii_case("h2c") || token.eq_ignore_ascii_case("h2")
    });
    (named && !to_http2).then(|| value.clone())
}

fn original_version(headers: &HeaderMap, wire: Version) -> Version {
    match headers.get(VERSION).map(HeaderValue::as_bytes) {
        Some(b"1.1") => Version::HTTP_11,
        Some(b"1.0") => Version::HTTP_10,
        _ => wire,
    }
}

/// What the next hop speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// HTTP/1.1, or 1.0 where the caller speaks that.
    Http1,
    /// HTTP/2 to another sidecar: HTTP/1 callers keep their version in a header.
    MeshHttp2,
    /// HTTP/2 to an application or a server outside the mesh.
    PlainHttp2,
}

/// Writes the head for the next hop. `authority` where the request had none.
pub fn address<B>(
    request: &mut Request<B>,
    asked: &Asked,
    hop: Hop,
    fallback: &Authority,
) -> Result<(), ProxyError> {
    let authority = asked.authority.as_ref().unwrap_or(fallback);
    let path = request
        .uri()
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(path);
    let headers = request.headers_mut();
    if hop == Hop::Http1 {
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| bad("malformed Host"))?;
        headers.insert(HOST, host);
        join_cookies(headers);
        if let Some(protocol) = &asked.upgrade {
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, protocol.clone());
        } else if headers.contains_key(TE) {
            headers.insert(CONNECTION, HeaderValue::from_static("te"));
        }
        if asked.expects_continue {
            headers.insert(EXPECT, HeaderValue::from_static("100-continue"));
        }
        *request.version_mut() = match asked.version {
            Version::HTTP_10 => Version::HTTP_10,
            _ => Version::HTTP_11,
        };
    } else {
        headers.remove(HOST);
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(authority.clone());
        if hop == Hop::MeshHttp2 && asked.version < Version::HTTP_2 {
            let version = if asked.version == Version::HTTP_11 {
                "1.1"
            } else {
                "1.0"
            };
            headers.insert(VERSION, HeaderValue::from_static(version));
        }
        *request.version_mut() = Version::HTTP_2;
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| bad("malformed target"))?;
    Ok(())
}

/// HTTP/2 may split cookies into crumbs; HTTP/1 knows one field (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let mut joined = Vec::new();
    for crumb in headers.get_all(COOKIE) {
        if !joined.is_empty() {
            joined.extend_from_slice(b"; ");
        }
        joined.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(joined)) {
        headers.insert(COOKIE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits {
        uri: 100,
        count: 10,
    };

    fn request(version: Version, uri: &str, headers: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("valid request")
    }

    fn checked(request: &mut Request<()>, from_mesh: bool) -> Result<Asked, ProxyError> {
        let seen = Seen::of(request.headers());
        sanitize(request, seen, LIMITS, from_mesh)
    }

    fn flag_of(mut request: Request<()>) -> Option<Flag> {
        checked(&mut request, false).err().map(|error| error.flag)
    }

    #[test]
    fn what_is_ambiguous_or_over_a_limit_is_refused() {
        let long = format!("/{}", "a".repeat(200));
        let many: Vec<(String, String)> = (0..12)
            .map(|index| (format!("x-{index}"), "1".to_owned()))
            .collect();
        let mut many: Vec<(&str, &str)> = many
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        many.push(("host", "a"));
        let table = [
            (request(Version::HTTP_11, "/", &[("host", "a")]), None),
            (request(Version::HTTP_11, "/", &[]), Some(Flag::BadRequest)),
            (request(Version::HTTP_10, "/", &[]), None),
            (
                request(Version::HTTP_11, "/", &[("host", "a"), ("host", "b")]),
                Some(Flag::BadRequest),
            ),
            (
                request(Version::HTTP_2, "http://a/", &[("host", "b")]),
                Some(Flag::BadRequest),
            ),
            (
                request(Version::HTTP_2, "http://a/", &[("host", "A")]),
                None,
            ),
            (
                request(Version::HTTP_11, "http://a/", &[("host", "b")]),
                None,
            ),
            (
                request(Version::HTTP_11, &long, &[("host", "a")]),
                Some(Flag::UriTooLong),
            ),
            (
                request(Version::HTTP_11, "/", &many),
                Some(Flag::HeadersTooLarge),
            ),
            (
                request(
                    Version::HTTP_11,
                    "/",
                    &[("host", "a"), ("expect", "100-Continue")],
                ),
                None,
            ),
            (
                request(Version::HTTP_11, "/", &[("host", "a"), ("expect", "more")]),
                Some(Flag::ExpectationFailed),
            ),
            (
                request(Version::HTTP_10, "/", &[("transfer-encoding", "chunked")]),
                Some(Flag::BadRequest),
            ),
        ];
        for (request, expected) in table {
            let shown = format!("{request:?}");
            assert_eq!(flag_of(request), expected, "{shown}");
        }
    }

    #[test]
    fn an_upgrade_needs_connection_and_never_leads_to_http2() {
        let table = [
            (
                &[
                    ("upgrade", "websocket"),
                    ("connection", "keep-alive, Upgrade"),
                ][..],
                true,
            ),
            (&[("upgrade", "websocket")][..], false),
            (&[("upgrade", "h2c"), ("connection", "upgrade")][..], false),
            (
                &[("upgrade", "websocket, H2C"), ("connection", "upgrade")][..],
                false,
            ),
        ];
        for (headers, expected) in table {
            let mut request = request(Version::HTTP_11, "/", headers);
            request
                .headers_mut()
                .insert(HOST, HeaderValue::from_static("a"));
            let asked = checked(&mut request, false).expect("valid");
            assert_eq!(asked.upgrade.is_some(), expected, "{headers:?}");
            assert!(!request.headers().contains_key(UPGRADE));
        }
    }

    #[test]
    fn the_version_header_is_believed_from_the_mesh_alone() {
        for (from_mesh, expected) in [(true, Version::HTTP_10), (false, Version::HTTP_2)] {
            let mut request = request(
                Version::HTTP_2,
                "http://a/",
                &[("x-selvage-version", "1.0")],
            );
            let asked = checked(&mut request, from_mesh).expect("valid");
            assert_eq!(asked.version, expected);
            assert!(!request.headers().contains_key(VERSION));
        }
    }

    #[test]
    fn an_http1_request_crosses_on_http2_and_back() {
        let fallback = Authority::from_static("fallback");
        let mut request = request(Version::HTTP_11, "/p?q", &[("host", "orders.shop:80")]);
        let asked = checked(&mut request, false).expect("valid");
        address(&mut request, &asked, Hop::MeshHttp2, &fallback).expect("addressed");
        assert_eq!(request.uri(), "http://orders.shop:80/p?q");
        assert!(!request.headers().contains_key(HOST));
        let asked = checked(&mut request, true).expect("valid");
        assert_eq!(asked.version, Version::HTTP_11);
        address(&mut request, &asked, Hop::Http1, &fallback).expect("addressed");
        assert_eq!(request.uri(), "/p?q");
        assert_eq!(request.headers()[HOST], "orders.shop:80");
    }

    #[test]
    fn cookie_crumbs_become_one_field() {
        let fallback = Authority::from_static("fallback");
        let mut request = request(
            Version::HTTP_2,
            "http://a/",
            &[("cookie", "a=1"), ("cookie", "b=2")],
        );
        let asked = checked(&mut request, false).expect("valid");
        address(&mut request, &asked, Hop::Http1, &fallback).expect("addressed");
        assert_eq!(request.headers()[COOKIE], "a=1; b=2");
    }
}
