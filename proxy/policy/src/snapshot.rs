//! The Snapshot: everything a proxy knows of the mesh at one revision,
//! immutable once made. A request loads one at its start and uses it to its
//! end. Live state (load, breakers, budgets) is kept beside it, keyed by
//! [`EndpointKey`] and [`ServiceName`], so that a swap forgets nothing.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use selvage_certs::{SpiffeId, TrustDomain};

use crate::authorize::AuthorizationPolicy;
use crate::failures::Failures;
use crate::fallback::FallbackPolicy;
use crate::fault::FaultPolicy;
use crate::health::HealthCheck;
use crate::hedge::HedgePolicy;
use crate::mirror::MirrorPolicy;
use crate::route::{Gateway, RouteTable, StreamRoute};
use crate::server::ServerPolicies;

mod balancer;

pub use self::balancer::{
    AffinityCookie, Algorithm, Balancer, HashOn, Hashing, Locality, SlowStart, ZONE_LABEL,
};

/// What one workload knows of the mesh at one revision.
#[derive(Debug)]
pub struct Snapshot {
    /// Revision of the store it was made from; in static mode a count of loads.
    pub revision: u64,
    /// Who this proxy stands beside.
    pub workload: WorkloadName,
    /// Mesh-wide settings.
    pub mesh: Mesh,
    /// What the inbound side checks.
    pub inbound: InboundPolicy,
    /// The services known so far.
    pub services: HashMap<ServiceName, Arc<Service>>,
    /// What it serves as a gateway.
    pub gateway: Option<Arc<Gateway>>,
}

/// A workload: one process of a service, with its sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadName {
    /// Its namespace: short authorities resolve in it.
    pub namespace: Arc<str>,
    /// Its own name, unique in the namespace.
    pub name: Arc<str>,
    /// The service it is a replica of.
    pub service: Arc<str>,
}

/// Settings of `MeshConfig` that a proxy needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mesh {
    /// The one trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// Whether plaintext is accepted on the inbound side.
    pub mutual_tls: MutualTls,
    /// Upper bound of the exposition, in lines.
    pub series_limit: usize,
}

/// Whether the inbound side accepts plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MutualTls {
    /// Only mutual TLS.
    Strict,
    /// Also plaintext, without an identity.
    Permissive,
}

/// Authorization of the inbound side.
#[derive(Debug, Default)]
pub struct InboundPolicy {
    /// Applies where no enforced allow rule selects the workload.
    pub default_deny: bool,
    /// The policies that select this workload's service, in their given order.
    pub authorization: Vec<AuthorizationPolicy>,
    /// How much its ports take on.
    pub server: ServerPolicies,
}

/// `namespace/name` of a service.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name within it.
    pub name: Arc<str>,
}

impl ServiceName {
    /// Builds the name of a service from its two parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A service as its callers see it.
#[derive(Debug)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// Its ports, ascending by number.
    pub ports: Vec<Arc<ServicePort>>,
    /// How callers treat it.
    pub policy: Arc<TrafficPolicy>,
}

/// One port of a service, with the endpoints that serve it.
#[derive(Debug)]
pub struct ServicePort {
    /// The service it belongs to.
    pub service: ServiceName,
    /// The number callers use.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Those that serve this port, ordered by their key.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// What is attached to it for HTTP and gRPC; `None`: nothing, all goes to its endpoints.
    pub routes: Option<Arc<RouteTable>>,
    /// What is attached to it for TLS and TCP, oldest first.
    pub streams: Vec<Arc<StreamRoute>>,
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Told from the first bytes.
    Detect,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// Opaque bytes.
    Tcp,
}

/// One address that serves one port of a service.
#[derive(Debug)]
pub struct Endpoint {
    /// What live state is keyed by.
    pub key: EndpointKey,
    /// For logs and `/clusters`: `namespace/workload`, or the address.
    pub id: Arc<str>,
    /// Share of traffic; 0 takes none.
    pub weight: u32,
    /// Labels of the workload.
    pub labels: BTreeMap<String, String>,
    /// Whether the registry says that the application answers.
    pub healthy: bool,
}

/// Identifies an endpoint across Snapshots. A change of any part makes it another endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointKey {
    /// The service it serves.
    pub service: ServiceName,
    /// The service port it serves.
    pub port: u16,
    /// Where to connect: the inbound listener of its sidecar, or the plaintext server itself.
    pub address: SocketAddr,
    /// Mutual TLS with this identity; `None` means plaintext, outside the mesh.
    pub identity: Option<SpiffeId>,
}

/// How callers treat a service; defaults are filled in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrafficPolicy {
    /// Time limits.
    pub timeouts: Timeouts,
    /// Retries by policy; `None`: only transparent retries.
    pub retry: Option<RetryPolicy>,
    /// Bounds what retries by policy and transparent retries add.
    pub budget: BudgetPolicy,
    /// When an endpoint is taken out of rotation.
    pub breaker: BreakerPolicy,
    /// Bounds per service.
    pub limits: Limits,
    /// How an endpoint is chosen.
    pub balancer: Balancer,
    /// Which answers are failures.
    pub failures: Failures,
    /// How its endpoints are asked for their health; `None`: not at all.
    pub health_check: Option<HealthCheck>,
    /// Which requests are sent twice when their first try takes long; `None`: none.
    pub hedge: Option<HedgePolicy>,
    /// What stands in where it fails.
    pub fallback: Option<FallbackPolicy>,
    /// What is injected on purpose.
    pub fault: Option<FaultPolicy>,
    /// Who gets copies of its requests.
    pub mirror: Option<MirrorPolicy>,
}

/// A port of another service that requests go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The service.
    pub service: ServiceName,
    /// Its port; `None`: the only one, or the one an authority without a port would mean.
    pub port: Option<u16>,
}

/// Time limits; `None` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// The whole exchange, with retries, to the last byte.
    pub request: Option<Duration>,
    /// One try.
    pub backend_request: Option<Duration>,
    /// Establishing a connection, with its TLS handshake.
    pub connect: Option<Duration>,
    /// HTTP streams without a byte in either direction, and idle connections.
    pub idle: Option<Duration>,
    /// The same for upgrades and TCP.
    pub idle_tcp: Option<Duration>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request: None,
            backend_request: None,
            connect: Some(Duration::from_secs(1)),
            idle: Some(Duration::from_secs(300)),
            idle_tcp: Some(Duration::from_secs(3600)),
        }
    }
}

/// Which failures are retried, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Retries beyond the first try.
    pub attempts: u32,
    /// Which failures.
    pub on: RetryOn,
    /// Which methods; gRPC calls are POST and are retried only when `on` lists gRPC statuses.
    pub methods: Vec<http::Method>,
    /// Wait before a retry: full jitter in `[0, base·2ⁿ]`, at most `max`.
    pub backoff: BackoffPolicy,
    /// Bytes of a request's body that are kept for replay.
    pub buffer_limit: usize,
}

/// The failures a policy retries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// The upstream could not be reached.
    pub connect_failure: bool,
    /// It went away before response headers.
    pub reset: bool,
    /// It did not answer within `backend_request`.
    pub timeout: bool,
    /// HTTP status codes.
    pub statuses: Vec<http::StatusCode>,
    /// gRPC status codes.
    pub grpc_statuses: Vec<u32>,
}

/// Exponential backoff.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    /// First step.
    pub base: Duration,
    /// Upper bound.
    pub max: Duration,
}

/// Retries ≤ `percent` of requests over `interval`, plus `min_per_second`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetPolicy {
    /// Share of requests, in per cent.
    pub percent: u32,
    /// The sliding window.
    pub interval: Duration,
    /// Granted whatever the load.
    pub min_per_second: u32,
}

impl Default for BudgetPolicy {
    fn default() -> Self {
        Self {
            percent: 20,
            interval: Duration::from_secs(10),
            min_per_second: 1,
        }
    }
}

/// When an endpoint is taken out of rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerPolicy {
    /// Hard failures in a row; 0 turns the rule off.
    pub consecutive_failures: u32,
    /// The rule by success rate; `None` turns it off.
    pub success_rate: Option<SuccessRate>,
    /// How long it stays open.
    pub backoff: BackoffPolicy,
    /// By success rate, at most this share of a service's endpoints is open.
    pub max_open_percent: u32,
}

/// The rule by success rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SuccessRate {
    /// Opens below this share of successes, in per cent.
    pub threshold_percent: u32,
    /// Span of the ring of 10 buckets.
    pub window: Duration,
    /// Not judged with fewer.
    pub minimum_requests: u32,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            success_rate: Some(SuccessRate {
                threshold_percent: 80,
                window: Duration::from_secs(10),
                minimum_requests: 20,
            }),
            backoff: BackoffPolicy {
                base: Duration::from_secs(1),
                max: Duration::from_secs(60),
            },
            max_open_percent: 50,
        }
    }
}

/// Bounds per service and proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Upstream connections, opaque and upgraded ones included.
    pub max_connections: u32,
    /// Requests in flight, to the end of their response bodies.
    pub max_requests: u32,
    /// Requests that wait for a connection.
    pub max_pending: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 1024,
            max_requests: 1024,
            max_pending: 1024,
        }
    }
}
