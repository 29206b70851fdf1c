//! What came of a run, in figures.

use std::time::Duration;

use crate::client::Call;

/// Calls sent from `from` on, before `to`, since the start.
pub(crate) fn between(calls: &[Call], from: Duration, to: Duration) -> Vec<Call> {
    let within = |call: &&Call| call.at >= from && call.at < to;
    calls.iter().filter(within).cloned().collect()
}

/// Calls that did not come whole and well.
pub(crate) fn failed(calls: &[Call]) -> usize {
    calls.iter().filter(|call| !call.answer.is_ok()).count()
}

/// The latency that `percent` of the calls do not exceed.
pub(crate) fn percentile(calls: &[Call], percent: f64) -> Duration {
    let mut took: Vec<_> = calls.iter().map(|call| call.took).collect();
    if took.is_empty() {
        return Duration::ZERO;
    }
    let at = ((took.len() - 1) as f64 * percent / 100.0).round() as usize;
    *took.select_nth_unstable(at).1
}

/// In milliseconds, for reading.
pub(crate) fn ms(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}
