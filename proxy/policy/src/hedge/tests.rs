//! When hedges are sent, and what they are worth: callers, endpoints and time
//! simulated, every decision the real one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use super::*;
use crate::balance::{Picked, pick};
use crate::classify::Class;
use crate::endpoint::{InFlight, Report};
use crate::snapshot::{BreakerPolicy, TrafficPolicy};
use crate::table::LivePort;
use crate::testing::{endpoint, millis, seconds, service_port, start};

fn p95() -> HedgePolicy {
    HedgePolicy {
        delay: HedgeDelay::Percentile(95),
        max_percent: 5,
        methods: vec![Method::GET],
    }
}

#[test]
fn a_fixed_delay_needs_no_samples_and_a_quantile_does() {
    let start = start();
    let fixed = HedgePolicy {
        delay: HedgeDelay::After(millis(50)),
        ..p95()
    };
    let hedging = Hedging::new(&fixed, start);
    assert_eq!(hedging.delay(&fixed), Some(millis(50)));
    assert_eq!(hedging.delay(&p95()), None);
    (0..64).for_each(|_| hedging.measured(&fixed, millis(4), start));
    assert_eq!(
        hedging.delay(&p95()),
        None,
        "nothing is measured for a fixed delay"
    );
    (0..64).for_each(|_| hedging.measured(&p95(), millis(4), start));
    assert!(
        hedging
            .delay(&p95())
            .is_some_and(|delay| delay >= millis(4))
    );
}

#[test]
fn hedges_stay_within_their_share_and_the_retry_budget() {
    let start = start();
    let plenty = BudgetPolicy {
        percent: 100,
        min_per_second: 100,
        ..BudgetPolicy::default()
    };
    let hedging = Hedging::new(&p95(), start);
    let retries = Budget::new(plenty, start);
    assert!(!hedging.spend(&retries, start), "no request, no hedge");
    (0..1000).for_each(|_| hedging.request(start));
    assert_eq!(
        (0..1000).filter(|_| hedging.spend(&retries, start)).count(),
        50
    );
    let least = BudgetPolicy {
        percent: 0,
        min_per_second: 1,
        ..BudgetPolicy::default()
    };
    let hedging = Hedging::new(&p95(), start);
    let retries = Budget::new(least, start);
    (0..1000).for_each(|_| hedging.request(start));
    assert_eq!(
        (0..1000).filter(|_| hedging.spend(&retries, start)).count(),
        10
    );
}

#[test]
fn a_request_counts_once_however_often_it_is_tried() {
    let start = start();
    let policy = Arc::new(TrafficPolicy {
        hedge: Some(p95()),
        ..TrafficPolicy::default()
    });
    let hedging = Hedging::new(&p95(), start);
    let plenty = BudgetPolicy {
        percent: 100,
        min_per_second: 100,
        ..BudgetPolicy::default()
    };
    let retries = Budget::new(plenty, start);
    for _ in 0..100 {
        let mut attempts = Attempts::begin(&policy, &Method::GET, false);
        for nth in 0..4 {
            assert_eq!(hedging.begins(&attempts, start), nth == 0);
            attempts.sent_to(nth);
        }
    }
    assert_eq!(
        (0..100).filter(|_| hedging.spend(&retries, start)).count(),
        5
    );
}

#[test]
fn outcomes_have_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = HedgeOutcome::ALL.map(HedgeOutcome::as_str).into();
    assert_eq!(names.len(), HedgeOutcome::ALL.len());
}

/// What becomes of one run.
struct Figures {
    p50: Duration,
    p99: Duration,
    /// Tries beyond one for each request, as a share of the requests.
    extra: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives,
    Hedges(usize),
    /// The first try of a request, or its hedge.
    Answers(usize, usize),
}

#[derive(Default)]
struct Request {
    begun: Duration,
    tries: Vec<(usize, InFlight)>,
    done: bool,
}

struct Simulation {
    live: LivePort,
    hedging: Option<Hedging>,
    retries: Budget,
    start: Instant,
    rng: fastrand::Rng,
    events: BinaryHeap<Reverse<(Duration, Event)>>,
    requests: Vec<Request>,
    service_time: fn(&mut fastrand::Rng, Duration) -> Duration,
    latencies: Vec<Duration>,
    sent: usize,
}

/// Requests of one run, 200 a second.
const REQUESTS: usize = 20_000;
const EVERY: Duration = Duration::from_millis(5);

impl Simulation {
    fn run(
        seed: u64,
        hedged: bool,
        service_time: fn(&mut fastrand::Rng, Duration) -> Duration,
    ) -> Figures {
        let start = start();
        let endpoints = (0..3).map(|n| endpoint(n, 1, true)).collect();
        let mut run = Self {
            live: LivePort::alone(service_port(80, endpoints), start),
            hedging: hedged.then(|| Hedging::new(&p95(), start)),
            retries: Budget::new(BudgetPolicy::default(), start),
            start,
            rng: fastrand::Rng::with_seed(seed),
            events: BinaryHeap::from([Reverse((Duration::ZERO, Event::Arrives))]),
            requests: Vec::new(),
            service_time,
            latencies: Vec::new(),
            sent: 0,
        };
        while let Some(Reverse((at, event))) = run.events.pop() {
            match event {
                Event::Arrives => run.arrives(at),
                Event::Hedges(request) => run.hedges(request, at),
                Event::Answers(request, which) => run.answers(request, which, at),
            }
        }
        run.figures()
    }

    fn arrives(&mut self, at: Duration) {
        let now = self.start + at;
        let request = self.requests.len();
        self.requests.push(Request {
            begun: at,
            ..Request::default()
        });
        self.retries.request(now);
        self.send(request, at);
        if let Some(hedging) = &self.hedging {
            hedging.request(now);
            if let Some(delay) = hedging.delay(&p95()) {
                self.events
                    .push(Reverse((at + delay, Event::Hedges(request))));
            }
        }
        if self.requests.len() < REQUESTS {
            self.events.push(Reverse((at + EVERY, Event::Arrives)));
        }
    }

    fn hedges(&mut self, request: usize, at: Duration) {
        let now = self.start + at;
        let hedging = self.hedging.as_ref().expect("only where there is hedging");
        if !self.requests[request].done && hedging.spend(&self.retries, now) {
            self.send(request, at);
        }
    }

    fn send(&mut self, request: usize, at: Duration) {
        let tried: Vec<usize> = self.requests[request]
            .tries
            .iter()
            .map(|one| one.0)
            .collect();
        let picked = pick(
            &self.live.rotation,
            &tried,
            false,
            self.start + at,
            &mut self.rng,
        );
        let Picked {
            index, in_flight, ..
        } = picked.expect("nothing fails here");
        assert!(!tried.contains(&index), "a hedge goes elsewhere");
        self.requests[request].tries.push((index, in_flight));
        let takes = (self.service_time)(&mut self.rng, at);
        self.events
            .push(Reverse((at + takes, Event::Answers(request, tried.len()))));
        self.sent += 1;
    }

    fn answers(&mut self, request: usize, which: usize, at: Duration) {
        let now = self.start + at;
        let Request { begun, tries, done } = &mut self.requests[request];
        if std::mem::replace(done, true) {
            return;
        }
        let took = at - *begun;
        self.latencies.push(took);
        if let Some(hedging) = &self.hedging {
            hedging.measured(&p95(), took, now);
        }
        for (number, (_, mut in_flight)) in tries.drain(..).enumerate() {
            if number == which {
                in_flight.first_byte(now);
                let well = Report {
                    class: Class::Success,
                    could_not_connect: false,
                    retry_after: None,
                };
                let _ = in_flight.observe(&well, &BreakerPolicy::default(), now, &mut self.rng);
            } else if number == 0 {
                in_flight.endpoint().outwaited(took, now);
            }
        }
    }

    fn figures(mut self) -> Figures {
        assert_eq!(
            self.latencies.len(),
            REQUESTS,
            "every request is answered once"
        );
        let idle = self.live.states.iter().all(|state| state.pending() == 0);
        assert!(idle, "a loser is no load any more");
        self.latencies.sort_unstable();
        let extra = (self.sent - REQUESTS) as f64 / REQUESTS as f64;
        let at = |share: f64| self.latencies[(REQUESTS as f64 * share) as usize];
        Figures {
            p50: at(0.5),
            p99: at(0.99),
            extra,
        }
    }
}

/// 2 ms, and 3 ms on average beside.
fn usual(rng: &mut fastrand::Rng) -> Duration {
    Duration::from_secs_f64(0.002 - 0.003 * (1.0 - rng.f64()).ln())
}

#[test]
fn one_slow_answer_in_fifty_is_not_waited_for() {
    let slow_at_random = |rng: &mut fastrand::Rng, _| {
        if rng.u32(..50) == 0 {
            millis(300)
        } else {
            usual(rng)
        }
    };
    for seed in 1..=10 {
        let without = Simulation::run(seed, false, slow_at_random);
        let with = Simulation::run(seed, true, slow_at_random);
        println!(
            "seed {seed}: p50 {:?} p99 {:?} without hedging, p50 {:?} p99 {:?} at {:.2} % more load",
            without.p50,
            without.p99,
            with.p50,
            with.p99,
            100.0 * with.extra
        );
        assert!(
            with.p99 * 3 <= without.p99,
            "{:?} {:?}",
            with.p99,
            without.p99
        );
        assert!(with.extra > 0.02 && with.extra <= 0.05, "{}", with.extra);
        assert!(
            with.p50 <= without.p50 + millis(1),
            "the rest is not slowed down"
        );
    }
}

#[test]
fn where_everything_is_slow_hedges_stay_few() {
    // Ten times as long from one moment on: every try is beyond what was measured.
    let all_slow =
        |rng: &mut fastrand::Rng, at: Duration| usual(rng) * if at < seconds(40) { 1 } else { 10 };
    let with = Simulation::run(1, true, all_slow);
    println!("{:.2} % more load", 100.0 * with.extra);
    assert!(with.extra <= 0.05, "{}", with.extra);
}
