//! How many requests are at the application at a time, and who waits to be.
//!
//! What is in flight and what waits share one atomic word, so that a place is
//! taken, and given back, in one step and without a lock as long as nobody
//! waits. Whoever gives one back while somebody does hands it on under the
//! room's lock. One word is also why nobody is forgotten: either the one who
//! leaves sees the one who came to wait, or that one sees the free place.
//!
//! Shared by the workers. It neither sleeps nor knows a runtime: who waits is
//! a [`Waiting`], polled by the proxy with a timer of its own beside it.

use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::sync::Mutex;

use super::criticality::Criticality;
use super::gradient::{Gradient, WINDOW, WINDOW_SAMPLES, Window};
use super::queue::{Offered, Queue, Ticket};
use super::{Concurrency, ServerPolicy, Shed};
use crate::since;

/// Of the limit: how many may wait, where no policy says it …
const QUEUE_SHARE: u32 = 4;
/// … and at least so many, for a burst that matters.
const QUEUE_LEAST: u32 = 10;

/// Of the limit, what is kept free for those that are critical, as long as any come …
const RESERVE_SHARE: u32 = 10;
/// … and for so long after the last one.
const RESERVE_FOR: Duration = Duration::from_secs(10);

/// One that waits, in the upper half of the load.
const WAITS: u64 = 1 << 32;

const fn in_flight(load: u64) -> u32 {
    load as u32
}

const fn waiting(load: u64) -> u32 {
    (load >> 32) as u32
}

/// The samples of a window: a count above, microseconds below.
const SAMPLE: u64 = 1 << MICROS_BITS;
const MICROS_BITS: u32 = 44;
/// Longer is counted as this, so that the sum has room for many.
const LONGEST_SAMPLE: Duration = Duration::from_secs(60);

/// The places of one port.
#[derive(Debug)]
pub(super) struct Slots {
    epoch: Instant,
    load: AtomicU64,
    limit: AtomicU32,
    /// Places that only critical requests may take.
    reserve: AtomicU32,
    /// When one last came, in nanoseconds since the epoch.
    critical_came: AtomicU64,
    room: Mutex<Queue<Arc<Seat>>>,
    samples: AtomicU64,
    most: AtomicU32,
    /// When the window may end, in nanoseconds since the epoch.
    ends: AtomicU64,
    rule: Mutex<Rule>,
}

/// How the limit is found; looked at once per window.
#[derive(Debug)]
struct Rule {
    concurrency: Concurrency,
    gradient: Option<Gradient>,
}

/// What is asked of one that waits.
#[derive(Debug, Default)]
struct Seat(Mutex<Seated>);

#[derive(Debug, Default)]
enum Seated {
    #[default]
    Alone,
    Watched(Waker),
    /// A place was handed to it, which it has yet to take up.
    Called,
    Displaced,
}

impl Seat {
    /// Tells it what came; the waker is for after every lock.
    fn tell(&self, said: Seated) -> Option<Waker> {
        match std::mem::replace(&mut *self.0.lock(), said) {
            Seated::Watched(waker) => Some(waker),
            _ => None,
        }
    }
}

/// What is decided of a request.
#[derive(Debug)]
pub(super) enum Entry {
    Placed(Place),
    Waits(Waiting),
    Shed(Shed),
}

/// A request at the application; the place is given back when dropped.
#[derive(Debug)]
#[must_use = "the place is given back when this is dropped"]
pub(super) struct Place {
    slots: Arc<Slots>,
    since: Instant,
    sampled: bool,
}

/// A request that waits for a place. Dropped, it waits no longer.
#[derive(Debug)]
pub(super) struct Waiting {
    slots: Arc<Slots>,
    seat: Arc<Seat>,
    ticket: Ticket,
    until: Instant,
    over: bool,
}

impl Slots {
    pub(super) fn new(epoch: Instant) -> Arc<Self> {
        Arc::new(Self {
            epoch,
            load: AtomicU64::new(0),
            limit: AtomicU32::new(u32::MAX),
            reserve: AtomicU32::new(0),
            critical_came: AtomicU64::new(0),
            room: Mutex::new(Queue::new()),
            samples: AtomicU64::new(0),
            most: AtomicU32::new(0),
            ends: AtomicU64::new(0),
            rule: Mutex::new(Rule {
                concurrency: Concurrency::Off,
                gradient: None,
            }),
        })
    }

    /// Limit, in flight, waiting.
    pub(super) fn in_use(&self) -> (u32, u32, u32) {
        let load = self.load.load(Ordering::Relaxed);
        (
            self.limit.load(Ordering::Relaxed),
            in_flight(load),
            waiting(load),
        )
    }

    /// Takes over a policy. What an adaptive limit has learnt stays, as long
    /// as the limit stays adaptive.
    pub(super) fn set_policy(&self, concurrency: Concurrency) {
        let mut rule = self.rule.lock();
        if rule.concurrency == concurrency {
            return;
        }
        let Rule { gradient, .. } = &mut *rule;
        let limit = match concurrency {
            Concurrency::Off => u32::MAX,
            Concurrency::Fixed { max } => max,
            Concurrency::Adaptive(policy) => gradient
                .get_or_insert_with(|| Gradient::new(policy))
                .limit(policy),
        };
        if !matches!(concurrency, Concurrency::Adaptive(_)) {
            rule.gradient = None;
        }
        rule.concurrency = concurrency;
        self.limit.store(limit, Ordering::Release);
        drop(rule);
        self.hand_on();
    }

    /// Asks for a place.
    pub(super) fn enter(
        self: &Arc<Self>,
        policy: &ServerPolicy,
        criticality: Criticality,
        now: Instant,
    ) -> Entry {
        self.reserve_for(criticality, now);
        if self.occupy(criticality) {
            return Entry::Placed(self.place(now));
        }
        let limit = self.limit.load(Ordering::Relaxed);
        let room = policy
            .queue
            .unwrap_or_else(|| (limit / QUEUE_SHARE).max(QUEUE_LEAST));
        // Made only for who waits: turning away has to be cheap.
        let mut seat: Option<Arc<Seat>> = None;
        let take_seat = || Arc::clone(seat.get_or_insert_default());
        let mut queue = self.room.lock();
        let (ticket, displaced) = match queue.offer(criticality, room as usize, take_seat) {
            Offered::Full => return Entry::Shed(Shed::QueueFull),
            Offered::Waits(ticket) => {
                self.load.fetch_add(WAITS, Ordering::AcqRel);
                (ticket, None)
            }
            Offered::Displaces(ticket, displaced) => (ticket, Some(displaced)),
        };
        drop(queue);
        if let Some(waker) = displaced.and_then(|seat| seat.tell(Seated::Displaced)) {
            waker.wake();
        }
        // A place may have come free since.
        self.hand_on();
        Entry::Waits(Waiting {
            slots: Arc::clone(self),
            seat: seat.unwrap_or_default(),
            ticket,
            until: now + policy.queue_timeout,
            over: false,
        })
    }

    fn place(self: &Arc<Self>, now: Instant) -> Place {
        Place {
            slots: Arc::clone(self),
            since: now,
            sampled: false,
        }
    }

    /// Keeps a few places for critical requests while such requests come.
    fn reserve_for(&self, criticality: Criticality, now: Instant) {
        let at = since::nanos(now.saturating_duration_since(self.epoch));
        let came = self.critical_came.load(Ordering::Relaxed);
        let reserve = if criticality == Criticality::Critical {
            self.critical_came.store(at, Ordering::Relaxed);
            self.limit.load(Ordering::Relaxed) / RESERVE_SHARE
        } else if at.saturating_sub(came) > since::nanos(RESERVE_FOR) {
            0
        } else {
            return;
        };
        let before = self.reserve.load(Ordering::Relaxed);
        if before != reserve {
            self.reserve.store(reserve, Ordering::Release);
        }
        if before > reserve {
            self.hand_on();
        }
    }

    /// How many may be in flight before one of these has to wait.
    fn limit_of(&self, criticality: Criticality) -> u32 {
        let limit = self.limit.load(Ordering::Acquire);
        match criticality {
            Criticality::Critical => limit,
            Criticality::Default | Criticality::Sheddable => {
                limit.saturating_sub(self.reserve.load(Ordering::Acquire))
            }
        }
    }

    /// Takes a free place, where nobody waits for it.
    fn occupy(&self, criticality: Criticality) -> bool {
        let limit = self.limit_of(criticality);
        let one_more =
            |load: u64| (in_flight(load) < limit && waiting(load) == 0).then(|| load + 1);
        self.load
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
            .is_ok()
    }

    /// Hands free places to those who wait.
    fn hand_on(&self) {
        loop {
            let mut queue = self.room.lock();
            // Who waits is counted under the lock: the count says no more than this does.
            let Some(criticality) = queue.first() else {
                return;
            };
            let limit = self.limit_of(criticality);
            let called = |load: u64| (in_flight(load) < limit).then(|| load + 1 - WAITS);
            let free = self
                .load
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, called);
            if free.is_err() {
                return;
            }
            let waker = queue.next().and_then(|seat| seat.tell(Seated::Called));
            drop(queue);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn leave(&self) {
        let before = self.load.fetch_sub(1, Ordering::AcqRel);
        if waiting(before) > 0 {
            self.hand_on();
        }
    }

    fn sample(&self, took: Duration, now: Instant) {
        let micros = since::nanos(took.min(LONGEST_SAMPLE)) / 1000;
        let load = in_flight(self.load.load(Ordering::Relaxed));
        self.most.fetch_max(load, Ordering::Relaxed);
        let before = self.samples.fetch_add(SAMPLE | micros, Ordering::Relaxed);
        if (before >> MICROS_BITS) + 1 < WINDOW_SAMPLES {
            return;
        }
        let at = since::nanos(now.saturating_duration_since(self.epoch));
        if at < self.ends.load(Ordering::Relaxed) {
            return;
        }
        // Whoever finds it locked leaves it to the one who looks already.
        if let Some(mut rule) = self.rule.try_lock() {
            self.ends
                .store(at + since::nanos(WINDOW), Ordering::Relaxed);
            self.end_window(&mut rule);
            drop(rule);
            // Whoever waits or not: the lock of the room tells both sides, one
            // look at the load might miss who comes now by the old limit.
            self.hand_on();
        }
    }

    fn end_window(&self, rule: &mut Rule) {
        let samples = self.samples.swap(0, Ordering::Relaxed);
        let most = self.most.swap(0, Ordering::Relaxed);
        let count = samples >> MICROS_BITS;
        let (Concurrency::Adaptive(policy), Some(gradient)) =
            (rule.concurrency, &mut rule.gradient)
        else {
            return;
        };
        if count == 0 {
            return;
        }
        let mean = Duration::from_micros((samples & (SAMPLE - 1)) / count);
        gradient.learn(&Window { mean, most }, policy);
        self.limit.store(gradient.limit(policy), Ordering::Release);
    }
}

impl Place {
    /// The head of the answer came, `took` after it was asked for.
    pub(super) fn answered(&mut self, took: Duration, now: Instant) {
        if !std::mem::replace(&mut self.sampled, true) {
            self.slots.sample(took, now);
        }
    }

    /// Nothing is to be learnt of it.
    pub(super) const fn says_nothing(&mut self) {
        self.sampled = true;
    }

    /// It was given up before there was an answer: it would have taken longer
    /// than this, which is worth knowing where this is longer than usual.
    pub(super) fn given_up(&mut self, now: Instant) {
        let took = now.saturating_duration_since(self.since);
        let rule = self.slots.rule.lock();
        let tells = rule.gradient.as_ref().is_some_and(|it| it.is_longer(took));
        drop(rule);
        if tells {
            self.answered(took, now);
        }
    }

    /// Where the limit is adaptive, it is about requests: what a request
    /// became gives the place back.
    pub(super) fn is_adaptive(&self) -> bool {
        matches!(self.slots.rule.lock().concurrency, Concurrency::Adaptive(_))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.slots.leave();
    }
}

impl Waiting {
    /// When it has waited long enough.
    pub(super) const fn until(&self) -> Instant {
        self.until
    }

    /// Whether it was called, or displaced.
    pub(super) fn poll(&mut self, cx: &Context<'_>, now: Instant) -> Poll<Result<Place, Shed>> {
        let mut seated = self.seat.0.lock();
        let decided = match &mut *seated {
            Seated::Called => Ok(()),
            Seated::Displaced => Err(Shed::Displaced),
            Seated::Watched(waker) if waker.will_wake(cx.waker()) => return Poll::Pending,
            waits => {
                *waits = Seated::Watched(cx.waker().clone());
                return Poll::Pending;
            }
        };
        drop(seated);
        self.over = true;
        Poll::Ready(decided.map(|()| self.slots.place(now)))
    }

    /// Its time is over: it has a place now, or none.
    pub(super) fn give_up(&mut self, now: Instant) -> Result<Place, Shed> {
        match self.poll(&Context::from_waker(Waker::noop()), now) {
            Poll::Ready(decided) => decided,
            Poll::Pending => match self.stand_up() {
                true => Ok(self.slots.place(now)),
                false => Err(Shed::QueueTimeout),
            },
        }
    }

    /// Waits no longer; whether it was handed a place before that.
    fn stand_up(&mut self) -> bool {
        self.over = true;
        let mut queue = self.slots.room.lock();
        if queue.remove(self.ticket).is_some() {
            self.slots.load.fetch_sub(WAITS, Ordering::AcqRel);
            return false;
        }
        drop(queue);
        matches!(*self.seat.0.lock(), Seated::Called)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !self.over && self.stand_up() {
            self.slots.leave();
        }
    }
}

#[cfg(test)]
mod tests;
