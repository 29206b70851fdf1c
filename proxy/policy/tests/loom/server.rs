//! What one port takes on: never more at a time than its limits, and nobody
//! waits beside a free place; no place is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use http::HeaderMap;
use selvage_policy::server::{
    AdaptivePolicy, Admission, Admitted, Asking, Concurrency, Criticality, Refused, ServerPolicy,
    ServerState, Shed, Waits,
};

use crate::{all_at_once, at_once, every_order, millis, most_orders, start};
use Criticality::{Critical, Default as Usual, Sheddable};

/// A port, and what protects it.
pub(crate) struct Port {
    server: Arc<ServerState>,
    policy: ServerPolicy,
    pub(crate) start: Instant,
}

pub(crate) type Answer = Result<Admission, Refused>;

impl Port {
    pub(crate) fn new(policy: ServerPolicy, start: Instant) -> Arc<Self> {
        let server = Arc::new(ServerState::new(start, 7));
        server.set_policy(Some(&policy));
        Arc::new(Self {
            server,
            policy,
            start,
        })
    }

    pub(crate) fn ask(&self, criticality: Criticality) -> Answer {
        self.decide(&HeaderMap::new(), criticality, self.start)
    }

    pub(crate) fn decide(
        &self,
        headers: &HeaderMap,
        criticality: Criticality,
        now: Instant,
    ) -> Answer {
        let asking = Asking {
            caller: &|| self.server.caller(None),
            identity: None,
            source: None,
            headers: Some(headers),
            criticality,
        };
        self.server.admit(&self.policy, &asking, now)
    }

    fn admitted(&self) -> Admitted {
        match self.ask(Usual) {
            Ok(Admission::Admitted(admitted)) => admitted,
            other => panic!("expected a place, found {other:?}"),
        }
    }

    fn comes(&self, criticality: Criticality) -> Came {
        match self.ask(criticality).expect("there is room") {
            Admission::Admitted(admitted) => Came::Placed(admitted),
            Admission::Waits(waits) => Came::Waits(Watched::new(waits, self.start)),
        }
    }

    fn waits(&self, criticality: Criticality) -> Watched {
        match self.comes(criticality) {
            Came::Waits(watched) => watched,
            Came::Placed(admitted) => panic!("expected to wait, found {admitted:?}"),
        }
    }

    /// In flight, waiting.
    fn load(&self) -> (u32, u32) {
        let load = self.server.load();
        (load.in_flight, load.queued)
    }
}

fn fixed(max: u32, queue: u32) -> ServerPolicy {
    ServerPolicy {
        concurrency: Concurrency::Fixed { max },
        queue: Some(queue),
        ..ServerPolicy::default()
    }
}

/// Whether its waker was called.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One for whom there was room.
enum Came {
    Placed(Admitted),
    Waits(Watched),
}

impl Came {
    /// Its place, which by now it has to have.
    fn has_place(self) -> Admitted {
        match self {
            Self::Placed(admitted) => admitted,
            Self::Waits(waits) => {
                let decided = waits.decided().expect("it is called");
                decided.expect("nobody matters more")
            }
        }
    }
}

/// One that waits, asked once, so that it is told.
struct Watched {
    waits: Waits,
    bell: Arc<Bell>,
    first: Option<Result<Admitted, Shed>>,
    now: Instant,
}

impl Watched {
    fn new(waits: Waits, now: Instant) -> Self {
        let mut watched = Self {
            waits,
            bell: Arc::default(),
            first: None,
            now,
        };
        watched.first = watched.look();
        watched
    }

    fn look(&mut self) -> Option<Result<Admitted, Shed>> {
        let waker = Waker::from(Arc::clone(&self.bell));
        match self.waits.poll(&Context::from_waker(&waker), self.now) {
            Poll::Ready(decided) => Some(decided.map_err(|refused| refused.why)),
            Poll::Pending => None,
        }
    }

    /// What became of it in the end: if anything did, it was told.
    fn decided(mut self) -> Option<Result<Admitted, Shed>> {
        self.first.take().or_else(|| {
            let decided = self.look();
            let rang = self.bell.0.load(Ordering::Relaxed);
            assert_eq!(decided.is_some(), rang, "it is woken if it is to look");
            decided
        })
    }

    fn give_up(mut self) -> Result<Admitted, Shed> {
        let decided = self.waits.give_up(self.now);
        decided.map_err(|refused| refused.why)
    }
}

#[test]
fn no_more_are_in_than_may_be() {
    let start = start();
    most_orders(move || {
        let port = Port::new(fixed(1, 2), start);
        let inside = Arc::new(AtomicUsize::new(0));
        let worker = |port: Arc<Port>, inside: Arc<AtomicUsize>| {
            move || {
                let works = |admitted: Admitted| {
                    assert_eq!(inside.fetch_add(1, Ordering::Relaxed), 0, "two are in");
                    loom::thread::yield_now();
                    inside.fetch_sub(1, Ordering::Relaxed);
                    drop(admitted);
                };
                match port.ask(Usual).expect("there is room") {
                    Admission::Admitted(admitted) => {
                        works(admitted);
                        None
                    }
                    Admission::Waits(waits) => {
                        let mut watched = Watched::new(waits, start);
                        match watched.first.take() {
                            Some(decided) => {
                                works(decided.expect("nobody matters more"));
                                None
                            }
                            None => Some(watched),
                        }
                    }
                }
            }
        };
        let ask = || worker(Arc::clone(&port), Arc::clone(&inside));
        let (one, two, three) = all_at_once(ask(), ask(), ask());
        // One after the other they come in, and none is forgotten.
        let mut left: Vec<_> = [one, two, three].into_iter().flatten().collect();
        while !left.is_empty() {
            assert_eq!(port.load(), (1, left.len() as u32 - 1));
            let called = |watched: &Watched| watched.bell.0.load(Ordering::Relaxed);
            let next = left.iter().position(called).expect("one is called");
            let next = left.swap_remove(next).decided().expect("it was called");
            drop(next.expect("nobody matters more"));
        }
        assert_eq!(port.load(), (0, 0));
    });
}

#[test]
fn who_comes_as_another_leaves_has_its_place() {
    let start = start();
    every_order(move || {
        let port = Port::new(fixed(1, 1), start);
        let held = port.admitted();
        let other = Arc::clone(&port);
        let (asked, ()) = at_once(move || other.comes(Usual), || drop(held));
        let has = asked.has_place();
        assert_eq!(port.load(), (1, 0));
        drop(has);
        assert_eq!(port.load(), (0, 0));
    });
}

#[test]
fn who_gives_up_as_it_is_called_has_a_place_or_none() {
    let start = start();
    every_order(move || {
        let port = Port::new(fixed(1, 1), start);
        let (held, waits) = (port.admitted(), port.waits(Usual));
        let (decided, ()) = at_once(move || waits.give_up(), || drop(held));
        match decided {
            Ok(admitted) => {
                assert_eq!(port.load(), (1, 0));
                drop(admitted);
            }
            Err(why) => assert_eq!(why, Shed::QueueTimeout),
        }
        assert_eq!(port.load(), (0, 0));
    });
}

#[test]
fn a_place_for_who_went_is_the_next_one_s() {
    let start = start();
    every_order(move || {
        let port = Port::new(fixed(1, 2), start);
        let (held, first, second) = (port.admitted(), port.waits(Usual), port.waits(Usual));
        at_once(move || drop(first), || drop(held));
        assert_eq!(port.load(), (1, 0));
        let next = second.decided().expect("it is called");
        drop(next.expect("nobody matters more"));
        assert_eq!(port.load(), (0, 0));
    });
}

#[test]
fn who_matters_more_displaces_or_waits_behind_nobody() {
    let start = start();
    every_order(move || {
        let port = Port::new(fixed(1, 1), start);
        let (held, sheddable) = (port.admitted(), port.waits(Sheddable));
        let other = Arc::clone(&port);
        let (critical, ()) = at_once(move || other.comes(Critical), || drop(held));
        match sheddable.decided().expect("it hears of it") {
            Err(why) => {
                assert_eq!(why, Shed::Displaced);
                assert_eq!(port.load(), (1, 0), "the other's");
            }
            Ok(first) => {
                assert_eq!(port.load(), (1, 1));
                drop(first);
            }
        }
        drop(critical.has_place());
        assert_eq!(port.load(), (0, 0));
    });
}

#[test]
fn who_is_displaced_called_and_gives_up_is_counted_once() {
    let start = start();
    most_orders(move || {
        let port = Port::new(fixed(1, 1), start);
        let (held, sheddable) = (port.admitted(), port.waits(Sheddable));
        let other = Arc::clone(&port);
        let (gave_up, critical, ()) = all_at_once(
            move || sheddable.give_up(),
            move || other.comes(Critical),
            || drop(held),
        );
        // What it was handed it gives back here.
        drop(gave_up);
        let has = critical.has_place();
        assert_eq!(port.load(), (1, 0));
        drop(has);
        assert_eq!(port.load(), (0, 0));
    });
}

#[test]
fn a_wider_limit_reaches_who_comes_to_wait() {
    let start = start();
    every_order(move || {
        let port = Port::new(fixed(1, 1), start);
        let held = port.admitted();
        let other = Arc::clone(&port);
        let (asked, ()) = at_once(
            move || other.comes(Usual),
            || port.server.set_policy(Some(&fixed(2, 1))),
        );
        let has = asked.has_place();
        assert_eq!(port.load(), (2, 0));
        drop((held, has));
    });
}

#[test]
fn a_limit_that_grows_reaches_who_comes_to_wait() {
    const START: u32 = 6;
    const SAMPLES: u32 = 10;
    let start = start();
    every_order(move || {
        let adaptive = AdaptivePolicy {
            min: 1,
            max: 100,
            start: START,
        };
        let concurrency = Concurrency::Adaptive(adaptive);
        let port = Port::new(
            ServerPolicy {
                concurrency,
                ..ServerPolicy::default()
            },
            start,
        );
        for _ in START..SAMPLES {
            port.admitted().answered(millis(20), start);
        }
        let mut held: Vec<_> = (0..START).map(|_| port.admitted()).collect();
        let mut last = held.pop().expect("one of six");
        for admitted in &mut held {
            admitted.answered(millis(20), start);
        }
        let other = Arc::clone(&port);
        let (asked, ()) = at_once(
            move || other.comes(Usual),
            || last.answered(millis(20), start),
        );
        assert_eq!(port.server.load().limit, Some(START + 1));
        let has = asked.has_place();
        assert_eq!(port.load(), (START + 1, 0));
        drop((held, last, has));
    });
}
