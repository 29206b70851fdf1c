//! What a gateway serves, kept up with the Snapshot on the control thread: the
//! sockets of its ports, bound when their first listener appears and closed
//! when the last has left, and the certificates of its listeners, also from
//! watched files. What is wrong with one of them leaves the others alone.
//!
//! It accepts nothing and routes nothing: a bound socket goes to a worker, and
//! which listener a connection meets is `selvage_policy::route`'s.

mod certificates;
mod ports;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use selvage_policy::route::{self, Listener};
use tokio::sync::{mpsc, watch};

use self::certificates::Certificates;
use self::ports::Ports;
use crate::accept;
use crate::config;
use crate::discovery::Discovery;
use crate::identity::Identity;
use crate::lifecycle::{Condition, Direction, Lifecycle};

pub use self::certificates::{CertificateShown, OneShown};
pub use self::ports::PortShown;

/// How often files are looked at, and ports tried that could not be bound.
const INTERVAL: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct Gateway {
    settings: config::Gateway,
    certificates: Certificates,
    ports: Mutex<Ports>,
    /// Counts how often it has kept up.
    kept_up: watch::Sender<u64>,
}

/// Told of a name and an address.
pub type Told = Box<dyn Fn(&str, SocketAddr) + Send + Sync>;

/// What a gateway is kept up with, and whom it tells.
pub struct Around {
    /// Where the Gateway resource comes from.
    pub discovery: Arc<Discovery>,
    /// Where certificates of the mesh come from.
    pub identity: Arc<Identity>,
    /// Told when all ports are bound; says when to end.
    pub lifecycle: Arc<Lifecycle>,
    /// Where bound sockets are accepted from.
    pub workers: Vec<mpsc::Sender<accept::Listener>>,
    /// Told of each socket that was bound: its name and its address.
    pub bound: Told,
}

impl Gateway {
    /// One that serves nothing yet.
    #[must_use]
    pub fn new(settings: config::Gateway) -> Arc<Self> {
        Arc::new(Self {
            settings,
            certificates: Certificates::default(),
            ports: Mutex::default(),
            kept_up: watch::Sender::new(0),
        })
    }

    /// Proxies in front of it whose word on clients counts.
    #[must_use]
    pub const fn trusted_hops(&self) -> usize {
        self.settings.trusted_hops
    }

    /// What a listener terminates TLS with; `None` where it has no usable certificate.
    #[must_use]
    pub fn tls(&self, listener: &Listener) -> Option<Arc<rustls::ServerConfig>> {
        self.certificates.of(listener)
    }

    /// Waits until it has kept up once more: a view is seen before what its new
    /// listeners terminate TLS with is made.
    pub async fn keeps_up(&self) {
        // An end of it is the end of the proxy.
        let _ = self.kept_up.subscribe().changed().await;
    }

    /// Where it is bound.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.ports.lock().addresses()
    }

    /// The ports that are wanted, for `/clusters`.
    #[must_use]
    pub fn ports(&self) -> Vec<PortShown> {
        self.ports.lock().shown()
    }

    /// The certificates of all listeners, for `/certs`.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateShown> {
        self.certificates.shown()
    }

    /// `namespace/name` of the Gateway resource.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.settings.namespace, self.settings.name)
    }

    /// Keeps up with what is wanted, until the drain.
    pub async fn run(self: Arc<Self>, around: Around) {
        let mut changed = around.discovery.watch();
        let mut identified = around.identity.watch();
        let closing = around.lifecycle.closing(Direction::Outbound).clone();
        loop {
            changed.mark_unchanged();
            identified.mark_unchanged();
            self.refresh(&around);
            self.kept_up.send_modify(|count| *count += 1);
            tokio::select! {
                () = closing.cancelled() => return,
                // An end of either is the end of the proxy.
                _ = changed.changed() => {}
                _ = identified.changed() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
    }

    fn refresh(&self, around: &Around) {
        let Some(view) = around.discovery.view() else {
            return;
        };
        let none = route::Gateway {
            name: self.name().into(),
            listeners: Vec::new(),
        };
        let gateway = view.snapshot.gateway.as_deref();
        let wanted = gateway.unwrap_or(&none);
        let current = around.identity.current();
        // First: a port that is bound is a port that is served.
        let folder = Path::new(&self.settings.folder);
        self.certificates
            .refresh(wanted, current.as_deref(), folder);
        let bound = self
            .ports
            .lock()
            .refresh(wanted, &self.settings, &around.lifecycle);
        for listener in bound {
            self.hand_over(listener, around);
        }
        if gateway.is_some() && self.ports.lock().is_complete() {
            around.lifecycle.hold(Condition::Listeners);
        }
    }

    /// Gives a bound socket to the worker that accepts from it.
    fn hand_over(&self, listener: accept::Listener, around: &Around) {
        let (name, address) = (listener.name.clone(), listener.address);
        let accept::Purpose::Gateway(gate) = &*listener.purpose else {
            return;
        };
        let port = gate.port;
        let worker = usize::from(port) % around.workers.len().max(1);
        let Some(Ok(())) = around
            .workers
            .get(worker)
            .map(|worker| worker.try_send(listener))
        else {
            tracing::error!(
                name,
                "the worker does not take the listener; it is bound again"
            );
            self.ports.lock().forget(port);
            return;
        };
        (around.bound)(&name, address);
    }
}
