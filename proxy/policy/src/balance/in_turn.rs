//! In turn: smooth weighted round robin, as [`crate::rounds`] has it.
//!
//! Turns are a worker's own: shared ones would be a word that all workers write
//! at every pick. A new rotation begins anywhere in its round, by chance, so
//! that frequent changes do not favour the first. Who is out, rests or was tried
//! loses its turn to the next; where that happens to some sixty in a row it is
//! left to chance.

use super::{Choice, DRAWS};
use crate::rotation::{Rotation, Tier};
use crate::rounds::Rounds;

/// Whose turn it is, for one worker at one port of a service.
#[derive(Debug, Default)]
pub struct Turns {
    /// The rotation they are of; 0: none yet.
    rotation: u32,
    near: Option<Rounds>,
    far: Option<Rounds>,
}

impl Turns {
    /// Those of a tier. Only the first pick of a rotation allocates.
    fn of(&mut self, rotation: &Rotation, tier: &Tier, rng: &mut fastrand::Rng) -> &mut Rounds {
        let number = rotation.seating().rotation;
        if self.rotation != number {
            *self = Self {
                rotation: number,
                ..Self::default()
            };
        }
        let rounds = match tier.seats().start {
            0 => &mut self.near,
            _ => &mut self.far,
        };
        rounds.get_or_insert_with(|| {
            let weights = rotation.seats()[tier.seats()].iter();
            Rounds::begin(weights.map(|seat| seat.weight), rng.u32(..))
        })
    }
}

impl Choice<'_> {
    /// Whoever is next and fits; drawn by chance where no turns are kept.
    pub(super) fn in_turn(
        &self,
        tier: &Tier,
        turns: Option<&mut Turns>,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let Some(turns) = turns else {
            return self.by_chance(tier, rng);
        };
        if tier.count() == 0 {
            return None;
        }
        let rounds = turns.of(self.rotation, tier, rng);
        (0..DRAWS).find_map(|_| {
            let next = tier.seats().start + rounds.next();
            (self.fits(next, rng) && !self.rests(next)).then_some(next)
        })
    }
}
