//! The live state of every known service, kept across Snapshots.
//!
//! Asked when a Snapshot is swapped in, never on the path of a request: it
//! joins the new Snapshot to the state that is there, so that a request finds
//! both side by side. Those that stay keep their load, breaker, budget and
//! limits; those that left are dropped once nothing in flight holds them. It
//! knows no configuration and no connections. It holds as many entries as the
//! last Snapshot has services and endpoints.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use crate::crowd::Crowd;
use crate::endpoint::EndpointState;
use crate::rotation::{Layout, Rotation};
use crate::service::ServiceState;
use crate::snapshot::{Balancer, EndpointKey, Service, ServiceName, ServicePort, Snapshot};
use crate::sync::Mutex;

/// Every live state, keyed beside the Snapshot.
#[derive(Debug)]
pub struct LiveServices {
    epoch: Instant,
    /// The zone of this proxy, if it has one.
    zone: Option<Arc<str>>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    services: HashMap<ServiceName, Arc<ServiceState>>,
    crowds: HashMap<(ServiceName, u16), Arc<Crowd>>,
    endpoints: HashMap<EndpointKey, Arc<EndpointState>>,
    rotations: HashMap<(ServiceName, u16), Arc<Rotation>>,
    /// Of endpoints that left, and that something may still hold.
    left: Vec<Weak<EndpointState>>,
}

/// The services of one Snapshot, each joined to its live state. As immutable as the Snapshot.
#[derive(Debug, Default)]
pub struct LiveView {
    services: HashMap<ServiceName, Arc<LiveService>>,
}

/// A service with its live state.
#[derive(Debug)]
pub struct LiveService {
    /// As in the Snapshot.
    pub service: Arc<Service>,
    /// Limits and budget.
    pub state: Arc<ServiceState>,
    /// In the order of `service.ports`.
    pub ports: Vec<LivePort>,
}

/// A port with the live state of its endpoints.
#[derive(Debug)]
pub struct LivePort {
    /// As in the Snapshot.
    pub port: Arc<ServicePort>,
    /// In the order of `port.endpoints`.
    pub states: Vec<Arc<EndpointState>>,
    /// Those of them that are offered, as a balancer wants them.
    pub rotation: Arc<Rotation>,
}

impl LivePort {
    /// A port with states of its own, as nothing else knows it. `epoch` is no
    /// later than any `now` that follows.
    #[must_use]
    pub fn alone(port: Arc<ServicePort>, epoch: Instant) -> Self {
        let layout = Layout {
            balancer: &Balancer::default(),
            zone: None,
            before: None,
            now: epoch,
        };
        Self::laid_out(port, epoch, &layout)
    }

    /// The same, laid out as asked.
    #[must_use]
    pub fn laid_out(port: Arc<ServicePort>, epoch: Instant, layout: &Layout<'_>) -> Self {
        let crowd = Arc::new(Crowd::new(epoch));
        let fresh = |key: &EndpointKey| EndpointState::new(key.clone(), Arc::clone(&crowd));
        Self::new(port, &crowd, layout, |key| Arc::new(fresh(key)))
    }

    fn new(
        port: Arc<ServicePort>,
        crowd: &Arc<Crowd>,
        layout: &Layout<'_>,
        state_of: impl Fn(&EndpointKey) -> Arc<EndpointState>,
    ) -> Self {
        let endpoints = port.endpoints.iter();
        let states: Vec<_> = endpoints.map(|endpoint| state_of(&endpoint.key)).collect();
        let rotation = Rotation::begin(&port.endpoints, &states, crowd, layout);
        Self {
            port,
            states,
            rotation: Arc::new(rotation),
        }
    }
}

impl LiveService {
    /// A port by its number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&LivePort> {
        self.ports.iter().find(|live| live.port.port == number)
    }
}

impl LiveView {
    /// A service by its name.
    #[must_use]
    pub fn service(&self, name: &ServiceName) -> Option<&Arc<LiveService>> {
        self.services.get(name)
    }

    /// Every service, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<LiveService>> {
        self.services.values()
    }
}

impl LiveServices {
    /// Nothing known yet. `epoch` is no later than any `now` that follows.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self::in_zone(None, epoch)
    }

    /// The same for a proxy that stands in a zone.
    #[must_use]
    pub fn in_zone(zone: Option<Arc<str>>, epoch: Instant) -> Self {
        Self {
            epoch,
            zone,
            kept: Mutex::new(Kept::default()),
        }
    }

    /// Joins a Snapshot to the live state, making what is new and forgetting
    /// what left. Called once per swap, before the Snapshot is seen.
    #[must_use]
    pub fn join(&self, snapshot: &Snapshot, now: Instant) -> LiveView {
        let mut kept = self.kept.lock();
        let mut next = Kept::default();
        let mut view = LiveView::default();
        for service in snapshot.services.values() {
            let live = self.join_service(service, &kept, &mut next, now);
            view.services.insert(service.name.clone(), Arc::new(live));
        }
        let stays = |key: &EndpointKey| next.endpoints.contains_key(key);
        let mut left = std::mem::take(&mut kept.left);
        let gone = kept.endpoints.iter().filter(|(key, _)| !stays(key));
        left.extend(gone.map(|(_, state)| Arc::downgrade(state)));
        *kept = next;
        left.retain(|state| state.strong_count() > 0);
        kept.left = left;
        view
    }

    /// Endpoints that left the Snapshot and have tries in flight.
    #[must_use]
    pub fn draining(&self) -> Vec<Arc<EndpointState>> {
        let mut kept = self.kept.lock();
        kept.left.retain(|state| state.strong_count() > 0);
        let drains = |state: &Arc<EndpointState>| {
            state.pending() > 0 && !kept.endpoints.contains_key(state.key())
        };
        let left = kept.left.iter().filter_map(Weak::upgrade);
        left.filter(drains).collect()
    }

    fn join_service(
        &self,
        service: &Arc<Service>,
        kept: &Kept,
        next: &mut Kept,
        now: Instant,
    ) -> LiveService {
        let budget = service.policy.budget;
        let state = kept
            .services
            .get(&service.name)
            .cloned()
            .unwrap_or_else(|| Arc::new(ServiceState::new(service.name.clone(), budget, now)));
        state.budget().set_policy(budget);
        state.set_hedge(service.policy.hedge.as_ref());
        next.services
            .insert(service.name.clone(), Arc::clone(&state));
        let ports = service
            .ports
            .iter()
            .map(|port| self.join_port(port, &service.policy.balancer, kept, next, now))
            .collect();
        LiveService {
            service: Arc::clone(service),
            state,
            ports,
        }
    }

    fn join_port(
        &self,
        port: &Arc<ServicePort>,
        balancer: &Balancer,
        kept: &Kept,
        next: &mut Kept,
        now: Instant,
    ) -> LivePort {
        let of_port = (port.service.clone(), port.port);
        let known = kept.crowds.get(&of_port);
        let crowd = known.map_or_else(|| Arc::new(Crowd::new(self.epoch)), Arc::clone);
        let fresh = |key: &EndpointKey| {
            let state = Arc::new(EndpointState::new(key.clone(), Arc::clone(&crowd)));
            // Those that were there when the port was first heard of carry their load already.
            if known.is_some() {
                state.warm_up(now);
            }
            state
        };
        let state_of = |key: &EndpointKey| {
            let kept = kept.endpoints.get(key).cloned();
            kept.unwrap_or_else(|| fresh(key))
        };
        let layout = Layout {
            balancer,
            zone: self.zone.as_deref(),
            before: kept.rotations.get(&of_port).map(|before| &**before),
            now,
        };
        let live = LivePort::new(Arc::clone(port), &crowd, &layout, state_of);
        let keyed = |state: &Arc<EndpointState>| (state.key().clone(), Arc::clone(state));
        next.endpoints.extend(live.states.iter().map(keyed));
        next.rotations
            .insert(of_port.clone(), Arc::clone(&live.rotation));
        next.crowds.insert(of_port, crowd);
        live
    }

    /// Endpoints whose connects the proxy should probe now, each claimed by the
    /// asking: see [`EndpointState::wants_connect_probe`].
    #[must_use]
    pub fn connect_probes(&self, now: Instant) -> Vec<Arc<EndpointState>> {
        let kept = self.kept.lock();
        // Mostly nobody is out, and going over thousands to find nobody empties the processor's caches.
        if kept.crowds.values().all(|crowd| crowd.open() == 0) {
            return Vec::new();
        }
        kept.endpoints
            .values()
            .filter(|state| state.wants_connect_probe(now))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::pick;
    use crate::snapshot::{Algorithm, HashOn, Hashing, SlowStart, TrafficPolicy};
    use crate::testing::{endpoint, seconds, seeded, service, service_port, snapshot, start};

    fn with(endpoints: &[u16]) -> Snapshot {
        balanced(endpoints, Balancer::default())
    }

    fn balanced(endpoints: &[u16], balancer: Balancer) -> Snapshot {
        let endpoints = endpoints.iter().map(|n| endpoint(*n, 1, true)).collect();
        let plain = service(vec![service_port(80, endpoints)]);
        let policy = TrafficPolicy {
            balancer,
            ..TrafficPolicy::default()
        };
        snapshot(vec![Arc::new(Service {
            name: plain.name.clone(),
            ports: plain.ports.clone(),
            policy: Arc::new(policy),
        })])
    }

    fn rotation(view: &LiveView) -> Arc<Rotation> {
        let service = view.services().next().expect("a service");
        Arc::clone(&service.ports[0].rotation)
    }

    #[test]
    fn only_who_comes_later_begins_slowly() {
        let start = start();
        let live = LiveServices::new(start);
        let balancer = Balancer {
            slow_start: Some(SlowStart {
                window: seconds(10),
                aggression: 1.0,
                min_weight_percent: 10,
            }),
            ..Balancer::default()
        };
        let first = live.join(&balanced(&[1, 2], balancer.clone()), start);
        let later = start + seconds(60);
        let second = live.join(&balanced(&[1, 2, 3], balancer), later);
        let shares = |view: &LiveView| {
            let states = &view.services().next().expect("a service").ports[0].states;
            let share = |state: &Arc<EndpointState>| rotation(view).share_of(state, later);
            states.iter().map(share).collect::<Vec<_>>()
        };
        assert_eq!(shares(&first), [1.0, 1.0]);
        assert_eq!(shares(&second), [1.0, 1.0, 0.1]);
    }

    #[test]
    fn what_keys_are_found_by_is_kept_while_endpoints_stay() {
        let start = start();
        let live = LiveServices::new(start);
        let balancer = Balancer {
            algorithm: Algorithm::Maglev(Hashing {
                on: vec![HashOn::SourceIp],
                bounded_load: None,
            }),
            ..Balancer::default()
        };
        let homes = |endpoints: &[u16]| {
            let view = live.join(&balanced(endpoints, balancer.clone()), start);
            let rotation = rotation(&view);
            std::ptr::from_ref(rotation.homes().expect("keys have homes")).addr()
        };
        let first = homes(&[1, 2]);
        assert_eq!(first, homes(&[1, 2]));
        assert_ne!(first, homes(&[1, 2, 3]));
    }

    #[test]
    fn those_that_stay_keep_their_state() {
        let start = start();
        let live = LiveServices::new(start);
        let name = ServiceName::new("shop", "ratings");
        let before = live.join(&with(&[1, 2]), start);
        let after = live.join(&with(&[2, 3]), start);
        let (before, after) = (
            before.service(&name).expect("known"),
            after.service(&name).expect("known"),
        );
        assert!(Arc::ptr_eq(&before.state, &after.state));
        assert!(Arc::ptr_eq(
            &before.ports[0].states[1],
            &after.ports[0].states[0]
        ));
        assert!(!Arc::ptr_eq(
            &before.ports[0].states[0],
            &after.ports[0].states[1]
        ));
        assert_eq!(after.port(80).map(|port| port.states.len()), Some(2));
        assert!(after.port(81).is_none());
    }

    #[test]
    fn those_that_left_are_dropped_once_nothing_holds_them() {
        let start = start();
        let live = LiveServices::new(start);
        let view = live.join(&with(&[1]), start);
        let port = view
            .services()
            .next()
            .and_then(|service| service.port(80))
            .expect("a port");
        let state = Arc::downgrade(&port.states[0]);
        let picked = pick(&port.rotation, &[], true, start, &mut seeded());
        drop(view);
        let view = live.join(&snapshot(Vec::new()), start);
        assert!(view.services().next().is_none());
        assert!(state.upgrade().is_some(), "a try in flight holds it");
        let drains = |live: &LiveServices| live.draining().len();
        assert_eq!(drains(&live), 1);
        let back = live.join(&with(&[1]), start);
        assert_eq!(drains(&live), 0, "it is there again");
        drop(back);
        let _ = live.join(&snapshot(Vec::new()), start);
        assert_eq!(drains(&live), 1);
        drop(picked);
        assert_eq!(drains(&live), 0);
        assert!(state.upgrade().is_none());
    }
}
