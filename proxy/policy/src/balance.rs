//! Which endpoint takes the next try.
//!
//! Met by every try, between its service's limits and its connection. It
//! reads the Snapshot's endpoints and their live state side by side, takes no
//! lock unless it probes, and allocates nothing. It knows no connections.
//!
//! Power of two choices over peak EWMA: of two endpoints drawn by chance the
//! cheaper one, which is nearly as good as the cheapest of all, and does not
//! send everybody to the same one. With unequal weights the two are drawn in
//! proportion to weight, with repetition, and load is measured per weight:
//! idle endpoints then share exactly by weight, and busy ones by weight and
//! speed. (Dividing the cost of two uniform draws by weight would starve the
//! lighter of two idle endpoints altogether.)

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breaker::Transition;
use crate::endpoint::{EndpointState, InFlight, Standing};
use crate::snapshot::Endpoint;

/// A request that cannot be retried takes a probe only after it was wanted for
/// this long, or where nothing else is there: one that can be retried is likely to come first.
pub const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// All endpoints are open, unhealthy, without weight, or absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no endpoint is healthy")]
pub struct NoHealthyEndpoint;

/// The endpoint of a try.
#[derive(Debug)]
pub struct Picked {
    /// Into the slices given to [`pick`].
    pub index: usize,
    /// The try.
    pub in_flight: InFlight,
    /// The breaker became HalfOpen by this pick.
    pub transition: Option<Transition>,
}

/// Picks the endpoint of the next try of a request.
///
/// `states` are those of `endpoints`, in their order. `tried` are the indices
/// of this request's earlier tries: taken again only where nothing else is
/// there. A HalfOpen endpoint whose slot is vacant comes first, if the request
/// is `retryable` or the slot was vacant for [`PROBE_PATIENCE`].
///
/// # Errors
/// [`NoHealthyEndpoint`] where none may take it.
pub fn pick(
    endpoints: &[Arc<Endpoint>],
    states: &[Arc<EndpointState>],
    tried: &[usize],
    retryable: bool,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Result<Picked, NoHealthyEndpoint> {
    debug_assert_eq!(
        endpoints.len(),
        states.len(),
        "states stand beside their endpoints"
    );
    let choice = Choice {
        endpoints,
        states,
        tried,
        now,
    };
    let patience = if retryable {
        Duration::ZERO
    } else {
        PROBE_PATIENCE
    };
    choice
        .probe(false, patience, rng)
        .or_else(|| choice.two_choices(false, rng))
        .or_else(|| choice.probe(false, Duration::ZERO, rng))
        .or_else(|| choice.two_choices(true, rng))
        .or_else(|| choice.probe(true, Duration::ZERO, rng))
        .ok_or(NoHealthyEndpoint)
}

#[derive(Clone, Copy)]
struct Choice<'a> {
    endpoints: &'a [Arc<Endpoint>],
    states: &'a [Arc<EndpointState>],
    tried: &'a [usize],
    now: Instant,
}

/// The endpoints in rotation, summed.
#[derive(Default)]
struct Total {
    count: usize,
    weight: u64,
    lightest: u32,
    heaviest: u32,
}

impl Choice<'_> {
    /// Whether the registry offers it, and whether it was tried as asked.
    fn offered(&self, index: usize, tried: bool) -> bool {
        let endpoint = &self.endpoints[index];
        endpoint.healthy && endpoint.weight > 0 && self.tried.contains(&index) == tried
    }

    /// Takes a vacant slot, beginning somewhere by chance so that each is found.
    fn probe(&self, tried: bool, patience: Duration, rng: &mut fastrand::Rng) -> Option<Picked> {
        let count = self.states.len();
        let is_wanted = |index: &usize| {
            self.offered(*index, tried)
                && matches!(self.states[*index].standing(self.now), Standing::Vacant { waited } if waited >= patience)
        };
        // Most of the time there is none: nothing is drawn then.
        let first = (0..count).find(is_wanted)?;
        let from = rng.usize(first..count);
        (from..count)
            .chain(first..from)
            .filter(is_wanted)
            .find_map(|index| {
                let (in_flight, transition) = self.states[index].admit_probe(self.now)?;
                Some(Picked {
                    index,
                    in_flight,
                    transition,
                })
            })
    }

    fn two_choices(&self, tried: bool, rng: &mut fastrand::Rng) -> Option<Picked> {
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
            (Some(one), Some(other)) if self.cost(other, &total) < self.cost(one, &total) => {
                Some(other)
            }
            (one, other) => one.or(other),
        };
        // Breakers may have opened since they were counted: then whichever is left.
        chosen
            .and_then(|index| self.admit(index))
            .or_else(|| self.closed(tried).find_map(|index| self.admit(index)))
    }

    /// Indices of the endpoints in rotation.
    fn closed(&self, tried: bool) -> impl Iterator<Item = usize> {
        (0..self.states.len()).filter(move |index| {
            self.offered(*index, tried)
                && matches!(
                    self.states[*index].standing(self.now),
                    Standing::Closed { .. }
                )
        })
    }

    fn total(&self, tried: bool) -> Total {
        let start = Total {
            lightest: u32::MAX,
            ..Total::default()
        };
        self.closed(tried).fold(start, |sum, index| {
            let weight = self.endpoints[index].weight;
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

    /// The endpoint at `at` of all weights laid end to end.
    fn by_weight(&self, tried: bool, mut at: u64) -> Option<usize> {
        self.closed(tried).find(|index| {
            let weight = u64::from(self.endpoints[*index].weight);
            let here = at < weight;
            at = at.saturating_sub(weight);
            here
        })
    }

    fn cost(&self, index: usize, total: &Total) -> f64 {
        let mean = total.weight as f64 / total.count as f64;
        self.states[index].cost(f64::from(self.endpoints[index].weight) / mean, self.now)
    }

    fn admit(&self, index: usize) -> Option<Picked> {
        let in_flight = self.states[index].admit(self.now)?;
        Some(Picked {
            index,
            in_flight,
            transition: None,
        })
    }
}

#[cfg(test)]
mod tests;
