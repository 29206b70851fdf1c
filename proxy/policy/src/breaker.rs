//! When an endpoint is taken out of rotation, and how it comes back.
//!
//! The machine behind one endpoint: Closed → Open → HalfOpen. It hears what
//! the tries of all workers ended in, and answers with a [`Transition`] when
//! its state changes. It knows no sockets and no balancer: what the balancer
//! reads is the packed verdict that [`crate::endpoint`] publishes of it.
//!
//! Closed opens by hard failures in a row, or by the success rate over an
//! exact ring of ten slices. Open admits nothing until its backoff is over.
//! HalfOpen admits one request, which decides. Every state has a generation,
//! every try carries the one it was sent in, and what comes from another is
//! ignored: answers to what was sent before opening neither prolong nor end it.
//! But for the request that decided: it closes by its head, and where its body
//! then breaks, it takes that back. Or an endpoint that breaks every body would
//! be closed by every probe, with the shortest backoff for ever.
//! (Ejecting for a fixed time and readmitting at full rate, the usual outlier
//! detection, sends a broken endpoint its whole share again and again.)

use std::time::{Duration, Instant};

use crate::classify::Class;
use crate::snapshot::{BackoffPolicy, BreakerPolicy};

mod record;
mod transition;

pub use record::Record;
pub use transition::{BreakerState, Reason, Transition};

/// A probe that has not decided by then has failed.
pub const PROBE_DECIDES_WITHIN: Duration = Duration::from_secs(5);
/// Between two bare connects of the proxy itself.
pub const CONNECT_PROBE_EVERY: Duration = Duration::from_secs(1);
/// How much of the backoff chance may take away.
const JITTER: f64 = 0.5;
/// Generations wrap here, so that one fits the packed verdict.
pub(crate) const GENERATIONS: u32 = 1 << 22;

/// The state a try was sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    pub(crate) generation: u32,
    pub(crate) probe: bool,
}

impl Ticket {
    /// Whether the try is the one request that decides a HalfOpen breaker.
    #[must_use]
    pub const fn is_probe(self) -> bool {
        self.probe
    }
}

/// What one try ended in, as the breaker hears it.
#[derive(Debug, Clone, Copy)]
pub struct Observation {
    /// The state it was sent in.
    pub ticket: Ticket,
    /// What it says of the endpoint.
    pub class: Class,
    /// Whether this proxy itself could not connect: then a bare connect can tell when that is over.
    pub could_not_connect: bool,
}

/// The machine.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    generation: u32,
    /// The last change, and when it was.
    last: Option<Box<(Instant, Transition)>>,
}

/// Each state with only what it needs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    Closed {
        /// Re-openings before the probe that closed it, which may yet fail.
        probed: Option<u32>,
    },
    Open {
        until: Instant,
        /// Re-openings since it was last closed.
        reopened: u32,
        /// When the proxy may connect to see whether it can; only after hard failures.
        connect_at: Option<Instant>,
        /// Whether it was found that this proxy cannot: then a connect that succeeds says that this is over.
        unreachable: bool,
    },
    HalfOpen {
        reopened: u32,
        /// The slot of the one request: vacant since then, or taken.
        vacant_since: Option<Instant>,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            state: State::Closed { probed: None },
            generation: 0,
            last: None,
        }
    }
}

impl Breaker {
    /// The state as it was left; an Open one whose backoff is over says so only when it admits a request.
    #[must_use]
    pub const fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// The last change of state, and when it was; `None` before the first.
    #[must_use]
    pub fn last_transition(&self) -> Option<&(Instant, Transition)> {
        self.last.as_deref()
    }

    /// Until when it is open; `None` in other states.
    #[must_use]
    pub const fn open_until(&self) -> Option<Instant> {
        match self.state {
            State::Open { until, .. } => Some(until),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    pub(crate) const fn inside(&self) -> State {
        self.state
    }

    pub(crate) const fn generation(&self) -> u32 {
        self.generation
    }

    /// Admits a try: any while Closed, one while HalfOpen or once the backoff is over.
    pub fn admit(&mut self, now: Instant) -> Option<(Ticket, Option<Transition>)> {
        match self.state {
            State::Closed { .. } => Some((self.ticket(false), None)),
            State::Open {
                until, reopened, ..
            } if until <= now => {
                let transition = self.half_open(Reason::BackoffOver, reopened, None, now);
                Some((self.ticket(true), Some(transition)))
            }
            State::HalfOpen {
                reopened,
                vacant_since: Some(_),
            } => {
                self.state = State::HalfOpen {
                    reopened,
                    vacant_since: None,
                };
                Some((self.ticket(true), None))
            }
            State::Open { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Frees the slot of a probe that ended undecided.
    pub fn release(&mut self, ticket: Ticket, now: Instant) {
        if let State::HalfOpen { reopened, .. } = self.state
            && self.is_current_probe(ticket)
        {
            self.state = State::HalfOpen {
                reopened,
                vacant_since: Some(now),
            };
        }
    }

    /// Hears how a try ended. `may_open_by_rate` is asked once, when the rule
    /// by success rate would open it, and its `true` is a promise kept.
    pub fn observe(
        &mut self,
        record: &Record,
        observation: Observation,
        policy: &BreakerPolicy,
        may_open_by_rate: impl FnOnce() -> bool,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        let Observation { ticket, class, .. } = observation;
        if ticket.generation != self.generation {
            return self.take_back(observation, policy.backoff, now, rng);
        }
        match self.state {
            State::Open { .. } => None,
            State::Closed { .. } if class.is_failure() => {
                record.failure(class == Class::HardFailure, policy.success_rate, now);
                let by_rate = || record.by_rate(policy, now).filter(|_| may_open_by_rate());
                let reason = record.in_a_row(policy).or_else(by_rate)?;
                Some(self.open(reason, 0, observation, policy.backoff, now, rng))
            }
            State::Closed { .. } => {
                if class == Class::Success {
                    record.success(policy.success_rate, now);
                }
                None
            }
            State::HalfOpen { reopened, .. } if ticket.probe => match class {
                Class::Success | Class::Throttled => {
                    record.clear();
                    Some(self.close(reopened, now))
                }
                Class::Failure | Class::HardFailure => {
                    let again = reopened.saturating_add(1);
                    let reason = Reason::ProbeFailed;
                    Some(self.open(reason, again, observation, policy.backoff, now, rng))
                }
                Class::Neutral => {
                    self.release(ticket, now);
                    None
                }
            },
            State::HalfOpen { .. } => None,
        }
    }

    /// Whether the proxy should connect now to see whether it can. True at
    /// most once in [`CONNECT_PROBE_EVERY`]: who hears it does it.
    pub fn wants_connect_probe(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Open {
                until,
                connect_at: Some(at),
                ..
            } if *at <= now && now < *until => {
                *at = now + CONNECT_PROBE_EVERY;
                true
            }
            _ => false,
        }
    }

    /// A bare connect succeeded: what was unreachable is HalfOpen at once. What
    /// never was is broken otherwise, and is not connected to again.
    pub fn connect_probe_succeeded(&mut self, now: Instant) -> Option<Transition> {
        match &mut self.state {
            State::Open {
                reopened,
                unreachable: true,
                ..
            } => {
                let reopened = *reopened;
                let reason = Reason::ConnectProbeSucceeded;
                Some(self.half_open(reason, reopened, Some(now), now))
            }
            State::Open { connect_at, .. } => {
                *connect_at = None;
                None
            }
            _ => None,
        }
    }

    /// A bare connect failed. Requests may have run out of time on connections
    /// that a partition left standing, or were reset when it was restarted:
    /// from here on it is known to be unreachable.
    pub const fn connect_probe_failed(&mut self) {
        if let State::Open { unreachable, .. } = &mut self.state {
            *unreachable = true;
        }
    }

    const fn ticket(&self, probe: bool) -> Ticket {
        Ticket {
            generation: self.generation,
            probe,
        }
    }

    const fn is_current_probe(&self, ticket: Ticket) -> bool {
        ticket.probe && ticket.generation == self.generation
    }

    fn open(
        &mut self,
        reason: Reason,
        reopened: u32,
        by: Observation,
        backoff: BackoffPolicy,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Transition {
        let reopened = reopened.min(doublings(backoff));
        let open_for = open_for(backoff, reopened, rng);
        let hard = by.class == Class::HardFailure;
        let state = State::Open {
            until: now + open_for,
            reopened,
            connect_at: hard.then(|| now + CONNECT_PROBE_EVERY),
            unreachable: by.could_not_connect,
        };
        self.enter(state, reason, Some(open_for), now)
    }

    fn half_open(
        &mut self,
        reason: Reason,
        reopened: u32,
        vacant: Option<Instant>,
        now: Instant,
    ) -> Transition {
        self.enter(
            State::HalfOpen {
                reopened,
                vacant_since: vacant,
            },
            reason,
            None,
            now,
        )
    }

    fn close(&mut self, reopened: u32, now: Instant) -> Transition {
        let probed = Some(reopened);
        self.enter(State::Closed { probed }, Reason::ProbeSucceeded, None, now)
    }

    /// Opens again where the probe that closed it fails after all.
    fn take_back(
        &mut self,
        observation: Observation,
        backoff: BackoffPolicy,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        let Observation { ticket, class, .. } = observation;
        let decided = ticket.probe && next(ticket.generation) == self.generation;
        match self.state {
            State::Closed {
                probed: Some(reopened),
            } if decided && class.is_failure() => {
                let again = reopened.saturating_add(1);
                let reason = Reason::ProbeFailed;
                Some(self.open(reason, again, observation, backoff, now, rng))
            }
            _ => None,
        }
    }

    fn enter(
        &mut self,
        state: State,
        reason: Reason,
        open_for: Option<Duration>,
        now: Instant,
    ) -> Transition {
        let from = self.state();
        self.state = state;
        self.generation = next(self.generation);
        let transition = Transition {
            from,
            to: self.state(),
            reason,
            open_for,
        };
        self.last = Some(Box::new((now, transition)));
        transition
    }
}

const fn next(generation: u32) -> u32 {
    (generation + 1) % GENERATIONS
}

/// How often `base` can be doubled until it reaches `max`. Further re-openings
/// are not counted: where `max` was low for a while, because nobody stood in,
/// they would make the first backoff after it a long one.
fn doublings(backoff: BackoffPolicy) -> u32 {
    let ratio = backoff
        .max
        .as_nanos()
        .div_ceil(backoff.base.as_nanos().max(1));
    ratio.next_power_of_two().trailing_zeros()
}

/// `base`, doubled per re-opening, at most `max`; chance takes up to half of
/// it away, so that what broke together is not probed together.
fn open_for(backoff: BackoffPolicy, reopened: u32, rng: &mut fastrand::Rng) -> Duration {
    let factor = 1u32.checked_shl(reopened).unwrap_or(u32::MAX);
    backoff
        .base
        .saturating_mul(factor)
        .min(backoff.max)
        .mul_f64(1.0 - JITTER * rng.f64())
}

#[cfg(test)]
mod tests;
