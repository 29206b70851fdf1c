//! The proxies that are connected, and what each last acknowledged or
//! refused. For people and for `check`; decides nothing.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Serialize;

use crate::metrics::Metrics;

/// Reasons kept of a proxy's last refusal.
const REASONS_KEPT: usize = 16;

/// One connected proxy.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProxyStatus {
    /// `namespace/workload`.
    pub(crate) workload: String,
    pub(crate) service: String,
    pub(crate) identity: String,
    /// Its version, as it says.
    pub(crate) version: String,
    pub(crate) address: String,
    /// Of those who do not register.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) scraped: Option<Scraped>,
    /// RFC 3339.
    pub(crate) connected_since: String,
    pub(crate) subscriptions: usize,
    /// The revision of the last push it acknowledged on this stream.
    pub(crate) acked: Option<u64>,
    /// Of the last push sent.
    pub(crate) sent: Option<u64>,
    /// Why it refused the last push it refused; empty once it acknowledges again.
    pub(crate) nacks: Vec<Nack>,
}

/// Where Prometheus finds a proxy, and what it is told beside.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Scraped {
    pub(crate) address: SocketAddr,
    pub(crate) labels: BTreeMap<String, String>,
}

/// One refused resource.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Nack {
    pub(crate) resource: String,
    pub(crate) reason: String,
    pub(crate) revision: u64,
}

/// All connected proxies, by stream.
#[derive(Debug)]
pub(crate) struct Proxies {
    streams: Mutex<(u64, BTreeMap<u64, ProxyStatus>)>,
    metrics: Arc<Metrics>,
}

impl Proxies {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            streams: Mutex::default(),
            metrics,
        }
    }

    /// Adds a proxy until the guard is dropped.
    pub(crate) fn connect(self: &Arc<Self>, status: ProxyStatus) -> Connected {
        let mut streams = self.streams.lock();
        streams.0 += 1;
        let id = streams.0;
        streams.1.insert(id, status);
        self.metrics.connected_proxies.inc();
        Connected {
            id,
            proxies: Arc::clone(self),
        }
    }

    /// All of them, in the order they connected.
    pub(crate) fn list(&self) -> Vec<ProxyStatus> {
        self.streams.lock().1.values().cloned().collect()
    }
}

/// A proxy's place in the list.
#[derive(Debug)]
pub(crate) struct Connected {
    id: u64,
    proxies: Arc<Proxies>,
}

impl Connected {
    /// Changes what is said of this proxy.
    pub(crate) fn update(&self, change: impl FnOnce(&mut ProxyStatus)) {
        if let Some(status) = self.proxies.streams.lock().1.get_mut(&self.id) {
            change(status);
            status.nacks.truncate(REASONS_KEPT);
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.proxies.streams.lock().1.remove(&self.id);
        self.proxies.metrics.connected_proxies.dec();
    }
}

/// Now, as RFC 3339.
pub(crate) fn now() -> String {
    Timestamp::now().to_string()
}
