//! How much of its share an endpoint gets that newly came, or came back.
//!
//! Asked by the balancer while an endpoint of the rotation is within its
//! window. The share is `max(minimum, (t/T)^(1/aggression))`, as Envoy defines
//! it: with an aggression of 1 it grows evenly, above 1 quickly at first. Drawing
//! an endpoint and turning it down by chance leaves every algorithm as it is,
//! and needs no tables that change with time. It keeps no state: since when an
//! endpoint warms up, its own state knows.

use std::time::Duration;

use crate::snapshot::SlowStart;

/// The share after `elapsed`, above 0 and at most 1.
pub(crate) fn share(policy: &SlowStart, elapsed: Duration) -> f64 {
    if elapsed >= policy.window {
        return 1.0;
    }
    let passed = elapsed.as_secs_f64() / policy.window.as_secs_f64();
    let least = f64::from(policy.min_weight_percent) / 100.0;
    passed.powf(policy.aggression.recip()).max(least).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::seconds;

    #[test]
    fn grows_from_the_least_to_the_whole() {
        // (aggression, least, second of ten, share)
        let table = [
            (1.0, 10, 0, 0.1),
            (1.0, 10, 1, 0.1),
            (1.0, 10, 5, 0.5),
            (1.0, 10, 9, 0.9),
            (1.0, 10, 10, 1.0),
            (1.0, 10, 99, 1.0),
            (1.0, 30, 2, 0.3),
            (2.0, 10, 1, 0.316),
            (2.0, 10, 4, 0.632),
            (0.5, 10, 5, 0.25),
            (0.5, 10, 2, 0.1),
            (1.0, 100, 0, 1.0),
        ];
        for (aggression, min_weight_percent, at, expected) in table {
            let policy = SlowStart {
                window: seconds(10),
                aggression,
                min_weight_percent,
            };
            let found = share(&policy, seconds(at));
            assert!(
                (found - expected).abs() < 1e-3,
                "{policy:?} at {at}: {found}"
            );
        }
    }
}
