//! What the kinds of routes share: the parents they attach to, the backends
//! they lead to, names of rules and hosts. The parts of an HTTP rule stand in
//! the modules below. Refuses to know what is there and what is granted.

mod backend;
pub mod cors;
pub mod filter;
pub mod header;
pub mod matching;
mod parent;
pub(crate) mod path;
pub mod resilience;
pub mod session;

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::is_dns_label;
use crate::config::Checker;

pub(crate) use backend::check_backends;
pub use backend::{BackendObjectRef, HttpBackendRef, MAX_BACKENDS, StreamBackendRef};
pub(crate) use parent::check_parents;
pub use parent::{MAX_PARENTS, Parent, ParentRef};

/// Rules of one route, as in Gateway API.
pub const MAX_RULES: usize = 16;
/// Hosts of one route, as in Gateway API.
pub const MAX_HOSTNAMES: usize = 16;
/// Longest name of a section, and of a host (RFC 1035, 2.3.4).
pub const MAX_NAME_BYTES: usize = 253;

/// Whether a text is DNS labels with dots between them, 253 bytes at most.
#[must_use]
pub fn is_dns_name(text: &str) -> bool {
    text.len() <= MAX_NAME_BYTES && text.split('.').all(is_dns_label)
}

/// Reports what cannot be a host: an IP address, a `*` but as the first label.
pub(crate) fn check_hostname(check: &mut Checker<'_>, path: impl Into<String>, name: &str) {
    let below = name.strip_prefix("*.");
    if name.parse::<IpAddr>().is_ok() {
        check.error(
            path,
            format!("expected a host name, found the IP address `{name}`"),
        );
    } else if name.contains('*') && !below.is_some_and(is_dns_name) {
        check.error(
            path,
            format!("`*` stands alone as the first label, as in `*.example.com`, found `{name}`"),
        );
    } else if name.len() > MAX_NAME_BYTES || !is_dns_name(below.unwrap_or(name)) {
        let message = format!("expected a host name of a-z, 0-9, `-` and `.`, found `{name}`");
        check.error(path, message);
    }
}

/// Reports hosts that are none, are given twice, or are too many.
pub(crate) fn check_hostnames(check: &mut Checker<'_>, names: &[String]) {
    let count = names.len();
    check.require(
        count <= MAX_HOSTNAMES,
        "spec.hostnames",
        format!("expected at most {MAX_HOSTNAMES} hosts, found {count}"),
    );
    for (index, name) in names.iter().enumerate() {
        let path = format!("spec.hostnames[{index}]");
        check_hostname(check, path.as_str(), name);
        check.require(
            !names[..index].contains(name),
            path,
            format!("the host `{name}` is given twice"),
        );
    }
}

/// Reports names of sections (rules, listeners, ports) that are none.
pub(crate) fn check_section(check: &mut Checker<'_>, path: impl Into<String>, name: &str) {
    check.require(
        is_dns_name(name),
        path,
        format!("expected a name of a-z, 0-9, `-` and `.`, found `{name}`"),
    );
}

/// Reports too many rules (`least` to [`MAX_RULES`]), and names that are none or given twice.
pub(crate) fn check_rule_names<'r>(
    check: &mut Checker<'_>,
    least: usize,
    names: impl ExactSizeIterator<Item = Option<&'r str>>,
) {
    let count = names.len();
    check.require(
        (least..=MAX_RULES).contains(&count),
        "spec.rules",
        format!("expected {least} to {MAX_RULES} rules, found {count}"),
    );
    let names: Vec<_> = names.collect();
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        let Some(name) = name else { continue };
        let path = format!("spec.rules[{index}].name");
        let goes_by_it = |other: usize| other != index && names.get(other) == Some(&None);
        check.require(
            !name.parse().is_ok_and(goes_by_it),
            path.as_str(),
            format!("rule {name} has no name, and goes by its number"),
        );
        check_section(check, path.as_str(), name);
        check.require(
            seen.insert(name),
            path,
            format!("the rule `{name}` is given twice"),
        );
    }
}
