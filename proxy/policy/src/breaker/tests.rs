//! The breaker as tables of (now, event) → decision, and against a model.

use proptest::prelude::*;

use super::*;
use crate::testing::{millis, seconds, seeded, start};

struct Bench {
    breaker: Breaker,
    record: Record,
    policy: BreakerPolicy,
    rng: fastrand::Rng,
    may_open: bool,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        let now = start();
        Self {
            breaker: Breaker::default(),
            record: Record::new(now),
            policy: BreakerPolicy::default(),
            rng: seeded(),
            may_open: true,
            now,
        }
    }

    fn send(&mut self) -> Option<Ticket> {
        self.breaker.admit(self.now).map(|(ticket, _)| ticket)
    }

    fn end(&mut self, ticket: Ticket, class: Class, could_not_connect: bool) -> Option<Transition> {
        let may = self.may_open;
        let observation = Observation {
            ticket,
            class,
            could_not_connect,
        };
        self.breaker.observe(
            &self.record,
            observation,
            &self.policy,
            || may,
            self.now,
            &mut self.rng,
        )
    }

    fn call(&mut self, class: Class) -> Option<Transition> {
        let ticket = self.send().expect("the breaker admits a call");
        self.end(ticket, class, false)
    }

    fn break_it_after(&mut self, failures: u32) {
        for _ in failures..4 {
            assert_eq!(self.call(Class::HardFailure), None);
        }
        assert!(self.call(Class::HardFailure).is_some(), "the fifth opens");
    }

    fn break_it(&mut self, could_not_connect: bool) -> Transition {
        for _ in 0..4 {
            let ticket = self.send().expect("closed");
            assert_eq!(
                self.end(ticket, Class::HardFailure, could_not_connect),
                None
            );
        }
        let ticket = self.send().expect("closed");
        self.end(ticket, Class::HardFailure, could_not_connect)
            .expect("the fifth opens")
    }
}

#[test]
fn opens_after_hard_failures_in_a_row() {
    let mut bench = Bench::new();
    let transition = bench.break_it(false);
    assert_eq!(transition.to, BreakerState::Open);
    assert_eq!(transition.reason, Reason::ConsecutiveFailures { count: 5 });
    assert_eq!(bench.send(), None);
}

#[test]
fn any_success_begins_the_count_anew() {
    let mut bench = Bench::new();
    bench.policy.success_rate = None;
    for _ in 0..20 {
        for class in [Class::HardFailure; 4].into_iter().chain([Class::Success]) {
            assert_eq!(bench.call(class), None);
        }
    }
}

#[test]
fn what_the_request_is_to_blame_for_does_not_open_by_the_first_rule() {
    let mut bench = Bench::new();
    bench.policy.success_rate = None;
    for _ in 0..100 {
        assert_eq!(bench.call(Class::Failure), None);
    }
    bench.policy.consecutive_failures = 0;
    for _ in 0..100 {
        assert_eq!(bench.call(Class::HardFailure), None);
    }
}

#[test]
fn a_probe_that_breaks_after_its_head_takes_its_word_back() {
    let mut bench = Bench::new();
    bench.break_it(false);
    for again in 1u32..=4 {
        bench.now += seconds(60);
        let probe = bench.send().expect("the backoff is over");
        let closed = bench.end(probe, Class::Success, false);
        assert_eq!(closed.map(|t| t.to), Some(BreakerState::Closed));
        let opened = bench.end(probe, Class::HardFailure, false);
        let opened = opened.expect("its body broke");
        assert_eq!(opened.reason, Reason::ProbeFailed);
        let full = seconds(1 << again);
        let open_for = opened.open_for.expect("open");
        assert!(
            open_for > full / 2 && open_for <= full,
            "{open_for:?} of {full:?}"
        );
    }
}

#[test]
fn nobody_else_takes_a_probes_word_back() {
    let mut bench = Bench::new();
    bench.break_it(false);
    bench.now += seconds(60);
    let probe = bench.send().expect("the backoff is over");
    assert!(bench.end(probe, Class::Success, false).is_some());
    let plain = bench.send().expect("closed");
    assert_eq!(bench.end(plain, Class::HardFailure, false), None);
    bench.break_it_after(1);
    assert_eq!(
        bench.end(probe, Class::HardFailure, false),
        None,
        "open for another reason by now"
    );
}

#[test]
fn opens_by_success_rate_with_enough_requests() {
    let mut bench = Bench::new();
    for _ in 0..15 {
        assert_eq!(bench.call(Class::Success), None);
    }
    for _ in 0..4 {
        assert_eq!(bench.call(Class::Failure), None, "nineteen are not judged");
    }
    let transition = bench.call(Class::Failure).expect("15 of 20 is under 80 %");
    assert_eq!(
        transition.reason,
        Reason::SuccessRate {
            successes: 15,
            requests: 20,
            threshold_percent: 80,
        }
    );
    let said = transition.reason.to_string();
    assert_eq!(said, "success rate 75 % of 20 under 80 %");
}

#[test]
fn exactly_the_threshold_holds() {
    let mut bench = Bench::new();
    for class in [Class::Success; 16].into_iter().chain([Class::Failure; 4]) {
        assert_eq!(bench.call(class), None);
    }
}

#[test]
fn the_window_forgets() {
    let mut bench = Bench::new();
    for _ in 0..19 {
        assert_eq!(bench.call(Class::Failure), None);
    }
    bench.now += seconds(10);
    assert_eq!(bench.call(Class::Failure), None);
}

#[test]
fn what_succeeded_before_the_first_failure_counts_in_a_window_of_any_span() {
    for window in [seconds(1), seconds(10), seconds(60)] {
        let mut bench = Bench::new();
        let rule = bench.policy.success_rate.as_mut().expect("a rule");
        rule.window = window;
        for class in [Class::Success; 96].into_iter().chain([Class::Failure; 24]) {
            assert_eq!(bench.call(class), None, "{window:?}: 80 % hold");
        }
        assert!(bench.call(Class::Failure).is_some(), "{window:?}");
    }
}

#[test]
fn by_rate_only_where_the_others_allow() {
    let mut bench = Bench::new();
    bench.may_open = false;
    for _ in 0..40 {
        assert_eq!(bench.call(Class::Failure), None);
    }
    bench.may_open = true;
    assert!(bench.call(Class::Failure).is_some());

    let mut bench = Bench::new();
    bench.may_open = false;
    assert_eq!(
        bench.break_it(false).to,
        BreakerState::Open,
        "hard failures ask nobody"
    );
}

#[test]
fn neither_throttled_nor_neutral_counts() {
    let mut bench = Bench::new();
    for class in [Class::Throttled, Class::Neutral] {
        for _ in 0..100 {
            assert_eq!(bench.call(class), None);
        }
    }
    for _ in 0..4 {
        assert_eq!(bench.call(Class::HardFailure), None);
    }
    assert_eq!(bench.call(Class::Throttled), None);
    assert!(
        bench.call(Class::HardFailure).is_some(),
        "a throttle does not begin the count anew"
    );
}

#[test]
fn half_open_admits_one() {
    let mut bench = Bench::new();
    bench.break_it(false);
    bench.now += seconds(1);
    let (ticket, transition) = bench.breaker.admit(bench.now).expect("the backoff is over");
    let transition = transition.expect("a change of state");
    assert_eq!(
        (transition.from, transition.to),
        (BreakerState::Open, BreakerState::HalfOpen)
    );
    assert!(ticket.is_probe());
    assert_eq!(bench.send(), None);
}

#[test]
fn the_probe_decides() {
    let table = [
        (Class::Success, Some(BreakerState::Closed)),
        (Class::Throttled, Some(BreakerState::Closed)),
        (Class::Failure, Some(BreakerState::Open)),
        (Class::HardFailure, Some(BreakerState::Open)),
        (Class::Neutral, None),
    ];
    for (class, expected) in table {
        let mut bench = Bench::new();
        bench.break_it(false);
        bench.now += seconds(1);
        let ticket = bench.send().expect("a probe");
        assert_eq!(
            bench.end(ticket, class, false).map(|t| t.to),
            expected,
            "{class:?}"
        );
    }
}

#[test]
fn an_undecided_probe_frees_its_slot() {
    let mut bench = Bench::new();
    bench.break_it(false);
    bench.now += seconds(1);
    let ticket = bench.send().expect("a probe");
    bench.breaker.release(ticket, bench.now);
    let next = bench.send().expect("another probe");
    assert!(next.is_probe());
    assert_eq!(bench.send(), None);
}

#[test]
fn what_was_sent_before_opening_is_ignored() {
    let mut bench = Bench::new();
    let old = bench.send().expect("closed");
    bench.break_it(false);
    assert_eq!(bench.end(old, Class::Success, false), None);
    bench.now += seconds(1);
    let probe = bench.send().expect("a probe");
    for class in [Class::Success, Class::HardFailure] {
        assert_eq!(bench.end(old, class, false), None);
    }
    bench.breaker.release(old, bench.now);
    assert_eq!(bench.send(), None, "only its holder frees the slot");
    assert!(bench.end(probe, Class::Success, false).is_some());
    assert_eq!(bench.end(old, Class::HardFailure, false), None);
}

#[test]
fn reopens_for_longer_up_to_the_limit_and_closing_forgets() {
    let mut bench = Bench::new();
    let mut open_for = bench.break_it(false).open_for.expect("open");
    for full in [1u64, 2, 4, 8, 16, 32, 60, 60, 60] {
        assert!(
            open_for <= seconds(full) && open_for >= seconds(full) / 2,
            "{open_for:?}"
        );
        bench.now += open_for;
        open_for = bench
            .call(Class::Failure)
            .and_then(|t| t.open_for)
            .expect("opens again");
    }
    bench.now += open_for;
    assert_eq!(
        bench.call(Class::Success).map(|t| t.to),
        Some(BreakerState::Closed)
    );
    assert!(bench.break_it(false).open_for.expect("open") <= seconds(1));
}

#[test]
fn chance_takes_up_to_half_of_the_backoff() {
    let policy = BreakerPolicy::default().backoff;
    let mut rng = seeded();
    for (reopened, full) in [(0, 1.0), (3, 8.0), (9, 60.0), (90, 60.0)] {
        let mut share = |_| open_for(policy, reopened, &mut rng).as_secs_f64() / full;
        let mut shares = [0; 1000].map(&mut share);
        shares.sort_by(f64::total_cmp);
        let (least, middle, most) = (shares[0], shares[500], shares[999]);
        assert!((0.5..0.51).contains(&least) && (0.99..=1.0).contains(&most));
        assert!((0.72..0.78).contains(&middle), "evenly: {middle}");
    }
}

#[test]
fn connects_are_probed_each_second_at_most() {
    let mut bench = Bench::new();
    bench.policy.backoff = BackoffPolicy {
        base: seconds(40),
        max: seconds(60),
    };
    bench.break_it(true);
    let table = [
        (0, false),
        (999, false),
        (1000, true),
        (1000, false),
        (1999, false),
        (2100, true),
        (19_000, true),
        (70_000, false),
    ];
    let opened = bench.now;
    for (at, expected) in table {
        assert_eq!(
            bench.breaker.wants_connect_probe(opened + millis(at)),
            expected,
            "at {at}"
        );
    }
    let transition = bench
        .breaker
        .connect_probe_succeeded(opened + seconds(3))
        .expect("half-open");
    assert_eq!(transition.to, BreakerState::HalfOpen);
    assert!(bench.send().is_some_and(Ticket::is_probe));
    assert_eq!(
        bench.breaker.connect_probe_succeeded(opened + seconds(3)),
        None
    );
}

#[test]
fn what_can_be_connected_to_waits_for_its_backoff() {
    let mut bench = Bench::new();
    bench.policy.backoff.base = seconds(40);
    bench.break_it(false);
    assert!(bench.breaker.wants_connect_probe(bench.now + seconds(1)));
    assert_eq!(bench.breaker.connect_probe_succeeded(bench.now), None);
    assert!(!bench.breaker.wants_connect_probe(bench.now + seconds(9)));
    assert_eq!(bench.breaker.state(), BreakerState::Open);
}

#[test]
fn what_opened_otherwise_and_is_unreachable_is_half_open_once_it_is_reached() {
    let mut bench = Bench::new();
    bench.policy.backoff.base = seconds(40);
    bench.break_it(false);
    for second in 1..5 {
        let now = bench.now + seconds(second);
        assert!(bench.breaker.wants_connect_probe(now), "after {second} s");
        bench.breaker.connect_probe_failed();
    }
    let reached = bench
        .breaker
        .connect_probe_succeeded(bench.now + seconds(5));
    let reached = reached.expect("the partition healed");
    assert_eq!(reached.reason, Reason::ConnectProbeSucceeded);
    assert!(bench.send().is_some_and(Ticket::is_probe));
}

#[test]
fn what_only_fails_requests_is_not_connected_to() {
    let mut bench = Bench::new();
    bench.policy.backoff.base = seconds(40);
    for _ in 0..19 {
        assert_eq!(bench.call(Class::Failure), None);
    }
    assert!(bench.call(Class::Failure).is_some(), "by its success rate");
    assert!(!bench.breaker.wants_connect_probe(bench.now + seconds(2)));
}

#[derive(Debug, Clone)]
enum Event {
    Wait(u64),
    Send,
    End(prop::sample::Index, Class),
    Drop(prop::sample::Index),
}

fn event() -> impl Strategy<Value = Event> {
    let class = prop::sample::select(vec![
        Class::Success,
        Class::Failure,
        Class::HardFailure,
        Class::HardFailure,
        Class::HardFailure,
        Class::Throttled,
        Class::Neutral,
    ]);
    prop_oneof![
        (0u64..3000).prop_map(Event::Wait),
        Just(Event::Send),
        Just(Event::Send),
        (any::<prop::sample::Index>(), class).prop_map(|(at, class)| Event::End(at, class)),
        any::<prop::sample::Index>().prop_map(Event::Drop),
    ]
}

proptest! {
    /// A model that knows only the rule of hard failures in a row, tickets and backoff.
    #[test]
    fn agrees_with_a_model(events in proptest::collection::vec(event(), 0..400)) {
        let mut bench = Bench::new();
        bench.policy.success_rate = None;
        bench.policy.consecutive_failures = 2;
        let mut flying: Vec<(Ticket, u32)> = Vec::new();
        let (mut turn, mut in_a_row, mut open_until, mut half_open) = (0u32, 0u32, None, false);
        for event in events {
            match event {
                Event::Wait(ms) => bench.now += millis(ms),
                Event::Send => {
                    let probing = flying.iter().any(|(ticket, sent)| ticket.is_probe() && *sent == turn);
                    if open_until.is_some_and(|until| until <= bench.now) {
                        (open_until, half_open, turn) = (None, true, turn + 1);
                    }
                    let expected = open_until.is_none() && !(half_open && probing);
                    let ticket = bench.send();
                    prop_assert_eq!(ticket.is_some(), expected);
                    flying.extend(ticket.map(|ticket| (ticket, turn)));
                }
                Event::Drop(at) if !flying.is_empty() => {
                    let (ticket, _) = flying.swap_remove(at.index(flying.len()));
                    bench.breaker.release(ticket, bench.now);
                }
                Event::End(at, class) if !flying.is_empty() => {
                    let (ticket, sent) = flying.swap_remove(at.index(flying.len()));
                    let transition = bench.end(ticket, class, false);
                    if sent != turn {
                        prop_assert_eq!(transition, None);
                        continue;
                    }
                    in_a_row = match class {
                        Class::Success => 0,
                        Class::HardFailure => in_a_row + 1,
                        _ => in_a_row,
                    };
                    let expected = match (half_open, class) {
                        (true, Class::Success | Class::Throttled) => Some(BreakerState::Closed),
                        (true, Class::Failure | Class::HardFailure) => Some(BreakerState::Open),
                        (false, Class::HardFailure) if in_a_row >= 2 => Some(BreakerState::Open),
                        _ => None,
                    };
                    prop_assert_eq!(transition.map(|t| t.to), expected);
                    if let Some(transition) = transition {
                        (turn, half_open) = (turn + 1, false);
                        open_until = transition.open_for.map(|open_for| bench.now + open_for);
                        if transition.to == BreakerState::Closed {
                            in_a_row = 0;
                        }
                    }
                }
                Event::Drop(_) | Event::End(..) => {}
            }
        }
    }
}
