//! A replica of a service: how long its work takes, how much of it is done at
//! once, what is wrong with it when, and what it saw.
//!
//! What goes wrong stands in its schedule from the start. So all that a
//! request meets is known when it comes, and nothing needs to be interrupted.
//! What a caller gave up is worked off all the same: cancelled work is work.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Method;

use crate::clock::Clock;
use crate::proxy::Proxy;

/// What takes no work: an error said at once, or the head of a body.
const AT_ONCE: Duration = Duration::from_millis(1);

/// How a server is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    Up,
    /// Its process is gone: what was in flight is reset, connects are refused.
    Refuses,
    /// It finishes what is in flight and takes nothing more.
    Drains,
    /// It is stopped, its kernel goes on accepting connections.
    Hangs,
    /// Packets are lost both ways.
    Unreachable,
    /// It answers a share of its requests with an error, at once.
    Answers {
        status: u16,
        percent: u32,
    },
    /// Its bodies end by a reset.
    BreaksBodies,
    /// Its work takes so many times longer.
    Slow(f64),
}

/// What a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// What the service knows by itself.
    Shallow,
    /// What it asks the service below for, if there is one.
    Deep,
    /// What every server answers with 500.
    Poisoned,
}

/// A request on its way.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) route: Route,
}

/// What a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A head; its body follows.
    Head {
        status: u16,
        /// Marked by the sidecar: what was asked for further down was asked for in vain.
        exhausted: bool,
        breaks: bool,
    },
    /// The connection is reset.
    Reset,
    /// GOAWAY below the stream.
    Unprocessed,
}

/// What a server is like.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Work takes at least this long,
    pub(crate) least: Duration,
    /// and on top of it, exponentially distributed, this long on the mean.
    pub(crate) mean: Duration,
    /// Requests worked on at once; others queue.
    pub(crate) capacity: usize,
    /// Who would queue longer is answered 503.
    pub(crate) patience: Duration,
    /// What it is like from when on; up before.
    pub(crate) schedule: Vec<(Duration, Mode)>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            least: Duration::from_millis(2),
            mean: Duration::from_millis(8),
            capacity: 64,
            patience: Duration::from_secs(1),
            schedule: Vec::new(),
        }
    }
}

impl Plan {
    /// In `mode` from `from` to `to`.
    pub(crate) fn during(mut self, mode: Mode, from: Duration, to: Duration) -> Self {
        self.schedule.extend([(from, mode), (to, Mode::Up)]);
        self
    }
}

/// A request that came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    /// Since the start.
    pub(crate) at: Duration,
    /// Which proxy sent it.
    pub(crate) from: usize,
}

/// See the module.
pub(crate) struct Server {
    clock: Clock,
    pub(crate) address: SocketAddr,
    plan: Plan,
    /// When each place is free.
    places: RefCell<BinaryHeap<Reverse<Instant>>>,
    rng: RefCell<fastrand::Rng>,
    below: Option<Rc<Proxy>>,
    seen: RefCell<Vec<Seen>>,
    overloads: Cell<usize>,
}

impl Server {
    /// `below`: by it its application asks another service for what is [`Route::Deep`].
    pub(crate) fn new(
        clock: &Clock,
        address: SocketAddr,
        plan: Plan,
        below: Option<Rc<Proxy>>,
        seed: u64,
    ) -> Rc<Self> {
        let places = vec![Reverse(clock.now()); plan.capacity];
        Rc::new(Self {
            clock: clock.clone(),
            address,
            plan,
            places: RefCell::new(places.into()),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            below,
            seen: RefCell::default(),
            overloads: Cell::new(0),
        })
    }

    /// How it is now.
    pub(crate) fn mode(&self) -> Mode {
        self.mode_at(self.clock.elapsed())
    }

    fn mode_at(&self, at: Duration) -> Mode {
        let begun = self
            .plan
            .schedule
            .iter()
            .rev()
            .find(|(from, _)| *from <= at);
        begun.map_or(Mode::Up, |(_, mode)| *mode)
    }

    /// When that changes after `at`, since the start.
    pub(crate) fn changes_after(&self, at: Duration) -> Option<Duration> {
        let mut changes = self.plan.schedule.iter().map(|(from, _)| *from);
        changes.find(|from| *from > at)
    }

    /// How often it has ended its connections until `at`.
    pub(crate) fn incarnation(&self, at: Duration) -> usize {
        let begun = self.plan.schedule.iter().filter(|(from, _)| *from <= at);
        begun
            .filter(|(_, mode)| matches!(mode, Mode::Refuses | Mode::Drains))
            .count()
    }

    /// Every request that came.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.borrow().clone()
    }

    /// Requests it turned away since too many queued.
    pub(crate) fn overloads(&self) -> usize {
        self.overloads.get()
    }

    /// Answers a request that has arrived.
    pub(crate) async fn serve(&self, from: usize, request: &Request) -> Reply {
        let mode = self.mode();
        if mode == Mode::Drains {
            return Reply::Unprocessed;
        }
        let at = self.clock.elapsed();
        self.seen.borrow_mut().push(Seen { at, from });
        let fails = |percent| self.rng.borrow_mut().u32(..100) < percent;
        match mode {
            Mode::Refuses => return Reply::Reset,
            Mode::Answers { status, percent } if fails(percent) => return self.says(status).await,
            _ if request.route == Route::Poisoned => return self.says(500).await,
            _ => {}
        }
        let Some(done) = self.take_place(mode) else {
            self.overloads.set(self.overloads.get() + 1);
            return self.says(503).await;
        };
        if !self.works_until(done).await {
            return Reply::Reset;
        }
        let below = self.below.as_ref();
        let (status, exhausted) = match below.filter(|_| request.route == Route::Deep) {
            None => (200, false),
            Some(sidecar) => {
                let answer = Box::pin(sidecar.handle(request)).await;
                (if answer.is_ok() { 200 } else { 503 }, answer.exhausted)
            }
        };
        Reply::Head {
            status,
            exhausted,
            breaks: mode == Mode::BreaksBodies,
        }
    }

    async fn says(&self, status: u16) -> Reply {
        self.clock.sleep(AT_ONCE).await;
        Reply::Head {
            status,
            exhausted: false,
            breaks: false,
        }
    }

    /// The first free place; until when it is taken.
    fn take_place(&self, mode: Mode) -> Option<Instant> {
        let now = self.clock.now();
        let mut places = self.places.borrow_mut();
        let Reverse(free) = *places.peek()?;
        let begins = free.max(now);
        if begins - now > self.plan.patience {
            return None;
        }
        let factor = if let Mode::Slow(factor) = mode {
            factor
        } else {
            1.0
        };
        let draw = -(1.0 - self.rng.borrow_mut().f64()).ln();
        let takes = self.plan.least + self.plan.mean.mul_f64(draw);
        let done = begins + takes.mul_f64(factor);
        places.pop();
        places.push(Reverse(done));
        Some(done)
    }

    /// Works, as far as its schedule lets it. Whether it came to the end.
    async fn works_until(&self, done: Instant) -> bool {
        let mut done = done;
        let mut at = self.clock.elapsed();
        loop {
            let next = self.changes_after(at);
            match (self.mode_at(at), next) {
                (Mode::Refuses, _) => {
                    self.clock.sleep_until(self.clock.at(at)).await;
                    return false;
                }
                (Mode::Hangs | Mode::Unreachable, None) => std::future::pending().await,
                (Mode::Hangs | Mode::Unreachable, Some(next)) => done += next - at,
                _ => {}
            }
            match next {
                Some(next) if self.clock.at(next) < done => at = next,
                _ => break,
            }
        }
        self.clock.sleep_until(done).await;
        true
    }
}
