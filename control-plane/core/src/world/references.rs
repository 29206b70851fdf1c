//! What resources refer to and is not there, or may not be used: taken,
//! because order must not matter, and warned of with place and nearest name.

use std::collections::BTreeSet;

use super::{Stored, World};
use crate::attach::{self, Referrer, Services};
use crate::diagnostic::Diagnostic;
use crate::nearest::nearest;
use crate::resource::reference::{RouteReference, RouteTarget, ServiceReference};
use crate::resource::route::{Parent, ParentRef};
use crate::resource::{Resource, ResourceKey, ResourceKind, ServiceName, Spec};

impl World {
    /// All that a resource refers to in vain. `registered`: the services that
    /// exist without a document.
    pub(super) fn reference_warnings(
        &self,
        resource: &Resource,
        registered: &BTreeSet<ServiceName>,
    ) -> Vec<Diagnostic> {
        let services = Services::new(self, registered);
        let mut warnings: Vec<Diagnostic> = self
            .dangling(resource, services)
            .into_iter()
            .map(|reference| self.dangling_warning(reference, services))
            .collect();
        warnings.extend(self.dangling_routes(resource));
        warnings.extend(self.unkept_rates(resource));
        if let Some(stored) = self.resources.get(&resource.key) {
            warnings.extend(unresolved(stored, services));
        }
        warnings
    }

    /// Rates of routes that no gateway is asked to keep, as warnings.
    pub(super) fn unkept_rates(&self, resource: &Resource) -> Vec<Diagnostic> {
        let unkept = |reference: &&RouteReference| {
            let target = &reference.target;
            let key = ResourceKey {
                kind: target.kind,
                namespace: target.route.namespace.clone(),
                name: target.route.name.clone(),
            };
            let route = self.resources.get(&key);
            let at_gateway = |parent: &ParentRef| parent.parent() == Parent::Gateway;
            route.is_some_and(|it| !it.resource.spec.parents().iter().any(at_gateway))
        };
        let warning = |reference: &RouteReference| {
            let target = &reference.target;
            let message = format!(
                "{} {} has no Gateway as a parent, and rates of routes are kept by gateways",
                target.kind, target.route
            );
            let help = "a policy for the Service limits what all its routes bring".to_owned();
            let path = format!("{}.name", reference.path);
            Diagnostic::warning(&reference.place, path, message).with_help(Some(help))
        };
        if resource.key.kind != ResourceKind::ServerPolicy {
            return Vec::new();
        }
        let routes = resource.routes.iter();
        routes.filter(unkept).map(warning).collect()
    }

    /// References to services that are neither documented nor registered.
    pub(super) fn dangling<'r>(
        &self,
        resource: &'r Resource,
        services: Services<'_>,
    ) -> Vec<&'r ServiceReference> {
        let all = resource.references.iter().chain(&resource.uses);
        all.filter(|reference| services.ports(&reference.target).is_none())
            .collect()
    }

    fn dangling_warning(&self, reference: &ServiceReference, services: Services<'_>) -> Diagnostic {
        let target = &reference.target;
        let help = match (services.elsewhere(target), services.near(target)) {
            (Some(other), _) => Some(format!("there is one in namespace `{}`", other.namespace)),
            (None, Some(near)) => Some(format!("did you mean `{near}`?")),
            (None, None) => None,
        };
        let message = format!("the service {target} has no document and no workload registers it");
        Diagnostic::warning(&reference.place, &reference.path, message).with_help(help)
    }

    /// The names of a route's rules, `None` if it is not there.
    fn rule_names(&self, target: &RouteTarget) -> Option<Vec<&str>> {
        let key = ResourceKey {
            kind: target.kind,
            namespace: target.route.namespace.clone(),
            name: target.route.name.clone(),
        };
        match &self.resources.get(&key)?.resource.spec {
            Spec::HttpRoute(spec) => {
                let names = spec.rules.iter().filter_map(|rule| rule.name.as_deref());
                Some(names.collect())
            }
            Spec::GrpcRoute(spec) => {
                let names = spec.rules.iter().filter_map(|rule| rule.name.as_deref());
                Some(names.collect())
            }
            _ => None,
        }
    }

    /// References to routes and rules that are not there, as warnings.
    pub(super) fn dangling_routes(&self, resource: &Resource) -> Vec<Diagnostic> {
        let routes = resource.routes.iter();
        routes.filter_map(|it| self.dangling_route(it)).collect()
    }

    fn dangling_route(&self, reference: &RouteReference) -> Option<Diagnostic> {
        let target = &reference.target;
        let (kind, route) = (target.kind, &target.route);
        let (key, place, message, near) = match (self.rule_names(target), &target.section) {
            (Some(_), None) => return None,
            (Some(rules), Some(section)) if rules.contains(&section.as_str()) => return None,
            (Some(rules), Some(section)) => (
                "sectionName",
                &reference.section_place,
                format!("{kind} {route} has no rule `{section}`"),
                nearest(section, rules),
            ),
            (None, _) => {
                let routes = self.in_namespace(kind, &route.namespace);
                let names = routes.map(|stored| stored.resource.key.name.as_str());
                let message = format!("there is no {kind} {route}");
                (
                    "name",
                    &reference.place,
                    message,
                    nearest(&route.name, names),
                )
            }
        };
        let path = format!("{}.{key}", reference.path);
        let help = near.map(|near| format!("did you mean `{near}`?"));
        Some(Diagnostic::warning(place, path, message).with_help(help))
    }
}

/// What a route cannot attach to, and backends it cannot use, though the
/// services are there: a port that is missing, a grant, another kind.
fn unresolved(stored: &Stored, services: Services<'_>) -> Vec<Diagnostic> {
    let resource = &*stored.resource;
    let own = &resource.key;
    let mut warnings = Vec::new();
    // Once for each field, however many parents it fails for.
    let mut told = BTreeSet::new();
    let mut warn = |path: String, message: String| {
        if told.insert(path.clone()) {
            let place = resource.place_of(&path);
            warnings.push(Diagnostic::warning(place, path, message));
        }
    };
    let is_there = |service: &ServiceName| services.ports(service).is_some();
    for (index, parent) in resource.spec.parents().iter().enumerate() {
        let target = parent.target(&own.namespace);
        let service = ServiceName::new(&target.namespace, &target.name);
        let of_service = parent.parent() == Parent::Service;
        if of_service
            && is_there(&service)
            && let Err(refused) = attach::bound(services, stored, parent)
        {
            warn(format!("spec.parentRefs[{index}]"), refused.message);
        }
        let referrer = Referrer {
            kind: own.kind,
            namespace: &own.namespace,
            parent: of_service.then_some(&service),
        };
        for (path, object) in resource.spec.backends() {
            let meant = object.service(&own.namespace);
            let missing = meant.is_some_and(|service| !is_there(&service));
            if let Err(why) = attach::resolve(services, referrer, &object)
                && !missing
            {
                warn(path, why.message);
            }
        }
    }
    warnings
}
