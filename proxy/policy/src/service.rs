//! The live state of one service: what is in use of its limits, and its retry
//! budget.
//!
//! Met by a request once its service is known, before an endpoint is picked.
//! Shared by the workers; kept across Snapshots. Limits are asked, never
//! waited for: over a limit the answer is `overflow` at once. What is held is
//! held to the end of the response body, by a guard.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::budget::Budget;
use crate::hedge::{HedgePolicy, Hedging};
use crate::snapshot::{BudgetPolicy, Limits, ServiceName};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Routes that hedge by a policy of their own, remembered per service; beyond it they begin anew.
const HEDGED_ROUTES: usize = 1024;

/// What is known of one service beside the Snapshot.
#[derive(Debug)]
pub struct ServiceState {
    name: ServiceName,
    budget: Budget,
    requests: AtomicU32,
    pending: AtomicU32,
    connections: AtomicU32,
    /// Made when the first request that could be hedged comes.
    hedging: OnceLock<Box<Hedging>>,
    copies: AtomicU32,
    shadows: AtomicU32,
    /// As `hedging`, of routes that say how by themselves; by their labels.
    hedged_routes: OnceLock<Mutex<HashMap<Box<str>, Arc<Hedging>>>>,
}

#[derive(Debug, Clone, Copy)]
enum Counter {
    Requests,
    Pending,
    Connections,
    Copies,
    Shadows,
}

/// One count of a service, given back when dropped.
#[derive(Debug)]
struct Held {
    service: Arc<ServiceState>,
    counter: Counter,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.service
            .counter(self.counter)
            .fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request in flight; held until its response body ends.
#[derive(Debug)]
#[must_use = "the limit is given back when this is dropped"]
pub struct RequestPermit(#[expect(dead_code, reason = "held for its drop")] Held);

/// A request that waits for a connection.
#[derive(Debug)]
#[must_use = "the limit is given back when this is dropped"]
pub struct PendingPermit(#[expect(dead_code, reason = "held for its drop")] Held);

/// An upstream connection: HTTP, upgraded or opaque.
#[derive(Debug)]
#[must_use = "the limit is given back when this is dropped"]
pub struct ConnectionPermit(#[expect(dead_code, reason = "held for its drop")] Held);

/// A copy of a request, for a mirror.
#[derive(Debug)]
#[must_use = "the limit is given back when this is dropped"]
pub struct CopyPermit(#[expect(dead_code, reason = "held for its drop")] Held);

impl ServiceState {
    /// A service nothing is in use of.
    #[must_use]
    pub fn new(name: ServiceName, budget: BudgetPolicy, now: Instant) -> Self {
        Self {
            name,
            budget: Budget::new(budget, now),
            requests: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            connections: AtomicU32::new(0),
            hedging: OnceLock::new(),
            copies: AtomicU32::new(0),
            shadows: AtomicU32::new(0),
            hedged_routes: OnceLock::new(),
        }
    }

    /// Whose state this is.
    #[must_use]
    pub const fn name(&self) -> &ServiceName {
        &self.name
    }

    /// Its retry budget.
    #[must_use]
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// What is known of its requests that could be hedged.
    pub fn hedging(&self, policy: &HedgePolicy, now: Instant) -> &Hedging {
        self.hedging
            .get_or_init(|| Box::new(Hedging::new(policy, now)))
    }

    /// The same for the requests of one route with a policy of its own, which
    /// is set. Takes a lock: asked once under a Snapshot. Of at most
    /// `HEDGED_ROUTES` what was measured stays.
    pub fn hedging_of(&self, route: &str, policy: &HedgePolicy, now: Instant) -> Arc<Hedging> {
        let mut routes = self.hedged_routes.get_or_init(Mutex::default).lock();
        if routes.len() >= HEDGED_ROUTES && !routes.contains_key(route) {
            routes.clear();
        }
        let known = routes.entry(route.into());
        let hedging = known.or_insert_with(|| Arc::new(Hedging::new(policy, now)));
        hedging.set_policy(policy);
        hedging.clone()
    }

    /// Changes the policy of hedging in place; what was measured stays.
    pub fn set_hedge(&self, policy: Option<&HedgePolicy>) {
        if let (Some(hedging), Some(policy)) = (self.hedging.get(), policy) {
            hedging.set_policy(policy);
        }
    }

    /// Admits a request, unless `max_requests` are in flight. `None` is an `overflow`.
    pub fn admit_request(self: &Arc<Self>, limits: &Limits) -> Option<RequestPermit> {
        self.hold(Counter::Requests, limits.max_requests)
            .map(RequestPermit)
    }

    /// Lets a request wait for a connection, unless `max_pending` do. `None` is an `overflow`.
    pub fn admit_pending(self: &Arc<Self>, limits: &Limits) -> Option<PendingPermit> {
        self.hold(Counter::Pending, limits.max_pending)
            .map(PendingPermit)
    }

    /// Lets a connection be made, unless there are `max_connections`. `None` is an `overflow`.
    pub fn admit_connection(self: &Arc<Self>, limits: &Limits) -> Option<ConnectionPermit> {
        self.hold(Counter::Connections, limits.max_connections)
            .map(ConnectionPermit)
    }

    /// Lets a copy of a request be made for a mirror, unless `max_pending` are under way.
    pub fn admit_copy(self: &Arc<Self>, max_pending: u32) -> Option<CopyPermit> {
        self.hold(Counter::Copies, max_pending).map(CopyPermit)
    }

    /// Lets a copy come to this service from a route, unless `max_pending` are under way.
    pub fn admit_shadow(self: &Arc<Self>, max_pending: u32) -> Option<CopyPermit> {
        self.hold(Counter::Shadows, max_pending).map(CopyPermit)
    }

    /// Requests in flight, requests that wait, connections.
    #[must_use]
    pub fn in_use(&self) -> (u32, u32, u32) {
        let read = |counter| self.counter(counter).load(Ordering::Relaxed);
        (
            read(Counter::Requests),
            read(Counter::Pending),
            read(Counter::Connections),
        )
    }

    fn hold(self: &Arc<Self>, counter: Counter, limit: u32) -> Option<Held> {
        let one_more = |used: u32| (used < limit).then(|| used + 1);
        self.counter(counter)
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .ok()?;
        Some(Held {
            service: Arc::clone(self),
            counter,
        })
    }

    const fn counter(&self, counter: Counter) -> &AtomicU32 {
        match counter {
            Counter::Requests => &self.requests,
            Counter::Pending => &self.pending,
            Counter::Connections => &self.connections,
            Counter::Copies => &self.copies,
            Counter::Shadows => &self.shadows,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::start;

    fn service() -> Arc<ServiceState> {
        let name = ServiceName::new("shop", "ratings");
        Arc::new(ServiceState::new(name, BudgetPolicy::default(), start()))
    }

    #[test]
    fn each_limit_bounds_its_own() {
        let service = service();
        let limits = Limits {
            max_connections: 1,
            max_requests: 2,
            max_pending: 0,
        };
        let requests: Vec<_> = (0..5)
            .filter_map(|_| service.admit_request(&limits))
            .collect();
        let connections: Vec<_> = (0..5)
            .filter_map(|_| service.admit_connection(&limits))
            .collect();
        assert_eq!((requests.len(), connections.len()), (2, 1));
        assert!(service.admit_pending(&limits).is_none());
        assert_eq!(service.in_use(), (2, 0, 1));
        drop(requests);
        assert_eq!(service.in_use(), (0, 0, 1));
        drop(connections);
        assert!(service.admit_connection(&limits).is_some());
    }

    #[test]
    fn a_lower_limit_admits_none_until_enough_is_given_back() {
        let service = service();
        let wide = Limits {
            max_requests: 3,
            ..Limits::default()
        };
        let narrow = Limits {
            max_requests: 1,
            ..Limits::default()
        };
        let mut held: Vec<_> = (0..3)
            .filter_map(|_| service.admit_request(&wide))
            .collect();
        for left in [2, 1] {
            held.truncate(left);
            assert!(service.admit_request(&narrow).is_none());
        }
        held.clear();
        assert!(service.admit_request(&narrow).is_some());
    }
}
