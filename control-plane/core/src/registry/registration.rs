//! Registrations: what a workload says of itself, and what is refused of it.
//! Refuses to know leases.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use selvage_certs::SpiffeId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::MAX_WORKLOADS;
use crate::resource::service::{MAX_PORTS, MAX_WEIGHT, Protocol};
use crate::resource::{
    MAX_LABEL_BYTES, MAX_LABELS, MAX_SNI_BYTES, ServiceName, is_dns_label, sni_bytes,
};

/// `namespace/workload`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WorkloadKey {
    /// The namespace.
    pub namespace: String,
    /// The name there.
    pub workload: String,
}

impl WorkloadKey {
    /// From its two parts.
    #[must_use]
    pub fn new(namespace: &str, workload: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            workload: workload.to_owned(),
        }
    }
}

impl std::fmt::Display for WorkloadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.workload)
    }
}

/// A workload as it registers. Can be kept: it holds no times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its namespace, and that of its service.
    pub namespace: String,
    /// Its own name.
    pub workload: String,
    /// The service it is a replica of.
    pub service: String,
    /// Who it is: from its certificate, never from what it says.
    #[serde(serialize_with = "write_id", deserialize_with = "read_id")]
    pub identity: SpiffeId,
    /// Its sidecar's inbound listener.
    pub address: SocketAddr,
    /// The service ports it serves.
    pub ports: Vec<RegisteredPort>,
    /// For people, metrics and subsets.
    pub labels: BTreeMap<String, String>,
    /// Share of traffic.
    pub weight: u32,
    /// Its telemetry listener.
    pub telemetry: Option<SocketAddr>,
}

/// One service port of a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredPort {
    /// The number callers use.
    pub service_port: u16,
    /// What is spoken.
    pub protocol: Protocol,
    /// Whether the application answers.
    pub healthy: bool,
}

fn write_id<S: Serializer>(id: &SpiffeId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(id.as_str())
}

fn read_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SpiffeId, D::Error> {
    let text = String::deserialize(deserializer)?;
    SpiffeId::parse(&text).map_err(serde::de::Error::custom)
}

impl Registration {
    /// What it is known by.
    #[must_use]
    pub fn key(&self) -> WorkloadKey {
        WorkloadKey::new(&self.namespace, &self.workload)
    }

    /// Its service.
    #[must_use]
    pub fn service_name(&self) -> ServiceName {
        ServiceName::new(&self.namespace, &self.service)
    }

    pub(super) fn check(&self) -> Result<(), InvalidRegistration> {
        for name in [&self.namespace, &self.workload, &self.service] {
            if !is_dns_label(name) {
                return Err(InvalidRegistration::Name(name.chars().take(80).collect()));
            }
        }
        let mut numbers = BTreeSet::new();
        let unique = self
            .ports
            .iter()
            .all(|port| numbers.insert(port.service_port));
        if !unique || numbers.contains(&0) || self.ports.len() > MAX_PORTS {
            return Err(InvalidRegistration::Ports);
        }
        let trust_domain = self.identity.trust_domain();
        let longest = numbers.last().copied().unwrap_or_default();
        if sni_bytes(longest, &self.service_name(), trust_domain.as_str()) > MAX_SNI_BYTES {
            return Err(InvalidRegistration::NameTooLong);
        }
        if self.address.ip().is_unspecified() || self.address.port() == 0 {
            return Err(InvalidRegistration::Address(self.address));
        }
        if !labels_fit(&self.labels) {
            return Err(InvalidRegistration::Labels);
        }
        if self.weight > MAX_WEIGHT {
            return Err(InvalidRegistration::Weight(self.weight));
        }
        Ok(())
    }
}

/// Why a registration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRegistration {
    /// A name is not a DNS label.
    #[error("`{0}` is not a DNS label")]
    Name(String),
    /// The SNI of its service would be too long.
    #[error("service, namespace and trust domain together are too long for SNI")]
    NameTooLong,
    /// A port is 0, given twice, or there are too many.
    #[error("expected at most {MAX_PORTS} different service ports from 1 to 65535")]
    Ports,
    /// Nobody can connect there.
    #[error("nothing can be reached at {0}")]
    Address(SocketAddr),
    /// Too many, too long, or with control characters.
    #[error("expected at most {MAX_LABELS} labels of at most {MAX_LABEL_BYTES} bytes")]
    Labels,
    /// Too large.
    #[error("expected a weight of at most {MAX_WEIGHT}, found {0}")]
    Weight(u32),
    /// Another identity holds this name.
    #[error("the workload {0} is registered by another identity")]
    Taken(WorkloadKey),
    /// The registry is full.
    #[error("the registry holds its {MAX_WORKLOADS} workloads already")]
    Full,
    /// The identity may not register this service.
    #[error("{identity} may not register workloads of the service {service}")]
    NotAllowed {
        /// Who asks.
        identity: String,
        /// For what.
        service: ServiceName,
    },
}

/// Whether labels that a workload says of itself are few and short enough to be kept.
#[must_use]
pub fn labels_fit(labels: &BTreeMap<String, String>) -> bool {
    let fits = |text: &String| text.len() <= MAX_LABEL_BYTES && !text.chars().any(char::is_control);
    labels.len() <= MAX_LABELS && labels.iter().all(|(key, value)| fits(key) && fits(value))
}

/// Whether an identity may register a workload of a service: only of its own
/// namespace, and only of a service it is allowed.
///
/// # Errors
/// [`InvalidRegistration::NotAllowed`].
pub fn authorize_registration(
    identity: &SpiffeId,
    allowed: &[ServiceName],
    service: &ServiceName,
) -> Result<(), InvalidRegistration> {
    if identity.namespace() == Some(service.namespace.as_str()) && allowed.contains(service) {
        return Ok(());
    }
    Err(InvalidRegistration::NotAllowed {
        identity: identity.as_str().to_owned(),
        service: service.clone(),
    })
}
