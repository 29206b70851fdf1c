//! The tries of one request, as they are told of. A try counts once it has
//! come to something, or once the caller has left during it; why there was
//! another is told once that one has begun. It decides nothing.

use selvage_policy::classify::Outcome;
use tokio::time::Instant;

use super::told::reason;
use crate::clock;
use crate::telemetry::told::{Retried, Told};
use crate::upstream::Destination;

/// See the module.
#[derive(Default)]
pub(super) struct Tries {
    count: u32,
    /// The endpoint of the one under way, by index.
    under_way: Option<usize>,
    /// The last one, where another is to follow.
    retried: Option<Box<Retried>>,
}

impl Tries {
    /// How often the request was sent.
    pub(super) const fn count(&self) -> u32 {
        self.count
    }

    /// One begins, at the endpoint at `index`.
    pub(super) const fn begin(&mut self, index: usize) {
        self.under_way = Some(index);
    }

    /// The one under way came to nothing: a limit of ours stood before it.
    pub(super) const fn withdraw(&mut self) {
        self.under_way = None;
    }

    /// The last one, which ended so, is followed by another.
    pub(super) fn fail(&mut self, outcome: &Outcome, begun: Instant, told: &Told) {
        self.retried = Some(Box::new(Retried {
            after: clock::recent().saturating_duration_since(begun),
            reason: reason(outcome),
            endpoint_address: told.endpoint_address,
        }));
    }

    /// Tells of the one under way, if there is one.
    pub(super) fn settle(&mut self, told: Option<&mut Told>, destination: Option<&Destination>) {
        let Some(index) = self.under_way.take() else {
            return;
        };
        self.count += 1;
        let Some(told) = told else {
            return;
        };
        told.upstream = None;
        if let Some(retried) = self.retried.take() {
            told.retry_reason = Some(retried.reason);
            if let Some(span) = &mut told.span {
                span.retries(*retried);
            }
        }
        if let Some(endpoint) = destination.and_then(|to| to.port.endpoints.get(index)) {
            told.is_sent_to(endpoint);
        }
    }
}
