//! Time that passed, as one word: a `Duration` counted in 128 bits divides by
//! a call, and every request asks several times. It holds no clock.

use std::time::{Duration, Instant};

/// Whole milliseconds from `start` to `now`; 0 where `now` is earlier.
pub(crate) fn millis(start: Instant, now: Instant) -> u64 {
    let passed = now.saturating_duration_since(start);
    (passed.as_secs().saturating_mul(1000)).saturating_add(passed.subsec_millis().into())
}

/// Nanoseconds; 584 years and more are as many as fit.
pub(crate) fn nanos(span: Duration) -> u64 {
    (span.as_secs().saturating_mul(1_000_000_000)).saturating_add(span.subsec_nanos().into())
}
