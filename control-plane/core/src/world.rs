//! The world: the set of all resources, and what contradicts or is missing
//! among them. Changes are atomic: all of a set, or nothing. Stands between
//! the parser and the views; the order of first apply is stamped by whoever
//! keeps the resources. Refuses to know where they are kept.

mod condition;
mod overlap;
mod references;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use selvage_certs::TrustDomain;
use serde::Serialize;

use crate::attach::gateway::Standings;
use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::resource::mesh_config::MeshConfigSpec;
use crate::resource::{
    API_VERSION, MAX_SNI_BYTES, Resource, ResourceKey, ResourceKind, ServiceName, Spec, sni_bytes,
};
pub use condition::Condition;

/// Resources in one world.
pub const MAX_RESOURCES: usize = 100_000;

/// All resources of one mesh. Cheap to clone: the resources are shared.
#[derive(Debug, Clone)]
pub struct World {
    trust_domain: TrustDomain,
    resources: BTreeMap<ResourceKey, Stored>,
    /// What was found out of these resources; shared by worlds that are equal.
    standings: Arc<Standings>,
}

/// A resource, and when it was first applied.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The resource.
    pub resource: Arc<Resource>,
    /// Counts first applies over the whole mesh: the lower, the older.
    pub stamp: u64,
}

/// What applying a resource did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was not there.
    Created,
    /// It was there and is different now.
    Configured,
    /// It was there already, just so.
    Unchanged,
}

/// What became of one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Applied {
    /// Which resource.
    #[serde(flatten)]
    pub key: ResourceKey,
    /// What happened.
    pub action: Action,
    /// Its stamp: a new one where it was created.
    pub stamp: u64,
}

/// What an apply did.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// One entry for each resource given, in the given order.
    pub applied: Vec<Applied>,
    /// What is likely not as meant.
    pub warnings: Diagnostics,
}

/// How to apply.
#[derive(Debug, Clone, Copy)]
pub struct Apply<'a> {
    /// Stamp of the first resource that is created; the following ones count on.
    pub first_stamp: u64,
    /// Services that exist without a document: those registered.
    pub registered: &'a BTreeSet<ServiceName>,
    /// Whether warnings are errors.
    pub strict: bool,
}

impl World {
    /// A mesh without resources.
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            resources: BTreeMap::new(),
            standings: Arc::default(),
        }
    }

    /// The trust domain of the mesh.
    #[must_use]
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The world as it would be, and what would be done to it. Nothing is
    /// changed: this is also the diff and the dry run.
    ///
    /// # Errors
    /// All contradictions within the set, and between it and what is there.
    pub fn plan(&self, set: Vec<Resource>, how: Apply<'_>) -> Result<(Self, Change), Diagnostics> {
        let mut errors = Diagnostics::default();
        let mut next = self.clone();
        next.standings = Arc::default();
        let mut stamp = how.first_stamp;
        let mut change = Change::default();
        let mut given: BTreeMap<ResourceKey, Arc<Resource>> = BTreeMap::new();
        for resource in set {
            let resource = Arc::new(resource);
            let key = resource.key.clone();
            if let Some(first) = given.insert(key.clone(), resource.clone()) {
                errors.push(given_twice(&resource, &first));
                continue;
            }
            self.check(&resource, &mut errors);
            let before = self.resources.get(&key);
            if let Some(old) = before {
                check_group(&resource, &old.resource, &mut errors);
            }
            let action = match before {
                None => Action::Created,
                Some(old) if old.resource.document == resource.document => Action::Unchanged,
                Some(_) => Action::Configured,
            };
            let stamped = before.map_or(stamp, |old| old.stamp);
            if action == Action::Created {
                stamp += 1;
            }
            next.resources.insert(
                key.clone(),
                Stored {
                    resource,
                    stamp: stamped,
                },
            );
            change.applied.push(Applied {
                key,
                action,
                stamp: stamped,
            });
        }
        next.check_only_mesh_config(&given, &mut errors);
        if next.resources.len() > MAX_RESOURCES
            && let Some(resource) = given.values().next()
        {
            let message = format!("more than {MAX_RESOURCES} resources in one mesh");
            errors.push(Diagnostic::error(&resource.place, "", message));
        }
        for resource in given.values() {
            let referring = next.reference_warnings(resource, how.registered);
            let of_gateways = next.gateway_warnings(&resource.key);
            for warning in referring.into_iter().chain(of_gateways) {
                change.warnings.push(warning);
            }
        }
        let routes: Vec<&Resource> = given
            .values()
            .map(|resource| &**resource)
            .filter(|resource| overlap::KINDS.contains(&resource.key.kind))
            .collect();
        overlap::warnings(&next, &routes, &mut change.warnings);
        if how.strict {
            errors.append(std::mem::take(&mut change.warnings).strict());
        }
        if errors.is_empty() {
            Ok((next, change))
        } else {
            Err(errors)
        }
    }

    /// Creates or replaces every resource of a set, or changes nothing.
    ///
    /// # Errors
    /// As [`World::plan`].
    pub fn apply(&mut self, set: Vec<Resource>, how: Apply<'_>) -> Result<Change, Diagnostics> {
        let (next, change) = self.plan(set, how)?;
        *self = next;
        Ok(change)
    }

    /// Removes a resource. False if there was none.
    pub fn delete(&mut self, key: &ResourceKey) -> bool {
        self.standings = Arc::default();
        self.resources.remove(key).is_some()
    }

    /// Replaces everything by what was kept, each with its stamp. What was
    /// taken once is taken again: only the keys are looked at.
    pub fn reset(&mut self, kept: impl IntoIterator<Item = (Resource, u64)>) {
        self.standings = Arc::default();
        self.resources = kept
            .into_iter()
            .map(|(resource, stamp)| {
                (
                    resource.key.clone(),
                    Stored {
                        resource: Arc::new(resource),
                        stamp,
                    },
                )
            })
            .collect();
    }

    /// One resource.
    #[must_use]
    pub fn resource(&self, key: &ResourceKey) -> Option<&Stored> {
        self.resources.get(key)
    }

    /// Where its routes stand with gateways.
    pub(crate) fn standings(&self) -> &Standings {
        &self.standings
    }

    /// How many resources there are.
    pub(crate) fn len(&self) -> usize {
        self.resources.len()
    }

    /// All resources, by kind, namespace and name.
    pub fn resources(&self) -> impl Iterator<Item = &Stored> {
        self.resources.values()
    }

    /// All resources of one kind, by namespace and name.
    pub fn of_kind(&self, kind: ResourceKind) -> impl Iterator<Item = &Stored> {
        self.from(kind, "")
            .take_while(move |stored| stored.resource.key.kind == kind)
    }

    /// All resources of one kind in one namespace, by name.
    pub fn in_namespace<'w>(
        &'w self,
        kind: ResourceKind,
        namespace: &'w str,
    ) -> impl Iterator<Item = &'w Stored> {
        let here = move |stored: &&Stored| {
            let key = &stored.resource.key;
            key.kind == kind && key.namespace == namespace
        };
        self.from(kind, namespace).take_while(here)
    }

    /// All resources from the first one of a kind and a namespace on.
    fn from(&self, kind: ResourceKind, namespace: &str) -> impl Iterator<Item = &Stored> {
        let first = ResourceKey {
            kind,
            namespace: namespace.to_owned(),
            name: String::new(),
        };
        self.resources.range(first..).map(|(_, stored)| stored)
    }

    /// The services that have a document.
    #[must_use]
    pub fn services(&self) -> BTreeSet<ServiceName> {
        self.of_kind(ResourceKind::Service)
            .map(|stored| {
                ServiceName::new(&stored.resource.key.namespace, &stored.resource.key.name)
            })
            .collect()
    }

    /// The settings of the mesh, if a document gives any.
    #[must_use]
    pub fn mesh_config(&self) -> Option<&MeshConfigSpec> {
        self.of_kind(ResourceKind::MeshConfig)
            .find_map(|stored| match &stored.resource.spec {
                Spec::MeshConfig(spec) => Some(&**spec),
                _ => None,
            })
    }

    /// What contradicts the mesh rather than the resource itself.
    fn check(&self, resource: &Resource, errors: &mut Diagnostics) {
        match &resource.spec {
            Spec::MeshConfig(spec) => {
                if let Some(text) = &spec.trust_domain
                    && text != self.trust_domain.as_str()
                {
                    let message = format!(
                        "the trust domain here is `{}`, not `{text}`",
                        self.trust_domain
                    );
                    errors.push(Diagnostic::error(
                        resource.place_of("spec.trustDomain"),
                        "spec.trustDomain",
                        message,
                    ));
                }
            }
            Spec::Service(spec) => {
                let name = ServiceName::new(&resource.key.namespace, &resource.key.name);
                let longest = spec
                    .ports
                    .iter()
                    .map(|port| port.port)
                    .max()
                    .unwrap_or_default();
                let bytes = sni_bytes(longest, &name, self.trust_domain.as_str());
                if bytes > MAX_SNI_BYTES {
                    let message = format!(
                        "with its namespace and the trust domain, the name has {bytes} bytes in SNI, \
                         where {MAX_SNI_BYTES} fit"
                    );
                    errors.push(Diagnostic::error(&resource.place, "metadata.name", message));
                }
                for (index, endpoint) in spec.endpoints.iter().enumerate() {
                    if let Some(identity) = &endpoint.identity
                        && !identity.0.is_in(&self.trust_domain)
                    {
                        let path = format!("spec.endpoints[{index}].identity");
                        let message = format!(
                            "identities outside the trust domain `{}` are not supported yet",
                            self.trust_domain
                        );
                        errors.push(Diagnostic::error(resource.place_of(&path), path, message));
                    }
                }
            }
            _ => {}
        }
    }

    fn check_only_mesh_config(
        &self,
        given: &BTreeMap<ResourceKey, Arc<Resource>>,
        errors: &mut Diagnostics,
    ) {
        let all: Vec<&Arc<Resource>> = self
            .of_kind(ResourceKind::MeshConfig)
            .map(|stored| &stored.resource)
            .collect();
        let Some((first, new)) = all.iter().find_map(|new| {
            let other = all.iter().find(|other| other.key != new.key)?;
            given.contains_key(&new.key).then_some((other, new))
        }) else {
            return;
        };
        let message = format!(
            "a mesh has one MeshConfig, and `{}` is there",
            first.key.name
        );
        let help = format!("it stands at {}", first.place);
        errors.push(Diagnostic::error(&new.place, "metadata.name", message).with_help(Some(help)));
    }
}

/// A Service of the one group would take the place of that of the other, with
/// less or other in it than whoever wrote that one knows.
fn check_group(new: &Resource, old: &Resource, errors: &mut Diagnostics) {
    let version = |resource: &Resource| {
        let text = resource.document.get("apiVersion");
        let given = text.and_then(|text| text.as_str().map(str::to_owned));
        given.unwrap_or_else(|| API_VERSION.to_owned())
    };
    let (given, there) = (version(new), version(old));
    if new.key.kind == ResourceKind::Service && given != there {
        let message = format!("{} is there as one of `{there}`", new.key);
        let help = "both are the same thing: delete that one first".to_owned();
        errors.push(Diagnostic::error(&new.place, "metadata.name", message).with_help(Some(help)));
    }
}

fn given_twice(again: &Resource, first: &Resource) -> Diagnostic {
    let message = format!("{} is given twice", again.key);
    let help = format!("it was first given at {}", first.place);
    Diagnostic::error(&again.place, "metadata.name", message).with_help(Some(help))
}
