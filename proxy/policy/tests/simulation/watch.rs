//! Looks on while a proxy decides, and asserts what must hold at every moment:
//!
//! - over any ten seconds, retries stay within the budget;
//! - a try goes only to a breaker that is Closed, or is the one probe of one
//!   that is HalfOpen, and no backoff is cut short but by a connect;
//! - by success rate no more than the share is open, and never the last one.
//!
//! It keeps the journal that scenarios ask afterwards.

use std::cell::{Cell, Ref, RefCell};
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use selvage_policy::breaker::{BreakerState, Reason, Transition};
use selvage_policy::classify::Class;
use selvage_policy::endpoint::{EndpointState, InFlight};
use selvage_policy::retry::WhyReturned;
use selvage_policy::snapshot::{BudgetPolicy, TrafficPolicy};
use selvage_policy::table::LiveService;

use crate::clock::Clock;

/// A change of a breaker.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    /// Since the start.
    pub(crate) at: Duration,
    pub(crate) endpoint: SocketAddr,
    pub(crate) transition: Transition,
}

/// A try that has come to its head, or to nothing, or whose body broke.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Try {
    /// Since the start.
    pub(crate) at: Duration,
    pub(crate) endpoint: SocketAddr,
    pub(crate) probe: bool,
    pub(crate) class: Class,
}

/// See the module.
pub(crate) struct Watch {
    clock: Clock,
    policy: RefCell<Arc<TrafficPolicy>>,
    /// The endpoints of now.
    states: RefCell<Vec<Arc<EndpointState>>>,
    requests: RefCell<VecDeque<Instant>>,
    retries: RefCell<VecDeque<Instant>>,
    retried: Cell<usize>,
    out_of_budget: Cell<usize>,
    connect_probes: Cell<usize>,
    changes: RefCell<Vec<Change>>,
    tries: RefCell<Vec<Try>>,
    /// The last change of each endpoint of now, and when.
    standing: RefCell<HashMap<SocketAddr, (Instant, Transition)>>,
}

impl Watch {
    pub(crate) fn new(clock: &Clock, live: &LiveService) -> Self {
        Self {
            clock: clock.clone(),
            policy: RefCell::new(Arc::clone(&live.service.policy)),
            states: RefCell::new(states(live)),
            requests: RefCell::default(),
            retries: RefCell::default(),
            retried: Cell::new(0),
            out_of_budget: Cell::new(0),
            connect_probes: Cell::new(0),
            changes: RefCell::default(),
            tries: RefCell::default(),
            standing: RefCell::default(),
        }
    }

    /// Another Snapshot. What left and comes back begins anew.
    pub(crate) fn offered(&self, live: &LiveService) {
        *self.policy.borrow_mut() = Arc::clone(&live.service.policy);
        *self.states.borrow_mut() = states(live);
        let states = self.states.borrow();
        let stays = |address: &SocketAddr| states.iter().any(|s| s.key().address == *address);
        self.standing
            .borrow_mut()
            .retain(|address, _| stays(address));
    }

    /// A request came.
    pub(crate) fn requested(&self) {
        self.requests.borrow_mut().push_back(self.clock.now());
    }

    /// A retry was decided.
    pub(crate) fn retries(&self) {
        let now = self.clock.now();
        let BudgetPolicy {
            percent,
            interval,
            min_per_second,
        } = self.policy.borrow().budget;
        let mut requests = self.requests.borrow_mut();
        let mut retries = self.retries.borrow_mut();
        retries.push_back(now);
        for times in [&mut *requests, &mut *retries] {
            while times.front().is_some_and(|at| now - *at >= interval) {
                times.pop_front();
            }
        }
        let allowed = requests.len() as f64 * f64::from(percent) / 100.0
            + f64::from(min_per_second) * interval.as_secs_f64();
        assert!(
            retries.len() as f64 <= allowed,
            "{} retries of {} requests within {interval:?}",
            retries.len(),
            requests.len()
        );
        self.retried.set(self.retried.get() + 1);
    }

    /// No further try follows.
    pub(crate) fn returned(&self, why: WhyReturned) {
        if why == WhyReturned::BudgetExhausted {
            self.out_of_budget.set(self.out_of_budget.get() + 1);
        }
    }

    /// An endpoint takes a try.
    pub(crate) fn picked(&self, in_flight: &InFlight, transition: Option<Transition>) {
        let endpoint = in_flight.endpoint();
        if let Some(transition) = transition {
            self.note(endpoint, transition);
        }
        let address = endpoint.key().address;
        let standing = self.standing.borrow().get(&address).copied();
        let state = standing.map_or(BreakerState::Closed, |(_, transition)| transition.to);
        let expected = if in_flight.is_probe() {
            BreakerState::HalfOpen
        } else {
            BreakerState::Closed
        };
        let as_it_should = state == expected || !self.knows(endpoint);
        assert!(as_it_should, "a try of {address}, after {standing:?}");
    }

    /// A try has come to its head, or to nothing.
    pub(crate) fn tried(&self, in_flight: &InFlight, class: Class) {
        self.tries.borrow_mut().push(Try {
            at: self.clock.elapsed(),
            endpoint: in_flight.endpoint().key().address,
            probe: in_flight.is_probe(),
            class,
        });
    }

    /// The body of a response broke off.
    pub(crate) fn broke(&self, in_flight: &InFlight) {
        self.tried(in_flight, Class::HardFailure);
    }

    /// The proxy connects by itself.
    pub(crate) fn probes_connect(&self) {
        self.connect_probes.set(self.connect_probes.get() + 1);
    }

    /// A breaker changed.
    pub(crate) fn note(&self, endpoint: &EndpointState, transition: Transition) {
        if !self.knows(endpoint) {
            return;
        }
        let address = endpoint.key().address;
        let before = self
            .standing
            .borrow_mut()
            .insert(address, (self.clock.now(), transition));
        let was = before.map_or(BreakerState::Closed, |(_, before)| before.to);
        assert_eq!(transition.from, was, "no change of {address} is missed");
        match transition.reason {
            Reason::BackoffOver => {
                let (since, opened) = before.expect("it was opened");
                let open_for = opened.open_for.expect("an open breaker has a backoff");
                let waited = self.clock.now() - since;
                assert!(waited >= open_for, "{waited:?} of {open_for:?}");
            }
            Reason::SuccessRate { .. } => self.opened_by_rate(),
            _ => {}
        }
        self.changes.borrow_mut().push(Change {
            at: self.clock.elapsed(),
            endpoint: address,
            transition,
        });
    }

    /// Whether it is an endpoint of now; a request may still hold one that left.
    fn knows(&self, endpoint: &EndpointState) -> bool {
        let states = self.states.borrow();
        states.iter().any(|state| std::ptr::eq(&**state, endpoint))
    }

    fn opened_by_rate(&self) {
        let now = self.clock.now();
        let states = self.states.borrow();
        let is_out = |state: &&Arc<EndpointState>| state.state(now) != BreakerState::Closed;
        let (out, all) = (states.iter().filter(is_out).count(), states.len());
        let share = self.policy.borrow().breaker.max_open_percent as usize;
        assert!(out * 100 <= share * all, "{out} of {all} are open");
        assert!(out < all, "the last endpoint was opened by rate");
    }

    /// Every change, in order.
    pub(crate) fn changes(&self) -> Ref<'_, [Change]> {
        Ref::map(self.changes.borrow(), Vec::as_slice)
    }

    /// Every try, in the order they ended.
    pub(crate) fn tries(&self) -> Ref<'_, [Try]> {
        Ref::map(self.tries.borrow(), Vec::as_slice)
    }

    /// Retries that were sent.
    pub(crate) fn retried(&self) -> usize {
        self.retried.get()
    }

    /// Retries that the budget refused.
    pub(crate) fn out_of_budget(&self) -> usize {
        self.out_of_budget.get()
    }

    /// Connects that the proxy made to see whether it can.
    pub(crate) fn connect_probes(&self) -> usize {
        self.connect_probes.get()
    }
}

fn states(live: &LiveService) -> Vec<Arc<EndpointState>> {
    let ports = live.ports.iter();
    ports.flat_map(|port| port.states.clone()).collect()
}
