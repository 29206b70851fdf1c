//! The live state of one endpoint, and the guard of a try in flight.
//!
//! Stands beside the Snapshot, kept across swaps, shared by the workers. What
//! the path of a request reads is packed in atomics: requests in flight, load,
//! and the breaker's verdict. The machine behind the verdict takes a lock, and
//! only when something failed or probes. It knows no connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::breaker::{
    Breaker, BreakerState, GENERATIONS, Observation, PROBE_DECIDES_WITHIN, Record, State, Ticket,
    Transition,
};
use crate::classify::{Class, Outcome, TransportFailure, classify};
use crate::crowd::Crowd;
use crate::ewma::PeakEwma;
use crate::snapshot::{BreakerPolicy, EndpointKey};

/// What is known of one endpoint beside the Snapshot.
#[derive(Debug)]
pub struct EndpointState {
    key: EndpointKey,
    epoch: Instant,
    crowd: Arc<Crowd>,
    pending: AtomicU32,
    load: PeakEwma,
    verdict: AtomicU64,
    record: Record,
    breaker: Mutex<Breaker>,
}

/// What a balancer may do with an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In rotation.
    Closed { generation: u32 },
    /// One request may try, and has been wanted for this long.
    Vacant { waited: Duration },
    /// Nothing.
    Out,
}

/// The verdict: two bits of kind, 22 of generation, 40 of milliseconds since the epoch (34 years).
mod verdict {
    pub(super) const CLOSED: u64 = 0;
    pub(super) const OPEN: u64 = 1;
    pub(super) const VACANT: u64 = 2;
    pub(super) const TAKEN: u64 = 3;
    pub(super) const KIND_BITS: u32 = 2;
    pub(super) const GENERATION_BITS: u32 = super::GENERATIONS.trailing_zeros();
}

impl EndpointState {
    /// The state of an endpoint nothing is known of. `epoch` is no later than any `now` that follows.
    #[must_use]
    pub fn new(key: EndpointKey, crowd: Arc<Crowd>, epoch: Instant) -> Self {
        Self {
            key,
            epoch,
            crowd,
            pending: AtomicU32::new(0),
            load: PeakEwma::new(epoch),
            verdict: AtomicU64::new(verdict::CLOSED),
            record: Record::new(epoch),
            breaker: Mutex::new(Breaker::default()),
        }
    }

    /// Whose state this is.
    #[must_use]
    pub const fn key(&self) -> &EndpointKey {
        &self.key
    }

    /// Tries in flight.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending.load(Ordering::Relaxed)
    }

    /// The breaker's state. Open whose backoff is over reads as HalfOpen:
    /// the next request may try, though the transition is reported only then.
    #[must_use]
    pub fn state(&self, now: Instant) -> BreakerState {
        let packed = self.verdict.load(Ordering::Acquire);
        match (kind(packed), self.standing(now)) {
            (verdict::CLOSED, _) => BreakerState::Closed,
            (verdict::OPEN, Standing::Out) => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    /// What a further request is thought to cost, in seconds. `share` is the
    /// weight relative to the mean: one of double weight bears double load.
    #[must_use]
    pub fn cost(&self, share: f64, now: Instant) -> f64 {
        self.load.cost(now) * (f64::from(self.pending()) / share + 1.0)
    }

    pub(crate) fn standing(&self, now: Instant) -> Standing {
        let packed = self.verdict.load(Ordering::Acquire);
        let at = packed >> (verdict::KIND_BITS + verdict::GENERATION_BITS);
        let now = self.millis(now);
        match kind(packed) {
            verdict::CLOSED => {
                let generation = (packed >> verdict::KIND_BITS) as u32 % GENERATIONS;
                Standing::Closed { generation }
            }
            verdict::OPEN if at <= now => Standing::Vacant {
                waited: Duration::from_millis(now - at),
            },
            verdict::VACANT => Standing::Vacant {
                waited: Duration::from_millis(now.saturating_sub(at)),
            },
            _ => Standing::Out,
        }
    }

    /// Begins a try while Closed; takes no lock.
    pub(crate) fn admit(self: &Arc<Self>, now: Instant) -> Option<InFlight> {
        match self.standing(now) {
            Standing::Closed { generation } => Some(InFlight::new(
                self,
                Ticket {
                    generation,
                    probe: false,
                },
                now,
            )),
            _ => None,
        }
    }

    /// Begins the one try of a HalfOpen breaker.
    pub(crate) fn admit_probe(
        self: &Arc<Self>,
        now: Instant,
    ) -> Option<(InFlight, Option<Transition>)> {
        let mut breaker = self.breaker.lock();
        let (ticket, transition) = breaker.admit(now)?;
        self.publish(&breaker);
        drop(breaker);
        Some((InFlight::new(self, ticket, now), transition))
    }

    /// Whether the proxy should connect now to see whether it can: see [`Breaker::wants_connect_probe`].
    #[must_use]
    pub fn wants_connect_probe(&self, now: Instant) -> bool {
        self.state(now) == BreakerState::Open && self.breaker.lock().wants_connect_probe(now)
    }

    /// Reports that such a connect succeeded.
    pub fn connect_probe_succeeded(&self, now: Instant) -> Option<Transition> {
        let mut breaker = self.breaker.lock();
        let transition = breaker.connect_probe_succeeded(now);
        self.publish(&breaker);
        transition
    }

    fn observe(
        &self,
        observation: Observation,
        latency: Option<Duration>,
        policy: &BreakerPolicy,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        let mut breaker = self.breaker.lock();
        let mut counted = false;
        let may_open = || {
            counted = self.crowd.try_open(policy.max_open_percent);
            counted
        };
        let transition = breaker.observe(&self.record, observation, policy, may_open, now, rng);
        match transition {
            Some(Transition {
                from: BreakerState::Closed,
                ..
            }) if !counted => self.crowd.opened(),
            Some(Transition {
                to: BreakerState::Closed,
                ..
            }) => {
                match latency {
                    Some(latency) => self.load.restart(latency, now),
                    None => self.load.clear(now),
                }
                self.crowd.closed();
            }
            _ => {}
        }
        self.publish(&breaker);
        transition
    }

    fn release(&self, ticket: Ticket, now: Instant) {
        let mut breaker = self.breaker.lock();
        breaker.release(ticket, now);
        self.publish(&breaker);
    }

    /// Called with the lock held, so that verdicts appear in the order of states.
    fn publish(&self, breaker: &Breaker) {
        let (kind, at) = match breaker.inside() {
            State::Closed => (verdict::CLOSED, 0),
            // Rounded up: never tried before its time.
            State::Open { until, .. } => (verdict::OPEN, self.millis(until) + 1),
            State::HalfOpen {
                vacant_since: Some(since),
                ..
            } => (verdict::VACANT, self.millis(since)),
            State::HalfOpen {
                vacant_since: None, ..
            } => (verdict::TAKEN, 0),
        };
        let generation = u64::from(breaker.generation());
        let packed = (at << verdict::GENERATION_BITS | generation) << verdict::KIND_BITS | kind;
        self.verdict.store(packed, Ordering::Release);
    }

    fn millis(&self, at: Instant) -> u64 {
        const LARGEST: u64 = (1 << 40) - 2;
        let elapsed = at.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(elapsed).unwrap_or(LARGEST).min(LARGEST)
    }
}

impl Drop for EndpointState {
    fn drop(&mut self) {
        if kind(self.verdict.load(Ordering::Acquire)) != verdict::CLOSED {
            self.crowd.closed();
        }
    }
}

const fn kind(packed: u64) -> u64 {
    packed & ((1 << verdict::KIND_BITS) - 1)
}

/// What one try ended in.
#[derive(Debug, Clone, Copy)]
pub struct Report {
    /// What it says of the endpoint.
    pub class: Class,
    /// Whether this proxy itself could not connect to it.
    pub could_not_connect: bool,
    /// How long the endpoint asked to be left alone.
    pub retry_after: Option<Duration>,
}

impl Report {
    /// Classifies an outcome.
    #[must_use]
    pub fn of(outcome: &Outcome, retry_after: Option<Duration>) -> Self {
        let could_not_connect = matches!(outcome, Outcome::Transport(TransportFailure::Connect));
        Self {
            class: classify(outcome),
            could_not_connect,
            retry_after,
        }
    }
}

/// A try in flight: counts as pending until dropped, and holds the slot of a
/// HalfOpen breaker until it decides or is dropped undecided.
#[derive(Debug)]
pub struct InFlight {
    state: Arc<EndpointState>,
    ticket: Ticket,
    started: Instant,
    latency: Option<Duration>,
    observed: bool,
}

impl InFlight {
    fn new(state: &Arc<EndpointState>, ticket: Ticket, now: Instant) -> Self {
        state.pending.fetch_add(1, Ordering::Relaxed);
        Self {
            state: Arc::clone(state),
            ticket,
            started: now,
            latency: None,
            observed: false,
        }
    }

    /// The endpoint it goes to.
    #[must_use]
    pub const fn endpoint(&self) -> &Arc<EndpointState> {
        &self.state
    }

    /// Whether it decides a HalfOpen breaker.
    #[must_use]
    pub const fn is_probe(&self) -> bool {
        self.ticket.is_probe()
    }

    /// When an undecided probe has failed: the proxy then observes a
    /// [`Class::HardFailure`] and lets the request itself go on.
    #[must_use]
    pub fn probe_deadline(&self) -> Option<Instant> {
        (self.is_probe() && !self.observed).then(|| self.started + PROBE_DECIDES_WITHIN)
    }

    /// Takes the latency, at the first byte of the response. Only the first call counts.
    pub fn first_byte(&mut self, now: Instant) {
        if self.latency.is_none() {
            let latency = now.saturating_duration_since(self.started);
            self.latency = Some(latency);
            self.state.load.sample(latency, now);
        }
    }

    /// Learns from how the try ended: at its response headers, or later where
    /// the class comes later (gRPC trailers). Only the first call counts.
    /// A success in a Closed breaker takes no lock.
    pub fn observe(
        &mut self,
        report: &Report,
        policy: &BreakerPolicy,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        if std::mem::replace(&mut self.observed, true) {
            return None;
        }
        if !self.is_probe() {
            let sent_in = Standing::Closed {
                generation: self.ticket.generation,
            };
            if self.state.standing(now) != sent_in {
                return None;
            }
            match report.class {
                Class::Success => {
                    self.state.record.success(now);
                    return None;
                }
                Class::Neutral => return None,
                Class::Failure | Class::HardFailure | Class::Throttled => {}
            }
        }
        if report.class == Class::Throttled || report.class.is_failure() {
            self.state.load.penalize(report.retry_after, now);
        }
        let Report {
            class,
            could_not_connect,
            ..
        } = *report;
        let observation = Observation {
            ticket: self.ticket,
            class,
            could_not_connect,
        };
        self.state
            .observe(observation, self.latency, policy, now, rng)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.pending.fetch_sub(1, Ordering::Relaxed);
        if self.is_probe() && !self.observed {
            // Without a clock here: vacant since it was taken, which only makes the next probe sooner.
            self.state.release(self.ticket, self.started);
        }
    }
}

#[cfg(test)]
mod tests;
