//! `GRPCRoute`: where gRPC calls go. Refuses to know other resources.

use serde::Deserialize;

use super::http_route::{check_match_count, check_rule_matches, rules_backends};
use super::route::filter::{FilterType, RouteFilter, check_filters};
use super::route::matching::GrpcRouteMatch;
use super::route::session::SessionPersistence;
use super::route::{
    BackendObjectRef, HttpBackendRef, ParentRef, check_backends, check_hostnames, check_parents,
    check_rule_names,
};
use crate::config::Checker;

/// `spec` of a `GRPCRoute`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteSpec {
    /// What it is attached to.
    pub parent_refs: Vec<ParentRef>,
    /// The hosts it is for, at a gateway; every host if left out.
    pub hostnames: Vec<String>,
    /// Its rules. Without any it takes no call.
    pub rules: Vec<GrpcRouteRule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteRule {
    /// Its name, unique in its route.
    pub name: Option<String>,
    /// Any of them; every call if left out.
    pub matches: Vec<GrpcRouteMatch>,
    /// What is done to requests and responses.
    pub filters: Vec<RouteFilter>,
    /// Where calls go, by weight.
    pub backend_refs: Vec<HttpBackendRef<RouteFilter>>,
    /// Whether a client stays with its endpoint.
    pub session_persistence: Option<SessionPersistence>,
}

impl GrpcRouteSpec {
    /// The backends it leads to and those that get copies, each with its field.
    pub(crate) fn backends(&self) -> Vec<(String, BackendObjectRef)> {
        let rules = self.rules.iter();
        rules_backends(rules.map(|rule| (&*rule.filters, &*rule.backend_refs)))
    }

    pub(crate) fn check(&self, own_namespace: &str, check: &mut Checker<'_>) {
        check_parents(&self.parent_refs, own_namespace, check);
        check_hostnames(check, &self.hostnames);
        check_rule_names(check, 0, self.rules.iter().map(|rule| rule.name.as_deref()));
        check_match_count(check, self.rules.iter().map(|rule| rule.matches.len()));
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check(&format!("spec.rules[{index}]"), check);
        }
    }
}

impl GrpcRouteRule {
    fn check(&self, path: &str, check: &mut Checker<'_>) {
        check_rule_matches(path, self.matches.len(), check);
        for (index, matched) in self.matches.iter().enumerate() {
            matched.check(&format!("{path}.matches[{index}]"), check);
        }
        check_filters(&self.filters, FilterType::GRPC, false, path, check);
        check_backends(&self.backend_refs, 0, path, check);
        for (index, backend) in self.backend_refs.iter().enumerate() {
            let path = format!("{path}.backendRefs[{index}]");
            check_filters(backend.filters(), FilterType::GRPC, false, &path, check);
        }
        if let Some(session) = &self.session_persistence {
            session.check(path, check);
        }
    }
}
