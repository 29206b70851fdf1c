//! Where workers count: integer cells, one padded set per worker, summed when somebody asks.
//!
//! Everything a request touches is here: relaxed adds on memory of its own worker, without locks
//! and without allocation. Cells know neither names nor labels.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// Keeps the cells of two workers apart. 128 bytes, since x86-64 fetches lines in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Padded<T>(pub(super) T);

/// One padded `T` per worker, and one for the control thread.
#[derive(Debug)]
pub(super) struct PerWorker<T>(Box<[Padded<T>]>);

impl<T> PerWorker<T> {
    /// `slots` is the number of workers plus one.
    pub(super) fn new(slots: usize, make: impl Fn() -> T) -> Self {
        Self((0..slots.max(1)).map(|_| Padded(make())).collect())
    }

    /// The cells of one worker; an index beyond the last means the control thread's.
    pub(super) fn of(&self, worker: usize) -> &T {
        &self.0[worker.min(self.0.len() - 1)].0
    }

    /// Sums what `read` finds in the cells of each worker.
    pub(super) fn sum(&self, read: impl Fn(&T) -> u64) -> u64 {
        self.0
            .iter()
            .map(|cell| read(&cell.0))
            .fold(0, u64::wrapping_add)
    }
}

/// A counter with a cell per worker.
#[derive(Debug)]
pub struct Counter(PerWorker<AtomicU64>);

impl Counter {
    pub(super) fn new(slots: usize) -> Self {
        Self(PerWorker::new(slots, AtomicU64::default))
    }

    /// Counts one.
    pub fn inc(&self, worker: usize) {
        self.add(worker, 1);
    }

    /// Counts `n`.
    pub fn add(&self, worker: usize, n: u64) {
        self.0.of(worker).fetch_add(n, Relaxed);
    }

    /// The sum over all workers.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.sum(|cell| cell.load(Relaxed))
    }
}

/// A fixed set of `N` counters that are counted and shown together.
#[derive(Debug)]
pub(super) struct Counters<const N: usize>(PerWorker<[AtomicU64; N]>);

impl<const N: usize> Counters<N> {
    pub(super) fn new(slots: usize) -> Self {
        Self(PerWorker::new(slots, || {
            std::array::from_fn(|_| AtomicU64::new(0))
        }))
    }

    pub(super) fn add(&self, worker: usize, index: usize, n: u64) {
        self.0.of(worker)[index].fetch_add(n, Relaxed);
    }

    pub(super) fn value(&self, index: usize) -> u64 {
        self.0.sum(|cells| cells[index].load(Relaxed))
    }
}

/// Upper bounds of the duration buckets: those OpenTelemetry advises for
/// `http.server.request.duration`, and three below, because a hop within a mesh is faster.
pub(super) const BUCKETS: [Duration; 17] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(75),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_millis(7500),
    Duration::from_secs(10),
];

/// Lines of exposition of one histogram: its buckets, `+Inf`, sum and count.
pub(super) const HISTOGRAM_LINES: usize = BUCKETS.len() + 3;

#[derive(Debug, Default)]
struct HistogramCells {
    /// Not cumulative; the last one is beyond every bound.
    counts: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

/// Durations, counted by bucket and summed in nanoseconds.
#[derive(Debug)]
pub(super) struct Histogram(PerWorker<HistogramCells>);

/// A histogram at one moment.
#[derive(Debug, PartialEq)]
pub(super) struct HistogramSum {
    /// Cumulative count per bucket of [`BUCKETS`].
    pub(super) cumulative: [u64; BUCKETS.len()],
    pub(super) count: u64,
    pub(super) seconds: f64,
}

impl Histogram {
    pub(super) fn new(slots: usize) -> Self {
        Self(PerWorker::new(slots, HistogramCells::default))
    }

    pub(super) fn observe(&self, worker: usize, duration: Duration) {
        let cells = self.0.of(worker);
        let bucket = BUCKETS.partition_point(|bound| *bound < duration);
        cells.counts[bucket].fetch_add(1, Relaxed);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        cells.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    pub(super) fn sum(&self) -> HistogramSum {
        let mut count = 0;
        let cumulative = std::array::from_fn(|bucket| {
            count += self.0.sum(|cells| cells.counts[bucket].load(Relaxed));
            count
        });
        count += self
            .0
            .sum(|cells| cells.counts[BUCKETS.len()].load(Relaxed));
        let nanoseconds = self.0.sum(|cells| cells.nanoseconds.load(Relaxed));
        // A sum of seconds as f64 is what the exposition format holds.
        HistogramSum {
            cumulative,
            count,
            seconds: nanoseconds as f64 / 1e9,
        }
    }
}

/// Distinct outcomes (status, gRPC status, flag) one series tells apart, besides the overflow.
pub(super) const OUTCOMES_PER_SERIES: usize = 31;
const OVERFLOW_SLOT: usize = OUTCOMES_PER_SERIES;

/// Counters by a small packed key that is not known beforehand. A key takes a slot when it is
/// first seen and keeps it; slots are found by a scan of at most 31 words that only change when
/// a new key appears. What finds no slot, or no line, is counted in the overflow slot.
#[derive(Debug)]
pub(super) struct Outcomes {
    /// 0 is a free slot; used slots come first.
    keys: [AtomicU32; OUTCOMES_PER_SERIES],
    counts: Counters<{ OUTCOMES_PER_SERIES + 1 }>,
}

impl Outcomes {
    pub(super) fn new(slots: usize) -> Self {
        Self {
            keys: std::array::from_fn(|_| AtomicU32::new(0)),
            counts: Counters::new(slots),
        }
    }

    /// Counts one under `key`, which is not 0.
    pub(super) fn record(&self, worker: usize, key: u32, lines: &Lines) {
        debug_assert_ne!(key, 0, "0 marks a free slot");
        let known = self.keys.iter().position(|slot| slot.load(Relaxed) == key);
        let slot = known.unwrap_or_else(|| self.insert(key, lines));
        self.counts.add(worker, slot, 1);
    }

    #[cold]
    fn insert(&self, key: u32, lines: &Lines) -> usize {
        if !lines.claim(1) {
            return OVERFLOW_SLOT;
        }
        for (index, slot) in self.keys.iter().enumerate() {
            match slot.compare_exchange(0, key, Relaxed, Relaxed) {
                Ok(_) => return index,
                Err(other) if other == key => {
                    lines.release(1); // another worker saw it first, and paid
                    return index;
                }
                Err(_) => {}
            }
        }
        lines.release(1);
        OVERFLOW_SLOT
    }

    /// Lines claimed so far.
    pub(super) fn claimed(&self) -> usize {
        self.keys
            .iter()
            .filter(|slot| slot.load(Relaxed) != 0)
            .count()
    }

    /// Calls `each` with every key seen and its count; `None` is the overflow, if it has any.
    pub(super) fn for_each(&self, mut each: impl FnMut(Option<u32>, u64)) {
        for (index, slot) in self.keys.iter().enumerate() {
            match slot.load(Relaxed) {
                0 => break,
                key => each(Some(key), self.counts.value(index)),
            }
        }
        let overflow = self.counts.value(OVERFLOW_SLOT);
        if overflow > 0 {
            each(None, overflow);
        }
    }
}

/// The budget of exposition lines that all series share.
#[derive(Debug)]
pub(super) struct Lines {
    used: AtomicUsize,
    limit: AtomicUsize,
}

impl Lines {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            used: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
        }
    }

    /// Lines already given stay given when the limit sinks below them.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// Takes `n` lines if they are free.
    pub(super) fn claim(&self, n: usize) -> bool {
        let limit = self.limit.load(Relaxed);
        self.used
            .fetch_update(Relaxed, Relaxed, |used| {
                used.checked_add(n).filter(|sum| *sum <= limit)
            })
            .is_ok()
    }

    pub(super) fn release(&self, n: usize) {
        self.used.fetch_sub(n, Relaxed);
    }

    pub(super) fn free(&self) -> usize {
        self.limit
            .load(Relaxed)
            .saturating_sub(self.used.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concurrent_workers_lose_no_count() {
        let counter = Counter::new(4);
        let histogram = Histogram::new(4);
        let outcomes = Outcomes::new(4);
        let lines = Lines::new(100);
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let (counter, histogram, outcomes, lines) =
                    (&counter, &histogram, &outcomes, &lines);
                scope.spawn(move || {
                    for n in 0..1000_u32 {
                        counter.inc(worker);
                        histogram.observe(worker, Duration::from_millis(1));
                        outcomes.record(worker, 1 + n % 5, lines);
                    }
                });
            }
        });
        assert_eq!(counter.value(), 4000);
        assert_eq!(histogram.sum().count, 4000);
        let mut seen = Vec::new();
        outcomes.for_each(|key, count| seen.push((key, count)));
        seen.sort_unstable();
        assert_eq!(
            seen,
            (1..=5).map(|key| (Some(key), 800)).collect::<Vec<_>>()
        );
        assert_eq!(lines.free(), 95, "one line per key, whoever saw it first");
        assert_eq!(outcomes.claimed(), 5);
    }

    #[test]
    fn a_bound_belongs_to_its_own_bucket() {
        let histogram = Histogram::new(1);
        for (duration, bucket) in [
            (Duration::ZERO, 0),
            (Duration::from_micros(500), 0),
            (Duration::from_nanos(500_001), 1),
            (Duration::from_secs(10), BUCKETS.len() - 1),
        ] {
            let before = histogram.sum();
            histogram.observe(0, duration);
            let after = histogram.sum();
            assert_eq!(
                after.cumulative[bucket],
                before.cumulative[bucket] + 1,
                "{duration:?}"
            );
            if bucket > 0 {
                assert_eq!(after.cumulative[bucket - 1], before.cumulative[bucket - 1]);
            }
        }
        histogram.observe(0, Duration::from_secs(11));
        let sum = histogram.sum();
        assert_eq!((sum.count, sum.cumulative[BUCKETS.len() - 1]), (5, 4));
    }

    #[test]
    fn a_key_without_a_slot_or_a_line_goes_to_the_overflow() {
        let outcomes = Outcomes::new(1);
        let plenty = Lines::new(1000);
        for key in 1..=40 {
            outcomes.record(0, key, &plenty);
        }
        let mut overflow = 0;
        outcomes.for_each(|key, count| overflow += if key.is_none() { count } else { 0 });
        assert_eq!(overflow, 40 - OUTCOMES_PER_SERIES as u64);
        assert_eq!(
            plenty.free(),
            1000 - OUTCOMES_PER_SERIES,
            "what found no slot holds no line"
        );

        let scarce = Lines::new(1);
        let outcomes = Outcomes::new(1);
        outcomes.record(0, 7, &scarce);
        outcomes.record(0, 8, &scarce);
        let mut seen = Vec::new();
        outcomes.for_each(|key, count| seen.push((key, count)));
        assert_eq!(seen, [(Some(7), 1), (None, 1)]);
    }

    #[test]
    fn an_index_beyond_the_workers_is_the_control_thread() {
        let counter = Counter::new(2);
        counter.inc(99);
        counter.inc(1);
        assert_eq!(counter.value(), 2);
    }
}
