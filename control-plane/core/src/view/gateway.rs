//! A gateway as the proxy that serves it is told: its listeners that are
//! programmed, with certificates and routes. It carries private keys, so whoever
//! hands it out asks who wants it. Refuses to know how listeners are bound.

use selvage_api::v1;

use super::routes::{RouteViews, route_kind};
use super::streams::{self, StreamViews};
use crate::attach::gateway::{self, AttachedRoute, Found, ListenerState};
use crate::attach::{Registered, Services};
use crate::resource::gateway::{CertificateSource, ListenerProtocol};
use crate::resource::{ResourceKind, ServiceName};
use crate::world::World;

/// The gateway of a name; `None` where there is none.
#[must_use]
pub fn view_gateway<'w>(
    world: &'w World,
    registered: impl Into<Registered<'w>>,
    name: &'w ServiceName,
) -> Option<v1::Gateway> {
    gateway::gateway(world, &name.namespace, &name.name)?;
    let services = Services::new(world, registered);
    // Its backends are called from where it stands.
    let http = RouteViews::new(services, &name.namespace);
    let streams = StreamViews::new(services);
    let states = gateway::listeners(world, &name.namespace, &name.name);
    let served = states.iter().filter(|state| state.is_programmed());
    Some(v1::Gateway {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        listeners: served
            .map(|state| listener(state, &http, &streams))
            .collect(),
    })
}

/// [`view_gateway`] as a resource, named `namespace/name`.
#[must_use]
pub fn gateway_resource<'w>(
    world: &'w World,
    registered: impl Into<Registered<'w>>,
    name: &'w ServiceName,
) -> Option<v1::Resource> {
    let body = v1::resource::Body::Gateway(view_gateway(world, registered, name)?);
    let kind = v1::ResourceType::Gateway;
    Some(super::resource(kind, name.to_string(), body))
}

fn listener(
    state: &ListenerState<'_>,
    http: &RouteViews<'_>,
    streams: &StreamViews<'_>,
) -> v1::Listener {
    let written = state.listener;
    let protocol = match written.protocol {
        ListenerProtocol::Http => v1::ListenerProtocol::Http,
        ListenerProtocol::Https => v1::ListenerProtocol::Https,
        ListenerProtocol::Tls => v1::ListenerProtocol::Tls,
        ListenerProtocol::Tcp => v1::ListenerProtocol::Tcp,
    };
    let http_route = |route: &AttachedRoute<'_>| {
        let resource = &route.stored.resource;
        Some(v1::HttpRoute {
            namespace: resource.key.namespace.clone(),
            name: resource.key.name.clone(),
            kind: route_kind(resource.key.kind)?.into(),
            hostnames: route.hostnames.clone(),
            port: 0,
            rules: http.rules(resource, None),
        })
    };
    let stream_route = |route: &AttachedRoute<'_>| {
        let hostnames = match route.stored.resource.key.kind {
            ResourceKind::TcpRoute => Vec::new(),
            _ => route.hostnames.clone(),
        };
        streams.route(&route.stored.resource, streams::At::Listener(hostnames))
    };
    v1::Listener {
        name: written.name.clone(),
        port: written.port.into(),
        protocol: protocol.into(),
        hostname: written.hostname.clone().unwrap_or_default(),
        passthrough: written.is_passthrough(),
        certificates: state.certificates.iter().map(certificate).collect(),
        http_routes: state.routes.iter().filter_map(http_route).collect(),
        stream_routes: state.routes.iter().filter_map(stream_route).collect(),
    }
}

fn certificate(found: &Found<'_>) -> v1::Certificate {
    use v1::certificate::From;
    let from = match found {
        Found::Secret(secret) => From::Pair(v1::KeyPair {
            chain: secret.certificate(),
            key: secret.key(),
        }),
        Found::Source(CertificateSource::Files { certificate, key }) => {
            From::Files(v1::CertificateFiles {
                certificate: (*certificate).to_owned(),
                key: (*key).to_owned(),
            })
        }
        Found::Source(CertificateSource::Mesh) => From::Mesh(true),
    };
    v1::Certificate { from: Some(from) }
}
