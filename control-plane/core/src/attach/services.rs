//! The services there are: those that have a document, and those that
//! workloads register. Refuses to know who may call them.

use std::collections::{BTreeMap, BTreeSet};

use crate::nearest::nearest;
use crate::registry::Registry;
use crate::resource::service::Protocol;
use crate::resource::{ResourceKey, ResourceKind, ServiceName, Spec};
use crate::world::World;

/// The services that exist without a document.
#[derive(Debug, Clone, Copy)]
pub enum Registered<'r> {
    /// By name alone: their ports are not known.
    Names(&'r BTreeSet<ServiceName>),
    /// With what registers them.
    Workloads(&'r Registry),
}

impl<'r> From<&'r BTreeSet<ServiceName>> for Registered<'r> {
    fn from(names: &'r BTreeSet<ServiceName>) -> Self {
        Self::Names(names)
    }
}

impl<'r> From<&'r Registry> for Registered<'r> {
    fn from(registry: &'r Registry) -> Self {
        Self::Workloads(registry)
    }
}

/// All services of a mesh.
#[derive(Debug, Clone, Copy)]
pub struct Services<'w> {
    /// What has a document.
    pub world: &'w World,
    /// What has none.
    pub registered: Registered<'w>,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: Option<String>,
    pub(crate) protocol: Protocol,
}

/// The ports of a service, by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ports {
    /// Nobody said.
    Unknown,
    Known(BTreeMap<u16, Port>),
}

impl Ports {
    pub(crate) fn into_known(self) -> BTreeMap<u16, Port> {
        match self {
            Self::Unknown => BTreeMap::new(),
            Self::Known(ports) => ports,
        }
    }
}

impl<'w> Services<'w> {
    /// All services of a world and those registered.
    pub fn new(world: &'w World, registered: impl Into<Registered<'w>>) -> Self {
        Self {
            world,
            registered: registered.into(),
        }
    }

    /// The ports of a service, `None` if it is not there. The document decides;
    /// of ports it does not name, the first workload that has it.
    pub(crate) fn ports(&self, name: &ServiceName) -> Option<Ports> {
        let key = ResourceKey {
            kind: ResourceKind::Service,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
        };
        let document = self.world.resource(&key);
        let mut ports = BTreeMap::new();
        let mut is_there = document.is_some();
        match self.registered {
            Registered::Names(names) if !is_there => {
                return names.contains(name).then_some(Ports::Unknown);
            }
            Registered::Names(_) => {}
            Registered::Workloads(registry) => {
                for entry in registry.of_service(name) {
                    is_there = true;
                    for port in &entry.registration().ports {
                        ports.entry(port.service_port).or_insert(Port {
                            name: None,
                            protocol: port.protocol,
                        });
                    }
                }
            }
        }
        if let Some(Spec::Service(spec)) = document.map(|stored| &stored.resource.spec) {
            for port in &spec.ports {
                let known = Port {
                    name: port.name.clone(),
                    protocol: port.protocol(),
                };
                ports.insert(port.port, known);
            }
        }
        is_there.then_some(Ports::Known(ports))
    }

    /// The service of a namespace that was likely meant by a name that is none.
    pub(crate) fn near(&self, name: &ServiceName) -> Option<String> {
        let known = self.names();
        let here = known.iter().filter(|it| it.namespace == name.namespace);
        nearest(&name.name, here.map(|it| it.name.as_str())).map(str::to_owned)
    }

    /// A service of this name in another namespace.
    pub(crate) fn elsewhere(&self, name: &ServiceName) -> Option<ServiceName> {
        let mut known = self.names().into_iter();
        known.find(|it| it.name == name.name && it.namespace != name.namespace)
    }

    fn names(&self) -> BTreeSet<ServiceName> {
        let mut known = self.world.services();
        match self.registered {
            Registered::Names(names) => known.extend(names.iter().cloned()),
            Registered::Workloads(registry) => known.extend(registry.services()),
        }
        known
    }
}
