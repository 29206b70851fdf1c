//! The caller's zone first, while enough of it is healthy.
//!
//! Envoy's priority levels with their overprovisioning factor: the share that
//! stays is the healthy share of the zone over the least that is asked for, so
//! that what is left in the zone is not loaded by more than the inverse of it
//! (70 %: 1.43 times). All stay, or none, without a draw; in between each
//! request is drawn for. Endpoints count alike, whatever they weigh.

use super::tier::Tier;
use crate::snapshot::{Endpoint, ZONE_LABEL};

/// What lies outside the caller's zone.
#[derive(Debug)]
pub(crate) struct Far {
    /// Its seats, after those of the zone.
    pub(super) tier: Tier,
    /// Endpoints of the zone that would serve if they were well.
    pub(super) near: usize,
    pub(super) min_healthy_percent: u32,
}

/// Whether an endpoint stands in `zone`.
pub(super) fn is_in(endpoint: &Endpoint, zone: &str) -> bool {
    endpoint
        .labels
        .get(ZONE_LABEL)
        .is_some_and(|own| own == zone)
}

/// Whether a request stays where `healthy` of `near` endpoints are.
pub(super) fn stays(
    healthy: usize,
    near: usize,
    min_percent: u32,
    rng: &mut fastrand::Rng,
) -> bool {
    let (have, want) = (healthy as u64 * 100, near as u64 * u64::from(min_percent));
    match healthy {
        0 => false,
        _ if have >= want => true,
        _ => rng.u64(..want) < have,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::seeded;

    #[test]
    fn what_is_missing_spills_in_proportion() {
        // (healthy, of, least, per cent that stay)
        let table = [
            (10, 10, 70, 100),
            (7, 10, 70, 100),
            (6, 10, 70, 86),
            (1, 10, 70, 14),
            (0, 10, 70, 0),
            (1, 2, 100, 50),
            (1, 100, 0, 100),
            (0, 100, 0, 0),
        ];
        let mut rng = seeded();
        for (healthy, near, least, expected) in table {
            let tries = 20_000;
            let stayed = (0..tries)
                .filter(|_| stays(healthy, near, least, &mut rng))
                .count();
            let found = stayed as f64 * 100.0 / f64::from(tries);
            assert!(
                (found - f64::from(expected)).abs() < 1.0,
                "{healthy} of {near}, {least} %: {found}"
            );
        }
    }
}
