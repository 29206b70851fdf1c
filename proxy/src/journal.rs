//! Why was this endpoint ejected? The last transitions of breakers, bounded,
//! for `/events` and the log.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;
use selvage_policy::breaker::Transition;
use selvage_policy::snapshot::EndpointKey;

/// Transitions remembered.
pub const JOURNAL_EVENTS: usize = 1024;

/// One transition.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub time: SystemTime,
    /// Of which endpoint.
    pub endpoint: EndpointKey,
    /// What changed, and why.
    pub transition: Transition,
}

/// See the module. Shared by all threads; written on transitions only.
#[derive(Debug, Default)]
pub struct Journal(Mutex<VecDeque<Event>>);

impl Journal {
    /// Keeps a transition and logs it.
    pub fn note(&self, endpoint: &EndpointKey, transition: Transition) {
        tracing::info!(
            service = %endpoint.service,
            port = endpoint.port,
            address = %endpoint.address,
            from = transition.from.as_str(),
            to = transition.to.as_str(),
            reason = %transition.reason,
            open_for = ?transition.open_for,
            "breaker"
        );
        let mut events = self.0.lock();
        if events.len() == JOURNAL_EVENTS {
            events.pop_front();
        }
        events.push_back(Event {
            time: SystemTime::now(),
            endpoint: endpoint.clone(),
            transition,
        });
    }

    /// What is remembered, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().iter().cloned().collect()
    }
}
