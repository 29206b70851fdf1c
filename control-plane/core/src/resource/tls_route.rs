//! `TLSRoute`: where TLS connections go, by the host of their SNI. Refuses to
//! know other resources.

use serde::Deserialize;

use super::route::{ParentRef, check_hostnames, check_parents};
use super::stream_rule::{StreamRule, check_rules};
use crate::config::Checker;

/// `spec` of a `TLSRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsRouteSpec {
    /// What it attaches to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Hosts, as SNI names them; every one that the listener takes if empty.
    #[serde(default)]
    pub hostnames: Vec<String>,
    /// Its one rule.
    pub rules: Vec<StreamRule>,
}

impl TlsRouteSpec {
    pub(crate) fn check(&self, own_namespace: &str, check: &mut Checker<'_>) {
        check_parents(&self.parent_refs, own_namespace, check);
        check_hostnames(check, &self.hostnames);
        check_rules(&self.rules, check);
    }
}
