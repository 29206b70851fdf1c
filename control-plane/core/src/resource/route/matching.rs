//! `matches`: what a request must have to meet a rule. Refuses to know which
//! of several matches goes first.

use std::collections::BTreeSet;

use selvage_api::pattern;
use serde::Deserialize;

use super::header::{MAX_HEADERS, is_header_name, is_header_value, is_stripped};
use super::path::never_a_path;
use crate::config::Checker;
use crate::nearest::nearest;

/// Matches of one rule, as in Gateway API.
pub const MAX_MATCHES: usize = 64;
/// Matches of one route over all its rules, as in Gateway API.
pub const MAX_ROUTE_MATCHES: usize = 128;
/// Query parameters of one match.
const MAX_PARAMETERS: usize = 16;
/// Bytes of a path, of a query parameter's value, of a gRPC name.
const MAX_TEXT_BYTES: usize = 1024;

/// The methods there are.
pub(crate) const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// One match of an HTTPRoute: all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteMatch {
    /// The path; any if left out.
    pub path: Option<HttpPathMatch>,
    /// Header fields.
    pub headers: Vec<FieldMatch>,
    /// Query parameters.
    pub query_params: Vec<FieldMatch>,
    /// The method; any if left out.
    pub method: Option<String>,
}

/// A path to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct HttpPathMatch {
    /// How to compare.
    #[serde(rename = "type", default)]
    pub kind: PathMatchType,
    /// With what.
    #[serde(default = "root")]
    pub value: String,
}

fn root() -> String {
    "/".to_owned()
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum PathMatchType {
    /// Whole.
    Exact,
    /// By whole segments from the start.
    #[default]
    PathPrefix,
    /// Whole, by a regular expression.
    RegularExpression,
}

/// A header field or a query parameter to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FieldMatch {
    /// How to compare.
    #[serde(rename = "type", default)]
    pub kind: MatchType,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// How a text is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum MatchType {
    /// As it is.
    #[default]
    Exact,
    /// Whole, by a regular expression.
    RegularExpression,
}

/// One match of a GRPCRoute: all of it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct GrpcRouteMatch {
    /// The call; any if left out.
    pub method: Option<GrpcMethodMatch>,
    /// Header fields.
    pub headers: Vec<FieldMatch>,
}

/// A gRPC call to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GrpcMethodMatch {
    /// How to compare.
    #[serde(rename = "type", default)]
    pub kind: MatchType,
    /// The service with its package; any if left out.
    #[serde(default)]
    pub service: String,
    /// The method; any if left out.
    #[serde(default)]
    pub method: String,
}

impl HttpRouteMatch {
    /// Whether the path is compared by a prefix, which then can be replaced.
    pub(crate) fn is_prefix(&self) -> bool {
        self.path
            .as_ref()
            .is_none_or(|path| path.kind == PathMatchType::PathPrefix)
    }

    pub(crate) fn check(&self, path: &str, check: &mut Checker<'_>) {
        if let Some(HttpPathMatch { kind, value }) = &self.path {
            let path = format!("{path}.path.value");
            if *kind == PathMatchType::RegularExpression {
                check_pattern(value, path, check);
            } else if let Some(reason) = never_a_path(value, MAX_TEXT_BYTES) {
                check.error(path, reason);
            }
        }
        if let Some(method) = &self.method
            && !METHODS.contains(&method.as_str())
        {
            let help = match nearest(method, METHODS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known methods: {}", METHODS.join(", ")),
            };
            let message = format!("expected an HTTP method, found `{method}`");
            check.error_with_help(format!("{path}.method"), message, help);
        }
        check_headers(&self.headers, path, check);
        let path = format!("{path}.queryParams");
        let count = self.query_params.len();
        check.require(
            count <= MAX_PARAMETERS,
            path.as_str(),
            format!("expected at most {MAX_PARAMETERS} query parameters, found {count}"),
        );
        let mut seen = BTreeSet::new();
        for (index, field) in self.query_params.iter().enumerate() {
            let path = format!("{path}[{index}]");
            let name = &field.name;
            if !is_header_name(name) {
                let message = format!("expected the name of a query parameter, found `{name}`");
                check.error(format!("{path}.name"), message);
            } else if !seen.insert(name) {
                let message = format!("the query parameter `{name}` is given twice");
                check.error(format!("{path}.name"), message);
            }
            let fits = (1..=MAX_TEXT_BYTES).contains(&field.value.len());
            let message = format!("expected 1 to {MAX_TEXT_BYTES} bytes");
            field.check_value(fits, message, &path, check);
        }
    }
}

impl FieldMatch {
    /// Checks the value, which as a text must be what the caller says.
    fn check_value(&self, fits: bool, expected: String, path: &str, check: &mut Checker<'_>) {
        let path = format!("{path}.value");
        match self.kind {
            MatchType::Exact => check.require(fits, path, expected),
            MatchType::RegularExpression => check_pattern(&self.value, path, check),
        }
    }
}

fn check_headers(headers: &[FieldMatch], path: &str, check: &mut Checker<'_>) {
    let path = format!("{path}.headers");
    let count = headers.len();
    check.require(
        count <= MAX_HEADERS,
        path.as_str(),
        format!("expected at most {MAX_HEADERS} headers, found {count}"),
    );
    let mut seen = BTreeSet::new();
    for (index, field) in headers.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let name = &field.name;
        if !is_header_name(name) {
            let message = format!("expected the name of a header, found `{name}`");
            check.error(format!("{path}.name"), message);
        } else if !seen.insert(name.to_ascii_lowercase()) {
            let message = format!("the header `{name}` is given twice");
            check.error(format!("{path}.name"), message);
        } else if is_stripped(name) {
            let message = format!("`{name}` is taken away before routes are looked at");
            check.error(format!("{path}.name"), message);
        }
        let expected = "expected 1 to 4096 visible ASCII characters, without spaces around them";
        let fits = is_header_value(&field.value);
        field.check_value(fits, expected.to_owned(), &path, check);
    }
}

impl GrpcRouteMatch {
    pub(crate) fn check(&self, path: &str, check: &mut Checker<'_>) {
        if let Some(method) = &self.method {
            method.check(&format!("{path}.method"), check);
        }
        check_headers(&self.headers, path, check);
    }
}

impl GrpcMethodMatch {
    fn check(&self, path: &str, check: &mut Checker<'_>) {
        check.require(
            !(self.service.is_empty() && self.method.is_empty()),
            path,
            "expected `service`, `method` or both; leave `method` out to match any call",
        );
        let whole = self.service.strip_prefix('.').unwrap_or(&self.service);
        let named = [
            (
                "service",
                &self.service,
                whole.split('.').all(is_identifier),
            ),
            ("method", &self.method, is_identifier(&self.method)),
        ];
        for (key, value, is_name) in named {
            let path = format!("{path}.{key}");
            if value.is_empty() {
                continue;
            }
            match self.kind {
                MatchType::RegularExpression => check_pattern(value, path, check),
                MatchType::Exact => check.require(
                    is_name && value.len() <= MAX_TEXT_BYTES,
                    path,
                    format!("expected the name of a gRPC {key}, found `{value}`"),
                ),
            }
        }
    }
}

/// A letter or `_`, then letters, digits and `_` (Protocol Buffers).
fn is_identifier(text: &str) -> bool {
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    starts && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn check_pattern(text: &str, path: String, check: &mut Checker<'_>) {
    if text.is_empty() {
        check.error(path, "expected a regular expression, found none");
    } else if let Err(invalid) = pattern::compile(text) {
        check.error(path, invalid.to_string());
    }
}
