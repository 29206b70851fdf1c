//! What is promised of an overloaded server, with figures, beside the same
//! without a policy.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::*;
use super::network::{Caller, Service, Tally, World, percentile};
use crate::testing::{millis, seconds};

const PLACES: usize = 50;
const TAKES: Duration = Duration::from_millis(20);
/// Of the application, in requests per second.
const CAPACITY: f64 = 2500.0;

fn adaptive() -> ServerPolicy {
    ServerPolicy {
        concurrency: Concurrency::Adaptive(AdaptivePolicy {
            min: 20,
            max: 1000,
            start: 20,
        }),
        ..ServerPolicy::default()
    }
}

fn fixed(max: u32) -> ServerPolicy {
    ServerPolicy {
        concurrency: Concurrency::Fixed { max },
        ..ServerPolicy::default()
    }
}

/// A fifth of the load critical, a fifth sheddable.
fn callers(times_capacity: f64) -> Vec<Caller> {
    let class = |name, share: f64, criticality| Caller {
        name,
        rate: CAPACITY * times_capacity * share,
        criticality,
    };
    vec![
        class("critical", 0.2, Criticality::Critical),
        class("default", 0.6, Criticality::Default),
        class("sheddable", 0.2, Criticality::Sheddable),
    ]
}

fn world(times_capacity: f64, service: Service, policy: Option<ServerPolicy>) -> World {
    World {
        callers: callers(times_capacity),
        places: PLACES,
        service,
        patience: seconds(1),
        calm: seconds(5),
        lasts: seconds(20),
        policy,
        seed: 1,
    }
}

fn answered(tallies: &[Tally]) -> Vec<Duration> {
    let all = tallies.iter().flat_map(|tally| &tally.answered);
    all.copied().collect()
}

struct Figures {
    goodput: f64,
    p99: Duration,
    shares: Vec<f64>,
}

fn figures(name: &str, world: &World) -> Figures {
    let (tallies, load) = world.run();
    let answers = answered(&tallies);
    let figures = Figures {
        goodput: answers.len() as f64 / world.lasts.as_secs_f64() / CAPACITY,
        p99: percentile(answers, 99.0),
        shares: tallies.iter().map(Tally::share).collect(),
    };
    println!(
        "{name:<22} goodput {:>5.1} % of capacity, p99 {:>6.1} ms, answered: critical {:>5.1} %, default {:>5.1} %, sheddable {:>5.1} %; limit {:?}",
        figures.goodput * 100.0,
        figures.p99.as_secs_f64() * 1e3,
        figures.shares[0] * 100.0,
        figures.shares[1] * 100.0,
        figures.shares[2] * 100.0,
        load.limit,
    );
    figures
}

#[test]
fn at_three_times_its_capacity_it_serves_what_it_can() {
    for (kind, service) in [
        ("20 ms always", Service::Always(TAKES)),
        ("20 ms at random", Service::Random(TAKES)),
    ] {
        let calm = figures(&format!("{kind}, calm"), &world(0.3, service, None));
        for (name, policy) in [("adaptive", adaptive()), ("fixed", fixed(PLACES as u32))] {
            for seed in 1..=3 {
                let world = World {
                    seed,
                    ..world(3.0, service, Some(policy.clone()))
                };
                let kept = figures(&format!("{kind}, {name}"), &world);
                assert!(kept.goodput >= 0.9, "goodput");
                assert!(
                    kept.p99 <= calm.p99 * 3,
                    "p99 {:?} of {:?}",
                    kept.p99,
                    calm.p99
                );
                assert!(kept.shares[0] >= 0.99, "critical");
                assert!(kept.shares[2] < kept.shares[1], "sheddable go first");
            }
        }
        let lost = figures(&format!("{kind}, none"), &world(3.0, service, None));
        assert!(
            lost.goodput < 0.1,
            "what nobody waits for any more is no use"
        );
    }
}

#[test]
fn below_its_capacity_hardly_anything_is_shed() {
    for service in [Service::Always(TAKES), Service::Random(TAKES)] {
        let kept = figures("0.8 × capacity", &world(0.8, service, Some(adaptive())));
        // From a tenth of it at once, with a limit that has still to grow; and of the
        // last requests the answers are still to come.
        assert!(kept.goodput > 0.79 && kept.shares[1] > 0.99);
    }
}

#[test]
fn a_caller_that_floods_takes_nothing_from_another() {
    let flooded = |per_caller| World {
        callers: vec![
            Caller {
                name: "steady",
                rate: CAPACITY * 0.2,
                criticality: Criticality::Default,
            },
            Caller {
                name: "flood",
                rate: CAPACITY * 10.0,
                criticality: Criticality::Default,
            },
        ],
        lasts: seconds(10),
        policy: Some(ServerPolicy {
            per_caller,
            ..fixed(PLACES as u32)
        }),
        ..world(1.0, Service::Always(TAKES), None)
    };
    for (name, per_caller) in [("perCaller 25", Some(25)), ("without", None)] {
        let (tallies, _) = flooded(per_caller).run();
        let shed = tallies[0].shed as f64 / tallies[0].sent as f64;
        println!(
            "{name:<13} steady: {} sent, {} shed ({:.2} %), p99 {:?}; flood: {} sent, {} answered",
            tallies[0].sent,
            tallies[0].shed,
            shed * 100.0,
            percentile(tallies[0].answered.clone(), 99.0),
            tallies[1].sent,
            tallies[1].answered.len(),
        );
        match per_caller {
            Some(_) => assert!(shed < 0.001),
            None => assert!(shed > 0.5, "else the bulkhead would prove nothing"),
        }
    }
}

/// A room before a limit at three times its capacity, served from the front or
/// from the back: what those wait who are served, and those who are not.
fn served_from(front: bool, room: usize) -> (Duration, Duration, usize) {
    let mut rng = fastrand::Rng::with_seed(1);
    let patience = ServerPolicy::default().queue_timeout;
    let frees = Duration::from_secs_f64(1.0 / CAPACITY);
    let mut queue: VecDeque<Duration> = VecDeque::new();
    let (mut served, mut in_vain) = (Vec::new(), Vec::new());
    let (mut now, mut next, mut turned_away) = (Duration::ZERO, frees, 0);
    while now < seconds(20) {
        now += frees.mul_f64(-(1.0 - rng.f64()).ln() / 3.0);
        while next <= now {
            while queue.front().is_some_and(|since| *since + patience < next) {
                queue.pop_front();
                in_vain.push(patience);
            }
            let called = if front {
                queue.pop_front()
            } else {
                queue.pop_back()
            };
            served.extend(called.map(|since| next - since));
            next += frees;
        }
        if queue.len() < room {
            queue.push_back(now);
        } else {
            turned_away += 1;
        }
    }
    let lost = in_vain.len();
    println!(
        "room {room:>4}, from the {}: served {} after p50 {:.1} and p99 {:.1} ms; waited in vain {lost}, turned away at once {turned_away}",
        if front { "front" } else { "back " },
        served.len(),
        percentile(served.clone(), 50.0).as_secs_f64() * 1e3,
        percentile(served.clone(), 99.0).as_secs_f64() * 1e3,
    );
    let p50 = percentile(served.clone(), 50.0);
    (p50, percentile(served, 99.0), lost)
}

#[test]
fn a_short_room_is_served_from_its_front() {
    let room = PLACES / 4;
    let (front, back) = (served_from(true, room), served_from(false, room));
    assert_eq!(front.2, 0, "nobody waits in vain");
    assert!(front.1 <= TAKES / 3, "about a fourth of a service time");
    assert!(
        back.2 > 1000 && back.1 > millis(1) / 10,
        "zombies fill the room"
    );
    let (front, back) = (served_from(true, 2000), served_from(false, 2000));
    assert!(
        front.0 > millis(40),
        "where a room is long, its front is old"
    );
    assert!(back.0 < front.0 / 10);
}
