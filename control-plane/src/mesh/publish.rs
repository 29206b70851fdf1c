//! What proxies are told: an immutable picture of the mesh. A change after a
//! quiet time is published at once, one of a burst after a short wait for
//! more. Each view is computed once per picture.

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

use super::{Live, Mesh};

/// A change that comes sooner than this after a publication waits this long for another one.
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

impl Viewer {
    /// Whether this is a proxy of that gateway, which is told its private keys:
    /// only one whose token lets it be the service of the gateway's name, in the
    /// gateway's namespace. That it may say so was asked when it came.
    fn serves(&self, gateway: &ServiceName) -> bool {
        self.service == *gateway
    }
}

/// One picture.
pub(crate) struct Published {
    world: World,
    registry: Registry,
    pub(crate) revision: u64,
    /// How many of [`Mesh::changes`] it shows.
    pub(crate) changes: u64,
    bundle: v1::Resource,
    /// By the viewer's namespace and the service.
    views: Mutex<HashMap<(String, ServiceName), Option<v1::Resource>>>,
    /// By their names. They hold private keys, as the world does.
    gateways: Mutex<HashMap<ServiceName, Option<v1::Resource>>>,
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
            changes: 0,
            bundle: view::resource(ResourceType::TrustBundle, domain, Body::TrustBundle(bundle)),
            views: Mutex::default(),
            gateways: Mutex::default(),
        }
    }

    fn next(&self, live: &Live, changes: u64) -> Self {
        Self {
            world: live.world.clone(),
            registry: live.registry.clone(),
            revision: live.revision,
            changes,
            bundle: self.bundle.clone(),
            views: Mutex::default(),
            gateways: Mutex::default(),
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
            Ok(ResourceType::Gateway) => {
                let (namespace, gateway) = name::split(&wanted.name)?;
                let gateway = ServiceName::new(namespace, gateway);
                let serves = viewer.serves(&gateway) && !self.is_called(&gateway);
                serves.then(|| self.gateway(&gateway))?
            }
            Ok(ResourceType::Unspecified) | Err(_) => None,
        }
    }

    /// Whether a service of a gateway's name is called by others: its replicas
    /// are no gateways, and are told no keys of one.
    fn is_called(&self, gateway: &ServiceName) -> bool {
        let mut workloads = self.registry.of_service(gateway);
        workloads.any(|entry| !entry.registration().ports.is_empty())
    }

    fn gateway(&self, gateway: &ServiceName) -> Option<v1::Resource> {
        if let Some(known) = self.gateways.lock().get(gateway) {
            return known.clone();
        }
        let view = view::gateway_resource(&self.world, &self.registry, gateway);
        let mut gateways = self.gateways.lock();
        if gateways.len() < VIEWS_KEPT {
            gateways.insert(gateway.clone(), view.clone());
        }
        view
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

/// Changes that are published together.
#[derive(Debug)]
struct Burst {
    /// When, unless another change comes before.
    due: Instant,
    /// However many come, not later than this.
    limit: Instant,
}

impl Burst {
    /// Begins with a change at `now`. The last publication was at `published`,
    /// `None` before the first.
    fn begin(now: Instant, published: Option<Instant>) -> Self {
        let quiet = published.is_none_or(|at| now.duration_since(at) >= DEBOUNCE);
        Self {
            due: if quiet { now } else { now + DEBOUNCE },
            limit: now + DEBOUNCE_LIMIT,
        }
    }

    /// Another change came at `now`.
    fn extend(&mut self, now: Instant) {
        self.due = (now + DEBOUNCE).min(self.limit);
    }
}

impl Mesh {
    /// Publishes changes, bursts of them together, until told to stop.
    pub(crate) async fn publish(&self, stop: CancellationToken) {
        let mut changes = self.changes.subscribe();
        let mut last = None;
        loop {
            let shown = self.published.borrow().changes;
            tokio::select! {
                // The count cannot end: it lives as long as we do.
                _ = changes.wait_for(|made| *made > shown) => {}
                () = stop.cancelled() => return,
            }
            let mut burst = Burst::begin(Instant::now(), last);
            while Instant::now() < burst.due {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(burst.due) => {}
                    _ = changes.changed() => burst.extend(Instant::now()),
                }
            }
            self.publish_now();
            last = Some(Instant::now());
        }
    }

    fn publish_now(&self) {
        let next = {
            // Nothing is counted while this is held, so the count is that of what is copied.
            let live = self.live.read();
            self.published.borrow().next(&live, self.changes())
        };
        self.published.send_replace(Arc::new(next));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of the changes at these milliseconds is published.
    fn published(changes: &[u64]) -> Vec<u64> {
        let start = Instant::now();
        let at = |millis: u64| start + Duration::from_millis(millis);
        let mut published = Vec::new();
        let mut last = None;
        let mut rest = changes;
        while let Some(first) = rest.first() {
            let mut burst = Burst::begin(at(*first), last);
            let mut taken = 1;
            while let Some(change) = rest.get(taken).filter(|change| at(**change) < burst.due) {
                burst.extend(at(*change));
                taken += 1;
            }
            let due = (burst.due - start).as_millis();
            published.extend(std::iter::repeat_n(due as u64, taken));
            last = Some(burst.due);
            rest = &rest[taken..];
        }
        published
    }

    #[test]
    fn a_change_after_a_quiet_time_is_published_at_once() {
        for changes in [vec![0], vec![1000], vec![0, 25], vec![0, 1000, 2000]] {
            assert_eq!(published(&changes), changes);
        }
    }

    #[test]
    fn a_change_soon_after_a_publication_waits_for_more() {
        for (changes, shown) in [
            (vec![0, 1], vec![0, 26]),
            (vec![0, 24], vec![0, 49]),
            (vec![0, 1, 2, 20], vec![0, 45, 45, 45]),
            // The quiet time begins with the publication, not with the change before it.
            (vec![0, 1, 30], vec![0, 26, 55]),
            (vec![0, 1, 51], vec![0, 26, 51]),
        ] {
            assert_eq!(published(&changes), shown, "{changes:?}");
        }
    }

    #[test]
    fn changes_without_an_end_wait_no_longer_than_the_limit() {
        let changes: Vec<_> = (0..1000).step_by(10).collect();
        let mut shown = published(&changes);
        shown.dedup();
        assert_eq!(shown[..3], [0, 260, 510]);
    }

    #[test]
    fn in_any_rhythm_publications_are_apart_and_no_change_waits_too_long() {
        let (apart, limit) = (DEBOUNCE.as_millis(), DEBOUNCE_LIMIT.as_millis());
        for step in 1..100 {
            let changes: Vec<_> = (0..3000).step_by(step).collect();
            let mut shown = published(&changes);
            assert_eq!(shown.len(), changes.len());
            for (change, shown) in changes.iter().zip(&shown) {
                let waited = u128::from(shown - change);
                assert!(waited <= limit, "{change} of every {step} ms: {waited} ms");
            }
            shown.dedup();
            for two in shown.windows(2) {
                assert!(
                    u128::from(two[1] - two[0]) >= apart,
                    "every {step} ms: {two:?}"
                );
            }
        }
    }
}
