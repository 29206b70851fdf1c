//! The scene of these promises: a caller's sidecar under steady load that never
//! retries, and three replicas of `orders.shop` that can be broken and mended.

use std::time::{Duration, Instant};

use selvage_tests::mesh::{EndpointOf, service, traffic_policy};
use selvage_tests::open_loop::{OpenLoop, Shots, Target};
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::replica::{Fault, Nature, Replica};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};

/// Requests per second.
pub(super) const RATE: usize = 200;
/// What a healthy replica takes.
pub(super) const TAKES: Duration = Duration::from_millis(15);
/// The longest that an open breaker waits, as [`POLICY`] says.
pub(super) const BACKOFF: Duration = Duration::from_secs(1);
/// The shortest: half of the first may be lost to chance.
pub(super) const SHORTEST_BACKOFF: Duration = Duration::from_millis(250);
/// Wall clock is promised with this much slack: others work on this machine too.
pub(super) const SLACK: u32 = 5;

/// What was sent this shortly before a replica broke may have met it broken.
const UNDER_WAY: Duration = Duration::from_millis(100);

const POLICY: &str = "  timeouts: { backendRequest: 200ms }\n  retry: { attempts: 2, on: [connect-failure, reset, timeout, 502, 503, 504] }\n  circuitBreaker: { backoff: { base: 500ms, max: 1s } }\n";

/// How the caller's sidecar reaches the replicas.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By mutual TLS, through a sidecar beside each.
    Mesh,
    /// In plaintext: what arrives at a replica is what its callers' sidecar sent.
    Plaintext,
}

/// The running scene.
pub(super) struct Scene {
    pub(super) replicas: Vec<Replica>,
    pub(super) caller: Sidecar,
    pub(super) load: OpenLoop,
    _beside: Vec<Sidecar>,
    _pki: Pki,
}

impl Scene {
    /// Everything healthy, under load for long enough that latencies are known.
    pub(super) async fn start(way: Way) -> Self {
        let pki = Pki::new();
        let nature = Nature {
            takes: TAKES,
            slots: None,
        };
        let replicas: Vec<Replica> = (0..3).map(|_| Replica::start(nature)).collect();
        let mut beside = Vec::new();
        let mut endpoints: Vec<EndpointOf> = Vec::new();
        for replica in &replicas {
            if way == Way::Plaintext {
                endpoints.push((replica.address, None));
                continue;
            }
            let sidecar = Sidecar::builder("orders")
                .application(80, replica.address, "http")
                .start(&pki)
                .await;
            endpoints.push((sidecar.inbound(), Some(spiffe_id("shop", "orders"))));
            beside.push(sidecar);
        }
        let caller = Sidecar::builder("client")
            .resources(&service("orders", "http", &endpoints))
            .resources(&traffic_policy(POLICY))
            .start(&pki)
            .await;
        let target = Target {
            address: caller.outbound(),
            authority: ORDERS,
            patience: PATIENCE,
        };
        let load = OpenLoop::start(target, u32::try_from(RATE).expect("it is small"));
        load.passes(RATE / 2).await;
        Self {
            replicas,
            caller,
            load,
            _beside: beside,
            _pki: pki,
        }
    }

    /// How often a breaker of the caller's sidecar became HalfOpen: each time one request may try.
    pub(super) async fn half_opened(&self) -> usize {
        let metrics = self.caller.metrics().await;
        let labels = [("destination", "shop/orders"), ("to", "half_open")];
        usize::try_from(metrics.count("selvage_breaker_transitions_total", &labels))
            .expect("it is small")
    }

    /// Waits until the replica takes its part again; how long after `mended` that was.
    pub(super) async fn is_back(&self, replica: usize, mended: Instant) -> Duration {
        let limit = SLACK * (BACKOFF + Duration::from_secs(1));
        wait::until("the replica to be back", limit, async || {
            self.replicas[replica].requests_between(mended, Instant::now()) >= RATE / 20
        })
        .await;
        mended.elapsed()
    }
}

/// One of three breaks under load and is mended.
pub(super) struct Story {
    /// Answers before.
    pub(super) healthy: Shots,
    /// Answers to what was sent while it was broken.
    pub(super) broken: Shots,
    /// Those without the first second.
    pub(super) settled: Shots,
    /// Answers to what was sent afterwards.
    pub(super) mended: Shots,
    /// Requests that each replica got while the first was broken.
    pub(super) requests: Vec<usize>,
    /// The part of them that went to the broken one after the first second.
    pub(super) settled_share: f64,
    /// How often it was let try while it was broken.
    pub(super) tries: usize,
    /// From its recovery to its return. A slow one was never out, and its load returns as what is
    /// remembered of it fades (τ is 10 s): that is not waited for.
    pub(super) back_after: Option<Duration>,
}

impl Story {
    pub(super) async fn of(fault: Fault) -> Self {
        let scene = Scene::start(Way::Mesh).await;
        let begin = Instant::now();
        scene.load.passes(RATE).await;
        let before = scene.half_opened().await;
        let broken = scene.replicas[0].turn(fault);
        scene.load.passes(RATE * 5 / 2).await;
        let mended = scene.replicas[0].turn(Fault::None);
        let tries = scene.half_opened().await - before;
        let back_after = match fault {
            Fault::Slow(_) => None,
            _ => Some(scene.is_back(0, mended).await),
        };
        scene.load.passes(RATE / 4).await;
        let requests_from = |from| -> Vec<usize> {
            let of = |replica: &Replica| replica.requests_between(from, mended);
            scene.replicas.iter().map(of).collect()
        };
        let settled = broken + Duration::from_secs(1);
        let requests = requests_from(broken);
        let late = requests_from(settled);
        let shots = scene.load.stop().await;
        let story = Self {
            healthy: shots.between(begin, broken - UNDER_WAY),
            broken: shots.between(broken - UNDER_WAY, mended),
            settled: shots.between(settled, mended),
            mended: shots.between(mended, Instant::now()),
            settled_share: share(late[0], late.iter().sum()),
            requests,
            tries,
            back_after,
        };
        story.print(fault);
        story
    }

    fn print(&self, fault: Fault) {
        println!(
            "one of three {}: {} of {} callers failed {:?}, {} of {} after it was mended; p99 {:?} before, {:?} from the second second on; it got {} requests, {} of them let try; back after {:?}",
            fault.name(),
            self.broken.failed().len(),
            self.broken.len(),
            self.broken.failed().kinds(),
            self.mended.failed().len(),
            self.mended.len(),
            self.healthy.latency(0.99),
            self.settled.latency(0.99),
            self.requests[0],
            self.tries,
            self.back_after,
        );
    }
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}
