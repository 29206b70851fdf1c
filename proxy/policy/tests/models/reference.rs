//! The breaker, health and the retry budget as the rules say them, with lists
//! of moments. Nothing is packed, nothing is shared, nothing is fast.

use std::time::{Duration, Instant};

use selvage_policy::breaker::{BreakerState, Reason};
use selvage_policy::classify::Class;
use selvage_policy::health::Pace;
use selvage_policy::snapshot::{BackoffPolicy, BreakerPolicy, BudgetPolicy};

use crate::chance::Word;
use crate::millis;

const SLICES: u64 = 10;

/// The slice of time that `at` lies in.
fn slice(start: Instant, at: Instant, span: Duration) -> u64 {
    ((at - start).as_nanos() / (span.as_nanos() / u128::from(SLICES))) as u64
}

/// Some policy of a breaker, with small numbers so that every rule comes into play.
pub(crate) fn some_breaker_policy(word: &mut Word) -> BreakerPolicy {
    let mut policy = BreakerPolicy {
        consecutive_failures: word.one_of(&[2, 3, 0, 5, 1]),
        max_open_percent: word.one_of(&[50, 100, 34, 0]),
        ..BreakerPolicy::default()
    };
    policy.backoff.base = millis(word.one_of(&[1000, 100, 7000]));
    policy.backoff.max = policy.backoff.base * word.one_of(&[8, 1, 60]);
    match (word.one_in(3), policy.success_rate.as_mut()) {
        (false, Some(rule)) => {
            rule.threshold_percent = word.one_of(&[80, 50, 100, 1]);
            rule.window = millis(word.one_of(&[10_000, 1_000, 60_000]));
            rule.minimum_requests = word.one_of(&[4, 1, 20]);
        }
        _ => policy.success_rate = None,
    }
    policy
}

/// Some class; failures often enough to open.
pub(crate) fn some_class(word: &mut Word) -> Class {
    use Class::{Failure, HardFailure, Neutral, Success, Throttled};
    word.one_of(&[
        HardFailure,
        Success,
        HardFailure,
        Failure,
        HardFailure,
        Success,
        Failure,
        Throttled,
        Neutral,
    ])
}

/// The state a try was sent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sent {
    turn: u64,
    pub(crate) probe: bool,
}

/// A change of state as it must be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) from: BreakerState,
    pub(crate) to: BreakerState,
    pub(crate) reason: Reason,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Closed {
        /// The probe that closed it, and the openings until then.
        by: Option<(Sent, u32)>,
    },
    Open {
        since: Instant,
        until: Instant,
        /// The last bare connect, at first the opening; `None` where none is to be made.
        connected: Option<Instant>,
        /// Whether the last that is known of connecting is that it failed.
        unreachable: bool,
    },
    HalfOpen {
        /// Since when the slot is vacant.
        vacant: Option<Instant>,
    },
}

/// A breaker.
#[derive(Debug)]
pub(crate) struct Breaker {
    policy: BreakerPolicy,
    start: Instant,
    state: State,
    /// Changes of state so far.
    turn: u64,
    /// Openings since it was last closed.
    openings: u32,
    hard_in_a_row: u32,
    /// What was judged since it was last closed, and whether it succeeded.
    judged: Vec<(Instant, bool)>,
}

impl Breaker {
    pub(crate) fn new(policy: BreakerPolicy, start: Instant) -> Self {
        Self {
            policy,
            start,
            state: State::Closed { by: None },
            turn: 0,
            openings: 0,
            hard_in_a_row: 0,
            judged: Vec::new(),
        }
    }

    pub(crate) fn state(&self) -> BreakerState {
        match self.state {
            State::Closed { .. } => BreakerState::Closed,
            State::Open { .. } => BreakerState::Open,
            State::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// Whether it listens to what was sent then.
    pub(crate) fn is_of_now(&self, sent: Sent) -> bool {
        sent.turn == self.turn
    }

    pub(crate) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// From when on a probe may be sent, where none is under way.
    pub(crate) fn waits_from(&self) -> Option<Instant> {
        match self.state {
            State::Closed { .. } => None,
            State::Open { until, .. } => Some(until),
            State::HalfOpen { vacant } => vacant,
        }
    }

    /// How long the opening that was just reported lasts without jitter: where
    /// nobody `stands_in`, twice the base at most.
    pub(crate) fn backoff(&self, stands_in: bool) -> Duration {
        let BackoffPolicy { base, max } = self.policy.backoff;
        let most = if stands_in { max } else { max.min(base * 2) };
        let doubled = (1..self.openings).fold(base, |backoff, _| (backoff * 2).min(max));
        doubled.min(most)
    }

    pub(crate) fn admit(&mut self, now: Instant) -> Option<(Sent, Option<Change>)> {
        let change = match self.state {
            State::Closed { .. } => return Some((self.sent(false), None)),
            State::Open { until, .. } if now >= until => {
                Some(self.become_half_open(Reason::BackoffOver))
            }
            State::HalfOpen { vacant: Some(_) } => None,
            State::Open { .. } | State::HalfOpen { vacant: None } => return None,
        };
        self.state = State::HalfOpen { vacant: None };
        Some((self.sent(true), change))
    }

    pub(crate) fn release(&mut self, sent: Sent, since: Instant) {
        if sent.probe && sent.turn == self.turn {
            self.state = State::HalfOpen {
                vacant: Some(since),
            };
        }
    }

    /// Hears how a try ended. `may_open` says whether the crowd bears another
    /// one that opens by its success rate. An opening lasts until
    /// [`Breaker::lasts`] says otherwise.
    pub(crate) fn ended(
        &mut self,
        sent: Sent,
        class: Class,
        could_not_connect: bool,
        may_open: bool,
        now: Instant,
    ) -> Option<Change> {
        if sent.turn != self.turn {
            return self.is_taken_back(sent, class, could_not_connect, now);
        }
        if sent.probe {
            return match class {
                Class::Success | Class::Throttled => Some(self.become_closed(sent)),
                Class::Failure | Class::HardFailure => {
                    Some(self.become_open(Reason::ProbeFailed, class, could_not_connect, now))
                }
                Class::Neutral => {
                    self.release(sent, now);
                    None
                }
            };
        }
        match class {
            Class::Success => {
                self.hard_in_a_row = 0;
                self.judged.push((now, true));
                return None;
            }
            Class::Throttled | Class::Neutral => return None,
            Class::HardFailure => self.hard_in_a_row += 1,
            Class::Failure => {}
        }
        self.judged.push((now, false));
        let reason = self
            .too_many_in_a_row(class)
            .or_else(|| self.too_few_succeed(now).filter(|_| may_open))?;
        Some(self.become_open(reason, class, could_not_connect, now))
    }

    /// The probe that closed it was well by its head, and its body broke.
    fn is_taken_back(
        &mut self,
        sent: Sent,
        class: Class,
        could_not_connect: bool,
        now: Instant,
    ) -> Option<Change> {
        let State::Closed {
            by: Some((probe, openings)),
        } = self.state
        else {
            return None;
        };
        if sent != probe || !class.is_failure() {
            return None;
        }
        self.openings = openings;
        Some(self.become_open(Reason::ProbeFailed, class, could_not_connect, now))
    }

    fn too_many_in_a_row(&self, class: Class) -> Option<Reason> {
        let limit = self.policy.consecutive_failures;
        let count = self.hard_in_a_row;
        (class == Class::HardFailure && limit > 0 && count >= limit)
            .then_some(Reason::ConsecutiveFailures { count })
    }

    fn too_few_succeed(&self, now: Instant) -> Option<Reason> {
        let rule = self.policy.success_rate?;
        let of = |at: Instant| slice(self.start, at, rule.window);
        let is_within = |at: Instant| of(at) + SLICES > of(now);
        let window = || self.judged.iter().filter(|(at, _)| is_within(*at));
        let requests = window().count() as u64;
        let successes = window().filter(|(_, succeeded)| *succeeded).count() as u64;
        let is_judged = requests >= u64::from(rule.minimum_requests);
        let is_bad = successes * 100 < u64::from(rule.threshold_percent) * requests;
        (is_judged && is_bad).then_some(Reason::SuccessRate {
            successes,
            requests,
            threshold_percent: rule.threshold_percent,
        })
    }

    /// Whether the proxy is to connect now.
    pub(crate) fn wants_connect(&mut self, now: Instant) -> bool {
        match &mut self.state {
            State::Open {
                until,
                connected: Some(last),
                ..
            } if now < *until && now >= *last + millis(1000) => {
                *last = now;
                true
            }
            _ => false,
        }
    }

    pub(crate) fn connected(&mut self, now: Instant) -> Option<Change> {
        let State::Open {
            connected,
            unreachable,
            ..
        } = &mut self.state
        else {
            return None;
        };
        if !*unreachable {
            // Something else is wrong with it, and no connect tells when that is over.
            *connected = None;
            return None;
        }
        let change = self.become_half_open(Reason::ConnectProbeSucceeded);
        self.state = State::HalfOpen { vacant: Some(now) };
        Some(change)
    }

    pub(crate) fn could_not_connect(&mut self) {
        if let State::Open {
            unreachable: it, ..
        } = &mut self.state
        {
            *it = true;
        }
    }

    /// The opening that was just reported lasts so long. Where nobody
    /// `stands_in` it counts as the second at most.
    pub(crate) fn lasts(&mut self, open_for: Duration, stands_in: bool) {
        if !stands_in {
            self.openings = self.openings.min(2);
        }
        if let State::Open { since, until, .. } = &mut self.state {
            *until = *since + open_for;
        }
    }

    fn sent(&self, probe: bool) -> Sent {
        let turn = self.turn;
        Sent { turn, probe }
    }

    fn become_open(
        &mut self,
        reason: Reason,
        class: Class,
        could_not_connect: bool,
        now: Instant,
    ) -> Change {
        let from = self.state();
        self.openings += 1;
        self.turn += 1;
        self.state = State::Open {
            since: now,
            until: now,
            connected: (class == Class::HardFailure).then_some(now),
            unreachable: could_not_connect,
        };
        let to = self.state();
        Change { from, to, reason }
    }

    fn become_half_open(&mut self, reason: Reason) -> Change {
        let from = self.state();
        self.turn += 1;
        self.state = State::HalfOpen { vacant: None };
        let to = self.state();
        Change { from, to, reason }
    }

    fn become_closed(&mut self, probe: Sent) -> Change {
        let from = self.state();
        self.turn += 1;
        self.state = State::Closed {
            by: Some((probe, self.openings)),
        };
        (self.openings, self.hard_in_a_row) = (0, 0);
        self.judged.clear();
        Change {
            from,
            to: BreakerState::Closed,
            reason: Reason::ProbeSucceeded,
        }
    }
}

/// What checks said of an endpoint, all of it.
#[derive(Debug, Default)]
pub(crate) struct Health {
    checks: Vec<bool>,
    unhealthy: bool,
}

impl Health {
    pub(crate) fn is_healthy(&self) -> bool {
        !self.unhealthy
    }

    /// Hears a check; whether that changes it.
    pub(crate) fn hears(&mut self, passed: bool, pace: &Pace) -> bool {
        self.checks.push(passed);
        let run = self.checks.iter().rev().take_while(|one| **one == passed);
        let enough = match passed {
            true => pace.healthy_threshold,
            false => pace.unhealthy_threshold,
        };
        let decides = run.count() >= enough as usize;
        decides && std::mem::replace(&mut self.unhealthy, !passed) == passed
    }
}

/// A retry budget.
#[derive(Debug)]
pub(crate) struct Budget {
    policy: BudgetPolicy,
    start: Instant,
    requests: Vec<Instant>,
    retries: Vec<Instant>,
}

impl Budget {
    pub(crate) fn new(policy: BudgetPolicy, start: Instant) -> Self {
        Self {
            policy,
            start,
            requests: Vec::new(),
            retries: Vec::new(),
        }
    }

    pub(crate) fn set_policy(&mut self, policy: BudgetPolicy) {
        if self.policy.interval != policy.interval {
            self.requests.clear();
            self.retries.clear();
        }
        self.policy = policy;
    }

    pub(crate) fn request(&mut self, now: Instant) {
        self.requests.push(now);
    }

    /// What the rule grants to `requests` of an interval, in hundredths of a retry.
    fn grants(&self, requests: usize) -> u128 {
        let least = u128::from(self.policy.min_per_second) * self.policy.interval.as_millis() / 10;
        requests as u128 * u128::from(self.policy.percent) + least
    }

    pub(crate) fn try_spend(&mut self, now: Instant) -> bool {
        let of = |at: Instant| slice(self.start, at, self.policy.interval);
        let last = |times: &[Instant], slices: u64| {
            let is_within = |at: &&Instant| of(**at) + slices > of(now);
            times.iter().filter(is_within).count()
        };
        let spent = last(&self.retries, SLICES + 1) as u128 + 1;
        let granted = spent * 100 <= self.grants(last(&self.requests, SLICES));
        if granted {
            self.retries.push(now);
        }
        granted
    }

    /// Whether the interval that ends now holds to the rule, without any slices.
    pub(crate) fn is_kept(&self, now: Instant) -> bool {
        let within = |times: &[Instant]| {
            let is_within = |at: &&Instant| now - **at < self.policy.interval;
            times.iter().filter(is_within).count()
        };
        within(&self.retries) as u128 * 100 <= self.grants(within(&self.requests))
    }
}
