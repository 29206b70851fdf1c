//! When an SVID is due for renewal: from half of its life on, a little later by chance. Life begins
//! where the certificate was issued. Its notBefore does not say when that was: issuers set it back
//! for clocks that run behind, each by its own measure, and by more than a short life is long.

use std::time::{Duration, SystemTime};

/// Up to this share of life is added to its half, so that a fleet does not renew at once.
const JITTER: f64 = 0.1;
/// What is counted at least of a life that begins: a clock that runs ahead takes a new certificate
/// for an old one, and would ask for the next without a pause.
const SHORTEST: Duration = Duration::from_secs(1);

/// From where to where an SVID lives, as its holder counts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Life {
    begins: SystemTime,
    ends: SystemTime,
}

impl Life {
    /// Of one that was issued just now.
    pub(super) fn issued(now: SystemTime, not_after: SystemTime) -> Self {
        Self {
            begins: now,
            ends: not_after.max(now + SHORTEST),
        }
    }

    /// Of one that was issued to an earlier process, some time after its notBefore. So it is renewed
    /// early rather than late, and the next one is counted from when it came.
    pub(super) const fn kept(not_before: SystemTime, not_after: SystemTime) -> Self {
        Self {
            begins: not_before,
            ends: not_after,
        }
    }

    /// What is left until the renewal; `chance` is from 0 to 1.
    pub(super) fn renew_after(self, chance: f64, now: SystemTime) -> Duration {
        let life = self.ends.duration_since(self.begins).unwrap_or_default();
        let due = self.begins + life.mul_f64(0.5 + chance * JITTER);
        due.duration_since(now).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 3600;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + second)
    }

    #[test]
    fn a_new_one_is_renewed_from_half_of_its_life_on_however_it_was_dated() {
        for (life, earliest, latest) in [
            (2, 1.0, 1.2),
            (24, 12.0, 14.4),
            (60, 30.0, 36.0),
            (DAY, 43_200.0, 51_840.0),
        ] {
            let issued = Life::issued(at(0), at(life));
            for (chance, seconds) in [(0.0, earliest), (1.0, latest)] {
                let wait = issued.renew_after(chance, at(0)).as_secs_f64();
                assert!((wait - seconds).abs() < 1e-6, "{life} s: {wait} s");
            }
        }
    }

    #[test]
    fn time_that_has_passed_is_not_waited_for_again() {
        let issued = Life::issued(at(0), at(24));
        for (now, wait) in [(5, 7), (12, 0), (24, 0), (DAY, 0)] {
            assert_eq!(
                issued.renew_after(0.0, at(now)),
                Duration::from_secs(wait),
                "after {now} s"
            );
        }
    }

    #[test]
    fn a_clock_that_runs_ahead_floods_nobody() {
        let over = Life::issued(at(100), at(24));
        assert_eq!(over.renew_after(0.0, at(100)), Duration::from_millis(500));
    }

    #[test]
    fn a_kept_one_is_renewed_early_rather_than_late() {
        for (not_before, not_after, now, wait) in [
            (0, 60 + DAY, 60, DAY / 2 - 30), // set back by a minute
            (60, 60 + DAY, 60, DAY / 2),     // not set back
            (0, 60 + 24, 60, 0),             // shorter than what it was set back by
            (0, 60 + DAY, 3 * DAY, 0),       // over
        ] {
            let kept = Life::kept(at(not_before), at(not_after));
            assert_eq!(
                kept.renew_after(0.0, at(now)),
                Duration::from_secs(wait),
                "from {not_before} to {not_after} at {now}"
            );
        }
    }
}
