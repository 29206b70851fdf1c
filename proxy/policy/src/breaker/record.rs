//! What a Closed breaker counts, beside the machine: a success is counted here
//! without the machine's lock. It knows the two rules, and no states.

use std::time::{Duration, Instant};

use super::Reason;
use crate::ring::Ring;
use crate::snapshot::{BreakerPolicy, SuccessRate};
use crate::sync::atomic::{AtomicU32, Ordering};

/// Slices of the window.
const SLICES: u32 = 10;

/// What a Closed breaker counts, beside the machine: successes are counted here without its lock,
/// and what they need stands together.
#[derive(Debug)]
#[repr(C)]
pub struct Record {
    consecutive: AtomicU32,
    successes: Ring<{ SLICES as usize }>,
    failures: Ring<{ SLICES as usize }>,
}

impl Record {
    /// An empty record.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        let width = Duration::from_secs(1);
        Self {
            consecutive: AtomicU32::new(0),
            successes: Ring::new(epoch, width),
            failures: Ring::new(epoch, width),
        }
    }

    /// Counts a success: one atomic, and a second after failures. In the
    /// window of `rule` from the first one on: what succeeded before anything
    /// failed counts too.
    pub fn success(&self, rule: Option<SuccessRate>, now: Instant) {
        if let Some(rule) = rule {
            self.successes.set_width(rule.window / SLICES);
        }
        self.successes.add(now);
        if self.consecutive.load(Ordering::Relaxed) != 0 {
            self.consecutive.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn failure(&self, hard: bool, rule: Option<SuccessRate>, now: Instant) {
        if let Some(rule) = rule {
            // Both, since they are summed together after this.
            self.successes.set_width(rule.window / SLICES);
            self.failures.set_width(rule.window / SLICES);
        }
        self.failures.add(now);
        if hard {
            self.consecutive.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn clear(&self) {
        self.consecutive.store(0, Ordering::Relaxed);
        self.successes.clear();
        self.failures.clear();
    }

    pub(super) fn in_a_row(&self, policy: &BreakerPolicy) -> Option<Reason> {
        let count = self.consecutive.load(Ordering::Relaxed);
        let enough = policy.consecutive_failures > 0 && count >= policy.consecutive_failures;
        enough.then_some(Reason::ConsecutiveFailures { count })
    }

    /// Successes of the window, and all requests that were judged in it.
    pub(crate) fn window(&self, now: Instant) -> (u64, u64) {
        let successes = self.successes.sum(now, SLICES as i32);
        (successes, successes + self.failures.sum(now, SLICES as i32))
    }

    pub(super) fn by_rate(&self, policy: &BreakerPolicy, now: Instant) -> Option<Reason> {
        let rule = policy.success_rate?;
        let (successes, requests) = self.window(now);
        let bad = requests >= u64::from(rule.minimum_requests)
            && successes * 100 < u64::from(rule.threshold_percent) * requests;
        bad.then_some(Reason::SuccessRate {
            successes,
            requests,
            threshold_percent: rule.threshold_percent,
        })
    }
}
