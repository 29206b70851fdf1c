//! Which endpoint takes the next try.
//!
//! Met by every try, between its service's limits and its connection. It
//! reads the rotation that was made with the Snapshot and the endpoints' live
//! state, takes no lock unless it probes, and allocates nothing. It knows no
//! connections.
//!
//! Power of two choices over peak EWMA: of two endpoints drawn by chance the
//! cheaper one, which is nearly as good as the cheapest of all, and does not
//! send everybody to the same one. With unequal weights the two are drawn in
//! proportion to weight, with repetition, and load is measured per weight:
//! idle endpoints then share exactly by weight, and busy ones by weight and
//! speed. (Dividing the cost of two uniform draws by weight would starve the
//! lighter of two idle endpoints altogether.)
//!
//! What a pick costs does not grow with the endpoints. It draws from all that
//! are offered, and again where what it drew is out or was tried; who waits
//! for a probe the crowd knows. Only when some sixty draws were in vain it goes
//! over those that are closed: they are few then, or nearly all weight is out.

use std::time::{Duration, Instant};

use crate::breaker::Transition;
use crate::endpoint::{EndpointState, InFlight, Standing};
use crate::rotation::{Rotation, Seat};

/// A request that cannot be retried takes a probe only after it was wanted for
/// this long, or where nothing else is there: one that can be retried is likely to come first.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// For both choices together. Going over the closed ones is then rare, or they
/// are few: at the worst share, one closed in 40, it is expected to meet as
/// many as one in 76 of all.
const DRAWS: usize = 64;
/// Probes that other workers may take before our eyes.
const RACES: usize = 16;

/// All endpoints are open, unhealthy, without weight, or absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint is healthy")]
pub struct NoHealthyEndpoint;

/// The endpoint of a try.
#[derive(Debug)]
pub struct Picked {
    /// Into the endpoints that the rotation was made of.
    pub index: usize,
    /// The try.
    pub in_flight: InFlight,
    /// The breaker became HalfOpen by this pick.
    pub transition: Option<Transition>,
}

/// Picks the endpoint of the next try of a request.
///
/// `tried` are the indices of this request's earlier tries: taken again only
/// where nothing else is there. A HalfOpen endpoint whose slot is vacant comes
/// first, the one that waits longest, if the request is `retryable` or the slot
/// was vacant for [`PROBE_PATIENCE`].
///
/// # Errors
/// [`NoHealthyEndpoint`] where none may take it.
pub fn pick(
    rotation: &Rotation,
    tried: &[usize],
    retryable: bool,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Result<Picked, NoHealthyEndpoint> {
    let choice = Choice {
        rotation,
        seats: rotation.seats(),
        tried,
        now,
    };
    // Nothing is out and nothing was tried: most picks end here.
    if tried.is_empty()
        && rotation.crowd().open() == 0
        && let Some(seat) = choice.two_of_all(rng)
        && let Some(picked) = choice.admit(seat)
    {
        return Ok(picked);
    }
    choice.pick_around(retryable, rng).ok_or(NoHealthyEndpoint)
}

#[derive(Clone, Copy)]
struct Choice<'a> {
    rotation: &'a Rotation,
    seats: &'a [Seat],
    tried: &'a [usize],
    now: Instant,
}

/// Endpoints summed.
#[derive(Default)]
struct Total {
    count: usize,
    weight: u64,
    lightest: u32,
    heaviest: u32,
}

impl Choice<'_> {
    /// Picks where endpoints are out or were tried.
    fn pick_around(&self, retryable: bool, rng: &mut fastrand::Rng) -> Option<Picked> {
        let patience = if retryable {
            Duration::ZERO
        } else {
            PROBE_PATIENCE
        };
        self.probe(false, patience)
            .or_else(|| self.admit(self.two_choices(rng)?))
            .or_else(|| self.two_of_the_rest(false, rng))
            .or_else(|| self.probe(false, Duration::ZERO))
            .or_else(|| self.two_of_the_rest(true, rng))
            .or_else(|| self.probe(true, Duration::ZERO))
    }

    fn state(&self, seat: usize) -> &EndpointState {
        &self.seats[seat].state
    }

    fn was_tried(&self, seat: usize) -> bool {
        self.tried.contains(&self.seats[seat].index())
    }

    /// Takes the slot that is vacant longest, of those tried or not, as asked.
    fn probe(&self, tried: bool, patience: Duration) -> Option<Picked> {
        let crowd = self.rotation.crowd();
        if crowd.open() == 0 {
            return None;
        }
        for _ in 0..RACES {
            let seat = self.vacant(tried, patience)?;
            if let Some((in_flight, transition)) = self.seats[seat].state.admit_probe(self.now) {
                return Some(Picked {
                    index: self.seats[seat].index(),
                    in_flight,
                    transition,
                });
            }
        }
        None
    }

    fn vacant(&self, tried: bool, patience: Duration) -> Option<usize> {
        let crowd = self.rotation.crowd();
        let rotation = self.rotation.seating().rotation;
        if !crowd.is_current(rotation) {
            return self.vacant_in_the_past(tried, patience);
        }
        let until = crowd
            .millis(self.now)
            .checked_sub(patience.as_millis() as u64)?;
        // Nobody is passed over but those tried, which are few.
        let is_wanted = |seat| self.was_tried(seat) == tried;
        let look = || crowd.longest_waiting(rotation, until, is_wanted);
        crowd.waits_since(until).then(look).flatten()
    }

    /// The Snapshot changed since this request began: the crowd sits otherwise
    /// by now, and the request goes round itself.
    fn vacant_in_the_past(&self, tried: bool, patience: Duration) -> Option<usize> {
        let is_vacant = |seat: &usize| matches!(self.state(*seat).standing(self.now), Standing::Vacant { waited } if waited >= patience);
        (0..self.seats.len()).find(|seat| self.was_tried(*seat) == tried && is_vacant(seat))
    }

    /// The cheaper one of two, drawn as if all were closed.
    fn two_of_all(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        if self.seats.len() < 2 {
            return self.seats.len().checked_sub(1);
        }
        let one = self.rotation.draw(rng);
        let other = self.draw_beside(one, rng);
        Some(self.cheaper(one, other, self.rotation.mean()))
    }

    /// The same, drawn again and again until both are closed and not tried.
    /// `None` says nothing but that they were not found so.
    fn two_choices(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let count = self.seats.len();
        if count < 2 {
            return None;
        }
        let closed = &self.rotation.seating().closed;
        let will_do = |seat: &usize| closed.has(*seat) && !self.was_tried(*seat);
        // Few are sooner gone over than drawn in vain.
        let mut draws = 0..DRAWS.min(count);
        let one = draws
            .by_ref()
            .map(|_| self.rotation.draw(rng))
            .find(will_do)?;
        let other = draws.map(|_| self.draw_beside(one, rng)).find(will_do)?;
        Some(self.cheaper(one, other, self.rotation.mean()))
    }

    fn draw_beside(&self, one: usize, rng: &mut fastrand::Rng) -> usize {
        if self.rotation.is_even() {
            self.rotation.draw_other(one, rng)
        } else {
            self.rotation.draw(rng)
        }
    }

    /// Goes over all that are closed, tried or not, as asked.
    fn two_of_the_rest(&self, tried: bool, rng: &mut fastrand::Rng) -> Option<Picked> {
        let total = self.total(tried);
        let (one, other) = match total.count {
            0 => return None,
            1 => (self.nth(tried, 0), None),
            count if total.lightest == total.heaviest => {
                let one = rng.usize(..count);
                let other = rng.usize(..count - 1);
                let other = other + usize::from(other >= one);
                (self.nth(tried, one), self.nth(tried, other))
            }
            _ => {
                let one = self.by_weight(tried, rng.u64(..total.weight));
                (one, self.by_weight(tried, rng.u64(..total.weight)))
            }
        };
        let chosen = match (one, other) {
            (Some(one), Some(other)) => {
                let mean = total.weight as f64 / total.count as f64;
                Some(self.cheaper(one, other, mean))
            }
            (one, other) => one.or(other),
        };
        // Breakers may have opened since they were counted: then whichever is left.
        chosen
            .and_then(|seat| self.admit(seat))
            .or_else(|| self.closed(tried).find_map(|seat| self.admit(seat)))
    }

    /// The seats that are closed. A rotation that is over is told of nothing:
    /// then each is asked.
    fn closed(&self, tried: bool) -> impl Iterator<Item = usize> {
        let is_current = self.rotation.is_current();
        let known = is_current.then(|| self.rotation.seating().closed.iter());
        let all = (!is_current).then_some(0..self.seats.len());
        let seats = known.into_iter().flatten().chain(all.into_iter().flatten());
        seats.filter(move |seat| {
            self.was_tried(*seat) == tried
                && matches!(
                    self.state(*seat).standing(self.now),
                    Standing::Closed { .. }
                )
        })
    }

    fn total(&self, tried: bool) -> Total {
        let start = Total {
            lightest: u32::MAX,
            ..Total::default()
        };
        self.closed(tried).fold(start, |sum, seat| {
            let weight = self.seats[seat].weight;
            Total {
                count: sum.count + 1,
                weight: sum.weight + u64::from(weight),
                lightest: sum.lightest.min(weight),
                heaviest: sum.heaviest.max(weight),
            }
        })
    }

    fn nth(&self, tried: bool, nth: usize) -> Option<usize> {
        self.closed(tried).nth(nth)
    }

    /// The seat at `at` of all weights laid end to end.
    fn by_weight(&self, tried: bool, mut at: u64) -> Option<usize> {
        self.closed(tried).find(|seat| {
            let weight = u64::from(self.seats[*seat].weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })
    }

    fn cheaper(&self, one: usize, other: usize, mean: f64) -> usize {
        if one == other {
            return one;
        }
        let now = self.rotation.crowd().millis(self.now);
        let cost = |seat: usize| {
            let Seat { state, weight, .. } = &self.seats[seat];
            state.cost_at(f64::from(*weight) / mean, now)
        };
        if cost(other) < cost(one) { other } else { one }
    }

    fn admit(&self, seat: usize) -> Option<Picked> {
        let Seat { state, .. } = &self.seats[seat];
        Some(Picked {
            index: self.seats[seat].index(),
            in_flight: state.admit(self.now)?,
            transition: None,
        })
    }
}

#[cfg(test)]
mod tests;
