//! The series of one label set each: what callers hold and record into.
//!
//! A handle is resolved once, when a route or a connection is set up, and kept; recording touches
//! only cells of the own worker. Series know their labels but not how they are shown.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use selvage_policy::breaker::BreakerState;
use selvage_policy::crowd::Spill;
use selvage_policy::flag::Flag;
use selvage_policy::retry::RetryOutcome;

use super::cells::{Counter, Counters, HISTOGRAM_LINES, Histogram, Lines, Outcomes};
use super::labels::{BREAKER_STATES, OutcomeKey, RETRY_OUTCOMES, breaker_index, retry_index};

/// HTTP requests of one direction, source, destination and route.
#[derive(Debug)]
pub struct HttpSeries {
    pub(super) durations: Histogram,
    pub(super) outcomes: Outcomes,
    lines: Arc<Lines>,
}

impl HttpSeries {
    /// The histogram, and one line for outcomes that find no line of their own.
    pub(super) const FIXED_LINES: usize = HISTOGRAM_LINES + 1;

    pub(super) fn new(slots: usize, lines: Arc<Lines>) -> Self {
        Self {
            durations: Histogram::new(slots),
            outcomes: Outcomes::new(slots),
            lines,
        }
    }

    pub(super) fn is_used(&self) -> bool {
        self.durations.sum().count > 0
    }

    /// Counts a finished request. `status` 0 means that no response was sent. Lock-free, and
    /// without allocation.
    pub fn record(
        &self,
        worker: usize,
        status: u16,
        grpc_status: Option<u32>,
        flag: Option<Flag>,
        duration: Duration,
    ) {
        let key = OutcomeKey::http(status, grpc_status, flag);
        self.outcomes.record(worker, key.0, &self.lines);
        self.durations.observe(worker, duration);
    }
}

/// Opaque connections of one direction, source and destination.
#[derive(Debug)]
pub struct TcpSeries {
    pub(super) opened: Counter,
    pub(super) received: Counter,
    pub(super) sent: Counter,
    pub(super) closed: Outcomes,
    lines: Arc<Lines>,
}

impl TcpSeries {
    /// Opened, two flows, and one line for flags that find no line of their own.
    pub(super) const FIXED_LINES: usize = 4;

    pub(super) fn new(slots: usize, lines: Arc<Lines>) -> Self {
        Self {
            opened: Counter::new(slots),
            received: Counter::new(slots),
            sent: Counter::new(slots),
            closed: Outcomes::new(slots),
            lines,
        }
    }

    /// Counts a connection as opened; it is closed when the record is dropped.
    #[must_use]
    pub fn open(self: &Arc<Self>, worker: usize) -> TcpRecord {
        self.opened.inc(worker);
        let key = AtomicU32::new(OutcomeKey::tcp(None).0);
        TcpRecord {
            series: Arc::clone(self),
            worker,
            key,
        }
    }
}

/// One open connection. Dropping it counts it as closed, under the flag set last.
#[derive(Debug)]
pub struct TcpRecord {
    series: Arc<TcpSeries>,
    worker: usize,
    key: AtomicU32,
}

impl TcpRecord {
    /// Counts bytes that came from the peer that opened the connection.
    pub fn received(&self, bytes: u64) {
        self.series.received.add(self.worker, bytes);
    }

    /// Counts bytes that went to the peer that opened the connection.
    pub fn sent(&self, bytes: u64) {
        self.series.sent.add(self.worker, bytes);
    }

    /// Says why the connection ends; without it the label is `-`.
    pub fn set_flag(&self, flag: Flag) {
        self.key.store(OutcomeKey::tcp(Some(flag)).0, Relaxed);
    }
}

impl Drop for TcpRecord {
    fn drop(&mut self) {
        let series = &self.series;
        series
            .closed
            .record(self.worker, self.key.load(Relaxed), &series.lines);
    }
}

/// What happens toward one destination, besides its requests.
#[derive(Debug)]
pub struct DestinationSeries {
    pub(super) retries: Counters<{ RETRY_OUTCOMES.len() }>,
    pub(super) exhausted: Counter,
    pub(super) transitions: Counters<3>,
}

impl DestinationSeries {
    /// Retries by outcome, the budget, transitions, the gauge of endpoints by state, and spills.
    pub(super) const FIXED_LINES: usize =
        RETRY_OUTCOMES.len() + 1 + BREAKER_STATES.len() + 5 + Spill::ALL.len();

    pub(super) fn new(slots: usize) -> Self {
        Self {
            retries: Counters::new(slots),
            exhausted: Counter::new(slots),
            transitions: Counters::new(slots),
        }
    }

    pub(super) fn is_used(&self) -> bool {
        (0..RETRY_OUTCOMES.len()).any(|index| self.retries.value(index) > 0)
            || (0..3).any(|index| self.transitions.value(index) > 0)
            || self.exhausted.value() > 0
    }

    /// Counts a retry by what became of it.
    pub fn retry(&self, worker: usize, outcome: RetryOutcome) {
        self.retries.add(worker, retry_index(outcome), 1);
    }

    /// Counts a retry that the budget did not allow.
    pub fn budget_exhausted(&self, worker: usize) {
        self.exhausted.inc(worker);
    }

    /// Counts a breaker's change to `state`.
    pub fn transition(&self, worker: usize, state: BreakerState) {
        self.transitions.add(worker, breaker_index(state), 1);
    }
}
