//! Which scripts of other origins may call: the CORS protocol of the Fetch
//! standard, as the filter of Gateway API (GEP-1767) has it.
//!
//! Asked once per request of a rule with such a filter. A preflight is answered
//! here and goes to no backend; other requests go on, and their response says
//! who may read it. What the backend says itself is replaced: the route decides.
//!
//! An origin that is allowed is named back, never `*`: a response with `*` is
//! worth nothing to a request with credentials, and `Vary: Origin` keeps caches
//! honest. An origin that is not allowed hears nothing, and is refused by its
//! own browser. It knows no backends.

use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::Cors;

/// Any origin, method or header.
const ANY: &str = "*";

/// What a request of some origin meets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visit {
    /// It asks whether it may call: answered 200 with these headers and no body.
    Preflight(HeaderMap),
    /// It goes on; this origin may read its response.
    Allowed(HeaderValue),
    /// It goes on; no other origin may read its response.
    Unshared,
}

impl Cors {
    /// What a request meets.
    #[must_use]
    pub fn judge(&self, method: &Method, headers: &HeaderMap) -> Visit {
        let origin = sole(headers, &ORIGIN);
        let allowed = origin.filter(|origin| self.allows(origin));
        let asks = method == Method::OPTIONS && origin.is_some();
        match (headers.get(ACCESS_CONTROL_REQUEST_METHOD), allowed) {
            (Some(wanted), Some(origin)) if asks => {
                Visit::Preflight(self.permission(origin, wanted, headers))
            }
            (Some(_), None) if asks => Visit::Preflight(varying()),
            (_, Some(origin)) => Visit::Allowed(origin.clone()),
            (_, None) => Visit::Unshared,
        }
    }

    /// Says in a response who may read it: `allowed`, or no other origin.
    pub fn share(&self, allowed: Option<&HeaderValue>, response: &mut HeaderMap) {
        for name in OURS {
            response.remove(name);
        }
        vary(response);
        if let Some(origin) = allowed {
            self.name(origin, response);
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        // Nothing listed: every origin, as the specification's own suite has it.
        let lists = |origin| {
            self.allow_origins
                .iter()
                .any(|listed| is_meant(listed, origin))
        };
        let origin = origin.to_str().unwrap_or_default();
        !origin.is_empty() && (self.allow_origins.is_empty() || lists(origin))
    }

    /// The answer to a preflight.
    fn permission(
        &self,
        origin: &HeaderValue,
        method: &HeaderValue,
        asked: &HeaderMap,
    ) -> HeaderMap {
        let mut answer = varying();
        self.name(origin, &mut answer);
        let wanted = asked.get(ACCESS_CONTROL_REQUEST_HEADERS);
        let lists = [
            (
                ACCESS_CONTROL_ALLOW_METHODS,
                &self.allow_methods,
                Some(method),
            ),
            (ACCESS_CONTROL_ALLOW_HEADERS, &self.allow_headers, wanted),
        ];
        for (name, listed, wanted) in lists {
            let value = match has_any(listed) {
                true => wanted.cloned(),
                false => list(listed),
            };
            if let Some(value) = value {
                answer.insert(name, value);
            }
        }
        answer.insert(
            ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from(self.max_age.as_secs()),
        );
        answer
    }

    /// What preflights and responses say alike.
    fn name(&self, origin: &HeaderValue, response: &mut HeaderMap) {
        let exposed = match (has_any(&self.expose_headers), self.allow_credentials) {
            // With credentials `*` would be the name of a header.
            (true, true) => names(response),
            (true, false) => Some(HeaderValue::from_static(ANY)),
            (false, _) => list(&self.expose_headers),
        };
        if let Some(exposed) = exposed {
            response.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
        }
        response.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.allow_credentials {
            let yes = HeaderValue::from_static("true");
            response.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
    }
}

/// The fields that only the filter sets.
const OURS: [HeaderName; 6] = [
    ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_ALLOW_CREDENTIALS,
    ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_HEADERS,
    ACCESS_CONTROL_EXPOSE_HEADERS,
    ACCESS_CONTROL_MAX_AGE,
];

/// The value of a field that a request must not have twice.
fn sole<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

fn has_any(listed: &[Arc<str>]) -> bool {
    listed.iter().any(|each| **each == *ANY)
}

fn list(listed: &[Arc<str>]) -> Option<HeaderValue> {
    let listed = listed.join(", ");
    HeaderValue::try_from(listed)
        .ok()
        .filter(|value| !value.is_empty())
}

/// All fields of a response that a script may be shown.
fn names(response: &HeaderMap) -> Option<HeaderValue> {
    let shown = response
        .keys()
        .filter(|name| **name != SET_COOKIE && **name != VARY);
    let shown: Vec<&str> = shown.map(HeaderName::as_str).collect();
    HeaderValue::try_from(shown.join(", "))
        .ok()
        .filter(|value| !value.is_empty())
}

fn varying() -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    vary(&mut headers);
    headers
}

/// What is said depends on the origin, also where nothing is said.
fn vary(headers: &mut HeaderMap) {
    let mentions = |value: &HeaderValue| {
        let mut names = value
            .as_bytes()
            .split(|byte| *byte == b',')
            .map(<[u8]>::trim_ascii);
        names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"origin"))
    };
    if !headers.get_all(VARY).iter().any(mentions) {
        headers.append(VARY, HeaderValue::from_static("origin"));
    }
}

/// Whether a listed origin, which may hold `*` in its host, means this one.
fn is_meant(listed: &str, origin: &str) -> bool {
    if listed == ANY {
        return true;
    }
    let (Some(listed), Some(origin)) = (Origin::parse(listed), Origin::parse(origin)) else {
        return false;
    };
    listed.scheme.eq_ignore_ascii_case(origin.scheme)
        && listed.port == origin.port
        && covers(listed.host, origin.host)
}

/// `scheme://host[:port]`, in parts.
struct Origin<'a> {
    scheme: &'a str,
    host: &'a str,
    /// As text; the scheme's own where none is written.
    port: Option<&'a str>,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let (host, written) = match rest.rsplit_once(':') {
            // The colons of an IPv6 address stand within brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (rest, None),
        };
        let own = [("http", "80"), ("https", "443")];
        let own = own
            .iter()
            .find(|(name, _)| scheme.eq_ignore_ascii_case(name));
        let port = written.or(own.map(|(_, port)| *port));
        (!host.is_empty()).then_some(Self { scheme, host, port })
    }
}

/// Whether `host` is what `pattern` says, in which `*` stands for any text.
/// Takes the first place for each piece between two stars: no going back.
fn covers(pattern: &str, host: &str) -> bool {
    let same = |at: &[u8], piece: &str| at.eq_ignore_ascii_case(piece.as_bytes());
    let host = host.as_bytes();
    let Some((first, rest)) = pattern.split_once('*') else {
        return same(host, pattern);
    };
    let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
    if host.len() < first.len() + last.len() {
        return false;
    }
    let (head, tail) = host.split_at(first.len());
    let (mut body, end) = tail.split_at(tail.len() - last.len());
    same(head, first)
        && same(end, last)
        && middle
            .split('*')
            .filter(|piece| !piece.is_empty())
            .all(|piece| {
                let at = body
                    .windows(piece.len())
                    .position(|window| same(window, piece));
                at.inspect(|at| body = &body[at + piece.len()..]).is_some()
            })
}

#[cfg(test)]
mod tests;
