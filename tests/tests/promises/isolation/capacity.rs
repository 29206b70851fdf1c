//! An application with so many places and no more, so that what it can do does
//! not depend on the machine; and callers that come whether or not they are
//! served, never ask twice, and wait a while and no longer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method};
use selvage_tests::app::{App, ok};
use selvage_tests::body;
use selvage_tests::client::{Http2, request2};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// How many requests the application works on at a time.
pub(super) const PLACES: usize = 20;
/// A request takes from here …
const LEAST: u64 = 50;
/// … so many different milliseconds, 80 in the mean.
const SPREAD: u64 = 61;
/// Of the application, in requests per second.
pub(super) const CAPACITY: f64 = PLACES as f64 / 0.080;
/// An answer that comes later than this is none.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections of one caller.
const CONNECTIONS: usize = 16;

/// See the module. What has begun is finished, whoever has gone meanwhile.
pub(super) async fn application() -> App {
    let places = Arc::new(Semaphore::new(PLACES));
    let count = Arc::new(AtomicU64::new(0));
    App::start(move |_| {
        let places = Arc::clone(&places);
        let nth = count.fetch_add(1, Ordering::Relaxed);
        let takes = Duration::from_millis(LEAST + nth * 37 % SPREAD);
        async move {
            let work = tokio::spawn(async move {
                let _place = places.acquire_owned().await;
                tokio::time::sleep(takes).await;
            });
            work.await.unwrap();
            ok("done")
        }
    })
    .await
}

/// What came of some requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: usize,
    /// Whole answers in time.
    pub(super) answered: Vec<Duration>,
    /// Answered `overloaded`, each after this long.
    pub(super) shed: Vec<Duration>,
}

impl Tally {
    pub(super) fn share(&self) -> f64 {
        self.answered.len() as f64 / self.sent as f64
    }
}

/// The 99th percentile.
pub(super) fn p99<'a>(durations: impl IntoIterator<Item = &'a Duration>) -> Duration {
    let mut sorted: Vec<_> = durations.into_iter().copied().collect();
    sorted.sort_unstable();
    let at = sorted.len() * 99 / 100;
    sorted.get(at).copied().unwrap_or_default()
}

/// Sends `rate` requests a second, evenly, for so long. Each in turn says one
/// of `criticalities`, and is counted there.
pub(super) async fn offer<const N: usize>(
    to: SocketAddr,
    rate: f64,
    lasts: Duration,
    criticalities: [&'static str; N],
) -> [Tally; N] {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        connections.push(Arc::new(Http2::connect(to).await));
    }
    let mut tallies = [const {
        Tally {
            sent: 0,
            answered: Vec::new(),
            shed: Vec::new(),
        }
    }; N];
    let mut answers = JoinSet::new();
    let begun = Instant::now();
    for nth in 0.. {
        let due = Duration::from_secs_f64(f64::from(nth) / rate);
        if due >= lasts {
            break;
        }
        sleep_until(begun + due).await;
        let nth = nth as usize;
        tallies[nth % N].sent += 1;
        let connection = Arc::clone(&connections[nth % CONNECTIONS]);
        answers.spawn(async move { (nth % N, ask(&connection, criticalities[nth % N]).await) });
    }
    while let Some(answer) = answers.join_next().await {
        let (class, (what, took)) = answer.unwrap();
        match what {
            What::Done => tallies[class].answered.push(took),
            What::Shed => tallies[class].shed.push(took),
            What::Late => {}
        }
    }
    tallies
}

enum What {
    Done,
    Shed,
    Late,
}

async fn ask(connection: &Http2, criticality: &'static str) -> (What, Duration) {
    let mut request = request2(Method::GET, "orders.shop", "/", body::empty());
    if !criticality.is_empty() {
        request.headers_mut().insert(
            "x-selvage-criticality",
            HeaderValue::from_static(criticality),
        );
    }
    let begun = Instant::now();
    let what = match tokio::time::timeout(PATIENCE, connection.call(request)).await {
        Ok(Ok(answer)) if answer.status == 200 => What::Done,
        Ok(Ok(answer)) if answer.flag() == "overloaded" => What::Shed,
        Ok(other) => panic!("neither served nor shed: {other:?}"),
        Err(_) => What::Late,
    };
    (what, begun.elapsed())
}
