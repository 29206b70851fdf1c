//! Places, those who wait for them, and windows: as tables, against a model,
//! and with threads.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

use proptest::prelude::*;

use super::*;
use crate::server::AdaptivePolicy;
use crate::testing::{millis, seconds, start};
use Criticality::{Critical, Default as Usual, Sheddable};

fn fixed(max: u32, queue: Option<u32>) -> ServerPolicy {
    ServerPolicy {
        concurrency: Concurrency::Fixed { max },
        queue,
        ..ServerPolicy::default()
    }
}

fn of(policy: &ServerPolicy, now: Instant) -> Arc<Slots> {
    let slots = Slots::new(now);
    slots.set_policy(policy.concurrency);
    slots
}

fn placed(entry: Entry) -> Place {
    match entry {
        Entry::Placed(place) => place,
        other => panic!("expected a place, found {other:?}"),
    }
}

fn waits(entry: Entry) -> Waiting {
    match entry {
        Entry::Waits(waiting) => waiting,
        other => panic!("expected to wait, found {other:?}"),
    }
}

fn look(waiting: &mut Waiting, now: Instant) -> Poll<Result<Place, Shed>> {
    waiting.poll(&Context::from_waker(Waker::noop()), now)
}

#[test]
fn one_that_leaves_calls_the_most_critical_that_waits() {
    let now = start();
    let policy = fixed(1, Some(2));
    let slots = of(&policy, now);
    let first = placed(slots.enter(&policy, Usual, now));
    let mut sheddable = waits(slots.enter(&policy, Sheddable, now));
    let mut usual = waits(slots.enter(&policy, Usual, now));
    assert_eq!(slots.in_use(), (1, 1, 2));
    assert!(matches!(
        slots.enter(&policy, Sheddable, now),
        Entry::Shed(Shed::QueueFull)
    ));
    let mut critical = waits(slots.enter(&policy, Critical, now));
    assert!(matches!(
        look(&mut sheddable, now),
        Poll::Ready(Err(Shed::Displaced))
    ));
    drop(first);
    assert!(look(&mut usual, now).is_pending());
    let Poll::Ready(Ok(second)) = look(&mut critical, now) else {
        panic!("it was called");
    };
    assert_eq!(slots.in_use(), (1, 1, 1));
    assert!(matches!(usual.give_up(now), Err(Shed::QueueTimeout)));
    drop((usual, second));
    assert_eq!(slots.in_use(), (1, 0, 0));
}

#[test]
fn a_place_that_was_handed_to_one_who_went_goes_to_the_next() {
    let now = start();
    let policy = fixed(1, Some(4));
    let slots = of(&policy, now);
    let first = placed(slots.enter(&policy, Usual, now));
    let called = waits(slots.enter(&policy, Usual, now));
    let mut next = waits(slots.enter(&policy, Usual, now));
    let mut last = waits(slots.enter(&policy, Usual, now));
    drop(first);
    drop(called);
    let taken = next.give_up(now);
    assert!(taken.is_ok(), "its time ended in the moment it was called");
    assert!(look(&mut last, now).is_pending());
    drop((taken, next, last));
    assert_eq!(slots.in_use(), (1, 0, 0));
}

#[test]
fn a_wider_limit_calls_those_who_wait_and_a_narrower_admits_none() {
    let now = start();
    let policy = fixed(1, Some(9));
    let slots = of(&policy, now);
    let first = placed(slots.enter(&policy, Usual, now));
    let mut waiting: Vec<_> = (0..3)
        .map(|_| waits(slots.enter(&policy, Usual, now)))
        .collect();
    slots.set_policy(Concurrency::Fixed { max: 3 });
    let ready: Vec<_> = waiting
        .iter_mut()
        .map(|waiting| look(waiting, now))
        .collect();
    let called = ready.iter().filter(|poll| poll.is_ready()).count();
    assert_eq!(called, 2);
    slots.set_policy(Concurrency::Fixed { max: 1 });
    drop(first);
    assert!(
        look(&mut waiting[2], now).is_pending(),
        "two are still there"
    );
    drop(ready);
    assert!(look(&mut waiting[2], now).is_ready());
}

#[test]
fn room_is_a_fourth_of_the_limit_and_at_least_ten() {
    let now = start();
    for (limit, room) in [(1, 10), (20, 10), (40, 10), (100, 25)] {
        let policy = fixed(limit, None);
        let slots = of(&policy, now);
        let mut held = Vec::new();
        let entries = std::iter::repeat_with(|| slots.enter(&policy, Usual, now));
        for entry in entries.take_while(|entry| !matches!(entry, Entry::Shed(_))) {
            held.push(entry);
        }
        assert_eq!(held.len(), limit as usize + room, "limit {limit}");
    }
}

#[test]
fn a_tenth_is_kept_for_the_critical_while_they_come() {
    let now = start();
    let policy = fixed(20, Some(0));
    let slots = of(&policy, now);
    let fill = |criticality, now| {
        let entries = std::iter::repeat_with(|| slots.enter(&policy, criticality, now));
        let placed = entries.map_while(|entry| match entry {
            Entry::Placed(place) => Some(place),
            _ => None,
        });
        placed.collect::<Vec<_>>()
    };
    let table = [
        (Usual, 11, 20),
        (Critical, 11, 20),
        (Usual, 12, 18),
        (Sheddable, 21, 18),
        (Usual, 22, 20),
    ];
    for (row, (criticality, second, expected)) in table.into_iter().enumerate() {
        let placed = fill(criticality, now + seconds(second));
        assert_eq!(placed.len(), expected, "row {row}");
    }
}

#[test]
fn a_reserve_that_ends_calls_those_who_wait() {
    let now = start();
    let policy = fixed(20, Some(1));
    let slots = of(&policy, now);
    drop(placed(slots.enter(&policy, Critical, now)));
    let usual = |now| slots.enter(&policy, Usual, now);
    let _held: Vec<_> = (0..18).map(|_| placed(usual(now))).collect();
    let mut first = waits(usual(now));
    let later = now + seconds(11);
    let _next = placed(usual(later));
    assert!(matches!(look(&mut first, later), Poll::Ready(Ok(_))));
}

#[test]
fn a_window_ends_with_its_time_and_its_samples() {
    let now = start();
    let policy = ServerPolicy {
        concurrency: Concurrency::Adaptive(AdaptivePolicy {
            min: 20,
            max: 1000,
            start: 20,
        }),
        ..ServerPolicy::default()
    };
    let slots = of(&policy, now);
    let places = |count| -> Vec<_> {
        (0..count)
            .map(|_| placed(slots.enter(&policy, Usual, now)))
            .collect()
    };
    let mut early = places(9);
    early
        .iter_mut()
        .for_each(|place| place.answered(millis(20), now + seconds(1)));
    assert_eq!(slots.in_use().0, 20, "nine samples are too few");
    let mut busy = places(11);
    busy[0].answered(millis(20), now + seconds(1));
    assert_eq!(
        slots.in_use().0,
        24,
        "all of it in use, and no queue: a fifth more"
    );
    for place in &mut busy[1..] {
        place.answered(millis(20), now + seconds(1) + millis(50));
    }
    assert_eq!(slots.in_use().0, 24, "half a window");
    early.clear();
    let mut late = places(9);
    late[0].answered(millis(20), now + seconds(2));
    assert_eq!(slots.in_use().0, 28, "and again");
    late[1].given_up(now + seconds(3));
    assert!(late[1].sampled, "longer than usual");
    late[2].given_up(now + millis(1));
    assert!(!late[2].sampled, "a caller that went at once says nothing");
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn who_waits_is_woken_once_it_is_called() {
    let now = start();
    let policy = fixed(1, None);
    let slots = of(&policy, now);
    let first = placed(slots.enter(&policy, Usual, now));
    let mut waiting = waits(slots.enter(&policy, Usual, now));
    let count = Arc::new(Count(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    assert!(waiting.poll(&Context::from_waker(&waker), now).is_pending());
    assert!(waiting.poll(&Context::from_waker(&waker), now).is_pending());
    drop(first);
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(waiting.poll(&Context::from_waker(&waker), now).is_ready());
}

#[derive(Debug, Clone)]
enum Event {
    Enter(Criticality),
    Leave(usize),
    Abandon(usize),
    Limit(u32),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0usize..3).prop_map(|class| Event::Enter(Criticality::ALL[class])),
        4 => (0usize..20).prop_map(Event::Leave),
        1 => (0usize..20).prop_map(Event::Abandon),
        1 => (1u32..6).prop_map(Event::Limit),
    ]
}

proptest! {
    #![proptest_config(crate::testing::sequences())]

    /// The model counts, and keeps who waits as three lists.
    #[test]
    fn never_over_the_limit_and_nobody_waits_beside_a_free_place(
        events in proptest::collection::vec(event(), 0..12),
        room in 0u32..6,
    ) {
        let now = start();
        let policy = fixed(3, Some(room));
        let slots = of(&policy, now);
        let mut limit = 3;
        let mut places: Vec<Place> = Vec::new();
        let mut waiting: Vec<(Criticality, Waiting)> = Vec::new();
        let mut model = [const { VecDeque::<usize>::new() }; 3];
        let mut inside = 0usize;
        let mut names = 0usize;
        for event in events {
            match event {
                Event::Enter(criticality) => {
                    let expected_place = inside < limit && model.iter().all(VecDeque::is_empty);
                    match slots.enter(&policy, criticality, now) {
                        Entry::Placed(place) => {
                            prop_assert!(expected_place);
                            inside += 1;
                            places.push(place);
                        }
                        Entry::Waits(entered) => {
                            prop_assert!(!expected_place);
                            if model.iter().map(VecDeque::len).sum::<usize>() >= room as usize {
                                let less = model[criticality as usize + 1..].iter_mut().rev();
                                let displaced = less.filter_map(VecDeque::pop_back).next();
                                prop_assert!(displaced.is_some());
                            }
                            model[criticality as usize].push_back(names);
                            names += 1;
                            waiting.push((criticality, entered));
                        }
                        Entry::Shed(_) => prop_assert!(!expected_place),
                    }
                }
                Event::Leave(at) => {
                    if !places.is_empty() {
                        drop(places.swap_remove(at % places.len()));
                        inside -= 1;
                    }
                }
                Event::Abandon(at) => {
                    if !waiting.is_empty() {
                        let at = at % waiting.len();
                        let (criticality, left) = waiting.remove(at);
                        let class = &mut model[criticality as usize];
                        let position = waiting[..at].iter().filter(|w| w.0 == criticality).count();
                        class.remove(position);
                        drop(left);
                    }
                }
                Event::Limit(to) => {
                    limit = to as usize;
                    slots.set_policy(Concurrency::Fixed { max: to });
                }
            }
            while inside < limit {
                let Some(_) = model.iter_mut().find_map(VecDeque::pop_front) else { break };
                inside += 1;
            }
            let mut still = Vec::new();
            for (criticality, mut each) in waiting {
                match look(&mut each, now) {
                    Poll::Pending => still.push((criticality, each)),
                    Poll::Ready(Ok(place)) => places.push(place),
                    Poll::Ready(Err(_)) => {}
                }
            }
            waiting = still;
            let queued: usize = model.iter().map(VecDeque::len).sum();
            prop_assert_eq!(places.len(), inside);
            prop_assert_eq!(waiting.len(), queued);
            let (_, in_flight, waits) = slots.in_use();
            prop_assert_eq!((in_flight as usize, waits as usize), (inside, queued));
        }
    }
}

#[test]
fn threads_leave_nothing_behind_and_forget_nobody() {
    const MOST: u32 = 4;
    let now = start();
    let policy = fixed(MOST, Some(64));
    let slots = of(&policy, now);
    let there = AtomicUsize::new(0);
    let worker = |seed: u64| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut waiting: Vec<Waiting> = Vec::new();
        let mut placed = 0;
        let work = |place: Place| {
            let count = there.fetch_add(1, Ordering::SeqCst) + 1;
            assert!(count <= MOST as usize, "{count} at a time");
            std::thread::yield_now();
            there.fetch_sub(1, Ordering::SeqCst);
            drop(place);
            1
        };
        for _ in 0..20_000 {
            let criticality = Criticality::ALL[rng.usize(0..3)];
            match slots.enter(&policy, criticality, now) {
                Entry::Placed(place) => placed += work(place),
                Entry::Waits(entered) => waiting.push(entered),
                Entry::Shed(_) => {}
            }
            waiting.retain_mut(|each| match look(each, now) {
                Poll::Pending => !rng.bool(),
                Poll::Ready(decided) => {
                    placed += decided.map_or(0, work);
                    false
                }
            });
        }
        placed
    };
    let total: usize = std::thread::scope(|scope| {
        let threads = [1, 2, 3].map(|seed| scope.spawn(move || worker(seed)));
        threads
            .map(|thread| thread.join().expect("it ends"))
            .iter()
            .sum()
    });
    assert!(total > 20_000, "{total} had a place");
    assert_eq!(slots.in_use(), (MOST, 0, 0));
}
