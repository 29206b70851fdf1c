//! The endpoints of services whose policy says so, asked for their health by
//! this proxy: one task for each, on the control thread, not one per worker.
//! They use connections of their own, apart from pools and limits; what is
//! learnt goes to the endpoint's live state, where the balancer reads it.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use selvage_policy::endpoint::EndpointState;
use selvage_policy::health::{Checked, HealthChange, HealthCheck, Question};
use selvage_policy::snapshot::{EndpointKey, Protocol, ServiceName};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::connect::{ConnectError, Connected, Peer, connect};
use crate::discovery::Discovery;
use crate::discovery::ask::{Manner, ask, failed, within};
use crate::identity::Identity;
use crate::telemetry::metrics::Metrics;
use crate::tls::Inside;

/// Checks under way at once; more wait for their turn.
pub const CHECKS_AT_ONCE: usize = 64;

/// Hears of each change.
pub type Note = Box<dyn Fn(&EndpointKey, HealthChange) + Send + Sync>;

/// See the module.
pub struct Checks {
    discovery: Arc<Discovery>,
    identity: Arc<Identity>,
    metrics: Arc<Metrics>,
    /// Where its handshakes are counted.
    cell: usize,
    note: Note,
    turns: Semaphore,
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checks").finish_non_exhaustive()
    }
}

/// One endpoint, and how it is asked.
struct Target {
    state: Arc<EndpointState>,
    check: Arc<HealthCheck>,
    protocol: Protocol,
}

/// A target that is being asked, until this is dropped.
struct Asked {
    target: Arc<Target>,
    task: AbortHandle,
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Target {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
            && self.check == other.check
            && self.protocol == other.protocol
    }
}

impl Checks {
    /// Nobody is asked yet. `cell` is where handshakes are counted.
    #[must_use]
    pub fn new(
        discovery: Arc<Discovery>,
        identity: Arc<Identity>,
        metrics: Arc<Metrics>,
        cell: usize,
        note: Note,
    ) -> Arc<Self> {
        Arc::new(Self {
            discovery,
            identity,
            metrics,
            cell,
            note,
            turns: Semaphore::new(CHECKS_AT_ONCE),
        })
    }

    /// Asks whom the Snapshot of now wants to be asked, for as long as it is polled.
    pub async fn run(self: Arc<Self>) {
        let mut changed = self.discovery.watch();
        let mut asked = HashMap::new();
        loop {
            self.follow(&mut asked);
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whoever stays as it is goes on being asked; whom nobody asks any more is healthy.
    fn follow(self: &Arc<Self>, asked: &mut HashMap<EndpointKey, Asked>) {
        let mut wanted = self.wanted();
        asked.retain(|key, asked| match wanted.remove(key) {
            Some(target) if target.is_same(&asked.target) => true,
            Some(target) => {
                *asked = self.begin(target);
                true
            }
            None => {
                asked.task.abort();
                asked.target.state.unchecked();
                false
            }
        });
        let new = wanted
            .into_iter()
            .map(|(key, target)| (key, self.begin(target)));
        asked.extend(new);
    }

    fn wanted(&self) -> HashMap<EndpointKey, Target> {
        let Some(view) = self.discovery.view() else {
            return HashMap::new();
        };
        let mut wanted = HashMap::new();
        for live in view.live.services() {
            let Some(check) = &live.service.policy.health_check else {
                continue;
            };
            let check = Arc::new(check.clone());
            for port in &live.ports {
                let targets = port.states.iter().map(|state| Target {
                    state: state.clone(),
                    check: check.clone(),
                    protocol: port.port.protocol,
                });
                wanted.extend(targets.map(|target| (target.state.key().clone(), target)));
            }
        }
        wanted
    }

    fn begin(self: &Arc<Self>, target: Target) -> Asked {
        let target = Arc::new(target);
        let task = tokio::spawn(self.clone().go_on_asking(target.clone()));
        Asked {
            target,
            task: task.abort_handle(),
        }
    }

    async fn go_on_asking(self: Arc<Self>, target: Arc<Target>) {
        let pace = target.check.pace;
        let mut rng = fastrand::Rng::new();
        let mut next = Instant::now() + pace.first_wait(&mut rng);
        loop {
            tokio::time::sleep_until(next).await;
            next = Instant::now() + pace.wait(&mut rng);
            let checked = {
                // Never closed. The wait for a turn is no part of the check.
                let _turn = self.turns.acquire().await;
                within(pace.timeout, self.ask(&target)).await
            };
            let now = Instant::now().into_std();
            if let Some(change) = target.state.checked(&checked, &pace, now) {
                (self.note)(target.state.key(), change);
            }
        }
    }

    async fn ask(&self, target: &Target) -> Checked {
        let key = target.state.key();
        let peer = Peer::of(key);
        // On a port of opaque bytes there is nothing else to ask.
        let question = match target.protocol {
            Protocol::Tcp => &Question::Tcp,
            _ => &target.check.question,
        };
        let inside = match (question, target.protocol) {
            (_, Protocol::Tcp) => Inside::Tcp,
            (Question::Http { .. }, _) => Inside::Http1,
            (Question::Tcp | Question::Grpc { .. }, _) => Inside::Http2,
        };
        let (identity, metrics) = (&self.identity, &self.metrics);
        let connected = connect(&peer, inside, None, identity, metrics, self.cell).await;
        let Connected { io, inside, .. } = match connected {
            Ok(connected) => connected,
            Err(ConnectError::NoIdentity) => return Checked::Undecided,
            Err(error) => return failed(error),
        };
        if matches!(question, Question::Grpc { .. }) && inside != Inside::Http2 {
            return failed("it speaks HTTP/1.1 alone");
        }
        let ServiceName { namespace, name } = &key.service;
        let authority = format!("{name}.{namespace}:{}", key.port);
        let mesh = key.identity.is_some();
        let manner = Manner {
            authority: &authority,
            // A sidecar restores on its far side what the application speaks.
            http2: !mesh && matches!(target.protocol, Protocol::Http2 | Protocol::Grpc),
            mesh,
        };
        ask(io, question, manner).await
    }
}
