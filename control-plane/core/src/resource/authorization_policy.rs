//! `AuthorizationPolicy`: who may call what. What could be misread is refused
//! rather than guessed: an empty list, a path that no canonical path equals.
//! Refuses to know how rules are evaluated: that is the proxy's.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::reference::{TargetRef, check_targets};
use super::service::Identity;
use super::{check_dns_label, check_method};
use crate::config::Checker;

/// Rules of one policy.
pub const MAX_RULES: usize = 256;

/// `spec` of an `AuthorizationPolicy`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationPolicySpec {
    /// The services meant, of the policy's own namespace; every workload of it if left out.
    pub target_refs: Option<Vec<TargetRef>>,
    /// Whether it decides, or only says what it would decide.
    #[serde(default)]
    pub mode: Mode,
    /// In no order: deny wins.
    pub rules: Vec<RuleSpec>,
}

/// Whether a policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// It decides.
    #[default]
    Enforce,
    /// It is only counted and logged.
    Audit,
}

/// One rule: matches where any `from` and any `to` matches.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RuleSpec {
    /// Unique in its policy.
    pub name: String,
    /// What follows from a match.
    pub action: Action,
    /// Who calls; anybody if left out.
    pub from: Option<Vec<SourceSpec>>,
    /// What is called; anything if left out.
    pub to: Option<Vec<OperationSpec>>,
}

/// What follows from a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Deny,
}

/// Who calls: every list that is given must hold.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceSpec {
    /// One of these.
    pub identities: Option<Vec<Identity>>,
    /// None of these.
    pub not_identities: Option<Vec<Identity>>,
    /// Of one of these namespaces.
    pub namespaces: Option<Vec<String>>,
    /// Of none of these namespaces.
    pub not_namespaces: Option<Vec<String>>,
}

/// What is called: every list that is given must hold.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OperationSpec {
    /// One of these.
    pub methods: Option<Vec<String>>,
    /// None of these.
    pub not_methods: Option<Vec<String>>,
    /// One of these.
    pub paths: Option<Vec<PathMatch>>,
    /// None of these.
    pub not_paths: Option<Vec<PathMatch>>,
}

/// A path to compare with.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PathMatch {
    /// How to compare.
    #[serde(rename = "type")]
    pub kind: PathMatchType,
    /// With what.
    pub value: String,
}

/// How a path is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum PathMatchType {
    /// Whole.
    Exact,
    /// By whole segments from the start.
    PathPrefix,
    /// Refused so far.
    RegularExpression,
}

impl AuthorizationPolicySpec {
    pub(crate) fn check(&self, own_namespace: &str, check: &mut Checker<'_>) {
        if let Some(targets) = &self.target_refs {
            check_targets(targets, own_namespace, check);
            for (index, target) in targets.iter().enumerate() {
                check.require(
                    target.target(own_namespace).namespace == own_namespace,
                    format!("spec.targetRefs[{index}].namespace"),
                    format!("a policy protects its own namespace, which is `{own_namespace}`"),
                );
            }
        }
        let count = self.rules.len();
        check.require(
            (1..=MAX_RULES).contains(&count),
            "spec.rules",
            format!("expected 1 to {MAX_RULES} rules, found {count}"),
        );
        let mut names = BTreeSet::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let path = format!("spec.rules[{index}]");
            check_dns_label(check, format!("{path}.name"), &rule.name);
            check.require(
                names.insert(&rule.name),
                format!("{path}.name"),
                format!("the rule `{}` is given twice", rule.name),
            );
            rule.check(&path, check);
        }
    }
}

/// Reports a list that is given and empty: it reads as "none" and would mean "any".
fn filled<'l, T>(list: Option<&'l Vec<T>>, path: &str, check: &mut Checker<'_>) -> &'l [T] {
    let empty = list.is_some_and(Vec::is_empty);
    check.require(
        !empty,
        path,
        "expected at least one entry; leave the key out to match any",
    );
    list.map_or(&[], Vec::as_slice)
}

impl RuleSpec {
    fn check(&self, path: &str, check: &mut Checker<'_>) {
        let from = format!("{path}.from");
        for (index, source) in filled(self.from.as_ref(), &from, check).iter().enumerate() {
            source.check(&format!("{from}[{index}]"), check);
        }
        let to = format!("{path}.to");
        for (index, operation) in filled(self.to.as_ref(), &to, check).iter().enumerate() {
            operation.check(&format!("{to}[{index}]"), check);
        }
    }
}

impl SourceSpec {
    fn check(&self, path: &str, check: &mut Checker<'_>) {
        let empty = *self == Self::default();
        check.require(
            !empty,
            path,
            "expected at least one key; leave `from` out to match anybody",
        );
        filled(
            self.identities.as_ref(),
            &format!("{path}.identities"),
            check,
        );
        filled(
            self.not_identities.as_ref(),
            &format!("{path}.notIdentities"),
            check,
        );
        for (key, list) in [
            ("namespaces", &self.namespaces),
            ("notNamespaces", &self.not_namespaces),
        ] {
            let path = format!("{path}.{key}");
            for (index, namespace) in filled(list.as_ref(), &path, check).iter().enumerate() {
                check_dns_label(check, format!("{path}[{index}]"), namespace);
            }
        }
    }
}

impl OperationSpec {
    fn check(&self, path: &str, check: &mut Checker<'_>) {
        let empty = *self == Self::default();
        check.require(
            !empty,
            path,
            "expected at least one key; leave `to` out to match anything",
        );
        for (key, list) in [
            ("methods", &self.methods),
            ("notMethods", &self.not_methods),
        ] {
            let path = format!("{path}.{key}");
            for (index, method) in filled(list.as_ref(), &path, check).iter().enumerate() {
                check_method(check, format!("{path}[{index}]"), method);
            }
        }
        for (key, list) in [("paths", &self.paths), ("notPaths", &self.not_paths)] {
            let path = format!("{path}.{key}");
            for (index, matched) in filled(list.as_ref(), &path, check).iter().enumerate() {
                matched.check(&format!("{path}[{index}]"), check);
            }
        }
    }
}

impl PathMatch {
    /// The value as it is compared: a prefix is the same with and without its last slash.
    #[must_use]
    pub fn compared(&self) -> &str {
        match self.kind {
            PathMatchType::PathPrefix if self.value.len() > 1 => {
                self.value.strip_suffix('/').unwrap_or(&self.value)
            }
            _ => &self.value,
        }
    }

    fn check(&self, path: &str, check: &mut Checker<'_>) {
        if self.kind == PathMatchType::RegularExpression {
            check.error(
                format!("{path}.type"),
                "`RegularExpression` is not supported yet",
            );
        }
        if let Some(reason) = never_matches(&self.value) {
            check.error(format!("{path}.value"), reason);
        }
    }
}

/// Why no request's path, in the canonical form in which it is compared, equals this one.
fn never_matches(path: &str) -> Option<&'static str> {
    if !path.starts_with('/') {
        return Some("expected a path that starts with `/`");
    }
    if path.contains("//")
        || path
            .split('/')
            .any(|segment| segment == "." || segment == "..")
    {
        return Some("paths are compared without `//`, `.` and `..`");
    }
    let forbidden = |b: u8| b <= b' ' || b >= 0x7f || b"?#;\\\"<>^`{|}".contains(&b);
    if path.bytes().any(forbidden) {
        return Some(
            "expected a path as it stands in a request: no query, no `;`, no bytes that need encoding",
        );
    }
    for (at, _) in path.match_indices('%') {
        let byte = path
            .get(at + 1..at + 3)
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte {
            None => return Some("`%` stands before two hexadecimal digits"),
            Some(b'/' | b'\\' | b';') => {
                return Some(
                    "requests with `%2F`, `%5C` or `%3B` are refused where paths are compared",
                );
            }
            Some(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => {
                return Some("letters, digits, `-`, `.`, `_` and `~` are compared decoded");
            }
            Some(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::never_matches;

    #[test]
    fn a_path_that_no_request_can_have_is_refused() {
        for path in ["/", "/v1", "/v1/", "/a%20b", "/a-b_c~d.e", "/@x:y"] {
            assert_eq!(never_matches(path), None, "{path}");
        }
        for path in [
            "", "v1", "//", "/a//b", "/a/../b", "/.", "/a?b", "/a#b", "/a;b", "/a b", "/%", "/%2",
            "/%zz", "/%2F", "/%41", "/é", "/a%5cb",
        ] {
            assert!(never_matches(path).is_some(), "{path}");
        }
    }
}
