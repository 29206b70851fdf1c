//! How many requests an application does well with at a time: found by what
//! they take, as TCP Vegas finds a window. The idea and its figures are those
//! of gradient2 in Netflix's concurrency-limits.
//!
//! Samples (milliseconds in the application alone, from forwarding to the head
//! of the response) are gathered in windows. The mean of a window is the short
//! time; its slow average is the long one. As long as the short time is below
//! [`TOLERANCE`] × the long one, the limit grows by its headroom; beyond, it
//! shrinks in their proportion. Either way a fifth of the way per window, and
//! not at all where less than half of it is in use: what nobody asked for
//! proves nothing.
//!
//! Two things are different here. Where the short time shows no queue at all
//! the headroom is the limit itself, so that a sudden load is let in within a
//! second instead of ten. And the long time does not rise while the limit is
//! reached: as an average of what is, it would learn an overload that lasts,
//! and the limit would follow it up without end. Instead, after a minute of
//! overload, the limit stands at its minimum for a few windows, and what a
//! request takes then is the new long time; so an application that has become
//! slower is believed, too.

use std::time::Duration;

/// Short ÷ long up to which nothing is wrong.
const TOLERANCE: f64 = 1.5;
/// Of the way to a new limit, per window.
const SMOOTHING: f64 = 0.2;
/// The least headroom, in requests; beyond, it is the root of the limit.
const HEADROOM: f64 = 4.0;
/// Short ÷ long up to which there is no queue …
const AT_EASE: f64 = 1.1;
/// … and of the limit, the headroom then.
const EASY_HEADROOM: f64 = 1.0;
/// Most that one window may shrink it by, before smoothing.
const STEEPEST: f64 = 0.5;
/// Windows the long time is averaged over.
const LONG_WINDOWS: f64 = 600.0;
/// Windows it begins with, as their plain mean.
const WARM_UP: u32 = 10;
/// Long ÷ short from which the long time is no longer true.
const STALE: f64 = 2.0;
/// What is left of it then, per window.
const DECAY: f64 = 0.95;

/// A window lasts at least this long …
pub(super) const WINDOW: Duration = Duration::from_millis(100);
/// … and until it has this many samples.
pub(super) const WINDOW_SAMPLES: u64 = 10;

/// Windows in a row that reach the limit, until the long time is measured anew.
const PROBE_AFTER: u32 = 600;
/// Windows at the minimum before a measurement is given up: streams may hold
/// more places than that for as long as they like.
const PROBE_WINDOWS: u32 = 10;

/// Where the limit may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdaptivePolicy {
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// At first.
    pub start: u32,
}

/// What one window says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    /// The mean time in the application.
    pub(super) mean: Duration,
    /// The most requests that were there at a time.
    pub(super) most: u32,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Gradient {
    limit: f64,
    /// Seconds; 0 before the first window.
    long: f64,
    /// What the long time is an average of, as long as that is few.
    windows: u32,
    phase: Phase,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// As always, and how many windows in a row have reached the limit.
    Follows { reached: u32 },
    /// The limit stands at its minimum: for how many windows, and how many of
    /// those were no fuller than that.
    Measures { windows: u32, calm: u32 },
}

impl Gradient {
    pub(super) fn new(policy: AdaptivePolicy) -> Self {
        Self {
            limit: policy.start.clamp(policy.min, policy.max).into(),
            long: 0.0,
            windows: 0,
            phase: Phase::Follows { reached: 0 },
        }
    }

    /// The limit within its bounds, in whole requests.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it lies between two u32"
    )]
    pub(super) fn limit(&mut self, policy: AdaptivePolicy) -> u32 {
        self.limit = self.limit.clamp(policy.min.into(), policy.max.into());
        match self.phase {
            Phase::Follows { .. } => self.limit as u32,
            Phase::Measures { .. } => policy.min,
        }
    }

    /// Learns from a window.
    pub(super) fn learn(&mut self, window: &Window, policy: AdaptivePolicy) {
        match self.phase {
            Phase::Follows { reached } => {
                let full = f64::from(window.most) >= self.limit.floor();
                let reached = if full { reached + 1 } else { 0 };
                self.phase = Phase::Follows { reached };
                self.follow(window, full, policy);
                if reached >= PROBE_AFTER {
                    self.phase = Phase::Measures {
                        windows: 0,
                        calm: 0,
                    };
                }
            }
            Phase::Measures { windows, calm } => {
                let calm = calm + u32::from(window.most <= policy.min);
                // Those of the first had waited behind others.
                if calm == 2 {
                    self.long = window.mean.as_secs_f64();
                }
                self.phase = if calm == 2 || windows + 1 == PROBE_WINDOWS {
                    Phase::Follows { reached: 0 }
                } else {
                    Phase::Measures {
                        windows: windows + 1,
                        calm,
                    }
                };
            }
        }
    }

    fn follow(&mut self, window: &Window, full: bool, policy: AdaptivePolicy) {
        let short = window.mean.as_secs_f64().max(1e-6);
        if self.windows == 0 || short < self.long || !full {
            self.average(short);
        }
        if self.long / short > STALE {
            self.long *= DECAY;
        }
        if f64::from(window.most) < self.limit / 2.0 {
            return;
        }
        let gradient = (TOLERANCE * self.long / short).clamp(STEEPEST, 1.0);
        let mut headroom = self.limit.sqrt().max(HEADROOM);
        if short < self.long * AT_EASE {
            headroom = headroom.max(self.limit * EASY_HEADROOM);
        }
        let wanted = self.limit * gradient + headroom;
        let smoothed = self.limit * (1.0 - SMOOTHING) + wanted * SMOOTHING;
        self.limit = smoothed.clamp(policy.min.into(), policy.max.into());
    }

    /// Whether this is longer than the long time.
    pub(super) fn is_longer(&self, took: Duration) -> bool {
        self.windows > 0 && took.as_secs_f64() > self.long
    }

    fn average(&mut self, short: f64) {
        self.windows = self.windows.saturating_add(1);
        let weight = if self.windows <= WARM_UP {
            1.0 / f64::from(self.windows)
        } else {
            2.0 / (LONG_WINDOWS + 1.0)
        };
        self.long += (short - self.long) * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::millis;

    const POLICY: AdaptivePolicy = AdaptivePolicy {
        min: 20,
        max: 1000,
        start: 20,
    };

    /// An application of `slots` places and `service` each, always asked for
    /// more: the limit after so many windows, and the highest on the way.
    fn saturated(
        gradient: &mut Gradient,
        slots: u32,
        service: Duration,
        windows: usize,
    ) -> (u32, u32) {
        let mut highest = 0;
        for _ in 0..windows {
            let limit = gradient.limit(POLICY);
            highest = highest.max(limit);
            let queueing = f64::from(limit.max(slots)) / f64::from(slots);
            let mean = service.mul_f64(queueing);
            gradient.learn(&Window { mean, most: limit }, POLICY);
        }
        (gradient.limit(POLICY), highest)
    }

    #[test]
    fn grows_only_when_half_of_it_is_used() {
        for most in [9, 12, 20] {
            let mut gradient = Gradient::new(POLICY);
            for _ in 0..100 {
                let mean = millis(20);
                gradient.learn(&Window { mean, most }, POLICY);
            }
            let limit = gradient.limit(POLICY);
            assert_eq!(limit > 20, most > 10, "{most} in use");
            assert!(
                limit <= (most * 2).max(20) * 6 / 5 + 1,
                "{limit} for {most}"
            );
        }
    }

    #[test]
    fn finds_what_an_application_bears_and_stays_there() {
        let mut gradient = Gradient::new(POLICY);
        for seconds in [2, 60, 600, 3600] {
            let (limit, highest) = saturated(&mut gradient, 50, millis(20), seconds * 10);
            println!(
                "50 slots of 20 ms, {seconds} s of overload: limit {limit}, at most {highest}"
            );
            assert!(highest <= 100, "{highest} within {seconds} s");
            assert!(
                limit >= 50 || limit == POLICY.min,
                "{limit} after {seconds} s"
            );
        }
    }

    #[test]
    fn an_application_that_became_slower_is_believed_within_two_minutes() {
        let mut gradient = Gradient::new(POLICY);
        saturated(&mut gradient, 100, millis(20), 650);
        let (at_first, _) = saturated(&mut gradient, 100, millis(100), 100);
        let (after, _) = saturated(&mut gradient, 100, millis(100), 1100);
        println!("five times slower: limit {at_first} after 10 s, {after} after 120 s");
        assert!(at_first < 40 && (100..=200).contains(&after));
    }

    #[test]
    fn streams_that_hold_places_end_a_measurement() {
        let mut gradient = Gradient::new(POLICY);
        for _ in 0..PROBE_AFTER + PROBE_WINDOWS + 1 {
            let most = gradient.limit(POLICY).max(150);
            let mean = millis(20);
            gradient.learn(&Window { mean, most }, POLICY);
        }
        assert!(gradient.limit(POLICY) > 100);
    }

    #[test]
    fn stays_within_its_bounds_whatever_comes() {
        let narrow = AdaptivePolicy {
            min: 5,
            max: 8,
            start: 100,
        };
        let mut gradient = Gradient::new(narrow);
        let mut rng = crate::testing::seeded();
        for _ in 0..10_000 {
            let mean = Duration::from_micros(rng.u64(0..10_000_000));
            let most = rng.u32(0..20);
            gradient.learn(&Window { mean, most }, narrow);
            assert!((5..=8).contains(&gradient.limit(narrow)));
        }
    }

    #[test]
    fn a_slow_spell_lowers_it_and_it_comes_back() {
        let mut gradient = Gradient::new(POLICY);
        let (calm, _) = saturated(&mut gradient, 60, millis(10), 300);
        let (during, _) = saturated(&mut gradient, 60, millis(40), 20);
        let (after, _) = saturated(&mut gradient, 60, millis(10), 100);
        println!("limit {calm}, {during} while four times slower, {after} afterwards");
        assert!(during < calm / 2 && after > calm * 4 / 5);
    }
}
