//! What a gateway tells of a client: its address, and the scheme and the host
//! it asked with, as `x-forwarded-for`, `-proto` and `-host`.
//!
//! Anybody can write these fields. With `trusted` 0 what a client says is taken
//! away. With more, that many proxies stand in front of the gateway, each of
//! which appended whom it saw: so that many of the last addresses are kept, and
//! what stands left of them is a stranger's word. It decides and edits a
//! [`HeaderMap`]; it does not know which connection it came on.

use std::fmt::Write;
use std::net::IpAddr;

use http::header::{FORWARDED, HeaderName, HeaderValue};
use http::{HeaderMap, uri::Scheme};

/// Addresses of the client and of the proxies between, the nearest last.
pub const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The scheme the client asked with.
pub const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The host the client asked for.
pub const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Most proxies that can be trusted in front of a gateway.
pub const TRUSTED: usize = 16;

/// How a request came to a gateway.
#[derive(Debug, Clone)]
pub struct Came<'a> {
    /// The other end of its connection.
    pub from: IpAddr,
    /// `http` or `https`.
    pub scheme: &'a Scheme,
    /// Its host, with a port where it had one.
    pub host: Option<&'a str>,
    /// Proxies in front of the gateway whose word counts.
    pub trusted: usize,
}

/// Writes the three fields, and takes away what a stranger said in their place.
pub fn forwarded(headers: &mut HeaderMap, came: &Came<'_>) {
    strip_misspelt(headers);
    let told = (came.trusted > 0).then(|| addresses(headers, came.trusted));
    let mut chain = told.unwrap_or_default();
    if !chain.is_empty() {
        chain.push_str(", ");
    }
    // Writing into a String does not fail.
    let _ = write!(chain, "{}", came.from.to_canonical());
    if let Ok(chain) = HeaderValue::try_from(chain) {
        headers.insert(FOR, chain);
    }
    if came.trusted == 0 {
        headers.remove(FORWARDED);
    }
    let keeps = |headers: &HeaderMap, name: &HeaderName| {
        came.trusted > 0 && headers.get(name).is_some_and(|value| !value.is_empty())
    };
    if !keeps(headers, &PROTO) {
        let scheme = if *came.scheme == Scheme::HTTPS {
            "https"
        } else {
            "http"
        };
        headers.insert(PROTO, HeaderValue::from_static(scheme));
    }
    if !keeps(headers, &HOST) {
        headers.remove(HOST);
        if let Some(Ok(host)) = came.host.map(HeaderValue::from_str) {
            headers.insert(HOST, host);
        }
    }
}

/// Takes away the fields with `_` in the place of `-`: servers that turn names
/// into variables (CGI, WSGI) cannot tell the two apart.
fn strip_misspelt(headers: &mut HeaderMap) {
    let is_misspelt = |name: &&HeaderName| {
        let name = name.as_str();
        name.contains('_')
            && [FOR, PROTO, HOST]
                .iter()
                .any(|own| own.as_str() == name.replace('_', "-"))
    };
    let found: Vec<HeaderName> = headers.keys().filter(is_misspelt).cloned().collect();
    for name in found {
        headers.remove(name);
    }
}

/// The client, in a head that [`forwarded`] has written: the first address.
#[must_use]
pub fn client(headers: &HeaderMap) -> Option<IpAddr> {
    let chain = headers.get(FOR)?.to_str().ok()?;
    chain.split(',').next()?.trim().parse().ok()
}

/// The last `count` addresses of all fields, in their order.
fn addresses(headers: &HeaderMap, count: usize) -> String {
    let said: Vec<&str> = headers
        .get_all(FOR)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|address| !address.is_empty())
        .collect();
    said[said.len().saturating_sub(count)..].join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(said: &[(&'static str, &str)], trusted: usize) -> [Option<String>; 4] {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let came = Came {
            from: IpAddr::from([192, 0, 2, 7]),
            scheme: &Scheme::HTTPS,
            host: Some("shop.example.com:8443"),
            trusted,
        };
        forwarded(&mut headers, &came);
        [FOR, PROTO, HOST, FORWARDED].map(|name| {
            assert!(headers.get_all(&name).iter().count() <= 1, "{name}");
            let value = headers.get(name)?;
            Some(value.to_str().expect("text").to_owned())
        })
    }

    #[test]
    fn no_other_spelling_gets_through() {
        let mut headers = HeaderMap::new();
        for name in [
            "x_forwarded_for",
            "x_forwarded-proto",
            "x-forwarded_host",
            "x_own",
        ] {
            headers.insert(name, HeaderValue::from_static("10.0.0.1"));
        }
        strip_misspelt(&mut headers);
        let left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x_own"]);
    }

    #[test]
    fn the_client_is_the_first_of_the_chain() {
        for (chain, expected) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("2001:db8::1, 192.0.2.7", Some("2001:db8::1")),
            ("unknown, 192.0.2.7", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(FOR, HeaderValue::from_str(chain).expect("a value"));
            let expected = expected.map(|text| text.parse().expect("an address"));
            assert_eq!(client(&headers), expected, "{chain}");
        }
        assert_eq!(client(&HeaderMap::new()), None);
    }

    #[test]
    fn only_the_word_of_trusted_hops_is_kept() {
        let said = [
            ("x-forwarded-for", "1.1.1.1, 2.2.2.2"),
            ("x-forwarded-for", "3.3.3.3"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "elsewhere"),
            ("forwarded", "for=1.1.1.1"),
        ];
        let own = ["192.0.2.7", "https", "shop.example.com:8443"];
        for (said, trusted, expected) in [
            (&[][..], 0, [Some(own[0]), Some(own[1]), Some(own[2]), None]),
            (&said, 0, [Some(own[0]), Some(own[1]), Some(own[2]), None]),
            (&[], 2, [Some(own[0]), Some(own[1]), Some(own[2]), None]),
            (
                &said,
                1,
                [
                    Some("3.3.3.3, 192.0.2.7"),
                    Some("http"),
                    Some("elsewhere"),
                    Some("for=1.1.1.1"),
                ],
            ),
            (
                &said,
                5,
                [
                    Some("1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7"),
                    Some("http"),
                    Some("elsewhere"),
                    Some("for=1.1.1.1"),
                ],
            ),
        ] {
            let expected = expected.map(|text| text.map(str::to_owned));
            assert_eq!(told(said, trusted), expected, "{said:?} of {trusted}");
        }
    }
}
