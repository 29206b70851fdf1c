//! Power of two choices: of two endpoints drawn by chance the cheaper one, by
//! peak EWMA or by requests in flight.
//!
//! Nearly as good as the cheapest of all, and does not send everybody to the
//! same one (Mitzenmacher). With unequal weights the two are drawn in
//! proportion to weight, with repetition, and load is measured per weight: idle
//! endpoints then share exactly by weight, and busy ones by weight and speed.
//! (Dividing the cost of two uniform draws by weight would starve the lighter
//! of two idle endpoints altogether.)
//!
//! Peak EWMA multiplies what a request takes by how many are there; least
//! request only counts them, and so learns of a slow endpoint when its queue
//! has grown. Both add what failures and throttles cost.

use std::time::Instant;

use super::{Choice, DRAWS, Total};
use crate::rotation::{Rotation, Seat, Tier};
use crate::snapshot::Algorithm;

/// The cheaper one of two by peak EWMA, drawn as if all were closed and of one tier.
pub(super) fn of_all<'a>(
    rotation: &'a Rotation,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<&'a Seat> {
    let seats = rotation.seats();
    if seats.len() < 2 {
        return seats.first();
    }
    let tier = rotation.near();
    let one = tier.draw(rng);
    let other = draw_beside(tier, one, rng);
    if one == other {
        return Some(&seats[one]);
    }
    let (mean, now) = (tier.mean(), rotation.crowd().millis(now));
    let cost = |seat: &Seat| seat.state.cost_at(f64::from(seat.weight) / mean, now);
    let (one, other) = (&seats[one], &seats[other]);
    Some(if cost(other) < cost(one) { other } else { one })
}

impl Choice<'_> {
    /// The cheaper one of two, drawn again and again until both fit. `None` says nothing but
    /// that they were not found so.
    pub(super) fn two_choices(&self, tier: &Tier, rng: &mut fastrand::Rng) -> Option<usize> {
        let count = tier.count();
        if count < 2 {
            return None;
        }
        // Few are sooner gone over than drawn in vain.
        let mut draws = 0..DRAWS.min(count);
        let mut first = None;
        let one = loop {
            draws.next()?;
            let drawn = match first {
                None => tier.draw(rng),
                Some(one) => draw_beside(tier, one, rng),
            };
            if !self.fits(drawn, rng) {
                continue;
            }
            match first {
                None => first = Some(drawn),
                Some(one) => break self.cheaper(one, drawn, self.mean(tier)),
            }
        };
        Some(one)
    }

    /// Two of all that are closed, tried or not, as asked.
    pub(super) fn two_of_the_rest(
        &self,
        tier: &Tier,
        tried: bool,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        let closed = || self.closed(tier, tried);
        let total = self.total(closed());
        let (one, other) = match total {
            Total { count: 0, .. } => return None,
            Total { count: 1, .. } => return closed().next(),
            Total {
                count,
                lightest,
                heaviest,
                ..
            } if lightest == heaviest => {
                let one = rng.usize(..count);
                let other = rng.usize(..count - 1);
                let other = other + usize::from(other >= one);
                (closed().nth(one), closed().nth(other))
            }
            Total { weight, .. } => {
                let one = self.by_weight(closed(), rng.u64(..weight));
                (one, self.by_weight(closed(), rng.u64(..weight)))
            }
        };
        match (one, other) {
            (Some(one), Some(other)) => {
                let mean = total.weight as f64 / total.count as f64;
                Some(self.cheaper(one, other, mean))
            }
            (one, other) => one.or(other),
        }
    }

    fn cheaper(&self, one: usize, other: usize, mean: f64) -> usize {
        if one == other {
            return one;
        }
        let now = self.rotation.crowd().millis(self.now);
        let counts_only = matches!(self.rotation.algorithm(), Algorithm::LeastRequest);
        let cost = |seat: usize| {
            let share = self.weight(seat) as f64 / mean;
            let Seat { state, .. } = &self.seats[seat];
            if counts_only {
                state.queue_at(share, now)
            } else {
                state.cost_at(share, now)
            }
        };
        if cost(other) < cost(one) { other } else { one }
    }
}

fn draw_beside(tier: &Tier, one: usize, rng: &mut fastrand::Rng) -> usize {
    if tier.is_even() {
        tier.draw_other(one, rng)
    } else {
        tier.draw(rng)
    }
}
