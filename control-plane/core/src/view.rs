//! Views: what one workload is told, as the messages that are sent. Equal
//! worlds give equal bytes: everything is ordered, and a version is a hash of
//! the body. Defaults of what no policy sets stand here. Refuses to know who
//! is subscribed to what, and how it gets there.

mod access;
mod features;
mod gateway;
mod health;
mod load_balancer;
pub(crate) mod routes;
mod server;
mod streams;
mod traffic;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use selvage_api::v1;
use sha2::{Digest, Sha256};

use crate::attach::{self, Services};
use crate::registry::{Entry, Registry, WorkloadKey};
use crate::resource::mesh_config::{DefaultAnswer, MeshConfigSpec, MutualTls};
use crate::resource::service::{EndpointSpec, Protocol, ServiceSpec};
use crate::resource::{ResourceKey, ResourceKind, ServiceName, Spec};
use crate::world::World;
use access::authorization;
pub use gateway::{gateway_resource, view_gateway};
use server::server_policies;
use traffic::traffic_policy;

/// A service as callers of a namespace see it; `None` if it has neither a
/// document nor a workload.
#[must_use]
pub fn view_service(
    world: &World,
    registry: &Registry,
    caller_namespace: &str,
    name: &ServiceName,
) -> Option<v1::Service> {
    let workloads: Vec<&Entry> = registry.of_service(name).collect();
    let services = Services::new(world, registry);
    service(services, &workloads, caller_namespace, name)
}

/// The mesh as a workload sees it, and the policy of its inbound side.
#[must_use]
pub fn view_workload(world: &World, service: &ServiceName) -> v1::Workload {
    let unset = MeshConfigSpec::default();
    let mesh = world.mesh_config().unwrap_or(&unset);
    let mutual_tls = match mesh.mtls {
        MutualTls::Strict => v1::MutualTls::Strict,
        MutualTls::Permissive => v1::MutualTls::Permissive,
    };
    let default = match mesh.authorization.default {
        DefaultAnswer::Allow => v1::AuthorizationDefault::Allow,
        DefaultAnswer::Deny => v1::AuthorizationDefault::Deny,
    };
    let policies = attach::authorization(world, service);
    v1::Workload {
        trust_domain: world.trust_domain().as_str().to_owned(),
        mutual_tls: mutual_tls.into(),
        authorization_default: default.into(),
        authorization: policies
            .into_iter()
            .map(|(key, spec)| authorization(key, spec))
            .collect(),
        series_limit: mesh.telemetry.series_limit,
        server: server_policies(world, service),
    }
}

/// A resource as it is sent, with the features it demands of its reader.
#[must_use]
pub fn resource(
    kind: v1::ResourceType,
    name: impl Into<String>,
    body: v1::resource::Body,
) -> v1::Resource {
    let features = features::of(&body);
    let unnamed = v1::Resource {
        body: Some(body),
        ..v1::Resource::default()
    };
    let hash = Sha256::digest(unnamed.encode_to_vec());
    let version = hash
        .iter()
        .take(8)
        .fold(0, |version: u64, byte| version << 8 | u64::from(*byte));
    let name = v1::ResourceName {
        r#type: kind.into(),
        name: name.into(),
    };
    v1::Resource {
        name: Some(name),
        version,
        features: features.into_iter().map(str::to_owned).collect(),
        ..unnamed
    }
}

/// [`view_service`] as a resource, named `namespace/name`.
#[must_use]
pub fn service_resource(
    world: &World,
    registry: &Registry,
    caller_namespace: &str,
    name: &ServiceName,
) -> Option<v1::Resource> {
    let body = v1::resource::Body::Service(view_service(world, registry, caller_namespace, name)?);
    Some(resource(v1::ResourceType::Service, name.to_string(), body))
}

/// [`view_workload`] as a resource, named `namespace/workload`.
#[must_use]
pub fn workload_resource(
    world: &World,
    workload: &WorkloadKey,
    service: &ServiceName,
) -> v1::Resource {
    let body = v1::resource::Body::Workload(view_workload(world, service));
    resource(v1::ResourceType::Workload, workload.to_string(), body)
}

/// Everything a workload without a control plane is told: itself, every service
/// that has a document, and the gateway it serves, if it serves one.
#[must_use]
pub fn static_view(
    world: &World,
    workload: &WorkloadKey,
    own_service: &ServiceName,
    gateway: Option<&ServiceName>,
) -> Vec<v1::Resource> {
    let mut resources = vec![workload_resource(world, workload, own_service)];
    let registered = BTreeSet::new();
    let services = Services::new(world, &registered);
    for name in world.services() {
        if let Some(view) = service(services, &[], &workload.namespace, &name) {
            let body = v1::resource::Body::Service(view);
            resources.push(resource(v1::ResourceType::Service, name.to_string(), body));
        }
    }
    resources.extend(gateway.and_then(|name| gateway_resource(world, &registered, name)));
    resources
}

fn service(
    services: Services<'_>,
    workloads: &[&Entry],
    caller_namespace: &str,
    name: &ServiceName,
) -> Option<v1::Service> {
    let key = ResourceKey {
        kind: ResourceKind::Service,
        namespace: name.namespace.clone(),
        name: name.name.clone(),
    };
    let world = services.world;
    let document = world
        .resource(&key)
        .and_then(|stored| match &stored.resource.spec {
            Spec::Service(spec) => Some(spec),
            _ => None,
        });
    if document.is_none() && workloads.is_empty() {
        return None;
    }
    let policy = attach::call_policy(world, name, caller_namespace);
    let ports = ports(document, workloads);
    Some(v1::Service {
        namespace: name.namespace.clone(),
        name: name.name.clone(),
        endpoints: endpoints(document, workloads),
        policy: Some(traffic_policy(&policy)),
        http_routes: routes::http_routes(services, name, caller_namespace, ports.len()),
        stream_routes: streams::stream_routes(services, name, caller_namespace, ports.len()),
        ports,
    })
}

/// By number. The document decides; of ports it does not name, the first
/// workload (by name) that has it.
fn ports(document: Option<&ServiceSpec>, workloads: &[&Entry]) -> Vec<v1::ServicePort> {
    let mut ports = BTreeMap::new();
    for entry in workloads {
        for port in &entry.registration().ports {
            ports.entry(port.service_port).or_insert(v1::ServicePort {
                port: port.service_port.into(),
                target_port: port.service_port.into(),
                protocol: protocol(port.protocol).into(),
            });
        }
    }
    for port in document.into_iter().flat_map(|spec| &spec.ports) {
        let known = v1::ServicePort {
            port: port.port.into(),
            target_port: port.target_port.unwrap_or(port.port).into(),
            protocol: protocol(port.protocol()).into(),
        };
        ports.insert(port.port, known);
    }
    ports.into_values().collect()
}

fn protocol(protocol: Protocol) -> v1::Protocol {
    match protocol {
        Protocol::Detect => v1::Protocol::Detect,
        Protocol::Http => v1::Protocol::Http,
        Protocol::Http2 => v1::Protocol::Http2,
        Protocol::Grpc => v1::Protocol::Grpc,
        Protocol::Tcp => v1::Protocol::Tcp,
    }
}

/// By id. Where a document names the address of a workload, the workload counts.
fn endpoints(document: Option<&ServiceSpec>, workloads: &[&Entry]) -> Vec<v1::Endpoint> {
    let registered = |spec: &&EndpointSpec| {
        let address = spec.address;
        workloads.iter().any(|entry| {
            let own = entry.registration().address;
            own.ip() == address.ip && Some(own.port()) == address.port
        })
    };
    let documented = document.into_iter().flat_map(|spec| &spec.endpoints);
    let mut endpoints: Vec<v1::Endpoint> = documented
        .filter(|spec| !registered(spec))
        .map(documented_endpoint)
        .collect();
    endpoints.extend(workloads.iter().map(|entry| registered_endpoint(entry)));
    endpoints.sort_by(|a, b| a.id.cmp(&b.id));
    endpoints
}

fn documented_endpoint(spec: &EndpointSpec) -> v1::Endpoint {
    let EndpointSpec {
        address,
        identity,
        weight,
        labels,
        ..
    } = spec;
    v1::Endpoint {
        id: address.to_string(),
        address: address.ip.to_string(),
        port: address.port.unwrap_or_default().into(),
        identity: identity
            .as_ref()
            .map(|id| id.0.as_str().to_owned())
            .unwrap_or_default(),
        weight: *weight,
        labels: labels.clone(),
        ports: Vec::new(),
    }
}

fn registered_endpoint(entry: &Entry) -> v1::Endpoint {
    let registration = entry.registration();
    let mut ports: Vec<v1::EndpointPort> = registration
        .ports
        .iter()
        .map(|port| {
            let health = match port.healthy && !entry.is_lapsed() {
                true => v1::Health::Healthy,
                false => v1::Health::Unhealthy,
            };
            v1::EndpointPort {
                port: port.service_port.into(),
                health: health.into(),
            }
        })
        .collect();
    ports.sort_by_key(|port| port.port);
    v1::Endpoint {
        id: registration.key().to_string(),
        address: registration.address.ip().to_string(),
        port: registration.address.port().into(),
        identity: registration.identity.as_str().to_owned(),
        weight: registration.weight,
        labels: registration.labels.clone(),
        ports,
    }
}
