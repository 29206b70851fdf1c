//! One breaker: what it admits, when it opens and for how long, and whom it
//! listens to.

use std::cell::Cell;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use selvage_policy::breaker::{Breaker, BreakerState, Observation, Record, Ticket, Transition};
use selvage_policy::snapshot::BreakerPolicy;

use crate::chance::{Word, sequence, sequences};
use crate::reference::{self, Change, Sent, some_breaker_policy, some_class};
use crate::start;

/// The machine and its model, side by side.
struct Pair {
    machine: Breaker,
    record: Record,
    model: reference::Breaker,
    policy: BreakerPolicy,
    rng: fastrand::Rng,
    flying: Vec<(Ticket, Sent)>,
    now: Instant,
}

fn change(transition: Transition) -> Change {
    let Transition {
        from, to, reason, ..
    } = transition;
    Change { from, to, reason }
}

/// Between half and all of `full`.
pub(crate) fn is_jittered(open_for: Option<Duration>, full: Duration) -> bool {
    open_for.is_some_and(|open_for| open_for * 2 >= full && open_for <= full)
}

impl Pair {
    fn new(mut word: Word, seed: u64) -> Self {
        let policy = some_breaker_policy(&mut word);
        let now = start();
        Self {
            machine: Breaker::default(),
            record: Record::new(now),
            model: reference::Breaker::new(policy, now),
            policy,
            rng: fastrand::Rng::with_seed(seed),
            flying: Vec::new(),
            now,
        }
    }

    fn hears(&mut self, mut word: Word) -> Result<(), TestCaseError> {
        match word.below(8) {
            0 => self.now += word.wait(),
            1..=2 => self.sends()?,
            3..=5 if !self.flying.is_empty() => {
                let (ticket, sent) = self.flying.swap_remove(word.index(self.flying.len()));
                self.ends(ticket, sent, word)?;
            }
            6 if !self.flying.is_empty() => {
                let (ticket, sent) = self.flying.swap_remove(word.index(self.flying.len()));
                self.machine.release(ticket, self.now);
                self.model.release(sent, self.now);
            }
            7 => self.connects(word)?,
            _ => self.sends()?,
        }
        prop_assert_eq!(self.machine.state(), self.model.state());
        Ok(())
    }

    fn sends(&mut self) -> Result<(), TestCaseError> {
        let (found, expected) = (self.machine.admit(self.now), self.model.admit(self.now));
        prop_assert_eq!(found.is_some(), expected.is_some());
        if let (Some((ticket, transition)), Some((sent, expected))) = (found, expected) {
            prop_assert_eq!(ticket.is_probe(), sent.probe);
            prop_assert_eq!(transition.map(change), expected);
            self.flying.push((ticket, sent));
        }
        Ok(())
    }

    fn ends(&mut self, ticket: Ticket, sent: Sent, mut word: Word) -> Result<(), TestCaseError> {
        let observation = Observation {
            ticket,
            class: some_class(&mut word),
            could_not_connect: word.one_in(2),
        };
        let may_open = !word.one_in(4);
        let asked = Cell::new(false);
        let ask = || {
            asked.set(true);
            may_open
        };
        let found = self.machine.observe(
            &self.record,
            observation,
            &self.policy,
            ask,
            self.now,
            &mut self.rng,
        );
        let Observation {
            class,
            could_not_connect,
            ..
        } = observation;
        let expected = self
            .model
            .ended(sent, class, could_not_connect, may_open, self.now);
        prop_assert_eq!(found.map(change), expected);
        if let Some(transition) = found {
            let is_open = transition.to == BreakerState::Open;
            prop_assert_eq!(transition.open_for.is_some(), is_open);
            if let Some(open_for) = transition.open_for {
                let full = self.model.backoff(true);
                prop_assert!(
                    is_jittered(Some(open_for), full),
                    "{open_for:?} of {full:?}"
                );
                self.model.lasts(open_for, true);
            }
            // Who promised a place to a breaker that then stayed closed would have lost it.
            prop_assert!(!asked.get() || is_open);
            // What decided by its head has a body, and may take it back.
            if sent.probe && !is_open {
                self.flying.push((ticket, sent));
            }
        } else {
            prop_assert!(!asked.get() || !may_open);
        }
        Ok(())
    }

    /// Asks twice, since who was told to connect does it alone; some succeed or
    /// fail that nobody asked for.
    fn connects(&mut self, mut word: Word) -> Result<(), TestCaseError> {
        for _ in 0..2 {
            let wants = self.machine.wants_connect_probe(self.now);
            prop_assert_eq!(wants, self.model.wants_connect(self.now));
        }
        match word.below(6) {
            0 => {
                let found = self.machine.connect_probe_succeeded(self.now);
                prop_assert_eq!(found.map(change), self.model.connected(self.now));
            }
            1..=2 => {
                self.machine.connect_probe_failed();
                self.model.could_not_connect();
            }
            _ => {}
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(sequences())]

    #[test]
    fn a_breaker_does_as_the_rules_say((policy, seed, events) in sequence(60)) {
        let mut pair = Pair::new(policy, seed);
        for event in events {
            pair.hears(event)?;
        }
        let probes = |flying: &[(Ticket, Sent)]| {
            flying.iter().filter(|(_, sent)| sent.probe && pair.model.is_of_now(*sent)).count()
        };
        prop_assert!(probes(&pair.flying) <= 1, "two probes at a time");
    }
}
