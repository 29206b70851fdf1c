//! What an endpoint costs: a peak-sensitive average of its latency, and a
//! penalty after failures.
//!
//! Read by the balancer at every pick, written at every first response byte,
//! by all workers, without a lock. It knows nothing of requests in flight; the
//! endpoint's state multiplies.
//!
//! Peak EWMA after Finagle: a reading decays with τ, so that an endpoint that
//! is not called becomes attractive again and is not judged by one old sample
//! for ever. A sample above the reading replaces it at once, a lower one moves
//! it by `1 - exp(-elapsed/τ)`: never up. (Moving the average as it was stored,
//! without what it has decayed, would take back all attraction at the first
//! call, and an endpoint once behind its peers would stay without its share.)

use std::time::{Duration, Instant};

use crate::since;
use crate::sync::atomic::{AtomicU64, Ordering};

/// Of the average, in milliseconds.
const DECAY: f32 = 10_000.0;
/// What an endpoint is thought to take before it has answered.
const SEED: Duration = Duration::from_millis(30);
/// Added after a failure or a throttle, in seconds.
const PENALTY: f32 = 1.0;
/// Of the penalty, in milliseconds.
const PENALTY_DECAY: f32 = 1_000.0;
/// A longer `Retry-After` is taken as this.
pub const RETRY_AFTER_LIMIT: Duration = Duration::from_secs(60);

/// The average of one endpoint, shared between workers.
#[derive(Debug)]
pub struct PeakEwma {
    epoch: Instant,
    /// Seconds as the bits of an `f32` (upper half), and when, in milliseconds
    /// since the epoch (lower half, wrapping after 49 days).
    average: AtomicU64,
    /// Until when the penalty stands undiminished: milliseconds since the epoch, plus 1. 0: no penalty.
    penalty: AtomicU64,
}

impl PeakEwma {
    /// An average that knows nothing yet. `epoch` is no later than any `now` that follows.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        let this = Self {
            epoch,
            average: AtomicU64::new(0),
            penalty: AtomicU64::new(0),
        };
        this.clear(epoch);
        this
    }

    /// Forgets everything.
    pub fn clear(&self, now: Instant) {
        self.restart(SEED, now);
    }

    /// Forgets everything but one latency. An endpoint that comes back begins
    /// with what its probe took: beside fast peers the seed would keep it idle
    /// until it had decayed.
    pub fn restart(&self, latency: Duration, now: Instant) {
        self.average.store(
            pack(latency.as_secs_f32(), self.millis(now)),
            Ordering::Relaxed,
        );
        self.penalty.store(0, Ordering::Relaxed);
    }

    /// Takes the time from sending a request to the first byte of its response.
    pub fn sample(&self, latency: Duration, now: Instant) {
        let now = self.millis(now);
        let seconds = latency.as_secs_f32();
        let update = |old: u64| {
            let (average, at) = unpack(old);
            let weight = keep(elapsed(at, now), DECAY);
            let reading = average * weight;
            if seconds >= reading {
                return Some(pack(seconds, now));
            }
            // Within one millisecond a lower sample has no weight, and must not move the time.
            (weight < 1.0).then(|| pack(reading * weight + seconds * (1.0 - weight), now))
        };
        let _ = self
            .average
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
    }

    /// Takes a latency of which only the least is known: the answer had not come by then.
    pub fn at_least(&self, waited: Duration, now: Instant) {
        let (average, at) = unpack(self.average.load(Ordering::Relaxed));
        let passed = elapsed(at, self.millis(now));
        if waited.as_secs_f32() > average * keep(passed, DECAY) {
            self.sample(waited, now);
        }
    }

    /// Makes the endpoint unattractive for a while: undiminished for
    /// `retry_after` (none: not at all; at most [`RETRY_AFTER_LIMIT`]), then decaying.
    pub fn penalize(&self, retry_after: Option<Duration>, now: Instant) {
        let stands = retry_after.unwrap_or_default().min(RETRY_AFTER_LIMIT);
        self.penalty.fetch_max(
            self.millis(now + stands).saturating_add(1),
            Ordering::Relaxed,
        );
    }

    /// What one request is thought to cost, in seconds.
    #[must_use]
    pub fn cost(&self, now: Instant) -> f64 {
        self.cost_at(self.millis(now))
    }

    /// The same; `now` in milliseconds since the epoch.
    pub(crate) fn cost_at(&self, now: u64) -> f64 {
        let (average, at) = unpack(self.average.load(Ordering::Relaxed));
        let decayed = average * keep(elapsed(at, now), DECAY);
        f64::from(decayed + self.penalty_at(now))
    }

    /// What failures and throttles add to it, in seconds; `now` as there.
    pub(crate) fn penalty_at(&self, now: u64) -> f32 {
        match self.penalty.load(Ordering::Relaxed) {
            0 => 0.0,
            until => PENALTY * keep(now.saturating_sub(until - 1), PENALTY_DECAY),
        }
    }

    fn millis(&self, now: Instant) -> u64 {
        since::millis(self.epoch, now)
    }
}

fn pack(seconds: f32, millis: u64) -> u64 {
    u64::from(seconds.to_bits()) << 32 | u64::from(millis as u32)
}

fn unpack(packed: u64) -> (f32, u32) {
    (f32::from_bits((packed >> 32) as u32), packed as u32)
}

/// In milliseconds. A worker whose `now` is a little older than the last sample sees no time passed.
fn elapsed(at: u32, now: u64) -> u64 {
    let passed = (now as u32).wrapping_sub(at);
    u64::from(if passed > u32::MAX / 2 { 0 } else { passed })
}

/// The share that is left of something after `elapsed` milliseconds: `exp(-elapsed/decay)`.
fn keep(elapsed: u64, decay: f32) -> f32 {
    let x = elapsed as f32 / decay;
    // Who is called often is asked soon after: four terms of the series are
    // then off by less than a millionth, and cost a tenth of the function.
    if x < 1.0 / 16.0 {
        1.0 - x * (1.0 - x * (0.5 - x / 6.0))
    } else {
        (-x).exp()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{millis, seconds, start};

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() <= b.abs() * 1e-3 + 1e-6
    }

    #[test]
    fn begins_at_the_seed() {
        let start = start();
        assert!(near(PeakEwma::new(start).cost(start), 0.030));
    }

    #[test]
    fn a_peak_replaces_at_once_and_decays() {
        let start = start();
        let ewma = PeakEwma::new(start);
        ewma.sample(seconds(2), start + millis(1));
        assert!(near(ewma.cost(start + millis(1)), 2.0));
        assert!(near(ewma.cost(start + millis(10_001)), 2.0 * (-1f64).exp()));
        ewma.sample(millis(10), start + millis(5_001));
        let weight = (-0.5f64).exp();
        assert!(near(
            ewma.cost(start + millis(5_001)),
            2.0 * weight * weight + 0.010 * (1.0 - weight)
        ));
    }

    #[test]
    fn a_sample_below_the_reading_never_raises_it() {
        let start = start();
        for silence in [1, 100, 1_000, 10_000, 20_000] {
            let ewma = PeakEwma::new(start);
            ewma.sample(seconds(2), start + millis(1));
            let now = start + millis(1 + silence);
            let reading = ewma.cost(now);
            ewma.sample(millis(6), now);
            assert!(ewma.cost(now) <= reading, "after {silence} ms of silence");
        }
    }

    #[test]
    fn a_penalty_stands_as_long_as_asked_then_decays() {
        let start = start();
        let table = [
            (None, 0, 1.0),
            (None, 1_000, (-1f64).exp()),
            (Some(5), 4_000, 1.0),
            (Some(5), 6_000, (-1f64).exp()),
            (Some(3600), 59_000, 1.0),
            (Some(3600), 62_000, (-2f64).exp()),
        ];
        for (retry_after, at, expected) in table {
            let ewma = PeakEwma::new(start);
            let now = start + millis(at);
            let without = ewma.cost(now);
            ewma.penalize(retry_after.map(seconds), start);
            assert!(
                near(ewma.cost(now) - without, expected),
                "{retry_after:?} at {at}"
            );
        }
    }

    #[test]
    fn a_shorter_penalty_does_not_shorten_a_longer_one() {
        let start = start();
        let ewma = PeakEwma::new(start);
        ewma.penalize(Some(seconds(10)), start);
        ewma.penalize(None, start + seconds(1));
        assert!(ewma.cost(start + seconds(9)) > 1.0);
        ewma.clear(start + seconds(9));
        assert!(near(ewma.cost(start + seconds(9)), 0.030));
    }

    #[test]
    fn what_is_kept_falls_smoothly() {
        assert_eq!(keep(0, DECAY), 1.0);
        for elapsed in 0..2_000 {
            let exact = (-(elapsed as f64) / f64::from(DECAY)).exp();
            assert!((f64::from(keep(elapsed, DECAY)) - exact).abs() < 1e-6);
            assert!(keep(elapsed + 1, DECAY) < keep(elapsed, DECAY), "{elapsed}");
        }
    }

    proptest! {
        #[test]
        fn stays_between_nothing_and_its_highest_sample(samples in proptest::collection::vec((0u64..20_000, 0u64..5_000), 0..60)) {
            let mut now = start();
            let ewma = PeakEwma::new(now);
            let mut highest = 0.030f64;
            for (wait, latency) in samples {
                now += millis(wait);
                ewma.sample(millis(latency), now);
                highest = highest.max(latency as f64 / 1000.0);
                let cost = ewma.cost(now);
                prop_assert!(cost.is_finite() && cost >= 0.0 && cost <= highest * 1.001);
            }
        }
    }
}
