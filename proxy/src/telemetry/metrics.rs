//! Metrics: counted per worker without locks, merged and encoded when somebody scrapes.
//!
//! A caller resolves a handle once ([`Metrics::http`], [`Metrics::tcp`], …) and keeps it; recording
//! then adds to cells of its own worker. The `prometheus` crate is registry and encoder only: its
//! vectors take a lock per lookup and merge label sets whose hashes collide, so series live in
//! tables here, keyed by their labels whole. Nothing here knows what a request is, and nothing
//! runs on a worker but the adds.

mod cells; // integers, one padded set per worker
mod exposition; // cells to families of the text format
mod families; // the crate's types, built
mod gauges; // what is known elsewhere and asked for at a scrape
mod labels; // closed sets of words
mod process; // process_*, from /proc/self
mod protection; // what a ServerPolicy turned away
mod series; // handles with the labels resolved
mod tables; // all series, within the limit of lines

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use prometheus::{Encoder, Registry, TextEncoder};
use selvage_certs::HandshakeOutcome;
use selvage_policy::said::Ignored;

use super::spans::SpanCounts;
use cells::{Counters, Padded};
use gauges::Source;
use tables::{Kept, Tables};

pub use cells::Counter;
pub use gauges::Gauges;
pub use labels::{CertificateKind, Decision, Direction, EndpointCondition, Event, Side};
pub use series::{DestinationSeries, HttpSeries, TcpRecord, TcpSeries};

/// Lines of exposition until a Snapshot says otherwise; `MeshConfig.telemetry.seriesLimit`.
pub const DEFAULT_SERIES_LIMIT: usize = 10_000;
/// Lines set aside for what is always there: comments, fixed metrics, the overflow series. The
/// exposition has at least that many, whatever the limit.
pub const RESERVED_LINES: usize = 160 + protection::LINES;

/// All metrics of one proxy.
pub struct Metrics {
    core: Arc<Core>,
    registry: Registry,
}

struct Core {
    tables: Mutex<Tables>,
    handshakes: Counters<12>,
    active: Box<[Arc<ActiveCells>]>,
    headers_ignored: Counters<{ Ignored::ALL.len() }>,
    traces_not_kept: Counter,
    access_log_dropped: Arc<AtomicU64>,
    spans: Arc<SpanCounts>,
    sources: Mutex<Vec<Source>>,
}

type ActiveCells = Padded<[AtomicI64; 2]>;

impl Metrics {
    /// Makes the cells for `workers` workers, numbered from 0; the control thread is number
    /// `workers`, and so is every number beyond.
    #[must_use]
    pub fn new(workers: usize) -> Arc<Self> {
        let slots = workers + 1;
        let core = Arc::new(Core {
            tables: Mutex::new(Tables::new(slots, DEFAULT_SERIES_LIMIT - RESERVED_LINES)),
            handshakes: Counters::new(slots),
            active: (0..slots).map(|_| Arc::default()).collect(),
            headers_ignored: Counters::new(slots),
            traces_not_kept: Counter::new(slots),
            access_log_dropped: Arc::default(),
            spans: Arc::default(),
            sources: Mutex::default(),
        });
        let registry = Registry::new();
        registry
            .register(Box::new(exposition::Families::of(Arc::clone(&core))))
            .expect("the names of the families are valid and distinct");
        Arc::new(Self { core, registry })
    }

    /// Bounds the exposition to `lines`. Label sets that come after that are counted in series
    /// labelled `overflow`; series that are there stay, until nobody holds them and room is needed.
    pub fn set_series_limit(&self, lines: usize) {
        self.core
            .tables
            .lock()
            .set_limit(lines.saturating_sub(RESERVED_LINES));
    }

    /// The series of HTTP requests with these labels. Takes a lock: callers keep the handle.
    #[must_use]
    pub fn http(
        &self,
        direction: Direction,
        source: &str,
        destination: &str,
        route: &str,
    ) -> Arc<HttpSeries> {
        self.core
            .tables
            .lock()
            .http(direction, [source, destination, route])
    }

    /// The series of opaque connections with these labels. Takes a lock: callers keep the handle.
    #[must_use]
    pub fn tcp(&self, direction: Direction, source: &str, destination: &str) -> Arc<TcpSeries> {
        self.core
            .tables
            .lock()
            .tcp(direction, [source, destination])
    }

    /// Retries, budget and breaker transitions toward a destination (`namespace/service`). Takes
    /// a lock: callers keep the handle.
    #[must_use]
    pub fn destination(&self, destination: &str) -> Arc<DestinationSeries> {
        self.core.tables.lock().destination(destination)
    }

    /// Decisions of one policy (`namespace/name`, `-` where none decided) on one destination.
    /// Takes a lock: callers keep the handle and call [`Counter::inc`].
    #[must_use]
    pub fn authorization(
        &self,
        destination: &str,
        decision: Decision,
        policy: &str,
    ) -> Arc<Counter> {
        self.core
            .tables
            .lock()
            .authorization(decision, [destination, policy])
    }

    /// What a policy had done to requests toward a destination (`namespace/service`); `label` says
    /// what became of it. Takes a lock: callers keep the handle and call [`Counter::inc`].
    #[must_use]
    pub fn event(&self, event: Event, destination: &str, label: &str) -> Arc<Counter> {
        self.core.tables.lock().event(event, [destination, label])
    }

    /// Counts a request as active until the guard is dropped.
    #[must_use]
    pub fn active(&self, worker: usize, direction: Direction) -> ActiveRequest {
        // The Arc is the worker's own, so that counting references shares no cache line either.
        let cells = Arc::clone(&self.core.active[worker.min(self.core.active.len() - 1)]);
        cells.0[direction as usize].fetch_add(1, Relaxed);
        ActiveRequest { cells, direction }
    }

    /// Counts a finished TLS handshake.
    pub fn handshake(&self, worker: usize, side: Side, outcome: HandshakeOutcome) {
        let index = labels::handshake_cell(side, outcome);
        self.core.handshakes.add(worker, index, 1);
    }

    /// Counts a field of a peer that said nonsense.
    pub fn header_ignored(&self, worker: usize, field: Ignored) {
        self.core.headers_ignored.add(worker, field as usize, 1);
    }

    /// Counts a request whose trace found no place.
    pub fn trace_not_kept(&self, worker: usize) {
        self.core.traces_not_kept.inc(worker);
    }

    /// Has `fill` asked at each scrape for gauges that are known elsewhere.
    pub fn on_scrape(&self, fill: impl Fn(&mut Gauges) + Send + Sync + 'static) {
        self.core.sources.lock().push(Arc::new(fill));
    }

    /// The text exposition, version 0.0.4. Takes milliseconds when there is much: not for a worker.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("a family has a name and metrics, and a vector takes every write");
        text
    }

    /// Where the access log counts what it dropped.
    pub(super) fn access_log_dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.core.access_log_dropped)
    }

    /// Where the export of spans counts.
    pub(super) fn spans(&self) -> Arc<SpanCounts> {
        Arc::clone(&self.core.spans)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Core {
    fn active(&self, direction: Direction) -> u64 {
        let sum: i64 = self
            .active
            .iter()
            .map(|cells| cells.0[direction as usize].load(Relaxed))
            .sum();
        u64::try_from(sum).unwrap_or(0) // a guard that moved between workers may be seen half
    }

    fn gauges(&self) -> Gauges {
        // Copied, so that a source may take its time, or add another.
        let sources: Vec<Source> = self.sources.lock().clone();
        let mut gauges = Gauges::default();
        for source in sources {
            source(&mut gauges);
        }
        gauges
    }

    fn series(&self) -> Kept {
        self.tables.lock().at_scrape()
    }
}

/// A request in flight; dropping it ends it.
#[derive(Debug)]
pub struct ActiveRequest {
    cells: Arc<ActiveCells>,
    direction: Direction,
}

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.cells.0[self.direction as usize].fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
