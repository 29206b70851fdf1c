//! Routes of whole connections as they are sent, their references resolved.
//! Refuses to know how a connection finds its route.

use std::collections::BTreeMap;

use selvage_api::v1;

use super::routes::{referrer, target};
use crate::attach::{self, Services};
use crate::resource::route::StreamBackendRef;
use crate::resource::stream_rule::StreamRule;
use crate::resource::{Resource, ServiceName, Spec};

/// What a route is attached to.
pub(crate) enum At<'a> {
    /// A listener, with the hosts it serves there.
    Listener(Vec<String>),
    /// A port of a service; 0: all of them. A TLSRoute chooses by server name
    /// here, too: that is what it is for, and one service may stand before
    /// several servers.
    Service(&'a ServiceName, u16),
}

/// The views of TLSRoutes and TCPRoutes.
pub(crate) struct StreamViews<'w> {
    services: Services<'w>,
}

/// The TLS and TCP routes of a service for callers of a namespace: of each port
/// oldest first. A route at every port is sent once.
pub(crate) fn stream_routes(
    services: Services<'_>,
    service: &ServiceName,
    caller_namespace: &str,
    known_ports: usize,
) -> Vec<v1::StreamRoute> {
    let by_port = attach::attached(services, service, caller_namespace);
    let mut routes: BTreeMap<_, (&Resource, Vec<u16>)> = BTreeMap::new();
    for (port, all) in &by_port {
        for stored in all {
            let age = (stored.stamp, &stored.resource.key);
            let entry = routes.entry(age);
            entry
                .or_insert((&stored.resource, Vec::new()))
                .1
                .push(*port);
        }
    }
    let views = StreamViews::new(services);
    let sent = routes.into_values().flat_map(|(resource, ports)| {
        let everywhere = ports.len() == known_ports;
        let ports = if everywhere { vec![0] } else { ports };
        let views = &views;
        let of_port = move |port| views.route(resource, At::Service(service, port));
        ports.into_iter().filter_map(of_port)
    });
    sent.collect()
}

impl<'w> StreamViews<'w> {
    pub(crate) fn new(services: Services<'w>) -> Self {
        Self { services }
    }

    /// A route where it is attached; `None` of another kind.
    pub(crate) fn route(&self, resource: &Resource, at: At<'_>) -> Option<v1::StreamRoute> {
        let (kind, names, rules) = match &resource.spec {
            Spec::TlsRoute(spec) => (v1::StreamRouteKind::Tls, &spec.hostnames[..], &spec.rules),
            Spec::TcpRoute(spec) => (v1::StreamRouteKind::Tcp, &[][..], &spec.rules),
            _ => return None,
        };
        let StreamRule { name, backend_refs } = rules.first()?;
        let (parent, hostnames, port) = match at {
            At::Listener(hostnames) => (None, hostnames, 0),
            At::Service(service, port) => (Some(service), names.to_vec(), port),
        };
        let backend = |backend: &StreamBackendRef| {
            let referrer = referrer(resource, parent);
            let resolved = attach::resolve(self.services, referrer, &backend.object());
            v1::RouteBackend {
                to: Some(target(resolved)),
                weight: backend.weight(),
                filters: Vec::new(),
                policy: None,
            }
        };
        Some(v1::StreamRoute {
            namespace: resource.key.namespace.clone(),
            name: resource.key.name.clone(),
            kind: kind.into(),
            hostnames,
            port: port.into(),
            rule: name.clone().unwrap_or_else(|| "0".to_owned()),
            backends: backend_refs.iter().map(backend).collect(),
        })
    }
}
