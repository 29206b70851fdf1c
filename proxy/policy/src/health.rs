//! When an endpoint that is asked for its health leaves the rotation, and when
//! it comes back.
//!
//! Beside the breaker, which learns from requests: a check is a question of
//! the proxy itself, so that an endpoint can leave before a request has failed.
//! So many failed checks in a row make it unhealthy, so many that passed make
//! it healthy again; it is healthy until shown otherwise, so that neither a new
//! endpoint nor a proxy that starts waits for checks. Where all are unhealthy
//! callers hear `no-healthy-endpoint` at once. (A share of unhealthy endpoints
//! above which all are used after all, Envoy's panic, sends requests to where
//! they fail, and hides that the check itself is wrong.)
//!
//! Chance shortens the wait between two checks and never prolongs it: after
//! `threshold` intervals it is decided. It asks nobody: who asks is the proxy.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::failures::StatusSet;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether it accepts a connection.
    Tcp,
    /// What it answers to a GET.
    Http {
        /// The path, with its leading slash.
        path: Arc<str>,
        /// The `Host`; `None`: the service's name, or the application's address.
        host: Option<Arc<str>>,
        /// The answers of one that is well.
        expected: StatusSet,
    },
    /// What it answers to `grpc.health.v1.Health/Check`.
    Grpc {
        /// The service asked for; empty: the server as a whole.
        service: Arc<str>,
    },
}

impl Question {
    /// In a word, for logs and `/config_dump`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Http { .. } => "http",
            Self::Grpc { .. } => "grpc",
        }
    }
}

/// How often is asked, and how many answers decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Between two checks, at most.
    pub interval: Duration,
    /// How much of it chance may take away, in per cent.
    pub jitter_percent: u32,
    /// No answer by then is a failure.
    pub timeout: Duration,
    /// Failures in a row that make it unhealthy; at least 1.
    pub unhealthy_threshold: u32,
    /// Checks passed in a row that make it healthy; at least 1.
    pub healthy_threshold: u32,
}

impl Pace {
    /// How long to wait until the next check.
    #[must_use]
    pub fn wait(&self, rng: &mut fastrand::Rng) -> Duration {
        let share = f64::from(self.jitter_percent.min(100)) / 100.0;
        self.interval.mul_f64(1.0 - share * rng.f64())
    }

    /// How long to wait before the first check: a part of the jitter, so that
    /// endpoints which came together are not asked together.
    #[must_use]
    pub fn first_wait(&self, rng: &mut fastrand::Rng) -> Duration {
        self.interval.saturating_sub(self.wait(rng))
    }
}

/// How the endpoints of a service are asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What.
    pub question: Question,
    /// How often.
    pub pace: Pace,
}

/// What one check ended in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It is well.
    Passed,
    /// It is not, and why.
    Failed(Arc<str>),
    /// It could not be asked for a reason that is not its own: nothing changes.
    Undecided,
}

/// A change, for counters, log and journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthChange {
    /// Whether it is healthy now.
    pub healthy: bool,
    /// How many checks in a row said so.
    pub in_a_row: u32,
    /// What the last of them said, where they failed.
    pub last: Option<Arc<str>>,
}

/// The word of metrics, log and journal.
#[must_use]
pub const fn word(healthy: bool) -> &'static str {
    if healthy { "healthy" } else { "unhealthy" }
}

impl fmt::Display for HealthChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checks = if self.in_a_row == 1 {
            "check"
        } else {
            "checks"
        };
        let in_a_row = self.in_a_row;
        match &self.last {
            Some(last) => write!(f, "{in_a_row} {checks} in a row failed, the last: {last}"),
            None => write!(f, "{in_a_row} {checks} in a row passed"),
        }
    }
}

/// What checks have said of one endpoint.
#[derive(Debug, Clone, Default)]
pub struct Health {
    unhealthy: bool,
    /// Checks in a row that said otherwise.
    against: u32,
    /// The last change.
    last: Option<(Instant, HealthChange)>,
}

impl Health {
    /// Taken to be well, or not, before anybody asked.
    #[must_use]
    pub const fn assumed(healthy: bool) -> Self {
        Self {
            unhealthy: !healthy,
            against: 0,
            last: None,
        }
    }

    /// Whether it is healthy.
    #[must_use]
    pub const fn is_healthy(&self) -> bool {
        !self.unhealthy
    }

    /// The last change, and when it was.
    #[must_use]
    pub const fn last_change(&self) -> Option<&(Instant, HealthChange)> {
        self.last.as_ref()
    }

    /// Hears how a check ended.
    pub fn hear(&mut self, checked: &Checked, pace: &Pace, now: Instant) -> Option<HealthChange> {
        let (well, why, threshold) = match checked {
            Checked::Undecided => return None,
            Checked::Passed => (true, None, pace.healthy_threshold),
            Checked::Failed(why) => (false, Some(why.clone()), pace.unhealthy_threshold),
        };
        if well == self.is_healthy() {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < threshold {
            return None;
        }
        let change = HealthChange {
            healthy: well,
            in_a_row: std::mem::take(&mut self.against),
            last: why,
        };
        self.unhealthy = !well;
        self.last = Some((now, change.clone()));
        Some(change)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{millis, seeded, start};

    fn pace(unhealthy_threshold: u32, healthy_threshold: u32) -> Pace {
        Pace {
            interval: millis(1000),
            jitter_percent: 10,
            timeout: millis(500),
            unhealthy_threshold,
            healthy_threshold,
        }
    }

    fn check(letter: char) -> Checked {
        match letter {
            '+' => Checked::Passed,
            '-' => Checked::Failed("status 503".into()),
            _ => Checked::Undecided,
        }
    }

    #[test]
    fn so_many_in_a_row_decide() {
        // Checks, and the state after each: H or U.
        let table = [
            (3, 2, "--+---", "HHHHHU"),
            (3, 2, "---+-++", "HHUUUUH"),
            (1, 1, "-+-", "UHU"),
            (2, 1, "-?-", "HHU"),
            (2, 2, "--+?+", "HUUUH"),
            (3, 1, "+++", "HHH"),
        ];
        for (unhealthy, healthy, checks, expected) in table {
            let mut health = Health::default();
            let pace = pace(unhealthy, healthy);
            let states: String = checks
                .chars()
                .map(|letter| {
                    let before = health.is_healthy();
                    let change = health.hear(&check(letter), &pace, start());
                    assert_eq!(change.is_some(), before != health.is_healthy());
                    if health.is_healthy() { 'H' } else { 'U' }
                })
                .collect();
            assert_eq!(states, expected, "{checks}");
        }
    }

    #[test]
    fn a_change_says_why_with_its_numbers() {
        let mut health = Health::default();
        let pace = pace(2, 1);
        let now = start();
        assert_eq!(health.hear(&check('-'), &pace, now), None);
        let out = health.hear(&check('-'), &pace, now).expect("a change");
        assert_eq!(
            out.to_string(),
            "2 checks in a row failed, the last: status 503"
        );
        let back = health.hear(&check('+'), &pace, now).expect("a change");
        assert_eq!(back.to_string(), "1 check in a row passed");
        assert_eq!(health.last_change(), Some(&(now, back)));
    }

    #[test]
    fn one_assumed_to_be_ill_has_to_show_that_it_is_well() {
        let mut health = Health::assumed(false);
        assert!(!health.is_healthy());
        assert!(health.hear(&check('+'), &pace(3, 1), start()).is_some());
        assert!(health.is_healthy());
    }

    proptest! {
        #[test]
        fn a_wait_is_never_longer_than_the_interval(jitter in 0u32..=100, seed: u64) {
            let pace = Pace { jitter_percent: jitter, ..pace(1, 1) };
            let mut rng = fastrand::Rng::with_seed(seed);
            let wait = pace.wait(&mut rng);
            let least = pace.interval.mul_f64(1.0 - f64::from(jitter) / 100.0);
            prop_assert!(wait <= pace.interval && wait + millis(1) >= least);
            prop_assert!(pace.first_wait(&mut seeded()) <= pace.interval - least + millis(1));
        }

        #[test]
        fn it_is_what_the_last_decisive_run_said(
            checks in proptest::collection::vec(proptest::bool::ANY, 0..60),
            unhealthy in 1u32..4,
            healthy in 1u32..4,
        ) {
            let mut health = Health::default();
            let pace = pace(unhealthy, healthy);
            // The model: walk back over every prefix for the last run that is long enough.
            let mut expected = true;
            for end in 1..=checks.len() {
                let said = checks[end - 1];
                let run = checks[..end].iter().rev().take_while(|one| **one == said).count();
                let enough = if said { healthy } else { unhealthy };
                if run >= enough as usize {
                    expected = said;
                }
                let one = if said { '+' } else { '-' };
                health.hear(&check(one), &pace, start());
                prop_assert_eq!(health.is_healthy(), expected);
            }
        }
    }
}
