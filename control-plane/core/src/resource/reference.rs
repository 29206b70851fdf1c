//! References from policies to what they are for. Only services can be meant
//! so far. Refuses to know whether the service is there.

use serde::Deserialize;

use super::{ServiceName, check_dns_label};
use crate::config::Checker;
use crate::diagnostic::Place;
use crate::nearest::nearest;

/// Targets of one policy, as in Gateway API.
pub const MAX_TARGETS: usize = 16;

/// One entry of `targetRefs`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetRef {
    group: Option<String>,
    kind: String,
    name: String,
    namespace: Option<String>,
    section_name: Option<String>,
    port: Option<u16>,
}

/// A reference to a service, with the place where it is made.
#[derive(Debug, Clone)]
pub struct ServiceReference {
    /// Which service.
    pub target: ServiceName,
    /// The field.
    pub path: String,
    /// Where it stands.
    pub place: Place,
}

const LATER: [&str; 4] = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];

impl TargetRef {
    /// The service meant, seen from the referrer's namespace.
    #[must_use]
    pub fn target(&self, own_namespace: &str) -> ServiceName {
        ServiceName::new(
            self.namespace.as_deref().unwrap_or(own_namespace),
            &self.name,
        )
    }

    /// The one port of it that is meant, where one is named.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        self.port
    }

    fn check(&self, check: &mut Checker<'_>, path: &str) {
        if LATER.contains(&self.kind.as_str()) {
            check.error(
                format!("{path}.kind"),
                format!("`{}` is not supported yet", self.kind),
            );
        } else if self.kind != "Service" {
            let near = nearest(&self.kind, ["Service"].into_iter().chain(LATER));
            let help = format!("did you mean `{}`?", near.unwrap_or("Service"));
            check.error_with_help(
                format!("{path}.kind"),
                format!("unknown kind `{}`", self.kind),
                help,
            );
        }
        if let Some(group) = &self.group
            && !["", "core", "selvage.dev"].contains(&group.as_str())
        {
            check.error(
                format!("{path}.group"),
                format!(
                    "a Service is of group `selvage.dev` or of the core group, not of `{group}`"
                ),
            );
        }
        if self.section_name.is_some() {
            check.error(format!("{path}.sectionName"), "not supported yet");
        }
        check_dns_label(check, format!("{path}.name"), &self.name);
        if let Some(namespace) = &self.namespace {
            check_dns_label(check, format!("{path}.namespace"), namespace);
        }
    }
}

/// Checks a list of services. No target twice.
pub(crate) fn check_targets(targets: &[TargetRef], own_namespace: &str, check: &mut Checker<'_>) {
    for (index, target) in targets.iter().enumerate() {
        check.require(
            target.port.is_none(),
            format!("spec.targetRefs[{index}].port"),
            "a policy of this kind is for every port of a service",
        );
    }
    check_ports(targets, own_namespace, check);
}

/// Checks a list of services, each with one of its ports or all. No target twice.
pub(crate) fn check_ports(targets: &[TargetRef], own_namespace: &str, check: &mut Checker<'_>) {
    let count = targets.len();
    check.require(
        (1..=MAX_TARGETS).contains(&count),
        "spec.targetRefs",
        format!("expected 1 to {MAX_TARGETS} targets, found {count}"),
    );
    for (index, target) in targets.iter().enumerate() {
        let path = format!("spec.targetRefs[{index}]");
        target.check(check, &path);
        check.require(
            target.port != Some(0),
            format!("{path}.port"),
            "expected 1 to 65535, found `0`",
        );
        let meant = target.target(own_namespace);
        if targets[..index]
            .iter()
            .any(|other| other.target(own_namespace) == meant && other.port == target.port)
        {
            check.error(path, format!("the target {meant} is given twice"));
        }
    }
}
