//! Who waits for a place, and who comes next: the waiting room of a
//! concurrency limit, without any waiting.
//!
//! The most critical come first; among equals the first come. Where it is
//! full, a newcomer takes the place of one that is less critical, the latest
//! of the least critical; else it is turned away at once, which is the
//! cheapest answer there is.
//!
//! First come first served, though under overload the last come would wait
//! less: the room is a fourth of the limit unless configured otherwise, so
//! that whoever gets in waits a fourth of a service time, and nobody waits in
//! vain. Served from the back, as adaptive LIFO and CoDel do for queues
//! without a bound, those in front wait for nothing but their timeout; the
//! simulation in `server/tests` shows both. It knows no clock: who has waited
//! too long takes itself out.

use std::collections::VecDeque;

use super::criticality::Criticality;

/// Names one that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// What became of a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offered<T> {
    /// It waits.
    Waits(Ticket),
    /// It waits, and another waits no longer.
    Displaces(Ticket, T),
    /// There is no room.
    Full,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Queue<T> {
    next: u64,
    classes: [VecDeque<(Ticket, T)>; Criticality::ALL.len()],
}

impl<T> Queue<T> {
    pub(super) const fn new() -> Self {
        Self {
            next: 0,
            classes: [const { VecDeque::new() }; Criticality::ALL.len()],
        }
    }

    pub(super) fn len(&self) -> usize {
        self.classes.iter().map(VecDeque::len).sum()
    }

    /// Lets one wait where fewer than `room` do, or where one of them matters less.
    pub(super) fn offer(
        &mut self,
        criticality: Criticality,
        room: usize,
        make: impl FnOnce() -> T,
    ) -> Offered<T> {
        let displaced = if self.len() < room {
            None
        } else {
            match self.displace(criticality) {
                None => return Offered::Full,
                displaced => displaced,
            }
        };
        let ticket = Ticket(self.next);
        self.next += 1;
        self.classes[criticality as usize].push_back((ticket, make()));
        match displaced {
            None => Offered::Waits(ticket),
            Some(displaced) => Offered::Displaces(ticket, displaced),
        }
    }

    /// Takes out the latest of the least critical, if it matters less than this.
    fn displace(&mut self, than: Criticality) -> Option<T> {
        let less = &mut self.classes[than as usize + 1..];
        let (_, displaced) = less.iter_mut().rev().find_map(VecDeque::pop_back)?;
        Some(displaced)
    }

    /// How much the one matters who comes next.
    pub(super) fn first(&self) -> Option<Criticality> {
        let mut classes = Criticality::ALL.into_iter().zip(&self.classes);
        classes.find_map(|(criticality, class)| (!class.is_empty()).then_some(criticality))
    }

    /// Who comes next.
    pub(super) fn next(&mut self) -> Option<T> {
        let (_, next) = self.classes.iter_mut().find_map(VecDeque::pop_front)?;
        Some(next)
    }

    /// Takes one out that no longer waits; `None` where it was called or displaced.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<T> {
        self.classes.iter_mut().find_map(|class| {
            let at = class
                .binary_search_by_key(&ticket, |waiting| waiting.0)
                .ok()?;
            class.remove(at).map(|(_, removed)| removed)
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use Criticality::{Critical, Default, Sheddable};

    #[test]
    fn the_most_critical_first_and_the_least_is_displaced() {
        let mut queue = Queue::new();
        let (mut waiting, mut said) = (Vec::new(), Vec::new());
        for (name, criticality) in [
            ("a", Default),
            ("b", Sheddable),
            ("c", Sheddable),
            ("d", Sheddable),
            ("e", Default),
            ("f", Critical),
            ("g", Default),
            ("h", Critical),
        ] {
            match queue.offer(criticality, 3, || name) {
                Offered::Waits(_) => waiting.push(name),
                Offered::Displaces(_, displaced) => said.push((name, displaced)),
                Offered::Full => said.push((name, "-")),
            }
        }
        assert_eq!(waiting, ["a", "b", "c"]);
        assert_eq!(
            said,
            [("d", "-"), ("e", "c"), ("f", "b"), ("g", "-"), ("h", "e")]
        );
        let served: Vec<_> = std::iter::from_fn(|| queue.next()).collect();
        assert_eq!(served, ["f", "h", "a"]);
    }

    #[derive(Debug, Clone)]
    enum Event {
        Offer(Criticality),
        Next,
        Remove(usize),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            3 => (0usize..3).prop_map(|class| Event::Offer(Criticality::ALL[class])),
            2 => Just(Event::Next),
            1 => (0usize..40).prop_map(Event::Remove),
        ]
    }

    proptest! {
        #![proptest_config(crate::testing::sequences())]

        /// The model is one list that is searched from its beginning.
        #[test]
        fn equals_a_list_that_is_searched(
            events in proptest::collection::vec(event(), 0..40),
            room in 0usize..9,
        ) {
            let mut queue = Queue::new();
            let mut model: Vec<(Criticality, usize)> = Vec::new();
            let mut tickets = Vec::new();
            for event in events {
                match event {
                    Event::Offer(criticality) => {
                        let name = tickets.len();
                        let offered = queue.offer(criticality, room, || name);
                        let expected = if model.len() < room {
                            None
                        } else {
                            let least = model.iter().map(|waiting| waiting.0).max();
                            let at = least.filter(|least| *least > criticality).and_then(|least| {
                                model.iter().rposition(|waiting| waiting.0 == least)
                            });
                            match at {
                                None => {
                                    prop_assert_eq!(offered, Offered::Full);
                                    tickets.push(None);
                                    continue;
                                }
                                Some(at) => Some(model.remove(at).1),
                            }
                        };
                        model.push((criticality, name));
                        let (ticket, displaced) = match offered {
                            Offered::Waits(ticket) => (ticket, None),
                            Offered::Displaces(ticket, displaced) => (ticket, Some(displaced)),
                            Offered::Full => panic!("there was room for {name}"),
                        };
                        prop_assert_eq!(displaced, expected);
                        tickets.push(Some(ticket));
                    }
                    Event::Next => {
                        let most = model.iter().map(|waiting| waiting.0).min();
                        let at = model.iter().position(|waiting| Some(waiting.0) == most);
                        prop_assert_eq!(queue.first(), most);
                        prop_assert_eq!(queue.next(), at.map(|at| model.remove(at).1));
                    }
                    Event::Remove(name) => {
                        let Some(Some(ticket)) = tickets.get(name) else { continue };
                        let at = model.iter().position(|waiting| waiting.1 == name);
                        prop_assert_eq!(queue.remove(*ticket), at.map(|at| model.remove(at).1));
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                prop_assert!(queue.len() <= room);
            }
        }
    }
}
