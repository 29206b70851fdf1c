//! `HTTPRoute`: where HTTP requests go. Refuses to know other resources.

use serde::Deserialize;

use super::call_policy::CallPolicy;
use super::route::filter::{FilterType, RouteFilter, check_filters};
use super::route::matching::{HttpRouteMatch, MAX_MATCHES, MAX_ROUTE_MATCHES};
use super::route::resilience::{self, RouteRetry, RouteTimeouts};
use super::route::session::SessionPersistence;
use super::route::{
    BackendObjectRef, HttpBackendRef, ParentRef, check_backends, check_hostnames, check_parents,
    check_rule_names,
};
use crate::config::Checker;

/// `spec` of a `HTTPRoute`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// What it is attached to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// The hosts it is for, at a gateway; every host if left out.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its rules; one that takes every request if left out.
    #[serde(default = "every")]
    pub rules: Vec<HttpRouteRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteRule {
    /// Its name, unique in its route.
    pub name: Option<String>,
    /// Any of them; every request if left out.
    pub matches: Vec<HttpRouteMatch>,
    /// What is done to requests and responses.
    pub filters: Vec<RouteFilter>,
    /// Where requests go, by weight.
    pub backend_refs: Vec<HttpBackendRef<RouteFilter>>,
    /// Time limits.
    pub timeouts: Option<RouteTimeouts>,
    /// What is sent again.
    pub retry: Option<RouteRetry>,
    /// Whether a client stays with its endpoint.
    pub session_persistence: Option<SessionPersistence>,
}

fn every() -> Vec<HttpRouteRule> {
    vec![HttpRouteRule::default()]
}

impl HttpRouteSpec {
    /// The backends it leads to and those that get copies, each with its field.
    pub(crate) fn backends(&self) -> Vec<(String, BackendObjectRef)> {
        let rules = self.rules.iter();
        rules_backends(rules.map(|rule| (&*rule.filters, &*rule.backend_refs)))
    }

    pub(crate) fn check(&self, own_namespace: &str, check: &mut Checker<'_>) {
        check_parents(&self.parent_refs, own_namespace, check);
        check_hostnames(check, &self.hostnames);
        check_rule_names(check, 1, self.rules.iter().map(|rule| rule.name.as_deref()));
        check_match_count(check, self.rules.iter().map(|rule| rule.matches.len()));
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check(&format!("spec.rules[{index}]"), check);
        }
    }
}

impl HttpRouteRule {
    /// What it sets of how its backends are called.
    #[must_use]
    pub fn policy(&self) -> CallPolicy {
        resilience::policy(self.timeouts.as_ref(), self.retry.as_ref())
    }

    fn check(&self, path: &str, check: &mut Checker<'_>) {
        check_rule_matches(path, self.matches.len(), check);
        for (index, matched) in self.matches.iter().enumerate() {
            matched.check(&format!("{path}.matches[{index}]"), check);
        }
        let prefixed = match self.matches.as_slice() {
            [] => true,
            [only] => only.is_prefix(),
            _ => false,
        };
        check_filters(&self.filters, FilterType::HTTP, prefixed, path, check);
        check_backends(&self.backend_refs, 0, path, check);
        for (index, backend) in self.backend_refs.iter().enumerate() {
            let path = format!("{path}.backendRefs[{index}]");
            let allowed = FilterType::HTTP_BACKEND;
            check_filters(backend.filters(), allowed, prefixed, &path, check);
        }
        let redirects = |filter: &RouteFilter| filter.kind == FilterType::RequestRedirect;
        check.require(
            self.backend_refs.is_empty() || !self.filters.iter().any(redirects),
            format!("{path}.backendRefs"),
            "a rule that redirects has no backends",
        );
        resilience::check(self.timeouts.as_ref(), self.retry.as_ref(), path, check);
        if let Some(session) = &self.session_persistence {
            session.check(path, check);
        }
    }
}

/// The backends that rules lead to and those that get copies, each with its
/// field. Of a rule its filters and its backends.
pub(super) fn rules_backends<'r>(
    rules: impl Iterator<Item = (&'r [RouteFilter], &'r [HttpBackendRef<RouteFilter>])>,
) -> Vec<(String, BackendObjectRef)> {
    let of_rule = |(index, (filters, backends))| {
        rule_backends(&format!("spec.rules[{index}]"), filters, backends)
    };
    rules.enumerate().flat_map(of_rule).collect()
}

fn rule_backends(
    rule: &str,
    filters: &[RouteFilter],
    backends: &[HttpBackendRef<RouteFilter>],
) -> Vec<(String, BackendObjectRef)> {
    let mut found = mirrors(rule, filters);
    for (index, backend) in backends.iter().enumerate() {
        let path = format!("{rule}.backendRefs[{index}]");
        found.extend(mirrors(&path, backend.filters()));
        found.push((path, backend.object()));
    }
    found
}

fn mirrors(base: &str, filters: &[RouteFilter]) -> Vec<(String, BackendObjectRef)> {
    let mirror = |(index, filter): (usize, &RouteFilter)| {
        let mirror = filter.request_mirror.as_ref()?;
        let path = format!("{base}.filters[{index}].requestMirror.backendRef");
        Some((path, mirror.backend_ref.clone()))
    };
    filters.iter().enumerate().filter_map(mirror).collect()
}

/// Reports too many matches in one rule.
pub(super) fn check_rule_matches(rule: &str, count: usize, check: &mut Checker<'_>) {
    check.require(
        count <= MAX_MATCHES,
        format!("{rule}.matches"),
        format!("expected at most {MAX_MATCHES} matches, found {count}"),
    );
}

/// Reports too many matches over all rules.
pub(super) fn check_match_count(check: &mut Checker<'_>, counts: impl Iterator<Item = usize>) {
    let count: usize = counts.sum();
    check.require(
        count <= MAX_ROUTE_MATCHES,
        "spec.rules",
        format!("expected at most {MAX_ROUTE_MATCHES} matches over all rules, found {count}"),
    );
}
