//! What all threads of a proxy share, and the application beside them as a
//! service of its own. Made once, before the first worker starts; knows no worker.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use selvage_policy::server::{Rates, ServerState};
use selvage_policy::service::ServiceState;
use selvage_policy::snapshot::{
    BreakerPolicy, Endpoint, EndpointKey, Limits, MutualTls, Protocol, Service, ServiceName,
    ServicePort, Snapshot, TrafficPolicy, WorkloadName,
};
use selvage_policy::table::{LivePort, LiveService};
use selvage_policy::traces::TracesInFlight;

use crate::discovery::Discovery;
use crate::gateway::Gateway;
use crate::http::head::HeadLimits;
use crate::identity::Identity;
use crate::journal::Journal;
use crate::lifecycle::Lifecycle;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::Spans;
use crate::telemetry::told::Told;

/// One port of the application beside us.
#[derive(Debug, Clone)]
pub struct AppPort {
    /// The port callers name.
    pub service_port: u16,
    /// Where the application listens.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
}

/// Rules whose rates are remembered. Beyond it those that no worker uses are forgotten.
const RULES: usize = 16_384;

/// The rates of rules, by their labels: kept while Snapshots come and go.
#[derive(Debug, Default)]
pub struct RuleRates(Mutex<HashMap<Arc<str>, Arc<Rates>>>);

impl RuleRates {
    /// Those of one rule. Takes a lock: once per rule, worker and view.
    #[must_use]
    pub fn of(&self, label: &Arc<str>) -> Arc<Rates> {
        let mut known = self.0.lock();
        if known.len() >= RULES {
            known.retain(|_, rates| Arc::strong_count(rates) > 1);
        }
        let fresh = || Arc::new(Rates::new(Instant::now(), fastrand::u64(..)));
        known.entry(label.clone()).or_insert_with(fresh).clone()
    }
}

/// Settings the path reads, from the configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bounds of a head.
    pub head: HeadLimits,
    /// Bytes of all header fields.
    pub header_bytes: usize,
    /// Time for a head.
    pub header_timeout: Duration,
    /// Time for a handshake.
    pub handshake_timeout: Duration,
    /// Handshakes at a time.
    pub handshakes: usize,
    /// Streams per HTTP/2 connection.
    pub streams: u32,
    /// Bytes of a body kept for replay.
    pub replay_bytes: usize,
    /// The sidecar's own setting; unset: MeshConfig's.
    pub mutual_tls: Option<MutualTls>,
    /// The application's ports.
    pub ports: Vec<AppPort>,
}

/// What all threads of a proxy share.
pub struct Shared {
    /// Who we stand beside.
    pub workload: WorkloadName,
    /// Settings.
    pub settings: Settings,
    /// Our identity.
    pub identity: Arc<Identity>,
    /// What we know.
    pub discovery: Arc<Discovery>,
    /// Whether we are coming or going.
    pub lifecycle: Arc<Lifecycle>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is logged per request.
    pub access_log: AccessLog,
    /// Where spans go; absent with tracing off.
    pub spans: Option<Spans>,
    /// The traces of inbound requests in flight.
    pub traces: Arc<TracesInFlight>,
    /// Breakers' transitions.
    pub journal: Journal,
    /// Handshakes in progress.
    pub handshakes: tokio::sync::Semaphore,
    /// The addresses our own outbound listeners are bound to, or those of a gateway.
    pub own: ArcSwap<Vec<SocketAddr>>,
    /// What is served as a gateway.
    pub gateway: Option<Arc<Gateway>>,
    /// The application, as a service of one endpoint per port.
    pub apps: Vec<LiveService>,
    /// What is going on at each of its ports, for the policies that protect them.
    pub servers: Vec<(u16, Arc<ServerState>)>,
    /// How fast requests come in at the rules of routes that limit them.
    pub rates: RuleRates,
}

impl Shared {
    /// Whether what is told of connections is wanted; requests may be wanted beside, as spans.
    #[must_use]
    pub fn logs(&self) -> bool {
        self.access_log.is_on()
    }

    /// What is going on at one of the application's ports.
    #[must_use]
    pub fn server(&self, port: u16) -> Option<&Arc<ServerState>> {
        let found = self.servers.iter().find(|(known, _)| *known == port);
        found.map(|(_, state)| state)
    }

    /// Takes over the limits of a Snapshot. Where nothing changed it does nothing.
    pub fn protect(&self, snapshot: &Snapshot) {
        for (port, state) in &self.servers {
            state.set_policy(snapshot.inbound.server.of(*port));
        }
    }

    /// Hands a record to whoever tells it. Never waits.
    pub fn tell(&self, told: Box<Told>) {
        told.tell(&self.access_log, self.spans.as_ref());
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("workload", &self.workload)
            .finish_non_exhaustive()
    }
}

/// The application as a service: one endpoint, no breaker, no limits but those
/// of the inbound side.
#[must_use]
pub fn application(workload: &WorkloadName, port: &AppPort) -> LiveService {
    let name = ServiceName::new(&workload.namespace, &workload.service);
    let now = Instant::now();
    let unlimited = Limits {
        max_connections: u32::MAX,
        max_requests: u32::MAX,
        max_pending: u32::MAX,
    };
    let breaker = BreakerPolicy {
        consecutive_failures: 0,
        success_rate: None,
        ..BreakerPolicy::default()
    };
    let policy = Arc::new(TrafficPolicy {
        breaker,
        limits: unlimited,
        ..TrafficPolicy::default()
    });
    let endpoint = Endpoint {
        key: EndpointKey {
            service: name.clone(),
            port: port.service_port,
            address: port.address,
            identity: None,
        },
        id: "application".into(),
        weight: 1,
        labels: Default::default(),
        healthy: true,
    };
    let service_port = Arc::new(ServicePort {
        service: name.clone(),
        port: port.service_port,
        protocol: port.protocol,
        endpoints: vec![Arc::new(endpoint)],
        routes: None,
        streams: Vec::new(),
    });
    let state = Arc::new(ServiceState::new(name.clone(), policy.budget, now));
    let service = Arc::new(Service {
        name,
        ports: vec![service_port.clone()],
        policy,
    });
    LiveService {
        service,
        state,
        ports: vec![LivePort::alone(service_port, now)],
    }
}
