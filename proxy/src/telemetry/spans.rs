//! One span per sampled request, exported by OTLP apart from the workers.
//!
//! A worker hands over what is told of a request and goes on. The queue between is bounded: what
//! finds it full is dropped and counted, for a request never waits for its trace. The control
//! thread takes batches from it when one is full or `OTEL_BSP_SCHEDULE_DELAY` has passed; a
//! collector that is away costs no more than the queue. With tracing off nothing here is made.

mod attributes; // what a span says of its request
mod otlp; // what is told of a request, as a span
mod transport; // to the collector, by gRPC or HTTP

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use http::HeaderMap;
use parking_lot::Mutex;
use selvage_policy::trace::{Parent, Sampler, Trace};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::transport::{Refused, Transport};
use super::metrics::Metrics;
use super::told::Told;
use crate::config::{Batch, Tracing};

/// Waits between attempts of one batch double from the first to the last.
const BACKOFF: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(8)];
/// How long the end of the proxy waits for what is queued.
pub const FLUSH: Duration = Duration::from_secs(3);

/// What became of spans, counted.
#[derive(Debug, Default)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub exported: AtomicU64,
    /// Never sent: the queue was full.
    pub dropped: AtomicU64,
    /// Sent, but refused or not answered.
    pub failed: AtomicU64,
}

/// Takes spans; shared by all workers.
#[derive(Debug)]
pub struct Spans {
    sampler: Sampler,
    queue: Arc<Queue>,
}

/// Spans on their way to the control thread.
#[derive(Debug)]
struct Queue {
    told: Mutex<VecDeque<Box<Told>>>,
    limits: Batch,
    /// A batch is full.
    full: Notify,
    counts: Arc<SpanCounts>,
}

impl Spans {
    /// The trace of a request with these headers.
    pub fn begin(&self, headers: &HeaderMap, rng: &mut fastrand::Rng) -> Trace {
        Trace::begin(&Parent::read(headers), self.sampler, rng)
    }

    /// Hands over what becomes a span. Never waits.
    pub(super) fn record(&self, told: Box<Told>) {
        let Queue { limits, counts, .. } = &*self.queue;
        let mut queued = self.queue.told.lock();
        if queued.len() >= limits.queue {
            drop(queued);
            counts.dropped.fetch_add(1, Relaxed);
            return;
        }
        queued.push_back(told);
        // Only then is the control thread woken; it looks by itself now and then.
        let is_full = queued.len() == limits.size;
        drop(queued);
        if is_full {
            self.queue.full.notify_one();
        }
    }
}

impl Queue {
    /// At most one batch.
    fn take(&self) -> VecDeque<Box<Told>> {
        let mut queued = self.told.lock();
        let count = queued.len().min(self.limits.size);
        queued.drain(..count).collect()
    }

    fn has_batch(&self) -> bool {
        self.told.lock().len() >= self.limits.size
    }
}

/// The export of spans, running on the control thread.
#[derive(Debug)]
pub struct Exporting {
    leaving: CancellationToken,
    task: JoinHandle<()>,
}

/// Begins to export: what workers hand spans to, and the task that sends them.
///
/// # Errors
/// The endpoint is no URL that can be called.
pub fn begin(tracing: &Tracing, metrics: &Metrics) -> anyhow::Result<(Spans, Exporting)> {
    let counts = metrics.spans();
    let queue = Arc::new(Queue {
        told: Mutex::default(),
        limits: tracing.batch,
        full: Notify::new(),
        counts: counts.clone(),
    });
    let leaving = CancellationToken::new();
    let exporter = Exporter {
        queue: queue.clone(),
        transport: Transport::new(tracing)?,
        leaving: leaving.clone(),
        counts,
        reached: true,
    };
    let task = tokio::spawn(exporter.run());
    let spans = Spans {
        sampler: tracing.sampler,
        queue,
    };
    Ok((spans, Exporting { leaving, task }))
}

impl Exporting {
    /// Sends what is queued, once, and ends; for at most [`FLUSH`].
    pub async fn finish(self) {
        self.leaving.cancel();
        if tokio::time::timeout(FLUSH, self.task).await.is_err() {
            tracing::warn!("the last spans could not be exported in time");
        }
    }
}

struct Exporter {
    queue: Arc<Queue>,
    transport: Transport,
    leaving: CancellationToken,
    counts: Arc<SpanCounts>,
    /// How the last batch went: only changes are logged.
    reached: bool,
}

impl Exporter {
    async fn run(mut self) {
        while !self.leaving.is_cancelled() {
            tokio::select! {
                () = tokio::time::sleep(self.queue.limits.delay) => {}
                () = self.queue.full.notified() => {}
                () = self.leaving.cancelled() => {}
            }
            self.empty().await;
        }
        self.empty().await;
    }

    /// Sends what is queued: all that had waited, and then on while batches are full.
    async fn empty(&mut self) {
        loop {
            let batch = self.queue.take();
            if batch.is_empty() {
                return;
            }
            self.send(&batch).await;
            if !self.queue.has_batch() && !self.leaving.is_cancelled() {
                return;
            }
        }
    }

    async fn send(&mut self, batch: &VecDeque<Box<Told>>) {
        let count = batch.len() as u64;
        let spans = batch.iter().filter_map(|told| otlp::span(told)).collect();
        let sending = attempts(&mut self.transport, &self.leaving, spans);
        let sent = tokio::time::timeout(self.queue.limits.timeout, sending).await;
        let sent = sent.unwrap_or_else(|_| Err("OTEL_BSP_EXPORT_TIMEOUT ran out".to_owned()));
        let rejected = match &sent {
            Ok(rejected) => (*rejected).min(count),
            Err(_) => count,
        };
        self.counts.exported.fetch_add(count - rejected, Relaxed);
        self.counts.failed.fetch_add(rejected, Relaxed);
        match sent {
            Ok(_) if !self.reached => tracing::info!("spans are exported again"),
            Ok(_) => {}
            Err(reason) if self.reached => {
                let endpoint = self.transport.endpoint();
                tracing::warn!(%endpoint, reason, "spans are not exported");
            }
            Err(reason) => tracing::debug!(reason, "spans are not exported"),
        }
        self.reached = rejected < count;
    }
}

/// Sends a batch until it is taken or refused for good; while leaving, once. Answers how many spans
/// the collector rejected.
async fn attempts(
    transport: &mut Transport,
    leaving: &CancellationToken,
    spans: Vec<otlp::Span>,
) -> Result<u64, String> {
    let message = transport.message(spans);
    let mut wait = BACKOFF[0];
    loop {
        let reason = match transport.export(&message).await {
            Ok(rejected) => return Ok(rejected),
            Err(Refused::ForGood(reason)) => return Err(reason),
            Err(Refused::ForNow(reason)) => reason,
        };
        tokio::select! {
            () = tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
            () = leaving.cancelled() => return Err(reason),
        }
        wait = BACKOFF[1].min(wait * 2);
    }
}

#[cfg(test)]
mod tests;
