//! The scenes: what is broken when, and the figures that are read from it. The
//! moments are fixed beforehand; only how long a recovery is waited for depends
//! on what is seen.

use std::time::{Duration, Instant};

use selvage_tests::open_loop::{OpenLoop, Shots, Target};
use selvage_tests::replica::{Fault, Nature, Replica};
use tokio::sync::Barrier;

use crate::isolation::peers::Peer;

/// Requests per second to three replicas.
const RATE: u32 = 180;
const TAKES: Duration = Duration::from_millis(15);
/// The application that is overloaded: 10 at a time, each 20 ms, is 500 a second.
const SLOTS: usize = 10;
const SLOT_TAKES: Duration = Duration::from_millis(20);
const CAPACITY: u32 = 500;
const CALM: u32 = CAPACITY / 2;
const OVERLOAD: u32 = CAPACITY * 3;
/// Before anything counts.
const WARM_UP: Duration = Duration::from_secs(1);
const HEALTHY: Duration = Duration::from_secs(2);
/// A caller of replicas waits for longer than any timeout on the way.
const PATIENCE: Duration = Duration::from_secs(10);
/// A caller of the overloaded application does not: a later answer is worth nothing.
const SHORT_PATIENCE: Duration = Duration::from_secs(1);
/// In which a replica must get most of its share to be back.
const WINDOW: Duration = Duration::from_secs(1);
/// How far two such windows are apart.
const STEP: Duration = Duration::from_millis(100);

/// One scene.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scene {
    /// One of three replicas.
    OneOfThree(Fault),
    /// All three.
    AllDown(Fault),
    /// Three times what the application can do.
    Overload,
}

/// Every scene with three replicas.
pub(crate) const WITH_REPLICAS: [Scene; 8] = [
    Scene::OneOfThree(Fault::Refuse),
    Scene::OneOfThree(Fault::Hang),
    Scene::OneOfThree(Fault::Status(503)),
    Scene::OneOfThree(Fault::ResetMidBody),
    Scene::OneOfThree(Fault::Slow(10)),
    Scene::AllDown(Fault::Refuse),
    Scene::AllDown(Fault::Hang),
    Scene::AllDown(Fault::Status(503)),
];

/// How long things last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    /// Of the fault.
    pub(crate) broken: Duration,
    /// For which a recovery is waited for at most.
    pub(crate) recovery: Duration,
}

/// What one run of a scene showed, by name; what could not be seen is absent.
pub(crate) type Figures = Vec<(&'static str, f64)>;

impl Scene {
    /// As the tables call it.
    pub(crate) fn name(self) -> String {
        match self {
            Self::OneOfThree(fault) => format!("one of three {}", fault.name()),
            Self::AllDown(Fault::Refuse) => "all refuse".to_owned(),
            Self::AllDown(Fault::Hang) => "all hang".to_owned(),
            Self::AllDown(fault) => format!("all: {}", fault.name()),
            Self::Overload => "overload".to_owned(),
        }
    }

    const fn fault(self) -> Fault {
        match self {
            Self::OneOfThree(fault) | Self::AllDown(fault) => fault,
            Self::Overload => Fault::None,
        }
    }

    const fn broken(self) -> usize {
        match self {
            Self::OneOfThree(_) => 1,
            Self::AllDown(_) => 3,
            Self::Overload => 0,
        }
    }

    /// Plays it with one peer, once all that are played together have started.
    pub(crate) async fn play(
        self,
        peer: Peer,
        lengths: Lengths,
        started: &Barrier,
    ) -> Result<Figures, String> {
        match self {
            Self::Overload => overload(peer, lengths).await,
            Self::OneOfThree(_) | Self::AllDown(_) => {
                Ok(self.break_replicas(peer, lengths, started).await)
            }
        }
    }

    async fn break_replicas(self, peer: Peer, lengths: Lengths, started: &Barrier) -> Figures {
        let nature = Nature {
            takes: TAKES,
            slots: None,
        };
        let replicas: Vec<_> = (0..3).map(|_| Replica::start(nature)).collect();
        let addresses: Vec<_> = replicas.iter().map(|one| one.address).collect();
        let proxy = peer.before_replicas(&addresses).await;
        started.wait().await;
        let target = Target {
            address: proxy.address,
            authority: "orders.shop",
            patience: PATIENCE,
        };
        let load = OpenLoop::start(target, RATE);
        tokio::time::sleep(WARM_UP).await;
        let begin = Instant::now();
        tokio::time::sleep(HEALTHY).await;
        let affected = &replicas[..self.broken()];
        let broken = Instant::now();
        for replica in affected {
            let _ = replica.turn(self.fault());
        }
        tokio::time::sleep(lengths.broken).await;
        let mended = Instant::now();
        for replica in affected {
            let _ = replica.turn(Fault::None);
        }
        let back = loop {
            tokio::time::sleep(STEP).await;
            let back: Option<Vec<_>> = affected
                .iter()
                .map(|one| share_again(one, mended))
                .collect();
            if back.is_some() || mended.elapsed() > lengths.recovery {
                break back.and_then(|each| each.into_iter().max());
            }
        };
        // The last of it: a replica that is back may still fail somebody.
        tokio::time::sleep(WINDOW).await;
        let shots = load.stop().await;
        let during = shots.between(broken, mended);
        let mut figures = vec![
            ("failed", percent(during.failed().len(), during.len())),
            (
                "healthyP99",
                millis(shots.between(begin, broken).latency(0.99)),
            ),
            (
                "p99",
                millis(shots.between(broken + WINDOW, mended).latency(0.99)),
            ),
            ("failedFor", failed_for(&shots, mended).as_secs_f64()),
        ];
        if self.fault() != Fault::Refuse {
            let got = affected
                .iter()
                .map(|one| one.requests_between(broken, mended));
            figures.push(("got", number(got.sum())));
        }
        if let Some(back) = back {
            figures.push(("back", back.as_secs_f64()));
        }
        figures
    }
}

async fn overload(peer: Peer, lengths: Lengths) -> Result<Figures, String> {
    let application = Replica::start(Nature {
        takes: SLOT_TAKES,
        slots: Some(SLOTS),
    });
    let proxy = peer.before_application(application.address).await?;
    let target = Target {
        address: proxy.address,
        authority: "orders.shop",
        patience: SHORT_PATIENCE,
    };
    let load = OpenLoop::start(target, CALM);
    tokio::time::sleep(WARM_UP).await;
    let begin = Instant::now();
    tokio::time::sleep(HEALTHY).await;
    load.set_rate(OVERLOAD);
    let over = Instant::now();
    tokio::time::sleep(lengths.broken).await;
    load.set_rate(CALM);
    let calm = Instant::now();
    loop {
        tokio::time::sleep(STEP).await;
        let quiet = failed_for(&load.so_far(), calm) + WINDOW + SHORT_PATIENCE < calm.elapsed();
        if quiet || calm.elapsed() > lengths.recovery {
            break;
        }
    }
    let shots = load.stop().await;
    let during = shots.between(over, calm);
    let good = during.filter(|shot| shot.is_good());
    let possible = f64::from(CAPACITY) * (calm - over).as_secs_f64();
    Ok(vec![
        ("goodput", number(good.len()) / possible * 100.0),
        (
            "healthyP99",
            millis(shots.between(begin, over).latency(0.99)),
        ),
        ("goodP99", millis(good.latency(0.99))),
        ("refusedP99", millis(during.failed().latency(0.99))),
        (
            "got",
            number(application.requests_between(over, calm)) / possible * 100.0,
        ),
        ("failedFor", failed_for(&shots, calm).as_secs_f64()),
    ])
}

/// How long after `mended` the last request was sent that failed.
fn failed_for(shots: &Shots, mended: Instant) -> Duration {
    let failed = shots.failed();
    let late = failed
        .0
        .iter()
        .map(|shot| shot.due.saturating_duration_since(mended));
    late.max().unwrap_or_default()
}

/// The first moment after `mended` from which on the replica got two thirds of its share for a
/// whole second; chance takes no third from 33 requests.
fn share_again(replica: &Replica, mended: Instant) -> Option<Duration> {
    let enough = RATE as usize * 2 / 9;
    let mut from = mended;
    while from + WINDOW <= Instant::now() {
        if replica.requests_between(from, from + WINDOW) >= enough {
            return Some(from - mended);
        }
        from += STEP;
    }
    None
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn percent(part: usize, whole: usize) -> f64 {
    number(part) / number(whole.max(1)) * 100.0
}

#[expect(clippy::cast_precision_loss, reason = "counts of some thousands")]
fn number(count: usize) -> f64 {
    count as f64
}
