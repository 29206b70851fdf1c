//! `TCPRoute`: where connections of opaque bytes go. Refuses to know other
//! resources.

use serde::Deserialize;

use super::route::{ParentRef, check_parents};
use super::stream_rule::{StreamRule, check_rules};
use crate::config::Checker;

/// `spec` of a `TCPRoute`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpRouteSpec {
    /// What it attaches to.
    #[serde(default)]
    pub parent_refs: Vec<ParentRef>,
    /// Its one rule.
    pub rules: Vec<StreamRule>,
}

impl TcpRouteSpec {
    pub(crate) fn check(&self, own_namespace: &str, check: &mut Checker<'_>) {
        check_parents(&self.parent_refs, own_namespace, check);
        check_rules(&self.rules, check);
    }
}
