//! Whether a request has what a match asks for: each condition by itself, read
//! from the request as it stands, without copying it.
//!
//! Several header fields of one name count as one, joined by commas (RFC 9110
//! §5.2); a regular expression is never tried on one that is not UTF-8. The
//! first query parameter of a name counts, percent-decoded; `+` stays a plus,
//! as in a URI and in Envoy, for only forms mean a space by it.

use http::{HeaderMap, HeaderName};
use regex::Regex;

use super::{Asked, GrpcMatch, HeaderMatch, Hostname, Match, PathMatch, QueryMatch, TextMatch};

/// What a pattern may compile to, and what matching it may keep, in bytes, so
/// that no route takes a proxy's memory.
pub const PATTERN_BYTES: usize = 256 << 10;

/// How a pattern is made to match a text as a whole.
const WHOLE: (&str, &str) = (r"\A(?:", r")\z");

/// A pattern that matches texts as a whole, in time linear in their length.
///
/// # Errors
/// Where it is no regular expression, or compiles to more than [`PATTERN_BYTES`].
pub fn whole(pattern: &str) -> Result<Regex, regex::Error> {
    // By itself first: what only closes a group of ours is no pattern.
    bounded(pattern)?;
    bounded(&format!("{}{pattern}{}", WHOLE.0, WHOLE.1))
}

fn bounded(pattern: &str) -> Result<Regex, regex::Error> {
    regex::RegexBuilder::new(pattern)
        .size_limit(PATTERN_BYTES)
        .dfa_size_limit(PATTERN_BYTES)
        .build()
}

/// The pattern that [`whole`] was given.
#[must_use]
pub fn pattern(regex: &Regex) -> &str {
    let text = regex.as_str();
    text.strip_prefix(WHOLE.0)
        .and_then(|text| text.strip_suffix(WHOLE.1))
        .unwrap_or(text)
}

impl Match {
    /// Takes every request.
    #[must_use]
    pub const fn every() -> Self {
        Self {
            path: PathMatch::Any,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        }
    }

    /// The first condition beside the path that a request fails.
    pub(super) fn fails(&self, asked: &Asked<'_>) -> Option<Failed<'_>> {
        if self.method.as_ref().is_some_and(|it| it != asked.method) {
            return Some(Failed::Method);
        }
        let header = self.headers.iter().find(|it| !it.takes(asked.headers));
        let query = || self.query.iter().find(|it| !it.takes(asked.query));
        header
            .map(|it| Failed::Header(&it.name))
            .or_else(|| query().map(|it| Failed::Query(&it.name)))
    }
}

/// A condition beside the path.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failed<'t> {
    Method,
    Header(&'t HeaderName),
    Query(&'t str),
}

impl Hostname {
    /// Whether a host is meant; compared without case.
    #[must_use]
    pub fn takes(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(suffix) => {
                let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
                let before = host.len().checked_sub(suffix.len());
                before.is_some_and(|at| at > 0 && host[at..].eq_ignore_ascii_case(suffix))
            }
        }
    }
}

impl PathMatch {
    /// Whether a canonical path is meant.
    #[must_use]
    pub fn takes(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(whole) => path == &**whole,
            Self::Prefix(prefix) => is_below(path, prefix),
            Self::Regex(regex) => regex.is_match(path),
            Self::Grpc(call) => call.takes(path),
        }
    }
}

/// Whether a path is `prefix` or lies below it, by whole segments.
fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/"
        || path
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Service and method of the path of a gRPC call.
pub(super) fn grpc_call(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix('/')?.rsplit_once('/')
}

impl GrpcMatch {
    fn takes(&self, path: &str) -> bool {
        let wanted = |wanted: &Option<TextMatch>, text: &str| {
            wanted.as_ref().is_none_or(|it| it.takes(text.as_bytes()))
        };
        grpc_call(path).is_some_and(|(service, method)| {
            wanted(&self.service, service) && wanted(&self.method, method)
        })
    }
}

impl HeaderMatch {
    fn takes(&self, headers: &HeaderMap) -> bool {
        let mut fields = headers.get_all(&self.name).iter();
        let Some(first) = fields.next() else {
            return false;
        };
        let Some(second) = fields.next() else {
            return self.value.takes(first.as_bytes());
        };
        let mut joined = first.as_bytes().to_vec();
        for field in [second].into_iter().chain(fields) {
            joined.push(b',');
            joined.extend_from_slice(field.as_bytes());
        }
        self.value.takes(&joined)
    }
}

impl QueryMatch {
    fn takes(&self, query: Option<&str>) -> bool {
        let value = parameter(query.unwrap_or_default(), &self.name);
        value.is_some_and(|value| match &self.value {
            TextMatch::Exact(wanted) => is_decoded(value, wanted.as_bytes()),
            plain if !value.contains('%') => plain.takes(value.as_bytes()),
            encoded => encoded.takes(&decoded(value).collect::<Vec<u8>>()),
        })
    }
}

/// The parameters of a query, encoded as they are.
pub(super) fn parameters(query: &str) -> impl Iterator<Item = (&str, &str)> + use<'_> {
    query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// The first parameter of a name, encoded as it is.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut all = parameters(query);
    let named = all.find(|(encoded, _)| is_decoded(encoded, name.as_bytes()));
    named.map(|(_, value)| value)
}

/// Whether an encoded text means `wanted`.
fn is_decoded(encoded: &str, wanted: &[u8]) -> bool {
    // Decoding never makes a text longer.
    encoded.len() >= wanted.len() && decoded(encoded).eq(wanted.iter().copied())
}

/// The bytes that a text means; a percent sign without two digits is itself.
pub(super) fn decoded(text: &str) -> impl Iterator<Item = u8> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let byte = *bytes.get(at)?;
        at += 1;
        if byte != b'%' {
            return Some(byte);
        }
        let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
        let (Some(high), Some(low)) = (digit(at), digit(at + 1)) else {
            return Some(byte);
        };
        at += 2;
        u8::try_from(high << 4 | low).ok()
    })
}

impl TextMatch {
    /// Whether a text is meant.
    #[must_use]
    pub fn takes(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == text,
            Self::Regex(regex) => std::str::from_utf8(text).is_ok_and(|it| regex.is_match(it)),
        }
    }
}
