//! Why was this endpoint ejected? The last changes of breakers and of health,
//! bounded, for `/events` and the log. It knows what changed, not how it is shown.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;
use selvage_policy::breaker::Transition;
use selvage_policy::health::{HealthChange, word};
use selvage_policy::snapshot::EndpointKey;

/// Changes remembered; the oldest are forgotten first.
pub const JOURNAL_EVENTS: usize = 1024;

/// One change.
#[derive(Debug, Clone)]
pub struct Event {
    /// When.
    pub time: SystemTime,
    /// Of which endpoint; of the application, where it listens.
    pub endpoint: EndpointKey,
    /// What.
    pub change: Change,
}

/// What changed.
#[derive(Debug, Clone)]
pub enum Change {
    /// The breaker of an endpoint.
    Breaker(Transition),
    /// The health of an endpoint, by this proxy's own checks.
    Health(HealthChange),
    /// The health of the application beside us.
    Application(HealthChange),
}

impl Change {
    /// What it is a change of: `breaker`, `health` or `application`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Breaker(_) => "breaker",
            Self::Health(_) => "health",
            Self::Application(_) => "application",
        }
    }

    /// The state that was left.
    #[must_use]
    pub const fn from(&self) -> &'static str {
        match self {
            Self::Breaker(transition) => transition.from.as_str(),
            Self::Health(change) | Self::Application(change) => word(!change.healthy),
        }
    }

    /// The state that was entered.
    #[must_use]
    pub const fn to(&self) -> &'static str {
        match self {
            Self::Breaker(transition) => transition.to.as_str(),
            Self::Health(change) | Self::Application(change) => word(change.healthy),
        }
    }

    /// Why, with its numbers.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Breaker(transition) => transition.reason.to_string(),
            Self::Health(change) | Self::Application(change) => change.to_string(),
        }
    }
}

/// See the module. Shared by all threads; written on changes only.
#[derive(Debug, Default)]
pub struct Journal(Mutex<VecDeque<Event>>);

impl Journal {
    /// Keeps a breaker's transition and logs it.
    pub fn note(&self, endpoint: &EndpointKey, transition: Transition) {
        self.keep(endpoint, Change::Breaker(transition));
    }

    /// Keeps a change and logs it.
    pub fn keep(&self, endpoint: &EndpointKey, change: Change) {
        let open_for = match &change {
            Change::Breaker(transition) => transition.open_for,
            Change::Health(_) | Change::Application(_) => None,
        };
        tracing::info!(
            service = %endpoint.service,
            port = endpoint.port,
            address = %endpoint.address,
            from = change.from(),
            to = change.to(),
            reason = change.reason(),
            open_for = open_for.map(tracing::field::debug),
            "{}",
            change.kind()
        );
        let mut events = self.0.lock();
        if events.len() == JOURNAL_EVENTS {
            events.pop_front();
        }
        events.push_back(Event {
            time: SystemTime::now(),
            endpoint: endpoint.clone(),
            change,
        });
    }

    /// What is remembered, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.0.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use selvage_policy::snapshot::ServiceName;

    use super::*;

    #[test]
    fn it_is_bounded_and_the_newest_comes_last() {
        let journal = Journal::default();
        let key = |port| EndpointKey {
            service: ServiceName::new("shop", "ratings"),
            port,
            address: "127.0.0.1:1".parse().expect("an address"),
            identity: None,
        };
        let change = HealthChange {
            healthy: false,
            in_a_row: 3,
            last: Some("status 503".into()),
        };
        for port in 0..=JOURNAL_EVENTS as u16 {
            journal.keep(&key(port), Change::Health(change.clone()));
        }
        let events = journal.events();
        assert_eq!(events.len(), JOURNAL_EVENTS);
        assert_eq!(events[0].endpoint.port, 1);
        let last = &events[JOURNAL_EVENTS - 1];
        assert_eq!(last.endpoint.port, JOURNAL_EVENTS as u16);
        let shown = (last.change.kind(), last.change.from(), last.change.to());
        assert_eq!(shown, ("health", "healthy", "unhealthy"));
        let reason = "3 checks in a row failed, the last: status 503";
        assert_eq!(last.change.reason(), reason);
    }
}
