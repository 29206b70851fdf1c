//! Routes as they are sent: attached, their references resolved, the policies
//! of each rule merged. Refuses to know how a request finds its rule.

mod filters;
mod matches;

use std::cell::RefCell;
use std::collections::BTreeMap;

use selvage_api::v1;
use sha2::{Digest, Sha256};

use self::filters::filters;
use self::matches::{grpc_match, http_match};
use super::server::rate_limit;
use super::traffic::{isolation, span, traffic_policy};
use crate::attach::{self, Referrer, Resolved, RoutePolicies, Services, Unresolved};
use crate::resource::call_policy::CallPolicy;
use crate::resource::http_route::HttpRouteRule;
use crate::resource::route::filter::RouteFilter;
use crate::resource::route::session::{SessionPersistence, SessionType};
use crate::resource::route::{BackendObjectRef, HttpBackendRef};
use crate::resource::{Resource, ResourceKind, ServiceName, Spec};

/// The HTTP and gRPC routes of a service for callers of a namespace: of each
/// port oldest first. A route at every port is sent once.
pub(crate) fn http_routes(
    services: Services<'_>,
    service: &ServiceName,
    caller_namespace: &str,
    known_ports: usize,
) -> Vec<v1::HttpRoute> {
    let by_port = attach::attached(services, service, caller_namespace);
    if by_port.is_empty() {
        return Vec::new();
    }
    let mut routes: BTreeMap<_, Vec<u16>> = BTreeMap::new();
    for (port, stored) in by_port
        .iter()
        .flat_map(|(port, all)| all.iter().map(move |it| (port, it)))
    {
        let age = (stored.stamp, &stored.resource.key);
        routes.entry(age).or_default().push(*port);
    }
    let views = RouteViews::new(services, caller_namespace);
    let mut sent = Vec::new();
    for ((_, key), ports) in routes {
        let Some(stored) = services.world.resource(key) else {
            continue;
        };
        let Some(kind) = route_kind(key.kind) else {
            continue;
        };
        let rules = views.rules(&stored.resource, Some(service));
        let everywhere = ports.len() == known_ports;
        let ports = if everywhere { vec![0] } else { ports };
        sent.extend(ports.into_iter().map(|port| v1::HttpRoute {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            kind: kind.into(),
            // At a service the authority has chosen already.
            hostnames: Vec::new(),
            port: port.into(),
            rules: rules.clone(),
        }));
    }
    sent
}

/// How the kind of a route is sent; `None`: it is none of HTTP.
pub(crate) const fn route_kind(kind: ResourceKind) -> Option<v1::RouteKind> {
    match kind {
        ResourceKind::HttpRoute => Some(v1::RouteKind::Http),
        ResourceKind::GrpcRoute => Some(v1::RouteKind::Grpc),
        _ => None,
    }
}

/// The views of routes for the callers of one namespace. What several of them
/// need is looked up once.
pub(crate) struct RouteViews<'w> {
    services: Services<'w>,
    caller_namespace: &'w str,
    policies: RoutePolicies<'w>,
    /// How each backend is called by itself.
    own: RefCell<BTreeMap<ServiceName, CallPolicy>>,
}

/// One rule, of either kind.
struct RuleView<'r> {
    /// The route.
    resource: &'r Resource,
    name: Option<&'r str>,
    /// Where it stands in its route.
    index: usize,
    matches: Vec<v1::HttpMatch>,
    filters: &'r [RouteFilter],
    backends: &'r [HttpBackendRef<RouteFilter>],
    /// What it sets by itself.
    policy: CallPolicy,
    session: Option<&'r SessionPersistence>,
}

impl<'w> RouteViews<'w> {
    pub(crate) fn new(services: Services<'w>, caller_namespace: &'w str) -> Self {
        Self {
            services,
            caller_namespace,
            policies: RoutePolicies::new(services.world, caller_namespace),
            own: RefCell::default(),
        }
    }

    /// The rules of an HTTPRoute or GRPCRoute, in their order; none of another
    /// resource. `parent`: the service it is attached to, if that is a service.
    pub(crate) fn rules(
        &self,
        resource: &Resource,
        parent: Option<&ServiceName>,
    ) -> Vec<v1::HttpRule> {
        let of_http = |(index, rule): (usize, &HttpRouteRule)| {
            let view = RuleView {
                resource,
                name: rule.name.as_deref(),
                index,
                matches: rule.matches.iter().map(http_match).collect(),
                filters: &rule.filters,
                backends: &rule.backend_refs,
                policy: rule.policy(),
                session: rule.session_persistence.as_ref(),
            };
            self.rule(view, parent)
        };
        match &resource.spec {
            Spec::HttpRoute(spec) => spec.rules.iter().enumerate().map(of_http).collect(),
            Spec::GrpcRoute(spec) => {
                let of_grpc = |(index, rule): (usize, &_)| {
                    let rule: &crate::resource::grpc_route::GrpcRouteRule = rule;
                    let view = RuleView {
                        resource,
                        name: rule.name.as_deref(),
                        index,
                        matches: grpc_matches(rule),
                        filters: &rule.filters,
                        backends: &rule.backend_refs,
                        policy: CallPolicy::default(),
                        session: rule.session_persistence.as_ref(),
                    };
                    self.rule(view, parent)
                };
                spec.rules.iter().enumerate().map(of_grpc).collect()
            }
            _ => Vec::new(),
        }
    }

    fn rule(&self, rule: RuleView<'_>, parent: Option<&ServiceName>) -> v1::HttpRule {
        let referrer = referrer(rule.resource, parent);
        let key = &rule.resource.key;
        let name = match rule.name {
            Some(name) => name.to_owned(),
            None => rule.index.to_string(),
        };
        let world = self.services.world;
        let narrower = self
            .policies
            .narrower(world, key, rule.name, rule.policy, parent);
        let mirrored = |object: &BackendObjectRef| self.resolve(referrer, object).ok();
        let backend = |backend: &HttpBackendRef<RouteFilter>| {
            let resolved = self.resolve(referrer, &backend.object());
            v1::RouteBackend {
                policy: resolved
                    .as_ref()
                    .ok()
                    .and_then(|to| self.policy(&narrower, &to.service)),
                to: Some(target(resolved)),
                weight: backend.weight(),
                filters: filters(backend.filters(), &mirrored),
            }
        };
        let response = self.policies.response(key, rule.name);
        v1::HttpRule {
            matches: rule.matches,
            filters: filters(rule.filters, &mirrored),
            backends: rule.backends.iter().map(backend).collect(),
            session: rule.session.map(|it| session(it, rule.resource, &name)),
            response: response.map(isolation::static_response),
            // At a service its own side keeps the rate: callers could not do so together.
            rate_limit: parent
                .is_none()
                .then(|| self.policies.rate_limit(key, rule.name))
                .flatten()
                .map(rate_limit),
            name,
        }
    }

    /// What a backend leads to.
    pub(crate) fn resolve(
        &self,
        referrer: Referrer<'_>,
        object: &BackendObjectRef,
    ) -> Result<Resolved, Unresolved> {
        attach::resolve(self.services, referrer, object)
    }

    /// How a backend is called, where that differs from its own policy.
    fn policy(&self, narrower: &CallPolicy, backend: &ServiceName) -> Option<v1::TrafficPolicy> {
        let mut known = self.own.borrow_mut();
        let own = known.entry(backend.clone()).or_insert_with(|| {
            attach::call_policy(self.services.world, backend, self.caller_namespace)
        });
        let whole = crate::resource::call_policy::Merge::over(narrower, own);
        (whole != *own).then(|| traffic_policy(&whole))
    }
}

fn grpc_matches(rule: &crate::resource::grpc_route::GrpcRouteRule) -> Vec<v1::HttpMatch> {
    rule.matches.iter().map(grpc_match).collect()
}

/// Who a route is to the backends it refers to.
pub(crate) fn referrer<'r>(
    resource: &'r Resource,
    parent: Option<&'r ServiceName>,
) -> Referrer<'r> {
    Referrer {
        kind: resource.key.kind,
        namespace: &resource.key.namespace,
        parent,
    }
}

/// A backend as it is sent, or why it cannot be used.
pub(crate) fn target(resolved: Result<Resolved, Unresolved>) -> v1::route_backend::To {
    match resolved {
        Ok(to) => v1::route_backend::To::Service(backend(to)),
        Err(Unresolved { reason, message }) => {
            v1::route_backend::To::Invalid(format!("{reason}: {message}"))
        }
    }
}

fn backend(to: Resolved) -> v1::Backend {
    v1::Backend {
        namespace: to.service.namespace,
        name: to.service.name,
        port: to.port.unwrap_or_default().into(),
    }
}

/// A session without a name has one of its rule's own: the same wherever the
/// rule is attached, and no other rule's.
fn session(session: &SessionPersistence, route: &Resource, rule: &str) -> v1::SessionPersistence {
    let own = || {
        let hash = Sha256::digest(format!("{}/{rule}", route.key));
        let digits: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        format!("selvage-session-{digits}")
    };
    let limit = |given: Option<crate::scalar::Duration>| given.map(|given| span(given.0));
    v1::SessionPersistence {
        name: session.session_name.clone().unwrap_or_else(own),
        header: session.kind == SessionType::Header,
        absolute_timeout: limit(session.absolute_timeout),
        idle_timeout: limit(session.idle_timeout),
        permanent: session.is_permanent(),
    }
}
