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
    /// The endpoint of its hedge.
    beside: Option<usize>,
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

    /// Beside the one under way another begins, at the endpoint at `index`.
    pub(super) const fn begin_beside(&mut self, index: usize) {
        self.beside = Some(index);
    }

    /// Of two under way, the one at `index` is told of.
    pub(super) fn prefer(&mut self, index: usize) {
        if self.beside == Some(index) {
            std::mem::swap(&mut self.under_way, &mut self.beside);
        }
    }

    /// The one at `index` came to nothing: a limit of ours stood before it.
    pub(super) fn withdraw(&mut self, index: usize) {
        if self.beside == Some(index) {
            self.beside = None;
        } else {
            self.under_way = self.beside.take();
        }
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
        self.count += 1 + u32::from(self.beside.take().is_some());
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

#[cfg(test)]
mod tests {
    use super::*;

    fn count(mut tries: Tries) -> u32 {
        tries.settle(None, None);
        tries.count()
    }

    fn two() -> Tries {
        let mut tries = Tries::default();
        tries.begin(0);
        tries.begin_beside(1);
        tries
    }

    #[test]
    fn a_hedge_is_a_try() {
        assert_eq!(count(Tries::default()), 0);
        assert_eq!(count(two()), 2);
    }

    #[test]
    fn the_one_preferred_is_told_of() {
        let mut tries = two();
        for index in [0, 1, 1, 0, 1] {
            tries.prefer(index);
            assert_eq!(tries.under_way, Some(index));
        }
        assert_eq!(count(tries), 2);
    }

    #[test]
    fn what_was_not_sent_is_no_try() {
        for (withdrawn, left) in [(0, 1), (1, 0)] {
            let mut tries = two();
            tries.withdraw(withdrawn);
            assert_eq!((tries.under_way, tries.beside), (Some(left), None));
            assert_eq!(count(tries), 1);
        }
        let mut tries = two();
        tries.prefer(1);
        tries.withdraw(0);
        tries.withdraw(1);
        assert_eq!(count(tries), 0);
    }
}
