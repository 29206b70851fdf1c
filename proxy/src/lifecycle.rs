//! Readiness and the way down: what must hold before traffic is welcome, and
//! the phases of a drain. Knows no sockets and no signals; those who accept
//! and serve watch it.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Which side of the application a connection or request is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Toward the application.
    Inbound,
    /// From the application, to other services.
    Outbound,
}

impl Direction {
    /// As in labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What `ready` waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// An identity to present to peers.
    Identity,
    /// The first Snapshot.
    Snapshot,
    /// Every listener bound.
    Listeners,
}

/// What is open in one direction.
#[derive(Debug, Default)]
struct Open {
    connections: AtomicUsize,
    /// Listeners that may still hold connections in their backlog.
    listeners: AtomicUsize,
}

/// Shared by all threads of one proxy.
#[derive(Debug, Default)]
pub struct Lifecycle {
    identity: AtomicBool,
    snapshot: AtomicBool,
    listeners: AtomicBool,
    held: Notify,
    /// Set at the first SIGTERM: not ready, deregistered, still serving.
    leaving: CancellationToken,
    /// Inbound stops accepting and finishes what is in flight.
    inbound_closing: CancellationToken,
    /// The same for outbound, once inbound is idle.
    outbound_closing: CancellationToken,
    inbound: Open,
    outbound: Open,
    idle: Notify,
}

impl Lifecycle {
    /// A proxy that is not ready yet.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Records that a condition of readiness holds.
    pub fn hold(&self, condition: Condition) {
        let cell = match condition {
            Condition::Identity => &self.identity,
            Condition::Snapshot => &self.snapshot,
            Condition::Listeners => &self.listeners,
        };
        cell.store(true, Ordering::Release);
        self.held.notify_waiters();
    }

    /// Resolves when nothing is missing.
    pub async fn ready(&self) {
        loop {
            let mut held = pin!(self.held.notified());
            // From here on nothing that is held goes unnoticed.
            held.as_mut().enable();
            if self.missing().is_empty() {
                return;
            }
            held.await;
        }
    }

    /// What is still missing; empty when ready.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let mut missing = Vec::new();
        for (cell, name) in [
            (&self.identity, "no identity yet"),
            (&self.snapshot, "no snapshot yet"),
            (&self.listeners, "listeners not bound yet"),
        ] {
            if !cell.load(Ordering::Acquire) {
                missing.push(name);
            }
        }
        if self.leaving.is_cancelled() {
            missing.push("draining");
        }
        missing
    }

    /// Starts the drain: from now on not ready.
    pub fn leave(&self) {
        self.leaving.cancel();
    }

    /// Resolves when the drain has started.
    pub async fn left(&self) {
        self.leaving.cancelled().await;
    }

    /// Cancelled when connections of this direction should end.
    #[must_use]
    pub fn closing(&self, direction: Direction) -> &CancellationToken {
        match direction {
            Direction::Inbound => &self.inbound_closing,
            Direction::Outbound => &self.outbound_closing,
        }
    }

    /// Counts a connection for as long as the guard lives.
    #[must_use]
    pub fn opened(self: &Arc<Self>, direction: Direction) -> OpenConnection {
        self.hold_open(direction, |open| &open.connections)
    }

    /// Counts a listener that is accepted from, for as long as the guard lives.
    #[must_use]
    pub fn accepting(self: &Arc<Self>, direction: Direction) -> OpenConnection {
        self.hold_open(direction, |open| &open.listeners)
    }

    fn hold_open(self: &Arc<Self>, direction: Direction, counter: Counter) -> OpenConnection {
        counter(self.open(direction)).fetch_add(1, Ordering::AcqRel);
        OpenConnection {
            lifecycle: self.clone(),
            direction,
            counter,
        }
    }

    /// Connections open in a direction.
    #[must_use]
    pub fn connections(&self, direction: Direction) -> usize {
        self.open(direction).connections.load(Ordering::Acquire)
    }

    fn open(&self, direction: Direction) -> &Open {
        match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        }
    }

    /// Resolves when no connection of this direction is open, nor one waits to be accepted.
    async fn idle(&self, direction: Direction) {
        loop {
            let woken = self.idle.notified();
            let listeners = self.open(direction).listeners.load(Ordering::Acquire);
            if listeners == 0 && self.connections(direction) == 0 {
                return;
            }
            woken.await;
        }
    }

    /// The drain: waits until callers have heard, then lets inbound finish,
    /// then outbound, which goes on accepting until inbound is idle because a
    /// sidecar must not be less graceful than its application.
    ///
    /// `delay` and `timeout` count from the start; the whole takes at most `timeout`.
    pub async fn drain(&self, delay: Duration, timeout: Duration) {
        let phases = async {
            tokio::time::sleep(delay).await;
            self.inbound_closing.cancel();
            self.idle(Direction::Inbound).await;
            self.outbound_closing.cancel();
            self.idle(Direction::Outbound).await;
        };
        if tokio::time::timeout(timeout, phases).await.is_err() {
            tracing::warn!(
                inbound = self.connections(Direction::Inbound),
                outbound = self.connections(Direction::Outbound),
                "drain timed out; the connections that are left are cut"
            );
        }
        self.inbound_closing.cancel();
        self.outbound_closing.cancel();
    }
}

/// Which of the counters of a direction.
type Counter = fn(&Open) -> &AtomicUsize;

/// Counts one open connection or listener; dropping it counts it out.
#[derive(Debug)]
pub struct OpenConnection {
    lifecycle: Arc<Lifecycle>,
    direction: Direction,
    counter: Counter,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        (self.counter)(self.lifecycle.open(self.direction)).fetch_sub(1, Ordering::AcqRel);
        self.lifecycle.idle.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_waits_for_all_three_conditions() {
        let lifecycle = Lifecycle::new();
        assert_eq!(lifecycle.missing().len(), 3);
        for condition in [
            Condition::Identity,
            Condition::Snapshot,
            Condition::Listeners,
        ] {
            lifecycle.hold(condition);
        }
        assert!(lifecycle.missing().is_empty());
        lifecycle.leave();
        assert_eq!(lifecycle.missing(), ["draining"]);
    }

    #[tokio::test]
    async fn whoever_waits_for_readiness_hears_of_the_last_condition() {
        let lifecycle = Lifecycle::new();
        lifecycle.hold(Condition::Identity);
        lifecycle.hold(Condition::Snapshot);
        let held = async {
            tokio::task::yield_now().await;
            lifecycle.hold(Condition::Listeners);
        };
        tokio::join!(lifecycle.ready(), held);
        lifecycle.ready().await;
    }

    #[tokio::test]
    async fn outbound_goes_on_until_inbound_is_idle() {
        let lifecycle = Lifecycle::new();
        let inbound = lifecycle.opened(Direction::Inbound);
        let drain = lifecycle.drain(Duration::ZERO, Duration::from_secs(60));
        let told = async {
            lifecycle.closing(Direction::Inbound).cancelled().await;
            assert!(!lifecycle.closing(Direction::Outbound).is_cancelled());
            drop(inbound);
        };
        tokio::join!(drain, told);
        assert!(lifecycle.closing(Direction::Outbound).is_cancelled());
    }

    #[tokio::test]
    async fn a_drain_ends_at_its_timeout() {
        let lifecycle = Lifecycle::new();
        let _stuck = lifecycle.opened(Direction::Inbound);
        lifecycle
            .drain(Duration::ZERO, Duration::from_millis(50))
            .await;
        assert_eq!(lifecycle.connections(Direction::Inbound), 1);
        assert!(lifecycle.closing(Direction::Outbound).is_cancelled());
    }
}
