//! A retry storm in virtual time: a chain of services, each of which tries
//! thrice, before one that fails everything.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use http::{Method, StatusCode};

use super::*;
use crate::budget::Budget;
use crate::classify::Outcome;
use crate::retry::{Attempts, Ended, Next, Pushback};
use crate::snapshot::{BackoffPolicy, BudgetPolicy, RetryOn, RetryPolicy, TrafficPolicy};
use crate::testing::{millis, seconds, seeded, start};

/// From one service to the next, and to the fourth, which fails.
const HOPS: usize = 4;
const LATENCY: Duration = Duration::from_millis(2);
const LASTS: Duration = Duration::from_secs(20);

/// The sidecar of a service that calls the next one.
struct Caller {
    budget: Budget,
    traces: Arc<TracesInFlight>,
}

/// A call from one service to the next, with all of its tries.
struct Call {
    /// Whose sidecar makes it.
    hop: usize,
    /// The call that it is made for.
    above: Option<usize>,
    trace: Option<TraceId>,
    attempts: Attempts,
    /// The request that it is made for, as the sidecar keeps it.
    kept: Option<TraceInFlight>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A request has come to the sidecar of `hop`, whose application makes a call for it.
    Calls {
        hop: usize,
        above: Option<usize>,
        trace: u64,
    },
    /// A try is sent.
    Tries(usize),
    /// It has failed; `marked`: by somebody who had retried in vain.
    Fails { call: usize, marked: bool },
}

struct Storm {
    policy: Arc<TrafficPolicy>,
    /// The applications pass `traceparent` on.
    forwards: bool,
    callers: Vec<Caller>,
    calls: Vec<Call>,
    events: BinaryHeap<Reverse<(Instant, usize, Event)>>,
    happened: usize,
    /// Requests that came to the last service.
    load: usize,
}

impl Storm {
    fn new(budget: BudgetPolicy, forwards: bool, start: Instant) -> Self {
        let on = RetryOn {
            statuses: vec![StatusCode::SERVICE_UNAVAILABLE],
            ..RetryOn::default()
        };
        let backoff = BackoffPolicy {
            base: millis(25),
            max: millis(250),
        };
        let retry = RetryPolicy {
            attempts: 2,
            on,
            methods: vec![Method::GET],
            backoff,
            buffer_limit: 0,
        };
        let caller = |hop| Caller {
            budget: Budget::new(budget, start),
            traces: TracesInFlight::new(hop, start),
        };
        Self {
            policy: Arc::new(TrafficPolicy {
                retry: Some(retry),
                ..TrafficPolicy::default()
            }),
            forwards,
            callers: (0..HOPS as u64).map(caller).collect(),
            calls: Vec::new(),
            events: BinaryHeap::new(),
            happened: 0,
            load: 0,
        }
    }

    fn happens(&mut self, at: Instant, event: Event) {
        self.happened += 1;
        self.events.push(Reverse((at, self.happened, event)));
    }

    /// The load on the last service, for each request offered at `rate` a second.
    fn amplification(mut self, rate: u32, start: Instant) -> f64 {
        let offered = rate * LASTS.as_secs() as u32;
        for number in 0..offered {
            let trace = u64::from(number) + 1;
            let first = Event::Calls {
                hop: 0,
                above: None,
                trace,
            };
            self.happens(start + LASTS * number / offered, first);
        }
        let mut rng = seeded();
        while let Some(Reverse((now, _, event))) = self.events.pop() {
            match event {
                Event::Calls { hop, above, trace } => self.calls(hop, above, trace, now),
                Event::Tries(call) => self.tries(call, now),
                Event::Fails { call, marked } => self.fails(call, marked, now, &mut rng),
            }
        }
        self.load as f64 / f64::from(offered)
    }

    fn calls(&mut self, hop: usize, above: Option<usize>, number: u64, now: Instant) {
        let caller = &self.callers[hop];
        caller.budget.request(now);
        let trace = self.forwards.then(|| tests::trace(number));
        // The first of them is called by nobody in the mesh.
        let kept = trace
            .filter(|_| above.is_some())
            .and_then(|trace| caller.traces.enter(trace, None, now));
        self.calls.push(Call {
            hop,
            above,
            trace,
            attempts: Attempts::begin(&self.policy, &Method::GET, false),
            kept,
        });
        self.happens(now, Event::Tries(self.calls.len() - 1));
    }

    fn tries(&mut self, number: usize, now: Instant) {
        let call = &mut self.calls[number];
        call.attempts.sent_to(0);
        let hop = call.hop + 1;
        let arrives = if hop == HOPS {
            self.load += 1;
            Event::Fails {
                call: number,
                marked: false,
            }
        } else {
            Event::Calls {
                hop,
                above: Some(number),
                trace: call.trace.map_or(1, |trace| trace.bits() as u64),
            }
        };
        self.happens(now + LATENCY, arrives);
    }

    fn fails(&mut self, number: usize, marked: bool, now: Instant, rng: &mut fastrand::Rng) {
        let call = &mut self.calls[number];
        let caller = &self.callers[call.hop];
        let ended = Ended {
            outcome: Outcome::Response {
                status: StatusCode::SERVICE_UNAVAILABLE,
                grpc_status: None,
                flag: None,
            },
            replayable: true,
            untouched: true,
            pushback: Pushback::None,
            exhausted_below: marked,
        };
        let why = match call.attempts.after(&ended, None, &caller.budget, now, rng) {
            Next::RetryAfter { wait, .. } => {
                return self.happens(now + wait, Event::Tries(number));
            }
            Next::Return(why) => why,
        };
        if let Some(trace) = call.trace.filter(|_| why.marks_exhausted()) {
            caller.traces.exhaust(trace);
        }
        // The application answers with the failure that it was given.
        let kept = call.kept.take();
        let marked = kept.is_some_and(|kept| kept.is_exhausted());
        if let Some(above) = call.above {
            let fails = Event::Fails {
                call: above,
                marked,
            };
            self.happens(now + LATENCY, fails);
        }
    }
}

#[test]
fn a_storm_of_retries_does_not_multiply() {
    let start = start();
    let budget = BudgetPolicy::default();
    let boundless = BudgetPolicy {
        percent: 1_000_000,
        ..budget
    };
    for rate in [100, 200] {
        let guarded = Storm::new(budget, true, start).amplification(rate, start);
        let budgets = Storm::new(budget, false, start).amplification(rate, start);
        println!("{rate}/s: {guarded:.3}x with traceparent, {budgets:.3}x by budgets alone");
        assert!((1.1..=1.3).contains(&guarded), "{guarded}");
        // A fifth more at each hop, and one a second.
        assert!((1.9..=2.5).contains(&budgets), "{budgets}");
    }
    let marks = Storm::new(boundless, true, start).amplification(10, start);
    let nothing = Storm::new(boundless, false, start).amplification(10, start);
    println!("without budgets: {marks:.3}x with traceparent, {nothing:.3}x without");
    assert!(
        (marks - 3.0).abs() < 1e-9,
        "the last hop alone retries: {marks}"
    );
    assert!((nothing - 81.0).abs() < 1e-9, "{nothing}");
}

#[test]
fn every_trace_is_forgotten_after_the_storm() {
    let start = start();
    let storm = Storm::new(BudgetPolicy::default(), true, start);
    let callers = storm.callers.iter();
    let kept: Vec<_> = callers.map(|caller| caller.traces.clone()).collect();
    storm.amplification(100, start);
    let now = start + 2 * LASTS + seconds(1);
    for (hop, traces) in kept.iter().enumerate() {
        let found = (1..=2000).filter(|n| traces.find(tests::trace(*n), now).is_some());
        assert_eq!(found.count(), 0, "hop {hop}");
    }
}
