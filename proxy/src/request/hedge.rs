//! One try, and another beside it where it takes long: the first that answers
//! well is the answer. The other one is dropped where it stands, which takes
//! its request back and gives free what it held; it is no failure of its endpoint.

use std::pin::pin;

use selvage_policy::classify::{Class, Outcome, TransportFailure, classify};
use selvage_policy::hedge::{HedgeOutcome, HedgePolicy, Hedging};
use selvage_policy::retry::Attempts;

use super::outgoing::Outgoing;
use super::record::Record;
use super::send::{Chosen, Tried, attempt, choose, exchange_with, learn};
use crate::clock;
use crate::error::ProxyError;
use crate::upstream::Destination;
use crate::worker::Worker;

/// Tries, and hedges the try where its policy says so.
///
/// # Errors
/// As a try alone.
pub(super) async fn hedged(
    worker: &Worker,
    destination: &Destination,
    attempts: &mut Attempts,
    outgoing: &Outgoing,
    record: &mut Record,
) -> Result<Tried, ProxyError> {
    let traffic = destination.policy().clone();
    let Some(policy) = traffic.hedge.as_ref().filter(|_| !outgoing.switches()) else {
        return attempt(worker, destination, attempts, outgoing, record).await;
    };
    let begun = clock::recent();
    let hedging = destination.hedging(policy, begun.into_std());
    let is_first = hedging.begins(attempts, begun.into_std());
    let race = Race {
        worker,
        destination,
        outgoing,
        policy,
        hedging,
        begun,
        is_first,
    };
    let chosen = choose(
        worker,
        destination,
        outgoing,
        attempts,
        attempts.retryable(),
    )
    .inspect_err(|_| record.finds_nobody())?;
    let first_to = chosen.index;
    attempts.sent_to(first_to);
    record.tries(first_to);
    // A probe is waited for: given up for a hedge it would decide nothing, and
    // the endpoint would be the next request's to probe, for ever.
    let delay = hedging.delay(policy).filter(|_| !chosen.is_probe());
    let number = attempts.tries();
    let mut first = pin!(exchange_with(worker, destination, chosen, number, outgoing));
    let Some(delay) = delay else {
        return race.alone(first.await, first_to, record);
    };
    tokio::select! {
        biased;
        tried = &mut first => return race.alone(tried, first_to, record),
        () = tokio::time::sleep_until(begun + delay) => {}
    }
    let _ = clock::now();
    let Some(chosen) = race.another(attempts) else {
        return race.alone(first.await, first_to, record);
    };
    let hedge_to = chosen.index;
    record.hedges(hedge_to);
    let mut told = TellsEnd {
        race: &race,
        outcome: HedgeOutcome::Cancelled,
    };
    let number = attempts.tries();
    let mut second = pin!(exchange_with(worker, destination, chosen, number, outgoing));
    tokio::select! {
        biased;
        tried = &mut first => {
            let tried = race.alone(tried, first_to, record);
            if race.is_good(&tried) {
                told.outcome = HedgeOutcome::Lost;
                return tried;
            }
            race.fails(tried);
            let hedge = race.ended(second.await, hedge_to, record);
            told.outcome = if race.is_good(&hedge) { HedgeOutcome::Won } else { HedgeOutcome::Failed };
            hedge
        }
        hedge = &mut second => {
            if race.is_good(&hedge) {
                told.outcome = HedgeOutcome::Won;
                race.outwaited(first_to);
                return race.ended(hedge, hedge_to, record);
            }
            race.fails(race.ended(hedge, hedge_to, record));
            told.outcome = HedgeOutcome::Failed;
            race.alone(first.await, first_to, record)
        }
    }
}

/// A try that may be hedged.
struct Race<'r> {
    worker: &'r Worker,
    destination: &'r Destination,
    outgoing: &'r Outgoing,
    policy: &'r HedgePolicy,
    hedging: &'r Hedging,
    begun: tokio::time::Instant,
    /// Whether it is the first of its request.
    is_first: bool,
}

impl Race<'_> {
    /// The endpoint of the hedge, where one is to be sent.
    fn another(&self, attempts: &mut Attempts) -> Option<Chosen> {
        let body = &self.outgoing.body;
        if !body.is_complete() || !body.is_replayable() {
            return None;
        }
        // It is sent to be quick, not to see whether somebody is well again: as one that is not retried.
        let chosen = choose(
            self.worker,
            self.destination,
            self.outgoing,
            attempts,
            false,
        )
        .ok();
        let elsewhere =
            |chosen: &Chosen| !attempts.tried().contains(&chosen.index) && !chosen.is_probe();
        let Some(chosen) = chosen.filter(elsewhere) else {
            self.count(HedgeOutcome::NoEndpoint);
            return None;
        };
        let now = clock::recent().into_std();
        if !self.hedging.spend(self.destination.live.budget(), now) {
            self.count(HedgeOutcome::Budget);
            return None;
        }
        attempts.hedged_to(chosen.index);
        Some(chosen)
    }

    /// The first try has ended: how long that took is measured, unless it failed sooner than it would have answered.
    fn alone(
        &self,
        tried: Result<Tried, ProxyError>,
        index: usize,
        record: &mut Record,
    ) -> Result<Tried, ProxyError> {
        let says_something = tried.as_ref().is_ok_and(|tried| {
            tried.outcome == Outcome::Transport(TransportFailure::Timeout)
                || self.is_good_answer(&tried.outcome)
        });
        if says_something {
            self.measure();
        }
        self.ended(tried, index, record)
    }

    /// The try at `index` has ended, and is told of unless the other one is.
    fn ended(
        &self,
        tried: Result<Tried, ProxyError>,
        index: usize,
        record: &mut Record,
    ) -> Result<Tried, ProxyError> {
        match tried {
            Ok(_) => record.prefers(index),
            Err(_) => record.sends_nothing(index),
        }
        tried
    }

    /// The first try was waited for in vain.
    fn outwaited(&self, index: usize) {
        self.measure();
        let now = clock::recent();
        let waited = now.saturating_duration_since(self.begun);
        self.destination.states[index].outwaited(waited, now.into_std());
    }

    fn measure(&self) {
        if !self.is_first {
            return;
        }
        let now = clock::recent();
        let took = now.saturating_duration_since(self.begun);
        self.hedging.measured(self.policy, took, now.into_std());
    }

    /// One of two has failed, and the other is still waited for.
    fn fails(&self, tried: Result<Tried, ProxyError>) {
        if let Ok(mut tried) = tried {
            let report = tried.report(tried.judged(&self.destination.policy().failures));
            learn(self.worker, self.destination, &mut tried.in_flight, &report);
        }
    }

    fn is_good(&self, tried: &Result<Tried, ProxyError>) -> bool {
        tried
            .as_ref()
            .is_ok_and(|tried| self.is_good_answer(&tried.outcome))
    }

    /// Whether an outcome is worth more than one that is still to come.
    fn is_good_answer(&self, outcome: &Outcome) -> bool {
        let failures = &self.destination.policy().failures;
        matches!(outcome, Outcome::Response { .. })
            && matches!(classify(failures, outcome), Class::Success | Class::Neutral)
    }

    fn count(&self, outcome: HedgeOutcome) {
        self.destination.events.hedge(self.worker.index, outcome);
    }
}

/// Counts a hedge that was sent, however it ends.
struct TellsEnd<'r> {
    race: &'r Race<'r>,
    outcome: HedgeOutcome,
}

impl Drop for TellsEnd<'_> {
    fn drop(&mut self) {
        self.race.count(self.outcome);
    }
}
