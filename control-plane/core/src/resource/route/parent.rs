//! `parentRefs`: the services and gateways that a route attaches to. Refuses
//! to know whether they are there.

use serde::Deserialize;

use super::check_section;
use crate::config::Checker;
use crate::nearest::nearest;
use crate::resource::{ResourceKey, ResourceKind, check_dns_label};

/// Parents of one route, as in Gateway API.
pub const MAX_PARENTS: usize = 32;

/// One entry of `parentRefs`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// Its group; either one of its kind if left out.
    pub group: Option<String>,
    /// `Gateway` if left out, or `Service`.
    pub kind: Option<String>,
    /// The route's own if left out.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Of a gateway the listener, of a service the name of the port; all of them if left out.
    pub section_name: Option<String>,
    /// Of a gateway the port of the listener, of a service the port; all of them if left out.
    pub port: Option<u16>,
}

/// What a route can attach to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// Traffic that enters the mesh.
    Gateway,
    /// Traffic within the mesh.
    Service,
}

impl ParentRef {
    /// What it attaches to. What no check lets pass is taken as a gateway.
    #[must_use]
    pub fn parent(&self) -> Parent {
        match self.kind.as_deref() {
            Some("Service") => Parent::Service,
            _ => Parent::Gateway,
        }
    }

    /// The resource meant, seen from the route's namespace.
    #[must_use]
    pub fn target(&self, own_namespace: &str) -> ResourceKey {
        let namespace = self.namespace.as_deref().unwrap_or(own_namespace);
        ResourceKey {
            kind: match self.parent() {
                Parent::Gateway => ResourceKind::Gateway,
                Parent::Service => ResourceKind::Service,
            },
            namespace: namespace.to_owned(),
            name: self.name.clone(),
        }
    }

    fn check(&self, check: &mut Checker<'_>, path: &str) {
        let kind = self.kind.as_deref().unwrap_or("Gateway");
        let groups: &[&str] = match kind {
            "Gateway" => &["gateway.networking.k8s.io"],
            "Service" => &["", "core", "selvage.dev"],
            _ => {
                let near = nearest(kind, ["Gateway", "Service"]);
                let help = match near {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "routes attach to a `Gateway` or a `Service`".to_owned(),
                };
                let message = format!("unknown kind `{kind}`");
                check.error_with_help(format!("{path}.kind"), message, help);
                &[]
            }
        };
        if let Some(group) = &self.group
            && !groups.is_empty()
            && !groups.contains(&group.as_str())
        {
            let known = groups.iter().map(|group| format!("`{group}`"));
            let known = known.collect::<Vec<_>>().join(" or ");
            check.error(
                format!("{path}.group"),
                format!("a {kind} is of group {known}, not of `{group}`"),
            );
        }
        check_dns_label(check, format!("{path}.name"), &self.name);
        if let Some(namespace) = &self.namespace {
            check_dns_label(check, format!("{path}.namespace"), namespace);
        }
        if let Some(section) = &self.section_name {
            check_section(check, format!("{path}.sectionName"), section);
        }
        check.require(
            self.port != Some(0),
            format!("{path}.port"),
            "expected a port from 1 to 65535, found `0`",
        );
    }
}

/// Checks the parents of a route: several of one resource differ in the same
/// keys of `sectionName` and `port`.
pub(crate) fn check_parents(parents: &[ParentRef], own_namespace: &str, check: &mut Checker<'_>) {
    let count = parents.len();
    check.require(
        count <= MAX_PARENTS,
        "spec.parentRefs",
        format!("expected at most {MAX_PARENTS} parents, found {count}"),
    );
    for (index, parent) in parents.iter().enumerate() {
        let path = format!("spec.parentRefs[{index}]");
        parent.check(check, &path);
        let target = parent.target(own_namespace);
        let of_one = |other: &&ParentRef| other.target(own_namespace) == target;
        let Some(other) = parents[..index].iter().find(of_one) else {
            continue;
        };
        let keys = |it: &ParentRef| (it.section_name.is_some(), it.port.is_some());
        let values = |it: &ParentRef| (it.section_name.clone(), it.port);
        let mut earlier = parents[..index].iter().filter(of_one);
        if keys(other) != keys(parent) {
            let message = format!(
                "{target} is a parent twice: each says the same of `sectionName` and `port`, or neither"
            );
            check.error(path, message);
        } else if earlier.any(|other| values(other) == values(parent)) {
            check.error(path, format!("the parent {target} is given twice"));
        }
    }
}
