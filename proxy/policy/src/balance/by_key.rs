//! By key: where the key is at home, on a ring or in Maglev's table.
//!
//! A home that is out, was tried, or asked to be left alone is passed over, and
//! so is one that has enough to do: with bounded loads (Mirrokni, Thorup and
//! Zadimoghaddam, 2017) none takes more than its share of all requests in
//! flight times the bound, this one included, so that one busy key cannot sink
//! an endpoint while others idle. The walk on from home is the key's own, so a
//! key that cannot stay goes to the same second home each time.

use super::{Choice, DRAWS};
use crate::crowd::Spill;
use crate::hash;
use crate::rotation::Tier;
use crate::snapshot::Hashing;

impl Choice<'_> {
    /// The first on the walk from the key's home that fits and has room. `None`
    /// says nothing but that none was found.
    pub(super) fn by_key(&self, tier: &Tier, key: u64, hashing: &Hashing) -> Option<usize> {
        let homes = self.rotation.homes()?;
        let room = self.room(tier, hashing);
        let mut spilled = false;
        let closed = &self.rotation.seating().closed;
        let found = homes.walk(key).take(DRAWS).find(|seat| {
            if !closed.has(*seat) || self.was_tried(*seat) || self.rests(*seat) {
                return false;
            }
            let has_room = room.is_none_or(|room| self.is_below(*seat, room));
            spilled |= !has_room;
            has_room
        });
        if spilled {
            self.rotation.crowd().spills(Spill::Load);
        }
        found
    }

    /// Of all that are closed, tried or not as asked: with bounded loads the one
    /// with the most room, else the one that the key would rather have.
    pub(super) fn by_key_of_the_rest(&self, tier: &Tier, tried: bool, key: u64) -> Option<usize> {
        let hashing = self.rotation.algorithm().hashing()?;
        // In flight for each of weight, crosswise in integers.
        let load = |seat: &usize| {
            let weight = u64::from(self.seats[*seat].weight);
            u64::from(self.state(*seat).pending()) * (1 << 32) / weight
        };
        let taste = |seat: &usize| hash::nth(key, *seat as u64);
        let all = self.closed(tier, tried);
        match hashing.bounded_load {
            Some(_) => all.min_by_key(|seat| (self.rests(*seat), load(seat), taste(seat))),
            None => all.min_by_key(|seat| (self.rests(*seat), taste(seat))),
        }
    }

    /// Requests in flight that each unit of weight may have; `None`: as many as
    /// come. Somebody is seated.
    fn room(&self, tier: &Tier, hashing: &Hashing) -> Option<f64> {
        let bound = f64::from(hashing.bounded_load?) / 100.0;
        let crowd = self.rotation.crowd();
        // As if those that are out weighed as much as the others.
        let out = (crowd.open() as usize).min(tier.count() - 1);
        let in_rotation = (tier.count() - out) as f64 / tier.count() as f64;
        let weight = tier.weight() as f64 * in_rotation;
        Some(bound * (f64::from(crowd.in_flight()) + 1.0) / weight)
    }

    fn is_below(&self, seat: usize, room: f64) -> bool {
        f64::from(self.state(seat).pending()) < room * f64::from(self.seats[seat].weight)
    }
}
