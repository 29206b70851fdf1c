//! From resources to what the caller's proxy would hold of them: the same view
//! and the same decoding, one service at a time.

use std::sync::Arc;

use selvage_certs::SpiffeId;
use selvage_core::nearest::nearest;
use selvage_core::registry::{Registry, WorkloadKey};
use selvage_core::resource::ServiceName as Name;
use selvage_core::view;
use selvage_core::world::World;
use selvage_policy::route::{Gateway, Hostname, Listener, ListenerProtocol};
use selvage_policy::snapshot::{InboundPolicy, Service, ServiceName, Snapshot, WorkloadName};

use super::{InvalidQuestion, Known, Question, Request, invalid};
use crate::discovery::decode;

/// Who asks.
pub(super) struct Caller {
    pub(super) identity: SpiffeId,
    pub(super) workload: WorkloadName,
}

impl Caller {
    pub(super) fn read(world: &World, question: &Question) -> Result<Self, InvalidQuestion> {
        let (namespace, account) = &question.from;
        let identity = SpiffeId::of_service_account(world.trust_domain(), namespace, account);
        Ok(Self {
            identity: identity.map_err(|error| invalid("--from", error))?,
            workload: WorkloadName {
                namespace: namespace.as_str().into(),
                name: account.as_str().into(),
                service: account.as_str().into(),
            },
        })
    }
}

/// The mesh, seen by a caller.
pub(super) struct Mesh<'w> {
    pub(super) world: &'w World,
    registry: &'w Registry,
    pub(super) caller: Caller,
}

impl<'w> Mesh<'w> {
    pub(super) const fn new(known: &'w Known, caller: Caller) -> Self {
        Self {
            world: &known.world,
            registry: &known.registry,
            caller,
        }
    }

    /// A service as the caller's proxy knows it.
    pub(super) fn service(
        &self,
        name: &ServiceName,
    ) -> Result<Option<Arc<Service>>, InvalidQuestion> {
        let own = Name::new(&name.namespace, &name.name);
        let namespace = &self.caller.workload.namespace;
        let Some(resource) = view::service_resource(self.world, self.registry, namespace, &own)
        else {
            return Ok(None);
        };
        let snapshot = self.snapshot(&own, &[resource])?;
        Ok(snapshot.services.get(name).cloned())
    }

    /// What guards a service's workloads.
    pub(super) fn inbound(&self, service: &ServiceName) -> Result<InboundPolicy, InvalidQuestion> {
        let own = Name::new(&service.namespace, &service.name);
        self.snapshot(&own, &[]).map(|snapshot| snapshot.inbound)
    }

    /// A gateway as its proxy knows it.
    pub(super) fn gateway(
        &self,
        (namespace, name): (&str, &str),
    ) -> Result<Arc<Gateway>, InvalidQuestion> {
        let absent = || {
            invalid(
                "--gateway",
                format!("there is no Gateway {namespace}/{name}"),
            )
        };
        let own = Name::new(namespace, name);
        let resource = view::gateway_resource(self.world, self.registry, &own);
        let resource = resource.ok_or_else(absent)?;
        let own = Name::new(
            &self.caller.workload.namespace,
            &self.caller.workload.service,
        );
        let snapshot = self.snapshot(&own, &[resource])?;
        snapshot.gateway.ok_or_else(absent)
    }

    /// The service of a like name, for people.
    pub(super) fn nearest(&self, name: &ServiceName) -> Option<String> {
        let mut known = self.world.services();
        known.extend(self.registry.services());
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        nearest(&name.to_string(), known.iter().map(String::as_str)).map(str::to_owned)
    }

    /// Whether any workload is known; of files alone none can be.
    pub(super) fn knows_workloads(&self) -> bool {
        self.registry.entries().next().is_some()
    }

    fn snapshot(
        &self,
        own: &Name,
        resources: &[selvage_api::v1::Resource],
    ) -> Result<Snapshot, InvalidQuestion> {
        let key = WorkloadKey::new(&own.namespace, &own.name);
        let workload = view::workload_resource(self.world, &key, own);
        let all = std::iter::once(&workload).chain(resources);
        decode::snapshot(&self.caller.workload, 1, all).map_err(|refused| {
            let lines: Vec<String> = refused.iter().map(|(_, error)| error.to_string()).collect();
            invalid("resources", lines.join("; "))
        })
    }
}

/// The listener that a request comes to; or why there is none.
pub(super) fn listener<'g>(
    gateway: &'g Gateway,
    scheme: &str,
    request: &Request,
) -> Result<&'g Arc<Listener>, String> {
    let (protocol, usual) = match scheme {
        "https" => (ListenerProtocol::Https, 443),
        _ => (ListenerProtocol::Http, 80),
    };
    let port = request.authority.parse::<http::uri::Authority>();
    let port = port.ok().and_then(|it| it.port_u16()).unwrap_or(usual);
    let on_port = |it: &&Arc<Listener>| it.port == port && it.protocol == protocol;
    let takes = |it: &&Arc<Listener>| {
        let host = it.hostname.as_ref();
        host.is_none_or(|host| host.takes(request.host()))
    };
    let mut there = gateway.listeners.iter().filter(on_port).peekable();
    if there.peek().is_none() {
        let gateway = &gateway.name;
        return Err(format!(
            "Gateway {gateway} has no {scheme} listener on port {port}"
        ));
    }
    there
        .filter(takes)
        .max_by_key(|it| specificity(it.hostname.as_ref()))
        .ok_or_else(|| format!("no listener on port {port} is for {}", request.host()))
}

/// An exact host before one with a wildcard, a long one of these before a short one.
fn specificity(hostname: Option<&Hostname>) -> (u8, usize) {
    match hostname {
        None => (0, 0),
        Some(Hostname::Below(suffix)) => (1, suffix.len()),
        Some(Hostname::Exact(host)) => (2, host.len()),
    }
}
