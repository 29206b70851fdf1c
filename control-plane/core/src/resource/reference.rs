//! References from policies to what they are for: services, and of traffic
//! policies routes and their rules. Refuses to know whether that is there.

use std::fmt;

use serde::Deserialize;

use super::route::check_section;
use super::{ResourceKind, ServiceName, check_dns_label};
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

/// A route, or one rule of it, that a policy is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteTarget {
    /// The kind of the route.
    pub kind: ResourceKind,
    /// `namespace/name` of the route.
    pub route: ServiceName,
    /// The name of the rule; all of them if there is none.
    pub section: Option<String>,
}

/// `HTTPRoute shop/ratings`, and the rule of it.
impl fmt::Display for RouteTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(section) = &self.section {
            write!(f, "rule `{section}` of ")?;
        }
        write!(f, "{} {}", self.kind, self.route)
    }
}

/// A reference to a route, with the place where it is made.
#[derive(Debug, Clone)]
pub struct RouteReference {
    /// Which route.
    pub target: RouteTarget,
    /// The field of `targetRefs`.
    pub path: String,
    /// Where its name stands.
    pub place: Place,
    /// Where the name of the rule stands, or that of the route if there is none.
    pub section_place: Place,
}

/// The routes that policies can be for.
const ROUTES: [ResourceKind; 2] = [ResourceKind::HttpRoute, ResourceKind::GrpcRoute];

impl TargetRef {
    /// The route meant, seen from the referrer's namespace; `None`: it is a service.
    #[must_use]
    pub fn route(&self, own_namespace: &str) -> Option<RouteTarget> {
        let kind = ROUTES.into_iter().find(|it| it.as_str() == self.kind)?;
        Some(RouteTarget {
            kind,
            route: self.target(own_namespace),
            section: self.section_name.clone(),
        })
    }

    /// The service meant, or what the route is called, seen from the
    /// referrer's namespace.
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

    fn check(&self, check: &mut Checker<'_>, path: &str, routes: &[ResourceKind]) {
        let route = routes.iter().find(|it| it.as_str() == self.kind);
        let known = || {
            ["Service"]
                .into_iter()
                .chain(routes.iter().map(|it| it.as_str()))
        };
        if route.is_none() && self.kind != "Service" {
            let help = match nearest(&self.kind, known()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "a policy of this kind is for: {}",
                    known().collect::<Vec<_>>().join(", ")
                ),
            };
            check.error_with_help(
                format!("{path}.kind"),
                format!("unknown kind `{}`", self.kind),
                help,
            );
        } else {
            self.check_group(check, path, route.is_some());
        }
        if let Some(section) = &self.section_name {
            let path = format!("{path}.sectionName");
            match route {
                Some(_) => check_section(check, path, section),
                None => check.error(path, "of a route it names a rule; a service is meant whole"),
            }
        }
        check_dns_label(check, format!("{path}.name"), &self.name);
        if let Some(namespace) = &self.namespace {
            check_dns_label(check, format!("{path}.namespace"), namespace);
        }
    }

    fn check_group(&self, check: &mut Checker<'_>, path: &str, is_route: bool) {
        let Some(group) = &self.group else { return };
        let group = group.as_str();
        let message = if is_route {
            format!("a route is of group `gateway.networking.k8s.io`, not of `{group}`")
        } else {
            format!("a Service is of group `selvage.dev` or of the core group, not of `{group}`")
        };
        let fits = match is_route {
            true => group == "gateway.networking.k8s.io",
            false => ["", "core", "selvage.dev"].contains(&group),
        };
        check.require(fits, format!("{path}.group"), message);
    }
}

/// Checks a list of services. No target twice.
pub(crate) fn check_targets(targets: &[TargetRef], own_namespace: &str, check: &mut Checker<'_>) {
    check_without_ports(targets, check);
    check_all(targets, &[], own_namespace, check);
}

/// Checks a list of services and routes, these whole or by rule. No target twice.
pub(crate) fn check_routes(targets: &[TargetRef], own_namespace: &str, check: &mut Checker<'_>) {
    check_without_ports(targets, check);
    check_all(targets, &ROUTES, own_namespace, check);
}

/// Checks a list of services, each with one of its ports or all, and of routes,
/// these whole or by rule. No target twice.
pub(crate) fn check_ports(targets: &[TargetRef], own_namespace: &str, check: &mut Checker<'_>) {
    for (index, target) in targets.iter().enumerate() {
        check.require(
            target.port.is_none() || target.route(own_namespace).is_none(),
            format!("spec.targetRefs[{index}].port"),
            "a route has no ports of its own",
        );
    }
    check_all(targets, &ROUTES, own_namespace, check);
}

fn check_without_ports(targets: &[TargetRef], check: &mut Checker<'_>) {
    for (index, target) in targets.iter().enumerate() {
        check.require(
            target.port.is_none(),
            format!("spec.targetRefs[{index}].port"),
            "a policy of this kind is for every port of a service",
        );
    }
}

fn check_all(
    targets: &[TargetRef],
    routes: &[ResourceKind],
    own_namespace: &str,
    check: &mut Checker<'_>,
) {
    let count = targets.len();
    check.require(
        (1..=MAX_TARGETS).contains(&count),
        "spec.targetRefs",
        format!("expected 1 to {MAX_TARGETS} targets, found {count}"),
    );
    for (index, target) in targets.iter().enumerate() {
        let path = format!("spec.targetRefs[{index}]");
        target.check(check, &path, routes);
        check.require(
            target.port != Some(0),
            format!("{path}.port"),
            "expected 1 to 65535, found `0`",
        );
        let route = target.route(own_namespace);
        let meant = target.target(own_namespace);
        if targets[..index].iter().any(|other| {
            other.target(own_namespace) == meant
                && other.port == target.port
                && other.route(own_namespace) == route
        }) {
            let shown = route.map_or_else(|| meant.to_string(), |route| route.to_string());
            check.error(path, format!("the target {shown} is given twice"));
        }
    }
}
