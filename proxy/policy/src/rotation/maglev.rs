//! A table in which every endpoint has its share of places, and a key one place.
//!
//! Maglev hashing (Eisenbud et al., NSDI 2016): each endpoint has an order of
//! its own in which it prefers the places, and takes the next free one when it
//! is its turn. Turns go by weight in smooth rounds. Shares are as even as the
//! table allows, and a change of endpoints moves hardly more keys than it must,
//! as long as there are a hundred places for each endpoint.

use std::sync::Arc;

use crate::hash;
use crate::rounds::Rounds;

/// Places: a prime, so that every order meets every place. Of more endpoints than
/// that, the first of each round have one.
pub(super) const PLACES: usize = 65_537;

/// An endpoint's order of places: `(offset + n · skip) mod PLACES`.
struct Order {
    next: usize,
    skip: usize,
}

impl Order {
    fn of(id: &str) -> Self {
        let own = hash::hash(id.as_bytes());
        let below = |number: u64, bound: usize| (number % bound as u64) as usize;
        Self {
            next: below(own, PLACES),
            skip: below(hash::nth(own, 0), PLACES - 1) + 1,
        }
    }

    fn advance(&mut self) -> usize {
        let place = self.next;
        self.next = (place + self.skip) % PLACES;
        place
    }
}

/// Whose each place is. There is at least one of those `seated`, and none without weight.
pub(super) fn table(seated: &[(Arc<str>, u32)]) -> Box<[u32]> {
    const FREE: u32 = u32::MAX;
    let mut orders: Vec<Order> = seated.iter().map(|(id, _)| Order::of(id)).collect();
    let mut rounds = Rounds::begin(seated.iter().map(|(_, weight)| *weight), 0);
    let mut places = vec![FREE; PLACES].into_boxed_slice();
    for _ in 0..PLACES {
        let seat = rounds.next();
        let order = &mut orders[seat];
        // As many are free as there are turns left, and an order meets them all.
        let mut place = order.advance();
        while places[place] != FREE {
            place = order.advance();
        }
        places[place] = seat as u32;
    }
    places
}

/// The place of a key.
pub(super) const fn place(key: u64) -> usize {
    (key % PLACES as u64) as usize
}
