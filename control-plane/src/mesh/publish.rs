//! What proxies are told: an immutable picture of the mesh, replaced after a
//! short wait for further changes. Each view is computed once per picture.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use selvage_api::name;
use selvage_api::v1::{self, ResourceName, ResourceType, resource::Body};
use selvage_core::registry::{Registry, WorkloadKey};
use selvage_core::resource::ServiceName;
use selvage_core::view;
use selvage_core::world::World;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Mesh;

/// A change waits this long for another one.
pub(crate) const DEBOUNCE: Duration = Duration::from_millis(25);
/// However many come, the first one waits no longer than this.
pub(crate) const DEBOUNCE_LIMIT: Duration = Duration::from_millis(250);
/// Views kept of one picture; past it they are computed again each time.
pub(crate) const VIEWS_KEPT: usize = 65_536;

/// Who looks: decides which policies it sees and which workload resource is its own.
#[derive(Debug, Clone)]
pub(crate) struct Viewer {
    pub(crate) workload: WorkloadKey,
    pub(crate) service: ServiceName,
}

/// One picture.
pub(crate) struct Published {
    world: World,
    registry: Registry,
    pub(crate) revision: u64,
    bundle: v1::Resource,
    /// By the viewer's namespace and the service.
    views: Mutex<HashMap<(String, ServiceName), Option<v1::Resource>>>,
}

impl Published {
    pub(super) fn new(
        world: &World,
        registry: &Registry,
        revision: u64,
        bundle: v1::TrustBundle,
    ) -> Self {
        let domain = bundle.trust_domain.clone();
        Self {
            world: world.clone(),
            registry: registry.clone(),
            revision,
            bundle: view::resource(ResourceType::TrustBundle, domain, Body::TrustBundle(bundle)),
            views: Mutex::new(HashMap::new()),
        }
    }

    fn next(&self, world: &World, registry: &Registry, revision: u64) -> Self {
        Self {
            world: world.clone(),
            registry: registry.clone(),
            revision,
            bundle: self.bundle.clone(),
            views: Mutex::new(HashMap::new()),
        }
    }

    /// A resource as this viewer sees it; `None` where there is none for it.
    pub(crate) fn view(&self, viewer: &Viewer, wanted: &ResourceName) -> Option<v1::Resource> {
        match ResourceType::try_from(wanted.r#type) {
            Ok(ResourceType::Workload) => (wanted.name == viewer.workload.to_string())
                .then(|| view::workload_resource(&self.world, &viewer.workload, &viewer.service)),
            Ok(ResourceType::Service) => {
                let (namespace, service) = name::split(&wanted.name)?;
                self.service(
                    &viewer.workload.namespace,
                    &ServiceName::new(namespace, service),
                )
            }
            Ok(ResourceType::TrustBundle) => {
                (self.bundle.name.as_ref() == Some(wanted)).then(|| self.bundle.clone())
            }
            Ok(ResourceType::Unspecified) | Err(_) => None,
        }
    }

    fn service(&self, namespace: &str, service: &ServiceName) -> Option<v1::Resource> {
        let key = (namespace.to_owned(), service.clone());
        if let Some(known) = self.views.lock().get(&key) {
            return known.clone();
        }
        let view = view::service_resource(&self.world, &self.registry, namespace, service);
        let mut views = self.views.lock();
        if views.len() < VIEWS_KEPT {
            views.insert(key, view.clone());
        }
        view
    }
}

impl Mesh {
    /// Publishes after each burst of changes, until told to stop.
    pub(crate) async fn publish(&self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = self.dirty.notified() => {}
                () = stop.cancelled() => return,
            }
            let limit = Instant::now() + DEBOUNCE_LIMIT;
            loop {
                let quiet = (Instant::now() + DEBOUNCE).min(limit);
                tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(quiet) => break,
                    () = self.dirty.notified() => {}
                }
            }
            let next = {
                let live = self.live.read();
                self.published
                    .borrow()
                    .next(&live.world, &live.registry, live.revision)
            };
            self.published.send_replace(Arc::new(next));
        }
    }
}
