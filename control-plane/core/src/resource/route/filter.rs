//! `filters`: what is done to requests and their responses on the way. Each
//! names its type and carries the one key of it. Refuses to know what they do.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::BackendObjectRef;
use super::cors::Cors;
use super::header::{HeaderModifier, check_modifier};
use super::{check_hostname, path::never_a_path};
use crate::config::Checker;

/// Filters of one rule or backend, as in Gateway API.
pub const MAX_FILTERS: usize = 16;
/// Bytes of a path that is set.
const MAX_PATH_BYTES: usize = 1024;

/// One filter.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteFilter {
    /// Which of the following it is; that one is set, and no other.
    #[serde(rename = "type")]
    pub kind: FilterType,
    /// Changes the request's headers.
    pub request_header_modifier: Option<HeaderModifier>,
    /// Changes the response's headers.
    pub response_header_modifier: Option<HeaderModifier>,
    /// Answers with another address.
    pub request_redirect: Option<RequestRedirect>,
    /// Another host or path for the backend.
    pub url_rewrite: Option<UrlRewrite>,
    /// Sends copies elsewhere.
    pub request_mirror: Option<RequestMirror>,
    /// Which scripts of other origins may call.
    pub cors: Option<Cors>,
    external_auth: Option<IgnoredAny>,
    extension_ref: Option<IgnoredAny>,
}

/// The types of filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum FilterType {
    /// `requestHeaderModifier`.
    RequestHeaderModifier,
    /// `responseHeaderModifier`.
    ResponseHeaderModifier,
    /// `requestRedirect`.
    RequestRedirect,
    /// `urlRewrite`.
    #[serde(rename = "URLRewrite")]
    UrlRewrite,
    /// `requestMirror`, as often as one likes.
    RequestMirror,
    /// `cors`.
    #[serde(rename = "CORS")]
    Cors,
    /// Refused.
    ExternalAuth,
    /// Refused.
    ExtensionRef,
}

impl FilterType {
    /// Those of an HTTPRoute.
    pub(crate) const HTTP: &[Self] = &[
        Self::RequestHeaderModifier,
        Self::ResponseHeaderModifier,
        Self::RequestRedirect,
        Self::UrlRewrite,
        Self::RequestMirror,
        Self::Cors,
    ];
    /// Those of one backend of an HTTPRoute: none of what is decided before
    /// there is a backend.
    pub(crate) const HTTP_BACKEND: &[Self] = &[
        Self::RequestHeaderModifier,
        Self::ResponseHeaderModifier,
        Self::UrlRewrite,
        Self::RequestMirror,
    ];
    /// Those of a GRPCRoute.
    pub(crate) const GRPC: &[Self] = &[
        Self::RequestHeaderModifier,
        Self::ResponseHeaderModifier,
        Self::RequestMirror,
    ];

    const fn key(self) -> &'static str {
        match self {
            Self::RequestHeaderModifier => "requestHeaderModifier",
            Self::ResponseHeaderModifier => "responseHeaderModifier",
            Self::RequestRedirect => "requestRedirect",
            Self::UrlRewrite => "urlRewrite",
            Self::RequestMirror => "requestMirror",
            Self::Cors => "cors",
            Self::ExternalAuth => "externalAuth",
            Self::ExtensionRef => "extensionRef",
        }
    }
}

impl fmt::Display for FilterType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UrlRewrite => f.write_str("URLRewrite"),
            Self::Cors => f.write_str("CORS"),
            other => fmt::Debug::fmt(other, f),
        }
    }
}

/// Another address for the client; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRedirect {
    /// The scheme.
    pub scheme: Option<RedirectScheme>,
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port; by the scheme if one is given, else the listener's.
    pub port: Option<u16>,
    /// 301, 302, 303, 307 or 308; 302 if left out.
    pub status_code: Option<u16>,
}

/// A scheme to redirect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RedirectScheme {
    /// `http`
    Http,
    /// `https`
    Https,
}

/// Another host or path for the backend; what is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UrlRewrite {
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// Another path.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PathModifier {
    /// Which of the following it is.
    #[serde(rename = "type")]
    pub kind: PathModifierType,
    /// This path.
    pub replace_full_path: Option<String>,
    /// This instead of the prefix that matched; may be empty.
    pub replace_prefix_match: Option<String>,
}

/// How a path is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PathModifierType {
    /// Whole.
    ReplaceFullPath,
    /// As far as it matched.
    ReplacePrefixMatch,
}

/// Where copies go, and of how many requests; of all if neither share is given.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestMirror {
    /// Where to.
    pub backend_ref: BackendObjectRef,
    percent: Option<u32>,
    fraction: Option<MirrorFraction>,
}

/// A share of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct MirrorFraction {
    numerator: u32,
    denominator: Option<u32>,
}

impl RequestMirror {
    /// How many of a million requests.
    #[must_use]
    pub fn millionths(&self) -> u32 {
        let (part, whole) = match (self.percent, self.fraction) {
            (Some(percent), _) => (percent, 100),
            (None, Some(share)) => (share.numerator, share.denominator.unwrap_or(100)),
            (None, None) => (1, 1),
        };
        let millionths = u64::from(part) * 1_000_000 / u64::from(whole.max(1));
        // What is more than none, and too small to count, is one of a million.
        let least = u64::from(part > 0);
        u32::try_from(millionths.max(least)).map_or(1_000_000, |share| share.min(1_000_000))
    }
}

/// Checks the filters of a rule or a backend. `prefixed`: the rule has one
/// match, of a prefix, which a path can be rewritten by.
pub(crate) fn check_filters(
    filters: &[RouteFilter],
    allowed: &[FilterType],
    prefixed: bool,
    base: &str,
    check: &mut Checker<'_>,
) {
    let path = format!("{base}.filters");
    let count = filters.len();
    check.require(
        count <= MAX_FILTERS,
        path.as_str(),
        format!("expected at most {MAX_FILTERS} filters, found {count}"),
    );
    let mut seen = BTreeSet::new();
    for (index, filter) in filters.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let kind = filter.kind;
        if allowed.contains(&kind) {
            filter.check(&path, prefixed, check);
        } else if FilterType::HTTP.contains(&kind) {
            let known: Vec<_> = allowed.iter().map(|it| format!("`{it}`")).collect();
            check.error_with_help(
                format!("{path}.type"),
                format!("`{kind}` is no filter that can stand here"),
                format!("known filters: {}", known.join(", ")),
            );
        } else {
            check.error(format!("{path}.type"), format!("`{kind}` is not supported"));
        }
        check.require(
            seen.insert(kind) || kind == FilterType::RequestMirror,
            format!("{path}.type"),
            format!("the filter `{kind}` is given twice"),
        );
    }
    check.require(
        !(seen.contains(&FilterType::RequestRedirect) && seen.contains(&FilterType::UrlRewrite)),
        path,
        "a request is redirected or rewritten, not both",
    );
}

impl RouteFilter {
    fn check(&self, path: &str, prefixed: bool, check: &mut Checker<'_>) {
        let given = [
            (
                FilterType::RequestHeaderModifier,
                self.request_header_modifier.is_some(),
            ),
            (
                FilterType::ResponseHeaderModifier,
                self.response_header_modifier.is_some(),
            ),
            (FilterType::RequestRedirect, self.request_redirect.is_some()),
            (FilterType::UrlRewrite, self.url_rewrite.is_some()),
            (FilterType::RequestMirror, self.request_mirror.is_some()),
            (FilterType::Cors, self.cors.is_some()),
            (FilterType::ExternalAuth, self.external_auth.is_some()),
            (FilterType::ExtensionRef, self.extension_ref.is_some()),
        ];
        for (kind, is_given) in given {
            let key = kind.key();
            if kind == self.kind {
                let message = format!("the key `{key}` is missing: a filter of type `{kind}`");
                check.require(is_given, path, message);
            } else if is_given {
                let message = format!("the filter is of type `{}`", self.kind);
                check.error(format!("{path}.{key}"), message);
            }
        }
        let path = format!("{path}.{}", self.kind.key());
        let modifiers = [
            &self.request_header_modifier,
            &self.response_header_modifier,
        ];
        for modifier in modifiers.into_iter().flatten() {
            check_modifier(modifier, &path, check);
        }
        if let Some(redirect) = &self.request_redirect {
            redirect.check(&path, prefixed, check);
        }
        if let Some(rewrite) = &self.url_rewrite {
            check_target(
                rewrite.hostname.as_deref(),
                rewrite.path.as_ref(),
                prefixed,
                &path,
                check,
            );
        }
        if let Some(mirror) = &self.request_mirror {
            mirror.check(&path, check);
        }
        if let Some(cors) = &self.cors {
            cors.check(&path, check);
        }
    }
}

impl RequestRedirect {
    fn check(&self, path: &str, prefixed: bool, check: &mut Checker<'_>) {
        check_target(
            self.hostname.as_deref(),
            self.path.as_ref(),
            prefixed,
            path,
            check,
        );
        check.require(
            self.port != Some(0),
            format!("{path}.port"),
            "expected a port from 1 to 65535, found `0`",
        );
        let known = [301, 302, 303, 307, 308];
        if let Some(status) = self.status_code {
            check.require(
                known.contains(&status),
                format!("{path}.statusCode"),
                format!("expected 301, 302, 303, 307 or 308, found `{status}`"),
            );
        }
    }
}

fn check_target(
    hostname: Option<&str>,
    modifier: Option<&PathModifier>,
    prefixed: bool,
    path: &str,
    check: &mut Checker<'_>,
) {
    if let Some(hostname) = hostname {
        let path = format!("{path}.hostname");
        match hostname.contains('*') {
            true => check.error(path, format!("expected one host, found `{hostname}`")),
            false => check_hostname(check, path, hostname),
        }
    }
    if let Some(modifier) = modifier {
        modifier.check(&format!("{path}.path"), prefixed, check);
    }
}

impl PathModifier {
    fn check(&self, path: &str, prefixed: bool, check: &mut Checker<'_>) {
        let given = [
            (
                PathModifierType::ReplaceFullPath,
                "replaceFullPath",
                &self.replace_full_path,
            ),
            (
                PathModifierType::ReplacePrefixMatch,
                "replacePrefixMatch",
                &self.replace_prefix_match,
            ),
        ];
        for (kind, key, value) in given {
            if kind != self.kind {
                check.require(
                    value.is_none(),
                    format!("{path}.{key}"),
                    format!("the change is of type `{:?}`", self.kind),
                );
                continue;
            }
            let Some(value) = value else {
                check.error(path, format!("the key `{key}` is missing"));
                continue;
            };
            let may_be_empty = kind == PathModifierType::ReplacePrefixMatch;
            if let Some(reason) = never_a_path(value, MAX_PATH_BYTES)
                && !(value.is_empty() && may_be_empty)
            {
                check.error(format!("{path}.{key}"), reason);
            }
        }
        check.require(
            prefixed || self.kind != PathModifierType::ReplacePrefixMatch,
            format!("{path}.type"),
            "a prefix is replaced where the rule has exactly one match, of type `PathPrefix`",
        );
    }
}

impl RequestMirror {
    fn check(&self, path: &str, check: &mut Checker<'_>) {
        self.backend_ref.check(&format!("{path}.backendRef"), check);
        check.require(
            self.percent.is_none() || self.fraction.is_none(),
            path,
            "expected at most one of `percent` and `fraction`",
        );
        check.require(
            self.percent.is_none_or(|percent| percent <= 100),
            format!("{path}.percent"),
            "expected a whole number from 0 to 100 (per cent)",
        );
        if let Some(MirrorFraction {
            numerator,
            denominator,
        }) = self.fraction
        {
            let whole = denominator.unwrap_or(100);
            check.require(
                whole > 0,
                format!("{path}.fraction.denominator"),
                "expected at least 1, found `0`",
            );
            check.require(
                whole == 0 || numerator <= whole,
                format!("{path}.fraction.numerator"),
                format!("expected at most the denominator ({whole}), found `{numerator}`"),
            );
        }
    }
}
