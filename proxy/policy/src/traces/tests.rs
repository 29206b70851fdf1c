//! Traces in flight: as tables, against a model, and under threads.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::testing::{millis, seconds, start};
use crate::trace::{TRACEPARENT, trace_id};

pub(super) fn trace(number: u64) -> TraceId {
    let text = format!("00-{number:032x}-00f067aa0ba902b7-01");
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, HeaderValue::try_from(text).expect("digits"));
    trace_id(&headers).expect("a trace")
}

fn table() -> (Arc<TracesInFlight>, Instant) {
    let start = start();
    (TracesInFlight::new(7, start), start)
}

const fn until(deadline: Option<Instant>) -> Option<Found> {
    Some(Found { deadline })
}

#[test]
fn a_trace_is_kept_while_its_request_is_in_flight() {
    let (table, now) = table();
    assert_eq!(table.find(trace(1), now), None);
    let deadline = now + millis(200);
    let kept = table.enter(trace(1), Some(deadline), now).expect("a place");
    assert_eq!(table.find(trace(1), now), until(Some(deadline)));
    let past = deadline + seconds(1);
    assert_eq!(table.find(trace(1), past), until(Some(deadline)));
    assert_eq!(table.find(trace(2), now), None);
    drop(kept);
    assert_eq!(table.find(trace(1), now), None, "it was answered");
}

#[test]
fn the_latest_deadline_holds_where_several_share_a_trace() {
    let (table, now) = table();
    let [early, late] = [100, 300].map(|ms| Some(now + millis(ms)));
    let first = table.enter(trace(1), late, now);
    let second = table.enter(trace(1), early, now);
    assert_eq!(table.find(trace(1), now), until(late));
    drop(first);
    assert_eq!(
        table.find(trace(1), now),
        until(late),
        "nobody says whose call it is"
    );
    let patient = table.enter(trace(1), None, now);
    assert_eq!(table.find(trace(1), now), until(None));
    drop((second, patient));
    assert_eq!(table.find(trace(1), now), None);
    let again = table.enter(trace(1), early, now);
    assert_eq!(
        table.find(trace(1), now),
        until(early),
        "nothing is left of before"
    );
    drop(again);
}

#[test]
fn exhausted_is_for_those_in_flight() {
    let (table, now) = table();
    table.exhaust(trace(1));
    let [one, other] = [1, 2].map(|n| table.enter(trace(n), None, now).expect("a place"));
    assert!(!one.is_exhausted(), "that was before it came");
    table.exhaust(trace(1));
    assert!(one.is_exhausted() && !other.is_exhausted());
    let sibling = table.enter(trace(1), None, now).expect("a place");
    assert!(sibling.is_exhausted());
    drop((one, sibling));
    let next = table.enter(trace(1), None, now).expect("a place");
    assert!(!next.is_exhausted());
}

#[test]
fn what_its_caller_abandoned_is_remembered_for_a_while() {
    let (table, now) = table();
    let deadline = now + millis(200);
    let entered = |deadline| table.enter(trace(1), deadline, now).expect("a place");
    entered(Some(deadline)).abandon();
    let end = deadline + LINGERS;
    for (at, expected) in [
        (now, until(Some(deadline))),
        (deadline, until(Some(deadline))),
        (end - millis(1), until(Some(deadline))),
        (end, None),
    ] {
        assert_eq!(table.find(trace(1), at), expected);
    }
    // Another request of the trace has another deadline.
    table.exhaust(trace(1));
    let later = now + seconds(1);
    let again = entered(Some(later));
    assert!(!again.is_exhausted());
    assert_eq!(table.find(trace(1), now), until(Some(later)));
    again.abandon();
    drop(entered(None));
    assert_eq!(
        table.find(trace(1), now),
        None,
        "who waits for ever abandons nothing"
    );
}

#[test]
fn a_full_table_keeps_no_more_and_forgets_what_lingers_first() {
    let (table, now) = table();
    let enter = |number| table.enter(trace(number), Some(now), now);
    let mut kept: Vec<_> = (1..=4 * CAPACITY as u64).filter_map(enter).collect();
    assert_eq!(kept.len(), CAPACITY, "every set is full");
    assert!(enter(99_999).is_none());
    assert!(enter(1).is_some(), "it shares the place it has");
    kept.pop().expect("it was full").abandon();
    let newest = (1_000_000..).find_map(enter).expect("one fits");
    drop((kept, newest));
    let free = (1..=4 * CAPACITY as u64)
        .filter_map(enter)
        .collect::<Vec<_>>();
    assert_eq!(free.len(), CAPACITY, "all places were given back");
}

/// What the table would be if it had a lock and no bound.
#[derive(Default)]
struct Model(BTreeMap<u64, Entry>);

#[derive(Default)]
struct Entry {
    holders: usize,
    deadline: Option<Instant>,
    endless: bool,
    exhausted: bool,
    abandoned: bool,
}

impl Entry {
    fn is_known(&self, now: Instant) -> bool {
        let end = self.deadline.map(|deadline| deadline + LINGERS);
        let lingers = self.abandoned && !self.endless && end.is_some_and(|end| now < end);
        self.holders > 0 || lingers
    }
}

impl Model {
    fn enter(&mut self, trace: u64, deadline: Option<Instant>, now: Instant) {
        let entry = self.0.entry(trace).or_default();
        if !entry.is_known(now) {
            *entry = Entry::default();
        }
        entry.exhausted &= entry.holders > 0;
        entry.holders += 1;
        entry.deadline = entry.deadline.max(deadline);
        entry.endless |= deadline.is_none();
    }

    fn find(&self, trace: u64, now: Instant) -> Option<Found> {
        let entry = self.0.get(&trace).filter(|entry| entry.is_known(now))?;
        Some(Found {
            deadline: entry.deadline.filter(|_| !entry.endless),
        })
    }
}

#[derive(Debug, Clone)]
enum Step {
    Enter(u64, Option<u64>),
    Leave(usize, bool),
    Exhaust(u64),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let trace = 1u64..6;
    let step = prop_oneof![
        3 => (trace.clone(), proptest::option::of(0u64..3000)).prop_map(|(n, ms)| Step::Enter(n, ms)),
        3 => (any::<usize>(), any::<bool>()).prop_map(|(place, given_up)| Step::Leave(place, given_up)),
        1 => trace.prop_map(Step::Exhaust),
        1 => (0u64..4000).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn agrees_with_a_map_behind_a_lock(steps in steps(), seed: u64) {
        let mut now = start();
        let table = TracesInFlight::new(seed, now);
        let mut model = Model::default();
        let mut kept: Vec<(u64, TraceInFlight)> = Vec::new();
        for step in steps {
            match step {
                Step::Enter(number, patience) => {
                    let deadline = patience.map(|ms| now + millis(ms));
                    kept.push((number, table.enter(trace(number), deadline, now).expect("a place")));
                    model.enter(number, deadline, now);
                }
                Step::Leave(_, _) if kept.is_empty() => {}
                Step::Leave(place, given_up) => {
                    let (number, leaves) = kept.swap_remove(place % kept.len());
                    let entry = model.0.get_mut(&number).expect("it entered");
                    entry.holders -= 1;
                    entry.abandoned |= given_up;
                    if given_up { leaves.abandon() } else { drop(leaves) }
                }
                Step::Exhaust(number) => {
                    table.exhaust(trace(number));
                    if let Some(entry) = model.0.get_mut(&number).filter(|entry| entry.holders > 0) {
                        entry.exhausted = true;
                    }
                }
                Step::Wait(ms) => now += millis(ms),
            }
            for number in 1..6 {
                prop_assert_eq!(table.find(trace(number), now), model.find(number, now));
            }
            for (number, kept) in &kept {
                prop_assert_eq!(kept.is_exhausted(), model.0[number].exhausted);
            }
        }
    }
}

/// Traces of one set, so that its places change hands all the time.
fn of_one_set(table: &TracesInFlight, count: usize) -> Vec<TraceId> {
    let set = table.first(trace(1));
    let all = (1..).map(trace);
    all.filter(|trace| table.first(*trace) == set)
        .take(count)
        .collect()
}

#[test]
fn who_looks_while_a_place_changes_hands_sees_one_trace_whole() {
    let (table, now) = table();
    let traces = of_one_set(&table, 3);
    // Each has a deadline of its own, which is seen with no other.
    let deadline = |number: usize| Some(now + seconds(number as u64));
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let (table, traces) = (&table, &traces);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(worker);
                for _ in 0..20_000 {
                    let [own, other] = [(); 2].map(|()| rng.usize(..traces.len()));
                    let _kept = table.enter(traces[own], deadline(own), now);
                    if let Some(found) = table.find(traces[other], now) {
                        assert_eq!(found.deadline, deadline(other));
                    }
                }
            });
        }
    });
}

#[test]
fn threads_lose_no_deadline_no_mark_and_no_place() {
    const TRACES: usize = 24;
    let (table, now) = table();
    let traces = of_one_set(&table, TRACES);
    std::thread::scope(|scope| {
        for worker in 0..4u64 {
            let (table, traces) = (&table, &traces);
            scope.spawn(move || {
                let mut rng = fastrand::Rng::with_seed(worker);
                for _ in 0..20_000 {
                    let trace = traces[rng.usize(..TRACES)];
                    let own = now + millis(rng.u64(1..1000));
                    let deadline = rng.bool().then_some(own);
                    let kept = table.enter(trace, deadline, now).expect("a place");
                    let found = table.find(trace, now).expect("in flight");
                    match (found.deadline, deadline) {
                        (Some(found), Some(own)) => assert!(found >= own),
                        (Some(_), None) => panic!("a deadline for who has none"),
                        (None, _) => {}
                    }
                    if rng.bool() {
                        table.exhaust(trace);
                        assert!(kept.is_exhausted());
                    }
                    if rng.bool() {
                        kept.abandon();
                    }
                }
            });
        }
    });
    let late = now + seconds(1000);
    assert!(
        traces
            .iter()
            .all(|trace| table.find(*trace, late).is_none())
    );
    let enter = |number| table.enter(trace(number), None, late);
    let all: Vec<_> = (1..=4 * CAPACITY as u64).filter_map(enter).collect();
    assert_eq!(all.len(), CAPACITY);
}
