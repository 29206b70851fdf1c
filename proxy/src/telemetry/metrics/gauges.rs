//! Gauges that are known elsewhere: asked for at each scrape, kept nowhere.
//!
//! What is not set is not shown. Labels are closed sets, but for the destination of endpoints,
//! which the exposition bounds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use selvage_policy::crowd::Spill;
use selvage_policy::server::ServerState;

use super::labels::{CertificateKind, EndpointCondition};
use super::protection::PortSum;

/// Fills in gauges at a scrape. It runs on the scraping thread.
pub(super) type Source = Arc<dyn Fn(&mut Gauges) + Send + Sync>;

/// What the sources of one scrape said.
#[derive(Debug, Default)]
pub struct Gauges {
    pub(super) endpoints: BTreeMap<Box<str>, [u64; 5]>,
    /// By reason; only what has happened.
    pub(super) spills: BTreeMap<Box<str>, [u64; 2]>,
    pub(super) certificates: BTreeMap<CertificateKind, f64>,
    /// By listener of the gateway, of which there are few.
    pub(super) listeners: BTreeMap<Box<str>, f64>,
    pub(super) ports: BTreeMap<u16, PortSum>,
    pub(super) discovery_connected: Option<bool>,
    pub(super) snapshot_version: Option<u64>,
}

impl Gauges {
    /// `count` more endpoints of `destination` (`namespace/service`) stand as `condition` says.
    pub fn endpoints(&mut self, destination: &str, condition: EndpointCondition, count: u64) {
        let counts = self.endpoints.entry(destination.into()).or_default();
        counts[condition as usize] += count;
    }

    /// `count` more requests for `destination` went elsewhere, for the reason `why`.
    pub fn spills(&mut self, destination: &str, why: Spill, count: u64) {
        if count > 0 {
            let counts = self.spills.entry(destination.into()).or_default();
            counts[why as usize] += count;
        }
    }

    /// What is going on at one of the application's ports.
    pub fn port(&mut self, port: u16, state: &ServerState) {
        self.ports.insert(port, PortSum::of(state));
    }

    /// When a certificate expires; before 1970 counts as 1970.
    pub fn certificate_expiry(&mut self, kind: CertificateKind, not_after: SystemTime) {
        self.certificates.insert(kind, seconds(not_after));
    }

    /// When the first certificate that a gateway's listener presents expires.
    pub fn listener_expiry(&mut self, listener: &str, not_after: SystemTime) {
        self.listeners.insert(listener.into(), seconds(not_after));
    }

    /// Whether the stream to the control plane is up.
    pub fn discovery_connected(&mut self, connected: bool) {
        self.discovery_connected = Some(connected);
    }

    /// The revision of the Snapshot in use.
    pub fn snapshot_version(&mut self, revision: u64) {
        self.snapshot_version = Some(revision);
    }
}

/// Seconds since 1970; before it counts as then.
fn seconds(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}
