//! The live state of one endpoint, and the guard of a try in flight.
//!
//! Stands beside the Snapshot, kept across swaps, shared by the workers. What
//! the path of a request reads is packed in atomics: requests in flight, load,
//! and the breaker's verdict. The machine behind the verdict takes a lock, and
//! only when something failed or probes. It knows no connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breaker::{
    Breaker, BreakerState, GENERATIONS, Observation, Record, State, Ticket, Transition,
};
use crate::crowd::{Crowd, Listing, Place};
use crate::ewma::{PeakEwma, RETRY_AFTER_LIMIT};
use crate::since;
use crate::slow_start;
use crate::snapshot::{BreakerPolicy, EndpointKey, SlowStart};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

mod in_flight;

pub use in_flight::{InFlight, Report};

/// What is known of one endpoint beside the Snapshot.
#[derive(Debug)]
pub struct EndpointState {
    key: EndpointKey,
    crowd: Arc<Crowd>,
    place: Place,
    pending: AtomicU32,
    load: PeakEwma,
    /// Since when it warms up: milliseconds since the epoch, plus 1. 0: it was there from the start.
    warm_since: AtomicU64,
    /// Until when it asked to be left alone, in the same way.
    rests_until: AtomicU64,
    /// See [`offering`].
    offering: AtomicU8,
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

/// An endpoint that throttles and does not say how long is left alone for this long.
const REST: Duration = Duration::from_secs(1);
/// Requests in flight that a penalty of one second weighs as much as: what it
/// is to peak EWMA beside an endpoint of which nothing is known.
const PENALTY_REQUESTS: f64 = 32.0;

/// Whether the registry offers it.
mod offering {
    pub(super) const UNKNOWN: u8 = 0;
    pub(super) const OFFERED: u8 = 1;
    pub(super) const WITHHELD: u8 = 2;
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
    /// The state of an endpoint of `crowd`, of which nothing is known yet.
    #[must_use]
    pub fn new(key: EndpointKey, crowd: Arc<Crowd>) -> Self {
        Self {
            key,
            place: Place::default(),
            pending: AtomicU32::new(0),
            load: PeakEwma::new(crowd.epoch()),
            warm_since: AtomicU64::new(0),
            rests_until: AtomicU64::new(0),
            offering: AtomicU8::new(offering::UNKNOWN),
            verdict: AtomicU64::new(verdict::CLOSED),
            record: Record::new(crowd.epoch()),
            breaker: Mutex::new(Breaker::default()),
            crowd,
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
        self.cost_at(share, self.millis(now))
    }

    /// The same; `now` in milliseconds since the crowd's epoch.
    pub(crate) fn cost_at(&self, share: f64, now: u64) -> f64 {
        self.load.cost_at(now) * (f64::from(self.pending()) / share + 1.0)
    }

    /// Of the breaker's state, as its verdict has it.
    fn generation(&self) -> u32 {
        generation(self.verdict.load(Ordering::Acquire))
    }

    /// What a further request costs by those in flight alone, penalties
    /// included; `share` and `now` as there.
    pub(crate) fn queue_at(&self, share: f64, now: u64) -> f64 {
        let penalty = f64::from(self.load.penalty_at(now)) * PENALTY_REQUESTS;
        f64::from(self.pending()) / share + penalty
    }

    /// Whether it asked to be left alone, and `now` it still is; in milliseconds since the crowd's epoch.
    pub(crate) fn rests_at(&self, now: u64) -> bool {
        self.rests_until.load(Ordering::Relaxed) > now
    }

    fn rest(&self, retry_after: Option<Duration>, now: Instant) {
        let rest = retry_after.unwrap_or(REST).min(RETRY_AFTER_LIMIT);
        self.rests_until
            .fetch_max(self.millis(now + rest).saturating_add(1), Ordering::Relaxed);
    }

    /// Hears whether the registry offers it from now on; one that is offered
    /// again warms up anew.
    pub(crate) fn offer(&self, is_offered: bool, now: Instant) {
        let next = match is_offered {
            true => offering::OFFERED,
            false => offering::WITHHELD,
        };
        let before = self.offering.swap(next, Ordering::Relaxed);
        if is_offered && before == offering::WITHHELD {
            self.warm_up(now);
        }
    }

    /// Begins slow start, where policy has it: it newly came, or came back.
    pub(crate) fn warm_up(&self, now: Instant) {
        self.warm_since
            .store(self.millis(now).saturating_add(1), Ordering::Relaxed);
        self.crowd.warms(now);
    }

    /// What part of its share it gets under slow start.
    pub(crate) fn warmth(&self, policy: &SlowStart, now: Instant) -> f64 {
        match self.warm_since.load(Ordering::Relaxed) {
            0 => 1.0,
            since => {
                let passed = self.millis(now).saturating_sub(since - 1);
                slow_start::share(policy, Duration::from_millis(passed))
            }
        }
    }

    pub(crate) fn standing(&self, now: Instant) -> Standing {
        #[cfg(test)]
        crate::testing::looked();
        let packed = self.verdict.load(Ordering::Acquire);
        let kind = kind(packed);
        if kind == verdict::CLOSED {
            let generation = generation(packed);
            return Standing::Closed { generation };
        }
        let (at, now) = (moment(packed), self.millis(now));
        match kind {
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

    /// Reports that such a connect failed.
    pub fn connect_probe_failed(&self) {
        self.breaker.lock().connect_probe_failed();
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
                self.rests_until.store(0, Ordering::Relaxed);
                self.warm_up(now);
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

    /// Where the crowd seats it.
    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    /// What the crowd's roll says of it.
    pub(crate) fn listing(&self) -> Listing {
        let packed = self.verdict.load(Ordering::Acquire);
        match kind(packed) {
            verdict::CLOSED => Listing::Closed,
            verdict::TAKEN => Listing::Probed,
            _ => Listing::Waits {
                from: moment(packed),
            },
        }
    }

    /// Called with the lock held, so that verdicts appear in the order of states.
    fn publish(&self, breaker: &Breaker) {
        let packed = self.pack(breaker);
        // Most failures change nothing, and then the crowd's lock is left alone.
        if self.verdict.swap(packed, Ordering::AcqRel) != packed {
            self.crowd.list(&self.place, self.listing());
        }
    }

    fn pack(&self, breaker: &Breaker) -> u64 {
        let (kind, at) = match breaker.inside() {
            State::Closed { .. } => (verdict::CLOSED, 0),
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
        (at << verdict::GENERATION_BITS | generation) << verdict::KIND_BITS | kind
    }

    /// Whether the verdict is what the machine says: always, where the lock is free.
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn is_published(&self) -> bool {
        let breaker = self.breaker.lock();
        self.verdict.load(Ordering::Acquire) == self.pack(&breaker)
    }

    fn millis(&self, at: Instant) -> u64 {
        const LARGEST: u64 = (1 << 40) - 2;
        since::millis(self.crowd.epoch(), at).min(LARGEST)
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

const fn generation(packed: u64) -> u32 {
    (packed >> verdict::KIND_BITS) as u32 % GENERATIONS
}

const fn moment(packed: u64) -> u64 {
    packed >> (verdict::KIND_BITS + verdict::GENERATION_BITS)
}

#[cfg(test)]
mod tests;
