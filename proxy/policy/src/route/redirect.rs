//! Where a redirect sends the client.
//!
//! Meets the request after its rule is chosen, instead of a backend. The
//! address is always whole: a relative one that begins with two slashes would
//! lead to another host. Ports follow Gateway API: the one given, else that of
//! a given scheme, else the listener's; a scheme's own port is not written.

use http::HeaderValue;
use http::uri::Scheme;

use super::Redirect;
use super::edit::with_query;

/// A request, as far as a redirect takes from it.
#[derive(Debug, Clone, Copy)]
pub struct Addressed<'a> {
    /// What the client speaks: HTTPS where its TLS ends here.
    pub scheme: &'a Scheme,
    /// The host it asked for, without a port; an IPv6 address in brackets.
    pub host: &'a str,
    /// The port it reached, as it sees it: of the listener or of the service.
    pub port: u16,
    /// Its canonical path.
    pub path: &'a str,
    /// Its query, as it was sent.
    pub query: Option<&'a str>,
    /// The prefix of the path that matched, where one did.
    pub prefix: Option<&'a str>,
}

impl Redirect {
    /// The field `Location`; `None` where the request has no host, and the
    /// redirect gives none, or what it has fits into no header.
    #[must_use]
    pub fn location(&self, asked: &Addressed<'_>) -> Option<HeaderValue> {
        let scheme = self.scheme.as_ref().unwrap_or(asked.scheme);
        let host = self.hostname.as_deref().unwrap_or(asked.host);
        if host.is_empty() {
            return None;
        }
        let path = match &self.path {
            Some(edit) => edit.of(asked.path, asked.prefix),
            None => asked.path.into(),
        };
        // `OPTIONS *` asks about no path.
        let path = if path == "*" { "/" } else { &path };
        let target = with_query(path, asked.query);
        let location = match self.port(scheme, asked.port) {
            Some(port) => format!("{scheme}://{host}:{port}{target}"),
            None => format!("{scheme}://{host}{target}"),
        };
        HeaderValue::try_from(location).ok()
    }

    /// The port to be written.
    fn port(&self, scheme: &Scheme, listener: u16) -> Option<u16> {
        let own = own_port(scheme);
        let of_given_scheme = || self.scheme.as_ref().and_then(own_port);
        let port = self.port.or_else(of_given_scheme).unwrap_or(listener);
        (Some(port) != own).then_some(port)
    }
}

/// The port that a scheme stands for.
fn own_port(scheme: &Scheme) -> Option<u16> {
    match scheme.as_str() {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;
    use crate::route::PathEdit;

    fn redirect(
        scheme: Option<Scheme>,
        hostname: Option<&str>,
        port: Option<u16>,
        path: Option<PathEdit>,
    ) -> Redirect {
        Redirect {
            scheme,
            hostname: hostname.map(Into::into),
            path,
            port,
            status: StatusCode::FOUND,
        }
    }

    fn asked<'a>(
        scheme: &'a Scheme,
        port: u16,
        path: &'a str,
        query: Option<&'a str>,
    ) -> Addressed<'a> {
        Addressed {
            scheme,
            host: "shop.example",
            port,
            path,
            query,
            prefix: Some("/v1"),
        }
    }

    fn location(redirect: &Redirect, asked: &Addressed<'_>) -> String {
        let value = redirect.location(asked).expect("an address");
        value.to_str().expect("ASCII").to_owned()
    }

    #[test]
    fn a_scheme_s_own_port_is_not_written() {
        let (http, https) = (Scheme::HTTP, Scheme::HTTPS);
        let table = [
            // the listener's scheme and port; the redirect's; expected
            (&http, 80, None, None, "http://a.example/x"),
            (&http, 80, None, Some(80), "http://a.example/x"),
            (&http, 80, None, Some(8080), "http://a.example:8080/x"),
            (&http, 80, Some(&https), None, "https://a.example/x"),
            (&http, 80, Some(&https), Some(443), "https://a.example/x"),
            (
                &http,
                80,
                Some(&https),
                Some(8443),
                "https://a.example:8443/x",
            ),
            (&http, 80, Some(&https), Some(80), "https://a.example:80/x"),
            (&http, 8080, None, None, "http://a.example:8080/x"),
            (&http, 8080, None, Some(80), "http://a.example/x"),
            (&http, 8080, Some(&https), None, "https://a.example/x"),
            (&http, 8080, Some(&http), None, "http://a.example/x"),
            (&http, 443, None, None, "http://a.example:443/x"),
            (&https, 443, None, None, "https://a.example/x"),
            (&https, 443, None, Some(443), "https://a.example/x"),
            (&https, 443, None, Some(8443), "https://a.example:8443/x"),
            (&https, 443, Some(&http), None, "http://a.example/x"),
            (&https, 443, Some(&http), Some(80), "http://a.example/x"),
            (
                &https,
                443,
                Some(&http),
                Some(8080),
                "http://a.example:8080/x",
            ),
            (&https, 8443, None, None, "https://a.example:8443/x"),
        ];
        for (scheme, listener, given, port, expected) in table {
            let it = redirect(given.cloned(), Some("a.example"), port, None);
            assert_eq!(
                location(&it, &asked(scheme, listener, "/x", None)),
                expected,
                "{scheme} {listener} {given:?} {port:?}"
            );
        }
    }

    #[test]
    fn what_is_not_given_stays_as_the_request_has_it() {
        let prefix = |text: &str| Some(PathEdit::Prefix(text.into()));
        let full = |text: &str| Some(PathEdit::Full(text.into()));
        let table = [
            (
                redirect(None, None, None, None),
                "/v1/a",
                Some("b=c"),
                "http://shop.example/v1/a?b=c",
            ),
            (
                redirect(None, Some("b.example"), None, None),
                "/v1",
                None,
                "http://b.example/v1",
            ),
            (
                redirect(None, None, None, prefix("/v2")),
                "/v1/a",
                Some("q"),
                "http://shop.example/v2/a?q",
            ),
            (
                redirect(None, None, None, prefix("/")),
                "/v1",
                None,
                "http://shop.example/",
            ),
            (
                redirect(None, None, None, full("/whole")),
                "/v1/a",
                Some("q=/"),
                "http://shop.example/whole?q=/",
            ),
            (
                redirect(None, None, None, prefix("/")),
                "/v1//evil.example",
                None,
                "http://shop.example//evil.example",
            ),
            (
                redirect(None, None, None, None),
                "*",
                None,
                "http://shop.example/",
            ),
        ];
        for (it, path, query, expected) in table {
            assert_eq!(
                location(&it, &asked(&Scheme::HTTP, 80, path, query)),
                expected
            );
        }
        let six = Addressed {
            host: "[::1]",
            ..asked(&Scheme::HTTP, 8080, "/", None)
        };
        assert_eq!(
            location(&redirect(None, None, None, None), &six),
            "http://[::1]:8080/"
        );
    }

    #[test]
    fn without_a_host_there_is_no_address() {
        let nowhere = Addressed {
            host: "",
            ..asked(&Scheme::HTTP, 80, "//evil.example", None)
        };
        assert_eq!(redirect(None, None, None, None).location(&nowhere), None);
        let it = redirect(None, Some("b.example"), None, None);
        assert_eq!(location(&it, &nowhere), "http://b.example//evil.example");
    }

    proptest! {
        #[test]
        fn it_leads_to_the_host_that_is_meant_or_nowhere(
            host in "\\PC{0,8}", path in "\\PC{0,12}", query in proptest::option::of("\\PC{0,8}"), to in proptest::option::of("\\PC{0,8}"),
        ) {
            let it = redirect(None, None, Some(8080), to.map(|to| PathEdit::Prefix(to.into())));
            let from = Addressed { scheme: &Scheme::HTTP, host: &host, port: 80, path: &path, query: query.as_deref(), prefix: Some("/") };
            if let Some(value) = it.location(&from) {
                let expected = format!("http://{host}:8080");
                prop_assert!(value.as_bytes().starts_with(expected.as_bytes()));
            }
        }
    }
}
