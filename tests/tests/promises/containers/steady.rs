//! A steady load that waits for nobody: a request is sent when it is due, over
//! a connection of its own, and never again. It says which replica answered.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use selvage_tests::client;
use selvage_tests::wait::{self, PATIENCE};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::lab::Lab;

/// Between two requests: 20 a second.
const PACE: Duration = Duration::from_millis(50);
/// What takes longer is late.
const PROMPT: Duration = Duration::from_millis(500);

/// One request.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    /// When, since the load began.
    pub(super) at: Duration,
    pub(super) took: Duration,
    /// The host that answered, or what came instead.
    pub(super) outcome: Result<String, String>,
}

/// A load under way.
pub(super) struct Steady {
    shared: Arc<Shared>,
    ended: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

struct Shared {
    begun: Instant,
    stop: AtomicBool,
    sent: Mutex<Vec<Sent>>,
}

/// What a fault did to those who called.
#[derive(Debug)]
pub(super) struct Effect {
    /// Requests that were under way at the fault or came after it.
    pub(super) requests: usize,
    /// Those that were answered late, or not at all.
    pub(super) late: usize,
    /// How long after the fault the last of these was sent: from then on it was healed.
    pub(super) last_late: Duration,
}

impl Steady {
    /// Calls `address` in the network of a process.
    pub(super) fn start(lab: &Lab, pid: u32, address: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            sent: Mutex::default(),
        });
        let calling = Arc::clone(&shared);
        let ended = lab.in_network_of(pid, move || call_until_told(calling, address));
        Self {
            shared,
            ended: Box::pin(ended),
        }
    }

    /// Now, as the load counts time.
    pub(super) fn now(&self) -> Duration {
        self.shared.begun.elapsed()
    }

    /// Waits until `holds` of the requests so far.
    pub(super) async fn until(&self, what: &str, holds: impl Fn(&[Sent]) -> bool) {
        wait::until(what, 3 * PATIENCE, async || holds(&self.shared.sent())).await;
    }

    /// Goes on for a while.
    pub(super) async fn goes_on(&self, more: Duration) {
        let until = self.now() + more;
        self.until("more load", |sent| sent.iter().any(|one| one.at >= until))
            .await;
    }

    /// What was sent and answered so far.
    pub(super) fn so_far(&self) -> Vec<Sent> {
        self.shared.sent().clone()
    }

    /// Ends it; all that was sent, in its order.
    pub(super) async fn stop(self) -> Vec<Sent> {
        self.shared.stop.store(true, Ordering::Relaxed);
        wait::within("the last answers", 3 * PATIENCE, self.ended).await;
        let mut sent = self.shared.sent().clone();
        sent.sort_by_key(|one| one.at);
        sent
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn sent(&self) -> std::sync::MutexGuard<'_, Vec<Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn call_until_told(shared: Arc<Shared>, address: SocketAddr) {
    let mut due = tokio::time::interval(PACE);
    // A machine that stood still for a moment does not owe anybody a burst.
    due.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut under_way = JoinSet::new();
    while !shared.stop.load(Ordering::Relaxed) {
        due.tick().await;
        let shared = Arc::clone(&shared);
        under_way.spawn(async move {
            let at = shared.begun.elapsed();
            let outcome = match client::try_get(address, "ratings.shop", "/cgi-bin/host").await {
                Ok(answer) if answer.status == 200 => Ok(answer.text().trim_end().to_owned()),
                Ok(answer) => Err(format!(
                    "{} {:?}",
                    answer.status,
                    answer.headers.get("x-selvage-flag")
                )),
                Err(error) => Err(error.to_string()),
            };
            let took = shared.begun.elapsed().saturating_sub(at);
            shared.sent().push(Sent { at, took, outcome });
        });
    }
    while under_way.join_next().await.is_some() {}
}

/// What the fault at `fault` did to the requests until `end`.
pub(super) fn effect(sent: &[Sent], fault: Duration, end: Duration) -> Effect {
    let touched = |one: &&Sent| one.at + one.took >= fault && one.at < end;
    let touched: Vec<_> = sent.iter().filter(touched).collect();
    let since = |one: &Sent| one.at.saturating_sub(fault);
    let late = |one: &&&Sent| one.outcome.is_err() || one.took > PROMPT;
    Effect {
        requests: touched.len(),
        late: touched.iter().filter(late).count(),
        last_late: touched
            .iter()
            .filter(late)
            .map(|one| since(one))
            .max()
            .unwrap_or_default(),
    }
}

/// How many requests `replica` answered that were sent after `moment`.
pub(super) fn answers(sent: &[Sent], replica: &str, moment: Duration) -> usize {
    let of_replica = |one: &&Sent| one.at > moment && one.outcome.as_deref() == Ok(replica);
    sent.iter().filter(of_replica).count()
}

/// How long after `moment` the first request was sent that `replica` answered.
pub(super) fn first_answer(sent: &[Sent], replica: &str, moment: Duration) -> Option<Duration> {
    let of_replica = |one: &&Sent| one.at > moment && one.outcome.as_deref() == Ok(replica);
    let sent = sent.iter().filter(of_replica);
    sent.map(|one| one.at - moment).min()
}
