//! A small world in virtual time: callers that come whether or not they are
//! served and never ask twice, this module's decisions, and an application
//! of so many places with a queue without a bound behind them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::super::*;
use super::id;
use crate::testing::start;

/// A stream of requests.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) name: &'static str,
    /// Requests per second, at random moments.
    pub(super) rate: f64,
    pub(super) criticality: Criticality,
}

/// How long the application takes for one request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Service {
    Always(Duration),
    /// Exponentially distributed, with this mean.
    Random(Duration),
}

#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) callers: Vec<Caller>,
    pub(super) places: usize,
    pub(super) service: Service,
    /// Callers wait this long; an answer that comes later is none. The
    /// application does not know, and works for nobody.
    pub(super) patience: Duration,
    /// A tenth of the load comes for this long, before anything is counted.
    pub(super) calm: Duration,
    pub(super) lasts: Duration,
    pub(super) policy: Option<ServerPolicy>,
    pub(super) seed: u64,
}

/// What one caller got.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    pub(super) sent: usize,
    pub(super) answered: Vec<Duration>,
    pub(super) shed: usize,
}

impl Tally {
    pub(super) fn share(&self) -> f64 {
        self.answered.len() as f64 / self.sent.max(1) as f64
    }
}

/// The p-th percentile.
pub(super) fn percentile(mut durations: Vec<Duration>, p: f64) -> Duration {
    durations.sort_unstable();
    let at = (durations.len() as f64 * p / 100.0) as usize;
    let last = durations.len().saturating_sub(1);
    durations.get(at.min(last)).copied().unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives(usize),
    Done(usize),
    TimesOut(usize),
}

struct Request {
    caller: usize,
    begun: Instant,
    sent: Option<Instant>,
    admitted: Option<Admitted>,
    waits: Option<Waits>,
}

struct Run<'w> {
    world: &'w World,
    server: Arc<ServerState>,
    events: BinaryHeap<Reverse<(Instant, u64, Event)>>,
    order: u64,
    requests: Vec<Request>,
    waiting: Vec<usize>,
    busy: usize,
    behind: VecDeque<usize>,
    tallies: Vec<Tally>,
    counts_from: Instant,
    rng: fastrand::Rng,
}

impl World {
    /// Lets it go on to its end; one tally for each caller.
    pub(super) fn run(&self) -> (Vec<Tally>, ServerLoad) {
        let begin = start();
        let server = Arc::new(ServerState::new(begin, 7));
        server.set_policy(self.policy.as_ref());
        let mut run = Run {
            world: self,
            server,
            events: BinaryHeap::new(),
            order: 0,
            requests: Vec::new(),
            waiting: Vec::new(),
            busy: 0,
            behind: VecDeque::new(),
            tallies: vec![Tally::default(); self.callers.len()],
            counts_from: begin + self.calm,
            rng: fastrand::Rng::with_seed(self.seed),
        };
        for caller in 0..self.callers.len() {
            run.next_arrival(caller, begin);
        }
        while let Some(Reverse((now, _, event))) = run.events.pop() {
            if now > begin + self.calm + self.lasts {
                break;
            }
            run.happens(event, now);
        }
        let load = run.server.load();
        (run.tallies, load)
    }
}

impl Run<'_> {
    fn at(&mut self, when: Instant, event: Event) {
        self.order += 1;
        self.events.push(Reverse((when, self.order, event)));
    }

    fn random(&mut self, mean: f64) -> Duration {
        Duration::from_secs_f64(-mean * (1.0 - self.rng.f64()).ln())
    }

    fn next_arrival(&mut self, caller: usize, now: Instant) {
        let rate = self.world.callers[caller].rate;
        let wait = self.random(1.0 / rate);
        let next = match now + wait * 10 {
            early if early < self.counts_from => early,
            _ => now.max(self.counts_from) + wait,
        };
        self.at(next, Event::Arrives(caller));
    }

    fn happens(&mut self, event: Event, now: Instant) {
        match event {
            Event::Arrives(caller) => {
                self.next_arrival(caller, now);
                self.arrives(caller, now);
            }
            Event::Done(request) => self.done(request, now),
            Event::TimesOut(request) => {
                if let Some(mut waits) = self.requests[request].waits.take() {
                    let decided = waits.give_up(now);
                    self.waiting.retain(|waiting| *waiting != request);
                    self.decided(request, decided, now);
                }
            }
        }
        self.look_at_those_who_wait(now);
    }

    fn arrives(&mut self, caller: usize, now: Instant) {
        self.tallies[caller].sent += usize::from(now >= self.counts_from);
        let Caller {
            name, criticality, ..
        } = self.world.callers[caller];
        let request = self.requests.len();
        self.requests.push(Request {
            caller,
            begun: now,
            sent: None,
            admitted: None,
            waits: None,
        });
        let Some(policy) = &self.world.policy else {
            self.decided(request, Ok(Admitted::default()), now);
            return;
        };
        let identity = id(name);
        let headers = HeaderMap::new();
        let asking = Asking {
            caller: &|| self.server.caller(Some(&identity)),
            identity: Some(&identity),
            source: None,
            headers: Some(&headers),
            criticality,
        };
        match self.server.admit(policy, &asking, now) {
            Ok(Admission::Admitted(admitted)) => self.decided(request, Ok(admitted), now),
            Ok(Admission::Waits(waits)) => {
                self.at(waits.until(), Event::TimesOut(request));
                self.requests[request].waits = Some(waits);
                self.waiting.push(request);
            }
            Err(refused) => self.decided(request, Err(refused), now),
        }
    }

    fn look_at_those_who_wait(&mut self, now: Instant) {
        for request in std::mem::take(&mut self.waiting) {
            let Some(waits) = &mut self.requests[request].waits else {
                continue;
            };
            match waits.poll(&Context::from_waker(Waker::noop()), now) {
                Poll::Pending => self.waiting.push(request),
                Poll::Ready(decided) => {
                    self.requests[request].waits = None;
                    self.decided(request, decided, now);
                }
            }
        }
    }

    fn decided(&mut self, request: usize, decided: Result<Admitted, Refused>, now: Instant) {
        match decided {
            Err(_) if self.requests[request].begun < self.counts_from => {}
            Err(_) => self.tallies[self.requests[request].caller].shed += 1,
            Ok(admitted) => {
                let one = &mut self.requests[request];
                one.admitted = Some(admitted);
                one.sent = Some(now);
                if self.busy < self.world.places {
                    self.works(request, now);
                } else {
                    self.behind.push_back(request);
                }
            }
        }
    }

    fn works(&mut self, request: usize, now: Instant) {
        self.busy += 1;
        let takes = match self.world.service {
            Service::Always(takes) => takes,
            Service::Random(mean) => self.random(mean.as_secs_f64()),
        };
        self.at(now + takes, Event::Done(request));
    }

    fn done(&mut self, request: usize, now: Instant) {
        self.busy -= 1;
        let one = &mut self.requests[request];
        let took = now - one.begun;
        if let (Some(mut admitted), Some(sent)) = (one.admitted.take(), one.sent) {
            admitted.answered(now - sent, now);
        }
        if took <= self.world.patience && one.begun >= self.counts_from {
            let caller = one.caller;
            self.tallies[caller].answered.push(took);
        }
        if let Some(next) = self.behind.pop_front() {
            self.works(next, now);
        }
    }
}
