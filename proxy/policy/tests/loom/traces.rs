//! Traces in flight: no deadline, no mark and no place is lost, and nobody reads
//! half of one trace and half of another.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue};
use selvage_policy::trace::{TRACEPARENT, TraceId, trace_id};
use selvage_policy::traces::{CAPACITY, TracesInFlight};

use crate::{at_once, every_order, millis, most_orders, start};

fn trace(number: u64) -> TraceId {
    let text = format!("00-{number:032x}-00f067aa0ba902b7-01");
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, HeaderValue::try_from(text).expect("digits"));
    trace_id(&headers).expect("a trace")
}

/// A table in which a trace has been. The first makes the places, behind a lock
/// that loom does not know.
fn table(start: Instant) -> Arc<TracesInFlight> {
    let table = TracesInFlight::new(7, start);
    drop(table.enter(trace(9), None, start));
    table
}

/// When the caller of a trace stops waiting, if the trace is known.
fn deadline(table: &TracesInFlight, number: u64, now: Instant) -> Option<Instant> {
    table.find(trace(number), now)?.deadline
}

#[test]
fn the_latest_deadline_holds_whoever_comes_first() {
    let (start, [one, two]) = (start(), [trace(1); 2]);
    every_order(move || {
        let table = table(start);
        let (early, late) = (start + millis(100), start + millis(300));
        let other = Arc::clone(&table);
        let (first, second) = at_once(
            move || other.enter(one, Some(early), start),
            || table.enter(two, Some(late), start),
        );
        assert!(first.is_some() && second.is_some());
        assert_eq!(deadline(&table, 1, start), Some(late));
        drop((first, second));
        assert_eq!(table.find(one, start), None, "nobody holds it");
    });
}

#[test]
fn who_looks_while_a_place_changes_hands_sees_one_trace_whole() {
    let start = start();
    let [one, two] = [1, 2].map(trace);
    most_orders(move || {
        let table = table(start);
        let [first, second] = [100, 300].map(|ms| start + millis(ms));
        // All places but one are held.
        let fills = (10..).take(CAPACITY - 1);
        let fills: Vec<_> = fills.map(|n| table.enter(trace(n), None, start)).collect();
        let held = table
            .enter(one, Some(first), start)
            .expect("the last place");
        let other = Arc::clone(&table);
        let (found, next) = at_once(
            move || [1, 2].map(|number| deadline(&other, number, start)),
            || {
                drop(held);
                table.enter(two, Some(second), start)
            },
        );
        assert!(found[0].is_none_or(|at| at == first), "{found:?}");
        assert!(found[1].is_none_or(|at| at == second), "{found:?}");
        assert!(next.is_some(), "the place was free");
        assert_eq!(deadline(&table, 2, start), Some(second));
        drop((fills, next));
    });
}

#[test]
fn a_mark_is_for_those_in_flight_alone() {
    let start = start();
    let [one, two] = [1, 2].map(trace);
    every_order(move || {
        let table = table(start);
        let held = table.enter(one, None, start).expect("a place");
        let other = Arc::clone(&table);
        let ((), next) = at_once(
            move || other.exhaust(one),
            || {
                drop(held);
                table.enter(two, None, start).expect("a place")
            },
        );
        assert!(!next.is_exhausted(), "that was another trace");
        table.exhaust(two);
        assert!(next.is_exhausted());
    });
}

#[test]
fn a_mark_is_not_lost_to_who_joins() {
    let start = start();
    let one = trace(1);
    every_order(move || {
        let table = table(start);
        let held = table.enter(one, None, start).expect("a place");
        let other = Arc::clone(&table);
        let ((), joined) = at_once(move || other.exhaust(one), || table.enter(one, None, start));
        assert!(joined.is_some() && held.is_exhausted());
    });
}
