//! All replicas are broken: once that is known, callers hear `no-healthy-endpoint`
//! at once, nobody is connected to for them, and what is broken gets one real
//! request per replica and backoff.

use std::time::{Duration, Instant};

use selvage_tests::open_loop::Shots;
use selvage_tests::replica::Fault;
use selvage_tests::wait::{self, PATIENCE};

use super::scene::{BACKOFF, RATE, SHORTEST_BACKOFF, SLACK, Scene, Way};

const FLAG: &str = "no-healthy-endpoint";
/// Failing fast is meant to take less than this, at the p99.
const FAST: Duration = Duration::from_millis(5);

/// What was seen once all breakers had opened, until the replicas were mended.
struct Down {
    shots: Shots,
    lasted: Duration,
    /// Requests and connections that each replica got.
    requests: Vec<usize>,
    accepted: Vec<usize>,
    /// How often one was let try.
    tries: usize,
    /// From the recovery to the last failure.
    failed_until: Duration,
}

impl Down {
    async fn of(fault: Fault) -> Self {
        let scene = Scene::start(Way::Plaintext).await;
        for replica in &scene.replicas {
            let _ = replica.turn(fault);
        }
        let known = |shots: &Shots| {
            shots
                .filter(|shot| shot.said.as_deref() == Some(FLAG))
                .len()
        };
        wait::until("breakers to open", 2 * PATIENCE, async || {
            known(&scene.load.so_far()) >= RATE / 10
        })
        .await;
        let opened = Instant::now();
        let before = scene.half_opened().await;
        scene.load.passes(2 * RATE).await;
        let mended = Instant::now();
        let requests = scene
            .replicas
            .iter()
            .map(|one| one.requests_between(opened, mended));
        let requests = requests.collect();
        let accepted = scene
            .replicas
            .iter()
            .map(|one| one.accepted_between(opened, mended));
        let accepted = accepted.collect();
        let tries = scene.half_opened().await - before;
        for replica in &scene.replicas {
            let _ = replica.turn(Fault::None);
        }
        for replica in 0..scene.replicas.len() {
            scene.is_back(replica, mended).await;
        }
        let shots = scene.load.stop().await;
        let last = shots.failed().0.iter().map(|shot| shot.due).max();
        let down = Self {
            shots: shots.between(opened, mended),
            lasted: mended - opened,
            requests,
            accepted,
            tries,
            failed_until: last.unwrap_or(mended).saturating_duration_since(mended),
        };
        down.print(fault);
        down
    }

    fn print(&self, fault: Fault) {
        println!(
            "all {}: {:?} in {:?}; p99 of {FLAG} {:?}; replicas got {:?} requests, {:?} connections, {} times let try; callers failed for {:?} after they were mended",
            fault.name(),
            self.shots.kinds(),
            self.lasted,
            self.fast().latency(0.99),
            self.requests,
            self.accepted,
            self.tries,
            self.failed_until,
        );
    }

    fn fast(&self) -> Shots {
        let fast = self.shots.filter(|shot| shot.said.as_deref() == Some(FLAG));
        fast.since_sent()
    }

    fn callers_hear_so_at_once(&self) {
        // Whoever was let try is told of what it met.
        let others = self.shots.len() - self.fast().len();
        assert!(others <= self.tries + 1, "{:?}", self.shots.kinds());
        let p99 = self.fast().latency(0.99);
        assert!(p99 < SLACK * FAST, "{p99:?}");
    }

    fn the_service_has_peace(&self) {
        let backoffs = self.lasted.div_duration_f64(SHORTEST_BACKOFF);
        for (requests, accepted) in self.requests.iter().zip(&self.accepted) {
            // The one that falls into the window at its begin beside those of whole backoffs.
            let most = backoffs as usize + 1;
            assert!(
                *requests <= most,
                "{requests} requests in {:?}",
                self.lasted
            );
            assert!(
                *accepted <= most,
                "{accepted} connections in {:?}",
                self.lasted
            );
        }
        let requests: usize = self.requests.iter().sum();
        assert!(
            requests <= self.tries + self.requests.len(),
            "{requests} requests, though only {} were let try",
            self.tries
        );
    }

    fn it_is_used_again_soon(&self) {
        let limit = SLACK * (BACKOFF + Duration::from_secs(1));
        assert!(self.failed_until <= limit, "{:?}", self.failed_until);
    }
}

#[tokio::test]
async fn where_all_answer_503_callers_fail_fast() {
    let down = Down::of(Fault::Status(503)).await;
    down.callers_hear_so_at_once();
    down.the_service_has_peace();
    down.it_is_used_again_soon();
}

#[tokio::test]
async fn where_all_hang_callers_fail_fast() {
    let down = Down::of(Fault::Hang).await;
    down.callers_hear_so_at_once();
    down.the_service_has_peace();
    down.it_is_used_again_soon();
}

#[tokio::test]
async fn where_all_refuse_callers_fail_fast() {
    let down = Down::of(Fault::Refuse).await;
    down.callers_hear_so_at_once();
    down.the_service_has_peace();
    down.it_is_used_again_soon();
}
