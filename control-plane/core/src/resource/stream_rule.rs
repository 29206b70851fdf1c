//! The rule of a `TLSRoute` or `TCPRoute`: where whole connections go. There is
//! nothing to match in it, so a route has one. Refuses to know the backends.

use serde::Deserialize;

use super::route::{BackendObjectRef, StreamBackendRef, check_backends, check_section};
use crate::config::Checker;

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRule {
    /// Its name.
    pub name: Option<String>,
    /// Where connections go, by weight.
    pub backend_refs: Vec<StreamBackendRef>,
}

/// The backends that rules lead to, each with its field.
pub(super) fn backends(rules: &[StreamRule]) -> Vec<(String, BackendObjectRef)> {
    let of_rule = |(index, rule): (usize, &StreamRule)| {
        let backends = rule.backend_refs.iter().enumerate();
        let backends = backends.map(move |(at, backend)| {
            let path = format!("spec.rules[{index}].backendRefs[{at}]");
            (path, backend.object())
        });
        backends.collect::<Vec<_>>()
    };
    rules.iter().enumerate().flat_map(of_rule).collect()
}

/// Checks the rules of a route: one, with a backend.
pub(super) fn check_rules(rules: &[StreamRule], check: &mut Checker<'_>) {
    let count = rules.len();
    check.require(
        count == 1,
        "spec.rules",
        format!("expected one rule, found {count}: a connection tells nothing to choose by"),
    );
    for (index, rule) in rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        if let Some(name) = &rule.name {
            check_section(check, format!("{path}.name"), name);
        }
        check_backends(&rule.backend_refs, 1, &path, check);
    }
}
