//! By chance, in proportion to weight: the draw that the other algorithms
//! begin with, and nothing more.
//!
//! Knows no load, but passes over those that asked to be left alone, while
//! there is another.

use super::{Choice, DRAWS};
use crate::rotation::Tier;

impl Choice<'_> {
    /// Draws until one fits. `None` says nothing but that none was found.
    pub(super) fn by_chance(&self, tier: &Tier, rng: &mut fastrand::Rng) -> Option<usize> {
        let count = tier.count();
        (0..DRAWS.min(count)).find_map(|_| {
            let drawn = tier.draw(rng);
            (self.fits(drawn, rng) && !self.rests(drawn)).then_some(drawn)
        })
    }

    /// One of all that are closed, tried or not, as asked.
    pub(super) fn by_chance_of_the_rest(
        &self,
        tier: &Tier,
        tried: bool,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let all = || self.closed(tier, tried);
        let awake = || all().filter(|seat| !self.rests(*seat));
        match self.total(awake()).weight {
            0 => {
                let weight = self.total(all()).weight;
                (weight > 0).then(|| self.by_weight(all(), rng.u64(..weight)))?
            }
            weight => self.by_weight(awake(), rng.u64(..weight)),
        }
    }
}
