//! A high quantile of a service's latencies, over its recent requests.
//!
//! Written by every request that could be hedged, read by the same; shared by
//! the workers without a lock. It knows no requests.
//!
//! Counts by logarithmic bucket, sixteen to each doubling, as HdrHistogram lays
//! them out: taking a latency is one atomic add, and the estimate is the upper
//! edge of the bucket in which the exact quantile lies, so at most 1/16 above
//! it and never below. (P² of Jain and Chlamtac needs five numbers, but they
//! move together, under a lock; t-digests sort and allocate; a moving step
//! toward the quantile takes hundreds of samples to follow a change.)
//!
//! Old samples fade: all counts are halved after [`FADES_AFTER`] samples, at
//! most once a second, and every [`FADES_EVERY`] however few there are. So it
//! follows a busy service within two seconds and a quiet one within minutes,
//! and says nothing with fewer than [`LEAST_SAMPLES`].

use std::time::{Duration, Instant};

use crate::since;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Fewer samples give no estimate.
pub const LEAST_SAMPLES: u64 = 50;
/// Samples after which the old ones weigh half.
pub const FADES_AFTER: u64 = 1000;
/// The longest time until they do.
pub const FADES_EVERY: Duration = Duration::from_secs(60);

/// Milliseconds between two fadings at least.
const FADE_PAUSE: u64 = 1000;
/// The estimate is made anew at every so-manieth sample.
const LOOK_EVERY: u32 = 16;
/// Buckets of one doubling, as a power of two.
const FINE_BITS: u32 = 4;
const FINE: u64 = 1 << FINE_BITS;
/// Latencies are told apart below 2²⁷ µs, two minutes.
const LARGEST_BITS: u32 = 27;
const LARGEST: u64 = (1 << LARGEST_BITS) - 1;
const BUCKETS: usize = ((LARGEST_BITS - FINE_BITS + 1) as usize) << FINE_BITS;

/// See the module.
#[derive(Debug)]
pub struct Quantile {
    epoch: Instant,
    counts: [AtomicU32; BUCKETS],
    /// Samples ever taken, to know every sixteenth.
    taken: AtomicU32,
    /// In milliseconds since the epoch.
    faded: AtomicU64,
    /// In microseconds; 0: too few samples.
    estimate: AtomicU64,
}

impl Quantile {
    /// Knows nothing yet. `epoch` is no later than any `now` that follows.
    #[must_use]
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            counts: std::array::from_fn(|_| AtomicU32::new(0)),
            taken: AtomicU32::new(0),
            faded: AtomicU64::new(0),
            estimate: AtomicU64::new(0),
        }
    }

    /// Takes a latency; now and then makes the estimate of the `percent` quantile anew.
    pub fn sample(&self, latency: Duration, percent: u8, now: Instant) {
        self.counts[bucket(latency)].fetch_add(1, Relaxed);
        if self.taken.fetch_add(1, Relaxed) % LOOK_EVERY == LOOK_EVERY - 1 {
            self.look(percent, now);
        }
    }

    /// The estimate; `None` with too few samples.
    #[must_use]
    pub fn estimate(&self) -> Option<Duration> {
        match self.estimate.load(Relaxed) {
            0 => None,
            micros => Some(Duration::from_micros(micros)),
        }
    }

    fn look(&self, percent: u8, now: Instant) {
        let total: u64 = self
            .counts
            .iter()
            .map(|count| u64::from(count.load(Relaxed)))
            .sum();
        let estimate = (total >= LEAST_SAMPLES).then(|| self.edge(percent, total));
        self.estimate.store(estimate.unwrap_or(0), Relaxed);
        self.fade(total, now);
    }

    /// The upper edge of the bucket that holds the quantile, in microseconds.
    fn edge(&self, percent: u8, total: u64) -> u64 {
        let rank = (total * u64::from(percent)).div_ceil(100);
        let mut below = 0;
        let holds = |count: &AtomicU32| {
            below += u64::from(count.load(Relaxed));
            below >= rank
        };
        // Halved beneath our eyes there may be fewer than were counted: then the last one.
        upper_edge(self.counts.iter().position(holds).unwrap_or(BUCKETS - 1))
    }

    fn fade(&self, total: u64, now: Instant) {
        let now = since::millis(self.epoch, now);
        let faded = self.faded.load(Relaxed);
        let passed = now.saturating_sub(faded);
        let is_due = (total >= FADES_AFTER && passed >= FADE_PAUSE)
            || passed >= FADES_EVERY.as_millis() as u64;
        // Whoever moves the time does it, alone.
        if !is_due
            || self
                .faded
                .compare_exchange(faded, now, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        for count in &self.counts {
            // Rounded down, so that nothing is taken twice, whoever else counts meanwhile.
            count.fetch_sub(count.load(Relaxed) / 2, Relaxed);
        }
    }
}

fn bucket(latency: Duration) -> usize {
    let micros = (since::nanos(latency) / 1000).min(LARGEST);
    if micros < FINE {
        return micros as usize;
    }
    let doubling = micros.ilog2() - FINE_BITS;
    // The leading bit counts as the first sixteen: doublings follow one another without a gap.
    (u64::from(doubling) * FINE + (micros >> doubling)) as usize
}

/// The least latency above a bucket, in microseconds.
fn upper_edge(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    if bucket < FINE {
        return bucket + 1;
    }
    let doubling = bucket / FINE - 1;
    (bucket - doubling * FINE + 1) << doubling
}

#[cfg(test)]
mod tests;
