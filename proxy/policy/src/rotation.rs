//! The endpoints of one service port that its registry offers, laid out once
//! per Snapshot so that a pick need not go over them.
//!
//! Made beside the live state, read by every pick of every worker. A seat for
//! each endpoint that is healthy and has a weight, those of the caller's zone
//! first where policy looks at zones; what the algorithm needs to draw by
//! weight, or to find the home of a key, lies beside. Which seats are closed and
//! who waits for a probe changes meanwhile: the [`Crowd`] knows, until the next
//! rotation begins. It decides nothing.

mod homes;
mod maglev;
mod ring_hash;
mod tier;
mod zones;

use std::sync::Arc;
use std::time::Instant;

#[cfg(any(test, feature = "loom"))]
use crate::crowd::Listing;
use crate::crowd::{Crowd, Seating, Spill};
use crate::endpoint::EndpointState;
use crate::snapshot::{Algorithm, Balancer, Endpoint, SlowStart};

pub(crate) use self::homes::Homes;
pub(crate) use self::tier::Tier;
use self::zones::Far;

/// See the module.
#[derive(Debug)]
pub struct Rotation {
    seats: Box<[Seat]>,
    /// All of them, or those of the caller's zone.
    near: Tier,
    far: Option<Far>,
    /// For algorithms that hash.
    homes: Option<Arc<Homes>>,
    algorithm: Algorithm,
    slow_start: Option<SlowStart>,
    /// Whether two choices over all seats are all there is to it.
    is_plain: bool,
    crowd: Arc<Crowd>,
    seating: Seating,
}

/// One endpoint that is offered.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) state: Arc<EndpointState>,
    /// Into the endpoints of the port.
    index: u32,
    pub(crate) weight: u32,
}

/// What a rotation is laid out by, beside its endpoints.
#[derive(Debug, Clone, Copy)]
pub struct Layout<'a> {
    /// How an endpoint is chosen.
    pub balancer: &'a Balancer,
    /// The caller's zone, if it has one.
    pub zone: Option<&'a str>,
    /// What is the same is taken over from it.
    pub before: Option<&'a Rotation>,
    /// No earlier than the crowd's epoch.
    pub now: Instant,
}

impl<'a> Layout<'a> {
    /// For a caller of no zone, with nothing before.
    #[must_use]
    pub const fn new(balancer: &'a Balancer, now: Instant) -> Self {
        Self {
            balancer,
            zone: None,
            before: None,
            now,
        }
    }
}

impl Seat {
    /// Into the endpoints of the port.
    pub(crate) const fn index(&self) -> usize {
        self.index as usize
    }
}

impl Rotation {
    /// Seats those of `endpoints` that are offered, and tells their `crowd`:
    /// from then on it is the crowd's rotation of now. `states` are those of
    /// `endpoints`, in their order, and all of that crowd.
    #[must_use]
    pub fn begin(
        endpoints: &[Arc<Endpoint>],
        states: &[Arc<EndpointState>],
        crowd: &Arc<Crowd>,
        layout: &Layout<'_>,
    ) -> Self {
        debug_assert_eq!(
            endpoints.len(),
            states.len(),
            "states stand beside their endpoints"
        );
        let Layout {
            balancer,
            zone,
            before,
            now,
        } = *layout;
        for (endpoint, state) in endpoints.iter().zip(states) {
            state.offer(is_offered(endpoint), now);
        }
        let seat = |index: usize| Seat {
            state: Arc::clone(&states[index]),
            index: index as u32,
            weight: endpoints[index].weight,
        };
        let is_near = |endpoint: &Endpoint| match (balancer.locality, zone) {
            (Some(_), Some(zone)) => zones::is_in(endpoint, zone),
            _ => true,
        };
        let offered = (0..endpoints.len()).filter(|index| is_offered(&endpoints[*index]));
        let (mut order, others): (Vec<usize>, Vec<usize>) =
            offered.partition(|index| is_near(&endpoints[*index]));
        let split = order.len();
        order.extend(others);
        let seats: Box<[Seat]> = order.iter().map(|index| seat(*index)).collect();
        // A zone of which nobody is there is no place to stay.
        let is_split = split > 0 && split < seats.len();
        let (near, far) = match balancer.locality.filter(|_| is_split) {
            None => (Tier::of(&seats, 0, seats.len()), None),
            Some(locality) => {
                let serves = |endpoint: &&Arc<Endpoint>| endpoint.weight > 0 && is_near(endpoint);
                let far = Far {
                    tier: Tier::of(&seats, split, seats.len()),
                    near: endpoints.iter().filter(serves).count(),
                    min_healthy_percent: locality.min_healthy_percent,
                };
                (Tier::of(&seats, 0, split), Some(far))
            }
        };
        let homes = balancer.algorithm.hashing().and_then(|_| {
            let named =
                |index: &usize| (Arc::clone(&endpoints[*index].id), endpoints[*index].weight);
            let before = before.and_then(|before| before.homes.as_ref());
            Homes::among(
                &balancer.algorithm,
                order.iter().map(named).collect(),
                before,
            )
        });
        let is_bounded = balancer
            .algorithm
            .hashing()
            .is_some_and(|hashing| hashing.bounded_load.is_some());
        crowd.count_in_flight(is_bounded);
        let seating = crowd.begin_rotation(seats.len(), |seat| {
            let state = &seats[seat].state;
            (state.place(), state.listing())
        });
        Self {
            is_plain: balancer.algorithm == Algorithm::PeakEwma
                && far.is_none()
                && balancer.slow_start.is_none(),
            seats,
            near,
            far,
            homes,
            algorithm: balancer.algorithm.clone(),
            slow_start: balancer.slow_start,
            crowd: Arc::clone(crowd),
            seating,
        }
    }

    pub(crate) const fn seats(&self) -> &[Seat] {
        &self.seats
    }

    pub(crate) const fn crowd(&self) -> &Arc<Crowd> {
        &self.crowd
    }

    pub(crate) const fn seating(&self) -> &Seating {
        &self.seating
    }

    pub(crate) const fn algorithm(&self) -> &Algorithm {
        &self.algorithm
    }

    pub(crate) fn homes(&self) -> Option<&Homes> {
        self.homes.as_deref()
    }

    /// Whether a pick is two choices of peak EWMA over all seats, with nothing that bends them.
    pub(crate) const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Whether the crowd still keeps [`Rotation::seating`] true.
    pub(crate) fn is_current(&self) -> bool {
        self.crowd.is_current(self.seating.rotation)
    }

    /// Whether what the crowd lists and counts, and the verdicts it was told of,
    /// are what the breakers of all seats are. When nothing goes on.
    #[cfg(any(test, feature = "loom"))]
    pub(crate) fn is_true(&self) -> bool {
        let is_true = |(seat, Seat { state, .. }): (usize, &Seat)| {
            let listing = state.listing();
            let waits = self
                .crowd
                .longest_waiting(self.seating.rotation, u64::MAX, |other| other == seat)
                .is_some();
            state.is_published()
                && waits == matches!(listing, Listing::Waits { .. })
                && self.seating.closed.has(seat) == (listing == Listing::Closed)
        };
        let is_out = |seat: &&Seat| seat.state.listing() != Listing::Closed;
        let out = self.seats.iter().filter(is_out).count();
        self.seats.iter().enumerate().all(is_true) && self.crowd.open() as usize == out
    }

    /// All seats, or those of the caller's zone.
    pub(crate) const fn near(&self) -> &Tier {
        &self.near
    }

    /// Where a request looks first, and where then.
    pub(crate) fn tiers(&self, rng: &mut fastrand::Rng) -> (&Tier, Option<&Tier>) {
        let Some(far) = &self.far else {
            return (&self.near, None);
        };
        let closed = match self.crowd.open() {
            0 => self.near.count(),
            _ => self.seating.closed.count_below(self.near.count()),
        };
        if zones::stays(closed, far.near, far.min_healthy_percent, rng) {
            (&self.near, Some(&far.tier))
        } else {
            self.crowd.spills(Spill::Zone);
            (&far.tier, Some(&self.near))
        }
    }

    /// Slow start, if policy has it and somebody may be in it.
    pub(crate) fn warming(&self, now: Instant) -> Option<SlowStart> {
        self.slow_start
            .filter(|policy| self.crowd.warmed_within(policy.window, now))
    }

    /// Requests of this port that spilled so far, this rotation's and earlier ones'.
    #[must_use]
    pub fn spilled(&self, why: Spill) -> u64 {
        self.crowd.spilled(why)
    }

    /// What part of its share an endpoint gets now, for people: 1 but in slow start.
    #[must_use]
    pub fn share_of(&self, state: &EndpointState, now: Instant) -> f64 {
        match self.warming(now) {
            Some(policy) => state.warmth(&policy, now),
            None => 1.0,
        }
    }
}

fn is_offered(endpoint: &Endpoint) -> bool {
    endpoint.healthy && endpoint.weight > 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{endpoint, key, seeded, start};

    fn rotation(kinds: &[(u32, bool)]) -> Rotation {
        let crowd = Arc::new(Crowd::new(start()));
        let with = |(n, (weight, healthy)): (u16, &(u32, bool))| {
            let state = EndpointState::new(key(n), Arc::clone(&crowd));
            (endpoint(n, *weight, *healthy), Arc::new(state))
        };
        let (endpoints, states): (Vec<_>, Vec<_>) = (0..).zip(kinds).map(with).unzip();
        let layout = Layout {
            balancer: &Balancer::default(),
            zone: None,
            before: None,
            now: start(),
        };
        Rotation::begin(&endpoints, &states, &crowd, &layout)
    }

    #[test]
    fn seats_only_what_is_offered() {
        let rotation = rotation(&[(0, true), (2, true), (1, false), (5, true)]);
        let seats: Vec<_> = rotation
            .seats()
            .iter()
            .map(|s| (s.index(), s.weight))
            .collect();
        assert_eq!(seats, [(1, 2), (3, 5)]);
        assert!(!rotation.near().is_even());
        assert!((rotation.near().mean() - 3.5).abs() < 1e-9);
    }

    #[test]
    fn the_other_is_another() {
        let rotation = rotation(&[(1, true); 3]);
        let mut rng = seeded();
        let mut seen = [0; 9];
        for _ in 0..900 {
            let one = rotation.near().draw(&mut rng);
            seen[one * 3 + rotation.near().draw_other(one, &mut rng)] += 1;
        }
        assert!(seen[0] + seen[4] + seen[8] == 0, "{seen:?}");
        let pairs = [1, 2, 3, 5, 6, 7];
        assert!(
            pairs.iter().all(|pair| (110..190).contains(&seen[*pair])),
            "{seen:?}"
        );
    }

    proptest! {
        #[test]
        fn a_draw_is_exactly_by_weight(
            weights in proptest::collection::vec(prop_oneof![1u32..5, Just(u32::MAX), 1u32..1000], 1..50),
        ) {
            let kinds: Vec<_> = weights.iter().map(|weight| (*weight, true)).collect();
            let rotation = rotation(&kinds);
            prop_assume!(!rotation.near().is_even());
            let mut shares = vec![0; weights.len()];
            for (seat, column) in rotation.near().columns().iter().enumerate() {
                let own = column.below.min(rotation.near().weight());
                shares[seat] += own;
                shares[column.other as usize] += rotation.near().weight() - own;
            }
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert_eq!(*share, u64::from(*weight) * weights.len() as u64);
            }
        }
    }
}
