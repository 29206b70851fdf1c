//! What one measurement counts, and its two moments: the end of the warm-up and
//! the end of the measured time.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::Future;
use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use tokio::runtime::{Builder, LocalOptions};

use crate::Failure;
use crate::cpu::Reading;

/// How long, and whose CPU time.
#[derive(Debug, Clone, Args)]
pub(crate) struct Timing {
    /// Seconds of load before anything is counted.
    #[arg(long, default_value_t = 0.5)]
    pub(crate) warmup: f64,
    /// Seconds that are counted.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Processes whose CPU time is read at the beginning and the end of them.
    #[arg(long, value_delimiter = ',')]
    pub(crate) pids: Vec<u32>,
}

/// Counters of one thread. Errors are counted always, the rest while it is measured.
pub(crate) struct Tally {
    measuring: Cell<bool>,
    requests: Cell<u64>,
    bytes: Cell<u64>,
    errors: Cell<u64>,
    first_error: RefCell<Option<String>>,
    latency: RefCell<Histogram<u64>>,
}

/// A histogram of nanoseconds up to a minute, to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order")
}

/// Latencies in milliseconds.
pub(crate) fn percentiles(latency: &Histogram<u64>) -> Value {
    let at = |quantile: f64| milliseconds(latency.value_at_quantile(quantile));
    json!({
        "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "p999": at(0.999),
        "max": milliseconds(latency.max()),
    })
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a minute of nanoseconds fits into 53 bits"
)]
fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

pub(crate) fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Tally {
    fn new() -> Rc<Self> {
        Rc::new(Self {
            measuring: Cell::new(false),
            requests: Cell::new(0),
            bytes: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            latency: RefCell::new(histogram()),
        })
    }

    /// One request that went well, begun at `began`.
    pub(crate) fn done(&self, began: Instant) {
        if self.measuring.get() {
            self.requests.set(self.requests.get() + 1);
            let latency = nanoseconds(began.elapsed()).max(1);
            self.latency.borrow_mut().saturating_record(latency);
        }
    }

    /// Bytes of a body, as they come.
    pub(crate) fn moved(&self, bytes: usize) {
        if self.measuring.get() {
            self.bytes.set(self.bytes.get() + bytes as u64);
        }
    }

    /// One request that did not go well.
    pub(crate) fn failed(&self, reason: &dyn Display) {
        self.errors.set(self.errors.get() + 1);
        let mut first = self.first_error.borrow_mut();
        if first.is_none() {
            *first = Some(reason.to_string());
        }
    }
}

/// Runs `load` (which starts local tasks and returns) on a thread of its own kind, measures, prints.
pub(crate) fn measure<F>(timing: &Timing, load: impl FnOnce(Rc<Tally>) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())?;
    let tally = Tally::new();
    runtime.block_on(async {
        load(tally.clone()).await?;
        tokio::time::sleep(Duration::from_secs_f64(timing.warmup)).await;
        let (own, before) = (
            Reading::of(&[std::process::id()]),
            Reading::of(&timing.pids),
        );
        let began = Instant::now();
        tally.measuring.set(true);
        tokio::time::sleep(Duration::from_secs_f64(timing.seconds)).await;
        tally.measuring.set(false);
        let seconds = began.elapsed().as_secs_f64();
        let after = Reading::of(&timing.pids);
        print(&json!({
            "seconds": seconds,
            "requests": tally.requests.get(),
            "bytes": tally.bytes.get(),
            "errors": tally.errors.get(),
            "firstError": *tally.first_error.borrow(),
            "latency": percentiles(&tally.latency.borrow()),
            "cpu": after.since(before),
            "ownCpu": Reading::of(&[std::process::id()]).since(own),
        }))
    })
}

/// One line on stdout, seen at once.
pub(crate) fn print(line: &Value) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
