//! The guard of a try in flight, and how its endpoint learns from it. It takes
//! no lock where a success meets a closed breaker. It knows no connections.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{EndpointState, Standing};
use crate::breaker::{Observation, PROBE_DECIDES_WITHIN, Ticket, Transition};
use crate::classify::{Class, Outcome, TransportFailure, classify};
use crate::failures::Failures;
use crate::snapshot::BreakerPolicy;
use crate::sync::atomic::Ordering;

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
    /// Classifies an outcome by what the service counts as failures.
    #[must_use]
    pub fn of(failures: &Failures, outcome: &Outcome, retry_after: Option<Duration>) -> Self {
        let could_not_connect = matches!(outcome, Outcome::Transport(TransportFailure::Connect));
        Self {
            class: classify(failures, outcome),
            could_not_connect,
            retry_after,
        }
    }

    /// The same outcome, of which the endpoint is not to blame: see [`crate::blame`].
    #[must_use]
    pub const fn excused(self) -> Self {
        Self {
            class: Class::Neutral,
            ..self
        }
    }

    /// The same outcome, of which an authenticated peer says that what it asked
    /// for it had asked for in vain itself: the endpoint answers, and what is
    /// broken lies below it. A failure, but no hard one, or a service would be
    /// taken out of rotation for all of its routes because of what one needs.
    #[must_use]
    pub const fn from_below(self) -> Self {
        let class = match self.class {
            Class::HardFailure => Class::Failure,
            class => class,
        };
        Self { class, ..self }
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
    observed: Option<Class>,
    /// In the crowd's count too.
    counted: bool,
}

impl InFlight {
    pub(super) fn new(state: &Arc<EndpointState>, ticket: Ticket, now: Instant) -> Self {
        state.pending.fetch_add(1, Ordering::Relaxed);
        Self {
            state: Arc::clone(state),
            ticket,
            started: now,
            latency: None,
            observed: None,
            counted: state.crowd.try_begins(),
        }
    }

    /// The endpoint it goes to.
    #[must_use]
    pub const fn endpoint(&self) -> &Arc<EndpointState> {
        &self.state
    }

    /// The generation of the breaker that it was sent in. A connection made in
    /// another one has seen the endpoint out of rotation, and may be dead
    /// without knowing.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.ticket.generation
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
        (self.is_probe() && self.observed.is_none()).then(|| self.started + PROBE_DECIDES_WITHIN)
    }

    /// Takes the latency, at the first byte of the response. Only the first
    /// call counts. The endpoint's load learns it unless the breaker has
    /// changed its state since: what hung before it opened would keep what came
    /// back out of use for a minute.
    pub fn first_byte(&mut self, now: Instant) {
        if self.latency.is_none() {
            let latency = now.saturating_duration_since(self.started);
            self.latency = Some(latency);
            if self.state.generation() == self.ticket.generation {
                self.state.load.sample(latency, now);
            }
        }
    }

    /// When the try began.
    #[must_use]
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// From the try's start to the first byte of the response, once that has come.
    #[must_use]
    pub const fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Learns from how the try ended: at its response headers, or later where
    /// the class comes later (gRPC trailers). Only the first call counts; but
    /// where a probe was well by its head and then fails, before
    /// [`PROBE_DECIDES_WITHIN`], that counts too. A success in a Closed breaker
    /// takes no lock.
    pub fn observe(
        &mut self,
        report: &Report,
        policy: &BreakerPolicy,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Transition> {
        if !self.counts(report.class, now) {
            return None;
        }
        self.observed = Some(report.class);
        if !self.is_probe() {
            let sent_in = Standing::Closed {
                generation: self.ticket.generation,
            };
            if self.state.standing(now) != sent_in {
                return None;
            }
            match report.class {
                Class::Success => {
                    self.state.record.success(policy.success_rate, now);
                    return None;
                }
                Class::Neutral => return None,
                Class::Failure | Class::HardFailure | Class::Throttled => {}
            }
        }
        if report.class == Class::Throttled || report.class.is_failure() {
            self.state.load.penalize(report.retry_after, now);
        }
        if report.class == Class::Throttled {
            self.state.rest(report.retry_after, now);
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

    fn counts(&self, class: Class, now: Instant) -> bool {
        match self.observed {
            None => true,
            Some(Class::Success | Class::Throttled) if self.is_probe() => {
                class.is_failure() && now < self.started + PROBE_DECIDES_WITHIN
            }
            Some(_) => false,
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.pending.fetch_sub(1, Ordering::Relaxed);
        if self.counted {
            self.state.crowd.try_ends();
        }
        if self.is_probe() && self.observed.is_none() {
            // Without a clock here: vacant since it was taken, which only makes the next probe sooner.
            self.state.release(self.ticket, self.started);
        }
    }
}
