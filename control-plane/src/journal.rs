//! What happened lately, for people: a ring in memory behind
//! `GET /api/v1/events`. Every entry is also a log line. Knows no store:
//! after a restart it is empty.

use std::collections::VecDeque;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

/// How many events are kept; the oldest go first.
pub(crate) const EVENTS_KEPT: usize = 1024;

/// One thing that happened.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Event {
    /// Counts from 1 since the start of the process.
    pub(crate) id: u64,
    /// RFC 3339.
    pub(crate) at: String,
    /// Such as `registered`, `nack`, `applied`.
    pub(crate) kind: &'static str,
    /// What it is about: a workload, a resource, an identity.
    pub(crate) subject: String,
    pub(crate) message: String,
}

/// The ring.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    ring: Mutex<(u64, VecDeque<Event>)>,
}

impl Journal {
    /// Records an event and logs it.
    pub(crate) fn record(&self, kind: &'static str, subject: &str, message: impl Into<String>) {
        let message = message.into();
        tracing::info!(kind, subject, "{message}");
        let mut ring = self.ring.lock();
        ring.0 += 1;
        let id = ring.0;
        if ring.1.len() == EVENTS_KEPT {
            ring.1.pop_front();
        }
        let subject = subject.to_owned();
        ring.1.push_back(Event {
            id,
            at: Timestamp::now().to_string(),
            kind,
            subject,
            message,
        });
    }

    /// The events after an id, oldest first.
    pub(crate) fn since(&self, id: u64) -> Vec<Event> {
        let ring = self.ring.lock();
        ring.1
            .iter()
            .filter(|event| event.id > id)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest() {
        let journal = Journal::default();
        for count in 0..EVENTS_KEPT + 3 {
            journal.record("test", "subject", count.to_string());
        }
        let events = journal.since(0);
        assert_eq!(events.len(), EVENTS_KEPT);
        assert_eq!(events[0].id, 4);
        assert_eq!(journal.since(events[EVENTS_KEPT - 2].id).len(), 1);
    }
}
