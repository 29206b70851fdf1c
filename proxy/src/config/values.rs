//! The configuration as the rest of the proxy sees it: plain values, checked and complete.
//!
//! How they were written, and where, is no longer known here.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use selvage_certs::{SpiffeId, TrustDomain};
use selvage_policy::health::HealthCheck;
use selvage_policy::snapshot::{Protocol, ServiceName};

use super::Tracing;

/// Everything a proxy is told before it starts.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Who it stands beside.
    pub workload: Workload,
    /// The trust domain it takes itself to be in.
    pub trust_domain: TrustDomain,
    /// Where policy and identity come from.
    pub source: Source,
    /// The side toward other sidecars.
    pub inbound: Inbound,
    /// The side toward the application.
    pub outbound: Outbound,
    /// What it serves as a gateway; then it has neither an inbound nor an outbound side.
    pub gateway: Option<Gateway>,
    /// The admin port, on loopback.
    pub admin: SocketAddr,
    /// The telemetry port.
    pub telemetry: SocketAddr,
    /// Whether and how an access log is written.
    pub access_log: AccessLogFormat,
    /// Whether and how requests are traced.
    pub tracing: Option<Tracing>,
    /// How it leaves.
    pub drain: Drain,
    /// Bounds of this proxy.
    pub limits: Limits,
    /// Threads that carry traffic, at least one.
    pub workers: usize,
    /// Where the last good Snapshot and SVID are kept.
    pub state_dir: PathBuf,
    /// How logs are written.
    pub log_format: LogFormat,
}

impl Config {
    /// The identity of the workload: `spiffe://<trust domain>/ns/<namespace>/sa/<account>`.
    #[must_use]
    pub fn identity(&self) -> SpiffeId {
        let Workload {
            namespace,
            service_account,
            ..
        } = &self.workload;
        SpiffeId::of_service_account(&self.trust_domain, namespace, service_account)
            .expect("namespace and service account were checked to be DNS labels")
    }
}

/// The workload a sidecar stands beside. All names are DNS labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its own name, unique in the namespace.
    pub name: String,
    /// The service it is a replica of.
    pub service: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Where policy and identity come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A control plane.
    ControlPlane {
        /// Its gRPC address.
        address: HostPort,
        /// What proves who the workload is, the first time.
        token: Option<Token>,
    },
    /// Local files, watched.
    Static {
        /// A file or a folder of resources.
        resources: PathBuf,
        /// The workload's certificate; without it there is no mutual TLS.
        identity: Option<IdentityFiles>,
    },
}

/// A host, by name or address, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The port, not 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// A join token. Its text is never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// It stands in a file, which is read when it is needed.
    File(PathBuf),
    /// It is this.
    Literal(String),
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Literal(_) => f.write_str("Literal(…)"),
        }
    }
}

/// PEM files of an identity, watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFiles {
    /// The leaf, followed by its intermediates.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The roots of the trust domain.
    pub trust_bundle: PathBuf,
}

/// The side toward other sidecars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Where it listens.
    pub address: SocketAddr,
    /// What is registered; `None`: the source address of the route to the control plane.
    pub advertise: Option<SocketAddr>,
    /// `None`: as MeshConfig says.
    pub tls: Option<InboundTls>,
    /// The application's ports, each with a service port of its own.
    pub ports: Vec<InboundPort>,
}

/// Whether plaintext is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InboundTls {
    /// Only mutual TLS.
    Strict,
    /// Also plaintext, without an identity, where there is one port.
    Permissive,
}

/// One port of the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InboundPort {
    /// Where the application listens, on 127.0.0.1.
    pub port: u16,
    /// The port of the service that callers use.
    pub service_port: u16,
    /// What the application speaks.
    pub protocol: Protocol,
    /// How its health is found out; `None`: not at all, it is taken to be healthy.
    pub health: Option<HealthCheck>,
}

/// The side toward the application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// Where requests are routed by authority.
    pub address: SocketAddr,
    /// One port per upstream.
    pub listeners: Vec<OutboundListener>,
}

/// A port that stands for one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundListener {
    /// Where it listens.
    pub address: SocketAddr,
    /// The service; a name alone is of the workload's namespace.
    pub service: ServiceName,
    /// The service's port; `None`: 80 if it has it, else its only one.
    pub port: Option<u16>,
}

/// The Gateway a proxy serves, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gateway {
    /// Its namespace, and that of the proxy.
    pub namespace: String,
    /// The name of the Gateway resource.
    pub name: String,
    /// Where its ports are bound.
    pub address: IpAddr,
    /// From a listener's port to the one that is bound, where they differ; 0: any that is free.
    pub ports: BTreeMap<u16, u16>,
    /// Proxies in front of it whose `x-forwarded-…` fields count.
    pub trusted_hops: usize,
    /// What relative paths of certificates start at.
    pub folder: PathBuf,
}

/// How a proxy leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// From being deregistered to accepting no more: callers have the push by then.
    pub delay: Duration,
    /// All of it; longer than the delay.
    pub timeout: Duration,
}

/// Bounds of this proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a message's header fields.
    pub header_bytes: usize,
    /// Number of a message's header fields.
    pub header_count: usize,
    /// Bytes of a request's target.
    pub uri_bytes: usize,
    /// From the first byte of a head to its last.
    pub header_timeout: Duration,
    /// A TLS handshake.
    pub handshake_timeout: Duration,
    /// TLS handshakes at a time.
    pub handshakes: usize,
    /// Streams of an HTTP/2 connection at a time.
    pub streams: usize,
    /// Bytes of a request's body kept for a retry.
    pub replay_bytes: usize,
    /// Connections accepted at a time.
    pub connections: usize,
}

/// Whether and how an access log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLogFormat {
    /// Not at all.
    #[default]
    Off,
    /// `key=value` lines on stderr, beside the logs.
    Text,
    /// JSON lines on stdout, each `{"event":"access",…}`, beside the other events.
    Json,
}

/// Whether `OTEL_…` variables are read at all: they may be meant for the application beside us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traces {
    /// They say whether and how requests are traced.
    #[default]
    Otel,
    /// They are another's.
    Off,
}

/// How logs are written to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

macro_rules! words {
    ($type:ty { $($word:literal => $value:expr),+ }) => {
        impl FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)+
                    _ => Err(format!("expected {}, found `{text}`", [$($word),+].join(" or "))),
                }
            }
        }
    };
}

words!(InboundTls { "strict" => Self::Strict, "permissive" => Self::Permissive });
words!(AccessLogFormat { "off" => Self::Off, "text" => Self::Text, "json" => Self::Json });
words!(Traces { "otel" => Self::Otel, "off" => Self::Off });
words!(LogFormat { "text" => Self::Text, "json" => Self::Json });
