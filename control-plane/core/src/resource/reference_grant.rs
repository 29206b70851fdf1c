//! `ReferenceGrant`: who of other namespaces may refer to what is in this one.
//! Refuses to know other resources: a grant for what is not there, or for kinds
//! that nobody here knows, grants nothing and harms nobody.

use serde::Deserialize;

use super::check_dns_label;
use crate::config::Checker;

/// Entries of `from`, and of `to`, as in Gateway API.
pub const MAX_GRANT_ENTRIES: usize = 16;

/// Bytes of a group, a kind or a name.
const MAX_NAME_BYTES: usize = 253;

/// `spec` of a `ReferenceGrant`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReferenceGrantSpec {
    /// Who may refer: any of these.
    pub from: Vec<GrantFrom>,
    /// To what: any of these.
    pub to: Vec<GrantTo>,
}

/// Resources that may refer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct GrantFrom {
    /// Their group; empty is the core group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// Their namespace.
    pub namespace: String,
}

/// Resources that may be referred to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct GrantTo {
    /// Their group; empty is the core group.
    pub group: String,
    /// Their kind.
    pub kind: String,
    /// The one of this name; all of the namespace if left out.
    pub name: Option<String>,
}

impl ReferenceGrantSpec {
    pub(crate) fn check(&self, _own_namespace: &str, check: &mut Checker<'_>) {
        for (path, count) in [("spec.from", self.from.len()), ("spec.to", self.to.len())] {
            check.require(
                (1..=MAX_GRANT_ENTRIES).contains(&count),
                path,
                format!("expected 1 to {MAX_GRANT_ENTRIES} entries, found {count}"),
            );
        }
        for (index, from) in self.from.iter().enumerate() {
            let path = format!("spec.from[{index}]");
            check_group_and_kind(check, &path, &from.group, &from.kind);
            check_dns_label(check, format!("{path}.namespace"), &from.namespace);
            check.require(
                !self.from[..index].contains(from),
                path,
                "this entry is given twice",
            );
        }
        for (index, to) in self.to.iter().enumerate() {
            let path = format!("spec.to[{index}]");
            check_group_and_kind(check, &path, &to.group, &to.kind);
            if let Some(name) = &to.name {
                check.require(
                    (1..=MAX_NAME_BYTES).contains(&name.len()),
                    format!("{path}.name"),
                    format!("expected a name of 1 to {MAX_NAME_BYTES} bytes"),
                );
            }
            check.require(
                !self.to[..index].contains(to),
                path,
                "this entry is given twice",
            );
        }
    }
}

/// A group is empty or a DNS name, a kind a word of letters, digits and `-`.
fn check_group_and_kind(check: &mut Checker<'_>, path: &str, group: &str, kind: &str) {
    let label = |label: &str| super::is_dns_label(label);
    check.require(
        group.is_empty() || (group.len() <= MAX_NAME_BYTES && group.split('.').all(label)),
        format!("{path}.group"),
        format!("expected a group such as `gateway.networking.k8s.io`, found `{group}`"),
    );
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    let is_kind = kind.starts_with(|c: char| c.is_ascii_alphabetic())
        && !kind.ends_with('-')
        && kind.len() <= super::MAX_DNS_LABEL_BYTES
        && kind.bytes().all(word);
    check.require(
        is_kind,
        format!("{path}.kind"),
        format!("expected a kind such as `HTTPRoute`, found `{kind}`"),
    );
}
