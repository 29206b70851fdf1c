//! Which traces are in flight: what crosses the application beside a sidecar,
//! where the application itself carries no more than the trace's name.
//!
//! An application copies `traceparent` from the request it serves to the calls
//! it makes for it, and nothing else. So while a request of an authenticated
//! peer is in flight inbound, [`TracesInFlight`] keeps when its caller stops
//! waiting, and whether a call made for it came back exhausted; outbound calls
//! of the same trace are found here. It knows no requests, and reads no header.
//!
//! Where several requests share a trace, nobody can tell for which of them a
//! call is made: then the latest deadline holds for all (one that never stops
//! waiting is the latest of all), and one exhausted call speaks for all. What
//! a caller abandoned, its application often goes on with: such a trace is
//! remembered for [`LINGERS`] beyond its deadline, in a place that anything
//! newer may take, so that no work starts that nobody waits for.
//!
//! The table is [`CAPACITY`] places in sets of a few; the trace and a seed say
//! which set, so that nobody outside can aim at one. A full set keeps nothing
//! more, which costs the request nothing but this protection. A place is four
//! atomics: its state (a generation, who holds it, what was marked) is changed
//! by compare-and-swap alone, and a reader that finds another generation after
//! reading than before has read nothing (a sequence lock: Lamport, *Concurrent
//! Reading and Writing*, 1977). A map behind a lock per shard would be shorter,
//! but every traced request would take such a lock three times.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::since;
use crate::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use crate::sync::atomic::{AtomicU64, fence};
use crate::trace::TraceId;

/// Loom goes through every order of every place: two are enough to meet in.
const FEW: bool = cfg!(feature = "loom");
const SETS: usize = if FEW { 1 } else { 256 };
const WAYS: usize = if FEW { 2 } else { 16 };
/// Traces that are kept at a time, by one proxy. A set may be full before the table is.
pub const CAPACITY: usize = SETS * WAYS;
/// How long beyond its deadline an abandoned trace is remembered.
pub const LINGERS: Duration = Duration::from_secs(5);

/// No deadline: later than any.
const NEVER: u64 = u64::MAX;

/// Who holds a place, in its state.
const HOLDERS: u64 = 0xffff;
/// A call made for it came back exhausted.
const EXHAUSTED: u64 = 1 << 16;
/// Somebody left while the application was still at work.
const ABANDONED: u64 = 1 << 17;
/// It is being taken over.
const WRITING: u64 = 1 << 18;
/// Whose turn it is: another trace, another generation.
const GENERATION: u64 = !0 << 32;
const NEXT: u64 = 1 << 32;

/// See the module.
#[derive(Debug)]
pub struct TracesInFlight {
    seed: u64,
    start: Instant,
    /// Made by the first request that is kept: most proxies never see a trace.
    places: OnceLock<Box<[Place]>>,
}

#[derive(Debug, Default)]
struct Place {
    state: AtomicU64,
    high: AtomicU64,
    low: AtomicU64,
    /// Nanoseconds after the table's start.
    deadline: AtomicU64,
}

/// What a place held at one moment.
#[derive(Clone, Copy)]
struct Held {
    state: u64,
    trace: u128,
    deadline: u64,
}

/// A trace in flight, as an outbound call finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// When the last of its callers stops waiting; `None`: never.
    pub deadline: Option<Instant>,
}

/// A request in flight, with its trace kept. Dropped, it is over.
#[derive(Debug)]
#[must_use = "the trace is forgotten when this is dropped"]
pub struct TraceInFlight {
    table: Arc<TracesInFlight>,
    place: usize,
    abandoned: bool,
}

impl Held {
    const fn is_held(&self) -> bool {
        self.state & HOLDERS != 0
    }

    /// Nobody holds it any more, but its deadline still speaks.
    fn lingers(&self, now: u64) -> bool {
        let end = self.deadline.saturating_add(since::nanos(LINGERS));
        !self.is_held() && self.state & ABANDONED != 0 && self.deadline != NEVER && now < end
    }
}

impl Place {
    /// What it holds; `None` where that is nothing, or just changes.
    fn read(&self) -> Option<Held> {
        let state = self.state.load(Acquire);
        if state & (HOLDERS | ABANDONED) == 0 || state & WRITING != 0 {
            return None;
        }
        let high = u128::from(self.high.load(Relaxed));
        let low = u128::from(self.low.load(Relaxed));
        let deadline = self.deadline.load(Relaxed);
        fence(Acquire);
        let after = self.state.load(Relaxed);
        (after & GENERATION == state & GENERATION).then_some(Held {
            state,
            trace: high << 64 | low,
            deadline,
        })
    }

    /// What it holds of `trace`.
    fn read_of(&self, trace: TraceId) -> Option<Held> {
        self.read().filter(|held| held.trace == trace.bits())
    }

    fn change(&self, from: u64, to: u64) -> bool {
        (self.state.compare_exchange(from, to, AcqRel, Relaxed)).is_ok()
    }

    /// One more request of a trace that it holds already.
    fn join(&self, trace: TraceId, deadline: u64, now: u64) -> bool {
        while let Some(held) = self.read_of(trace) {
            let full = held.state & HOLDERS == HOLDERS;
            if full || !(held.is_held() || held.lingers(now)) {
                return false;
            }
            let mut state = held.state + 1;
            if !held.is_held() {
                state &= !EXHAUSTED;
            }
            if self.change(held.state, state) {
                self.deadline.fetch_max(deadline, Relaxed);
                return true;
            }
        }
        false
    }

    /// Takes it over, if nobody holds it; what lingers goes only where `forced`.
    fn claim(&self, trace: TraceId, deadline: u64, now: u64, forced: bool) -> bool {
        let state = self.state.load(Relaxed);
        if state & (HOLDERS | WRITING) != 0 {
            return false;
        }
        if !forced && self.read().is_some_and(|held| held.lingers(now)) {
            return false;
        }
        let generation = (state & GENERATION).wrapping_add(NEXT);
        if !self.change(state, generation | WRITING) {
            return false;
        }
        // Whoever reads what is written below finds this generation after it.
        fence(Release);
        let bits = trace.bits();
        self.high.store((bits >> 64) as u64, Relaxed);
        self.low.store(bits as u64, Relaxed);
        self.deadline.store(deadline, Relaxed);
        self.state.store(generation | 1, Release);
        true
    }

    fn exhaust(&self, trace: TraceId) {
        while let Some(held) = self.read_of(trace).filter(Held::is_held) {
            if self.change(held.state, held.state | EXHAUSTED) {
                return;
            }
        }
    }
}

impl TracesInFlight {
    /// An empty table; `seed` is random, and nobody else's to know.
    #[must_use]
    pub fn new(seed: u64, start: Instant) -> Arc<Self> {
        Arc::new(Self {
            seed,
            start,
            places: OnceLock::new(),
        })
    }

    /// Keeps the trace of a request, whose caller stops waiting at `deadline`,
    /// until what is returned is dropped. `None`: there is no place for it.
    pub fn enter(
        self: &Arc<Self>,
        trace: TraceId,
        deadline: Option<Instant>,
        now: Instant,
    ) -> Option<TraceInFlight> {
        let deadline = deadline.map_or(NEVER, |deadline| self.nanos(deadline));
        let now = self.nanos(now);
        let make = || (0..CAPACITY).map(|_| Place::default()).collect();
        let first = self.first(trace);
        let set = &self.places.get_or_init(make)[first..first + WAYS];
        let claimed = |forced| {
            let mut places = set.iter();
            places.position(|place| place.claim(trace, deadline, now, forced))
        };
        let joined = set
            .iter()
            .position(|place| place.join(trace, deadline, now));
        let way = joined
            .or_else(|| claimed(false))
            .or_else(|| claimed(true))?;
        Some(TraceInFlight {
            table: Arc::clone(self),
            place: first + way,
            abandoned: false,
        })
    }

    /// What is known of a trace for which a call is made. `None`: it is not in flight.
    #[must_use]
    pub fn find(&self, trace: TraceId, now: Instant) -> Option<Found> {
        let now = self.nanos(now);
        // Two that entered at once may hold a place each.
        let deadline = self
            .set(trace)
            .iter()
            .filter_map(|place| place.read_of(trace))
            .filter(|held| held.is_held() || held.lingers(now))
            .map(|held| held.deadline)
            .max()?;
        Some(Found {
            deadline: (deadline != NEVER).then(|| self.start + Duration::from_nanos(deadline)),
        })
    }

    /// A call made for `trace` came back exhausted.
    pub fn exhaust(&self, trace: TraceId) {
        for place in self.set(trace) {
            place.exhaust(trace);
        }
    }

    fn set(&self, trace: TraceId) -> &[Place] {
        let first = self.first(trace);
        self.places
            .get()
            .map_or(&[], |places| &places[first..first + WAYS])
    }

    /// The first place of a trace's set.
    fn first(&self, trace: TraceId) -> usize {
        // The multiplier of Knuth's multiplicative hashing, 2^64 by the golden ratio.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let bits = trace.bits();
        let mixed = (bits as u64 ^ self.seed).wrapping_mul(GOLDEN);
        let mixed = (mixed ^ mixed >> 32 ^ (bits >> 64) as u64).wrapping_mul(GOLDEN);
        (mixed >> 32) as usize % CAPACITY / WAYS * WAYS
    }

    fn nanos(&self, at: Instant) -> u64 {
        since::nanos(at.saturating_duration_since(self.start))
    }
}

impl TraceInFlight {
    /// Whether a call made for this request came back exhausted.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.state().load(Acquire) & EXHAUSTED != 0
    }

    /// The request is over, but for all that is known its application is still
    /// at work for it.
    pub fn abandon(mut self) {
        self.abandoned = true;
    }

    fn state(&self) -> &AtomicU64 {
        let places = self.table.places.get().map_or(&[][..], |places| places);
        &places[self.place].state
    }
}

impl Drop for TraceInFlight {
    fn drop(&mut self) {
        let mark = if self.abandoned { ABANDONED } else { 0 };
        let one_less = |state: u64| Some((state | mark) - 1);
        let _ = self.state().fetch_update(AcqRel, Relaxed, one_less);
    }
}

#[cfg(test)]
mod storm;
#[cfg(test)]
mod tests;
