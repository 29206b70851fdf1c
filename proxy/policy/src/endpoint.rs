//! The live state of one endpoint, and the guard of a try in flight.
//!
//! Stands beside the Snapshot, kept across swaps, shared by the workers. What
//! the path of a request reads is packed in atomics: requests in flight, load,
//! and the verdict of its breaker and its health checks. The machines behind the
//! verdict take a lock, and only when something failed or probes. It knows no
//! connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breaker::{
    Breaker, BreakerState, GENERATIONS, Observation, Record, State, Ticket, Transition,
};
use crate::crowd::{Crowd, Listing, Place};
use crate::ewma::{PeakEwma, RETRY_AFTER_LIMIT};
use crate::health::{Checked, Health, HealthChange, Pace};
use crate::since;
use crate::slow_start;
use crate::snapshot::{BreakerPolicy, EndpointKey, SlowStart};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

mod in_flight;

pub use in_flight::{InFlight, Report};

/// What is known of one endpoint beside the Snapshot.
///
/// In the order in which a request touches it, from the start of a cache line:
/// of thousands each is met rarely enough to be in no cache. What two choices
/// compare is the first line, so the loser costs one; what a success leaves
/// behind comes next.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct EndpointState {
    load: PeakEwma,
    pending: AtomicU32,
    /// See [`offering`].
    offering: AtomicU8,
    verdict: AtomicU64,
    crowd: Arc<Crowd>,
    record: Record,
    /// Until when it asked to be left alone: milliseconds since the epoch, plus 1. 0: it did not.
    rests_until: AtomicU64,
    /// Since when it warms up, in the same way. 0: it was there from the start.
    warm_since: AtomicU64,
    place: Place,
    key: EndpointKey,
    breaker: Mutex<Breaker>,
    health: Mutex<Health>,
}

/// What is known of an endpoint, for people.
#[derive(Debug, Clone)]
pub struct Standings {
    /// The breaker's state.
    pub breaker: BreakerState,
    /// Its last change, and when it was.
    pub last_transition: Option<(Instant, Transition)>,
    /// Until when it is open.
    pub open_until: Option<Instant>,
    /// Successes of the window.
    pub successes: u64,
    /// Requests judged in it.
    pub requests: u64,
    /// What checks said.
    pub health: Health,
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

/// Where no other endpoint stands in, the backoff grows to this many times its
/// base and no further: nobody is better served by waiting longer, and all
/// callers wait for the first that is well again.
const ALONE: u32 = 2;
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

/// The verdict: two bits of kind, one of health, 22 of generation, 39 of
/// milliseconds since the epoch (17 years).
mod verdict {
    pub(super) const CLOSED: u64 = 0;
    pub(super) const OPEN: u64 = 1;
    pub(super) const VACANT: u64 = 2;
    pub(super) const TAKEN: u64 = 3;
    pub(super) const KIND_BITS: u32 = 2;
    /// Beside the kind: checks found it unhealthy.
    pub(super) const UNHEALTHY: u64 = 1 << KIND_BITS;
    pub(super) const STATE_BITS: u32 = KIND_BITS + 1;
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
            health: Mutex::default(),
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
        match kind(packed) {
            verdict::CLOSED => BreakerState::Closed,
            verdict::OPEN if self.millis(now) < moment(packed) => BreakerState::Open,
            _ => BreakerState::HalfOpen,
        }
    }

    /// Whether checks leave it in rotation; those that nobody makes do.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.verdict.load(Ordering::Acquire) & verdict::UNHEALTHY == 0
    }

    /// What is known of it. Takes its locks: not for the path of a request.
    #[must_use]
    pub fn standings(&self, now: Instant) -> Standings {
        let health = self.health.lock().clone();
        let (successes, requests) = self.record.window(now);
        let breaker = self.breaker.lock();
        Standings {
            breaker: self.state(now),
            last_transition: breaker.last_transition().copied(),
            open_until: breaker.open_until(),
            successes,
            requests,
            health,
        }
    }

    /// Hears how a check ended.
    pub fn checked(&self, checked: &Checked, pace: &Pace, now: Instant) -> Option<HealthChange> {
        let mut health = self.health.lock();
        let change = health.hear(checked, pace, now)?;
        self.publish_health(health.is_healthy());
        Some(change)
    }

    /// It is not checked any more: what checks said is forgotten.
    pub fn unchecked(&self) {
        let mut health = self.health.lock();
        *health = Health::default();
        self.publish_health(true);
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
        // Closed and healthy, or neither.
        let state = packed & (verdict::UNHEALTHY | ((1 << verdict::KIND_BITS) - 1));
        if state == verdict::CLOSED {
            let generation = generation(packed);
            return Standing::Closed { generation };
        }
        let (at, now) = (moment(packed), self.millis(now));
        match state {
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
        self.publish(&breaker, false);
        drop(breaker);
        Some((InFlight::new(self, ticket, now), transition))
    }

    /// A try was given up after `waited`, since another answered: so long it takes at least.
    pub fn outwaited(&self, waited: Duration, now: Instant) {
        self.load.at_least(waited, now);
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
        self.publish(&breaker, false);
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
        let mut policy = *policy;
        if !self.crowd.stands_in(self.listing()) {
            policy.backoff.max = policy.backoff.max.min(policy.backoff.base * ALONE);
        }
        let transition = breaker.observe(&self.record, observation, &policy, may_open, now, rng);
        if let Some(Transition {
            to: BreakerState::Closed,
            ..
        }) = transition
        {
            match latency {
                Some(latency) => self.load.restart(latency, now),
                None => self.load.clear(now),
            }
            self.rests_until.store(0, Ordering::Relaxed);
            self.warm_up(now);
        }
        self.publish(&breaker, counted);
        transition
    }

    fn release(&self, ticket: Ticket, now: Instant) {
        let mut breaker = self.breaker.lock();
        breaker.release(ticket, now);
        self.publish(&breaker, false);
    }

    /// Where the crowd seats it.
    pub(crate) const fn place(&self) -> &Place {
        &self.place
    }

    /// What the crowd's roll says of it.
    pub(crate) fn listing(&self) -> Listing {
        let packed = self.verdict.load(Ordering::Acquire);
        match kind(packed) {
            _ if packed & verdict::UNHEALTHY != 0 => Listing::Unhealthy,
            verdict::CLOSED => Listing::Closed,
            verdict::TAKEN => Listing::Probed,
            _ => Listing::Waits {
                from: moment(packed),
            },
        }
    }

    /// Publishes a state of the breaker, which the crowd `counted` as out
    /// already or not. Called with the lock held, so that verdicts appear in the
    /// order of states.
    fn publish(&self, breaker: &Breaker, counted: bool) {
        self.replace(self.pack(breaker), counted);
    }

    /// The verdict that `breaker` makes, of one as healthy as it is.
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
        let health = self.verdict.load(Ordering::Acquire) & verdict::UNHEALTHY;
        let state = kind | health;
        (at << verdict::GENERATION_BITS | generation) << verdict::STATE_BITS | state
    }

    /// Whether the verdict is what the machine says: always, where the lock is free.
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn is_published(&self) -> bool {
        let breaker = self.breaker.lock();
        self.verdict.load(Ordering::Acquire) == self.pack(&breaker)
    }

    fn publish_health(&self, healthy: bool) {
        // Verdicts are replaced under this lock alone.
        let _breaker = self.breaker.lock();
        let packed = self.verdict.load(Ordering::Acquire);
        let unhealthy = if healthy { 0 } else { verdict::UNHEALTHY };
        self.replace(packed & !verdict::UNHEALTHY | unhealthy, false);
    }

    /// Replaces the verdict, and tells the crowd.
    fn replace(&self, packed: u64, counted: bool) {
        let before = self.verdict.swap(packed, Ordering::AcqRel);
        match (is_out(before), is_out(packed)) {
            (false, true) if !counted => self.crowd.opened(),
            // It was out by its health already: what was counted now is one too many.
            (true, true) if counted => self.crowd.closed(),
            (true, false) => self.crowd.closed(),
            _ => {}
        }
        // Most failures change nothing, and then the crowd's lock is left alone.
        if before != packed {
            self.crowd.list(&self.place, self.listing());
        }
    }

    fn millis(&self, at: Instant) -> u64 {
        const LARGEST: u64 = (1 << 39) - 2;
        since::millis(self.crowd.epoch(), at).min(LARGEST)
    }
}

impl Drop for EndpointState {
    fn drop(&mut self) {
        if is_out(self.verdict.load(Ordering::Acquire)) {
            self.crowd.closed();
        }
    }
}

/// Whether it is counted as out of rotation.
const fn is_out(packed: u64) -> bool {
    kind(packed) != verdict::CLOSED || packed & verdict::UNHEALTHY != 0
}

const fn kind(packed: u64) -> u64 {
    packed & ((1 << verdict::KIND_BITS) - 1)
}

const fn generation(packed: u64) -> u32 {
    (packed >> verdict::STATE_BITS) as u32 % GENERATIONS
}

const fn moment(packed: u64) -> u64 {
    packed >> (verdict::STATE_BITS + verdict::GENERATION_BITS)
}

#[cfg(test)]
mod tests;
