//! Which endpoint takes the next try.
//!
//! Met by every try, between its service's limits and its connection. It
//! reads the rotation that was made with the Snapshot and the endpoints' live
//! state, takes no lock unless it probes, and allocates nothing. It knows no
//! connections.
//!
//! Whatever the algorithm: an endpoint whose breaker waits for its probe comes
//! first, one that is open, unhealthy or without weight never, one that was
//! tried by the same request last. Between them the algorithm of the policy
//! chooses, each in a file of its own: `two_choices` (peak EWMA, the default,
//! and least request), `by_chance`, `in_turn`, `by_key`. They are arms of
//! one match instead of a trait: a call through a table would cost the default
//! as much as its choice.
//!
//! What a pick costs does not grow with the endpoints. It draws from all that
//! are offered, and again where what it drew is out or was tried; who waits
//! for a probe the crowd knows. Only when some sixty draws were in vain it goes
//! over those that are closed: they are few then, or nearly all weight is out.

mod by_chance;
mod by_key;
mod in_turn;
mod two_choices;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breaker::Transition;
use crate::endpoint::{EndpointState, InFlight, Standing};
use crate::rotation::{Rotation, Seat, Tier};
use crate::snapshot::{Algorithm, Endpoint, SlowStart};

pub use self::in_turn::Turns;

/// A request that cannot be retried takes a probe only after it was wanted for
/// this long, or where nothing else is there: one that can be retried is likely
/// to come first. A retry has failed once already, and waits as long: of the
/// tries of one request no more than one is risked so.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(1);
/// Of one algorithm in one tier, for both choices together. Going over the
/// closed ones is then rare, or they are few: at the worst share, one closed in
/// 40, it is expected to meet as many as one in 76 of all.
const DRAWS: usize = 64;
/// Probes that other workers may take before our eyes.
const RACES: usize = 16;
/// Under slow start weights are counted in parts of this many.
const WARM_PARTS: u64 = 1024;

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

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The indices of this request's earlier tries: taken again only where nothing else is there.
    pub tried: &'a [usize],
    /// Whether the request could be sent again if this try failed.
    pub retryable: bool,
    /// See [`crate::affinity`]; without one, an algorithm that hashes draws by chance.
    pub key: Option<u64>,
}

/// [`pick_for`] a request without a key, by somebody who keeps no turns: what
/// goes in turn is drawn by chance then.
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
    let ask = Ask {
        tried,
        retryable,
        key: None,
    };
    pick_for(rotation, ask, None, now, rng)
}

/// Picks the endpoint of the next try of a request. `turns` are the asking worker's own.
///
/// A HalfOpen endpoint whose slot is vacant comes first, the one that waits
/// longest, if this is the first try of a request that is `retryable` or the
/// slot was vacant for [`PROBE_PATIENCE`].
///
/// # Errors
/// [`NoHealthyEndpoint`] where none may take it.
pub fn pick_for(
    rotation: &Rotation,
    ask: Ask<'_>,
    turns: Option<&mut Turns>,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Result<Picked, NoHealthyEndpoint> {
    // Nothing is out and nothing was tried: most picks end here.
    if rotation.is_plain()
        && ask.tried.is_empty()
        && rotation.crowd().open() == 0
        && let Some(seat) = two_choices::of_all(rotation, now, rng)
        && let Some(picked) = admit(seat, now)
    {
        return Ok(picked);
    }
    let choice = Choice {
        rotation,
        seats: rotation.seats(),
        tried: ask.tried,
        key: ask.key,
        now,
        warming: rotation.warming(now),
    };
    choice
        .pick_around(ask.retryable, turns, rng)
        .ok_or(NoHealthyEndpoint)
}

/// Picks the endpoint that a session stays with, whatever its weight; `None`
/// where it is unhealthy or its breaker is not closed. `state` is that of
/// `endpoint`, the one at `index`.
#[must_use]
pub fn pick_pinned(
    endpoint: &Endpoint,
    state: &Arc<EndpointState>,
    index: usize,
    now: Instant,
) -> Option<Picked> {
    let in_flight = endpoint.healthy.then(|| state.admit(now))??;
    Some(Picked {
        index,
        in_flight,
        transition: None,
    })
}

fn admit(seat: &Seat, now: Instant) -> Option<Picked> {
    Some(Picked {
        index: seat.index(),
        in_flight: seat.state.admit(now)?,
        transition: None,
    })
}

#[derive(Clone, Copy)]
struct Choice<'a> {
    rotation: &'a Rotation,
    seats: &'a [Seat],
    tried: &'a [usize],
    key: Option<u64>,
    now: Instant,
    /// Slow start, while somebody may be in it.
    warming: Option<SlowStart>,
}

/// Endpoints summed.
#[derive(Default)]
struct Total {
    count: usize,
    weight: u64,
    lightest: u64,
    heaviest: u64,
}

impl Choice<'_> {
    /// Picks where there is more to it than two choices of all.
    fn pick_around(
        &self,
        retryable: bool,
        turns: Option<&mut Turns>,
        rng: &mut fastrand::Rng,
    ) -> Option<Picked> {
        let patience = if retryable && self.tried.is_empty() {
            Duration::ZERO
        } else {
            PROBE_PATIENCE
        };
        if let Some(picked) = self.probe(false, patience) {
            return Some(picked);
        }
        let (tier, other) = self.rotation.tiers(rng);
        self.of_tier(tier, turns, rng)
            // Rare enough to be drawn for, whoever's turn it is.
            .or_else(|| self.of_tier(other?, None, rng))
            .or_else(|| self.probe(false, Duration::ZERO))
            .or_else(|| self.of_the_rest(tier, true, rng))
            .or_else(|| self.of_the_rest(other?, true, rng))
            .or_else(|| self.probe(true, Duration::ZERO))
    }

    /// One that is closed and was not tried.
    fn of_tier(
        &self,
        tier: &Tier,
        turns: Option<&mut Turns>,
        rng: &mut fastrand::Rng,
    ) -> Option<Picked> {
        let chosen = match self.rotation.algorithm() {
            Algorithm::PeakEwma | Algorithm::LeastRequest => self.two_choices(tier, rng),
            Algorithm::Random => self.by_chance(tier, rng),
            Algorithm::RoundRobin => self.in_turn(tier, turns, rng),
            Algorithm::RingHash { hashing, .. } | Algorithm::Maglev(hashing) => match self.key {
                Some(key) => self.by_key(tier, key, hashing),
                None => self.by_chance(tier, rng),
            },
        };
        chosen
            .and_then(|seat| self.admit(seat))
            .or_else(|| self.of_the_rest(tier, false, rng))
    }

    /// Goes over all that are closed, tried or not, as asked.
    fn of_the_rest(&self, tier: &Tier, tried: bool, rng: &mut fastrand::Rng) -> Option<Picked> {
        let chosen = match (self.rotation.algorithm(), self.key) {
            (Algorithm::PeakEwma | Algorithm::LeastRequest, _) => {
                self.two_of_the_rest(tier, tried, rng)
            }
            (Algorithm::RingHash { .. } | Algorithm::Maglev(_), Some(key)) => {
                self.by_key_of_the_rest(tier, tried, key)
            }
            _ => self.by_chance_of_the_rest(tier, tried, rng),
        };
        // Breakers may have opened since they were looked at: then whichever is left.
        self.admit(chosen?)
            .or_else(|| self.closed(tier, tried).find_map(|seat| self.admit(seat)))
    }

    fn state(&self, seat: usize) -> &EndpointState {
        &self.seats[seat].state
    }

    fn was_tried(&self, seat: usize) -> bool {
        self.tried.contains(&self.seats[seat].index())
    }

    /// Whether a seat that was drawn will do: closed, not tried, and under slow
    /// start as often as its share grows.
    fn fits(&self, seat: usize, rng: &mut fastrand::Rng) -> bool {
        self.rotation.seating().closed.has(seat)
            && !self.was_tried(seat)
            && self
                .warming
                .is_none_or(|policy| rng.f64() < self.state(seat).warmth(&policy, self.now))
    }

    /// Whether an endpoint asked to be left alone. Two choices need not ask: it costs more.
    fn rests(&self, seat: usize) -> bool {
        let now = self.rotation.crowd().millis(self.now);
        self.state(seat).rests_at(now)
    }

    /// A weight for comparison with other seats': under slow start what there is of it now.
    fn weight(&self, seat: usize) -> u64 {
        let weight = u64::from(self.seats[seat].weight);
        match &self.warming {
            None => weight,
            Some(policy) => {
                let parts = self.state(seat).warmth(policy, self.now) * WARM_PARTS as f64;
                weight * (parts as u64).max(1)
            }
        }
    }

    /// Of weights as [`Choice::weight`] counts them.
    fn mean(&self, tier: &Tier) -> f64 {
        match self.warming {
            None => tier.mean(),
            Some(_) => tier.mean() * WARM_PARTS as f64,
        }
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

    /// The seats that are closed. A rotation that is over is told of nothing:
    /// then each is asked.
    fn closed(&self, tier: &Tier, tried: bool) -> impl Iterator<Item = usize> {
        let is_current = self.rotation.is_current();
        let known = is_current.then(|| self.rotation.seating().closed.iter());
        let all = (!is_current).then_some(0..self.seats.len());
        let of_tier = tier.seats();
        let seats = known.into_iter().flatten().chain(all.into_iter().flatten());
        seats.filter(move |seat| {
            of_tier.contains(seat)
                && self.was_tried(*seat) == tried
                && matches!(
                    self.state(*seat).standing(self.now),
                    Standing::Closed { .. }
                )
        })
    }

    /// Sums some seats.
    fn total(&self, seats: impl Iterator<Item = usize>) -> Total {
        let start = Total {
            lightest: u64::MAX,
            ..Total::default()
        };
        seats.fold(start, |sum, seat| {
            let weight = self.weight(seat);
            Total {
                count: sum.count + 1,
                weight: sum.weight + weight,
                lightest: sum.lightest.min(weight),
                heaviest: sum.heaviest.max(weight),
            }
        })
    }

    /// The one at `at` of the weights of all `seats` laid end to end.
    fn by_weight(&self, mut seats: impl Iterator<Item = usize>, mut at: u64) -> Option<usize> {
        seats.find(|seat| {
            let weight = self.weight(*seat);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })
    }

    fn admit(&self, seat: usize) -> Option<Picked> {
        admit(&self.seats[seat], self.now)
    }
}

#[cfg(test)]
mod tests;
