//! `Service`: what can be called, at which ports, and where it is when no
//! workload registers it. Refuses to know policy and registrations.

mod core;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use selvage_certs::SpiffeId;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::route::check_section;
use super::{NotSupportedYet, check_labels};
use crate::config::Checker;
pub(crate) use core::CoreServiceSpec;

/// Ports of one service.
pub const MAX_PORTS: usize = 64;

/// Endpoints of one document.
pub const MAX_ENDPOINTS: usize = 10_000;

/// Largest weight, as in Gateway API.
pub const MAX_WEIGHT: u32 = 1_000_000;

/// `spec` of a `Service`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ServiceSpec {
    /// What callers can ask for.
    #[serde(default)]
    pub ports: Vec<PortSpec>,
    /// Where it is, beside what registers.
    #[serde(default)]
    pub endpoints: Vec<EndpointSpec>,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortSpec {
    /// The number callers use.
    pub port: u16,
    /// The number at endpoints given without a port; the same if left out.
    pub target_port: Option<u16>,
    /// What routes call it, as `sectionName`.
    pub name: Option<String>,
    protocol: Option<Protocol>,
    app_protocol: Option<AppProtocol>,
}

impl PortSpec {
    /// What is spoken; told from the first bytes where nothing is said.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        let meant = self.app_protocol.map(AppProtocol::meant);
        self.protocol.or(meant).unwrap_or_default()
    }
}

/// What a port speaks, as Kubernetes has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum AppProtocol {
    /// HTTP/1.1.
    #[serde(rename = "http")]
    Http,
    /// HTTP/2 by prior knowledge.
    #[serde(rename = "kubernetes.io/h2c")]
    H2c,
    /// HTTP/1.1 that becomes a WebSocket.
    #[serde(rename = "kubernetes.io/ws")]
    Ws,
    /// gRPC.
    #[serde(rename = "grpc")]
    Grpc,
    /// Opaque bytes.
    #[serde(rename = "tcp")]
    Tcp,
}

impl AppProtocol {
    const fn meant(self) -> Protocol {
        match self {
            Self::Http | Self::Ws => Protocol::Http,
            Self::H2c => Protocol::Http2,
            Self::Grpc => Protocol::Grpc,
            Self::Tcp => Protocol::Tcp,
        }
    }
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Told from the first bytes.
    #[default]
    Detect,
    /// HTTP/1.1.
    Http,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque bytes.
    Tcp,
}

/// One place where a service is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct EndpointSpec {
    /// IP address, with or without a port.
    pub address: EndpointAddress,
    /// Mutual TLS with this identity; without one plaintext, outside the mesh.
    pub identity: Option<Identity>,
    /// Share of traffic; 0 takes none.
    #[serde(default = "one")]
    pub weight: u32,
    /// For people, metrics and subsets.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(rename = "tls")]
    _tls: Option<Unsupported>,
}

fn one() -> u32 {
    1
}

/// [`NotSupportedYet`], never made and so always equal.
#[derive(Debug, Clone, Deserialize)]
struct Unsupported(#[allow(dead_code, reason = "refuses by its type")] NotSupportedYet);

impl PartialEq for Unsupported {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// An IP address with or without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointAddress {
    /// The address.
    pub ip: IpAddr,
    /// The port; without one each service port's target port.
    pub port: Option<u16>,
}

/// A text is not the address of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEndpointAddress {
    /// It names a host.
    #[error("host names (`{0}`) are not supported yet: give an IP address")]
    HostName(String),
    /// It cannot be connected to.
    #[error("nothing can be reached at `{0}`")]
    Unreachable(String),
    /// It is something else.
    #[error("expected an IP address with or without a port, found `{0}`")]
    Malformed(String),
}

impl FromStr for EndpointAddress {
    type Err = InvalidEndpointAddress;

    fn from_str(text: &str) -> Result<Self, InvalidEndpointAddress> {
        let shown = || text.chars().take(80).collect::<String>();
        let bare = text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .unwrap_or(text);
        let parsed = match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
            (Ok(address), _) => Self {
                ip: address.ip(),
                port: Some(address.port()),
            },
            (_, Ok(ip)) => Self { ip, port: None },
            _ => {
                let host = text.rsplit_once(':').map_or(text, |(host, _)| host);
                let name = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
                let is_name = !host.is_empty()
                    && host.bytes().all(name)
                    && host.bytes().any(|b| b.is_ascii_alphabetic());
                return Err(match is_name {
                    true => InvalidEndpointAddress::HostName(shown()),
                    false => InvalidEndpointAddress::Malformed(shown()),
                });
            }
        };
        if parsed.ip.is_unspecified() || parsed.ip.is_multicast() || parsed.port == Some(0) {
            return Err(InvalidEndpointAddress::Unreachable(shown()));
        }
        Ok(parsed)
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for EndpointAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// A SPIFFE id of a workload.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity(pub SpiffeId);

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = SpiffeId::parse(&text)
            .map_err(|invalid| D::Error::custom(format!("not a SPIFFE id: {invalid}")))?;
        if id.path().is_empty() {
            return Err(D::Error::custom(
                "the id of a trust domain is not that of a workload",
            ));
        }
        Ok(Self(id))
    }
}

impl ServiceSpec {
    pub(crate) fn check(&self, check: &mut Checker<'_>) {
        let count = self.ports.len();
        check.require(
            (1..=MAX_PORTS).contains(&count),
            "spec.ports",
            format!("expected 1 to {MAX_PORTS} ports, found {count}"),
        );
        let mut numbers = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (index, port) in self.ports.iter().enumerate() {
            let path = format!("spec.ports[{index}]");
            if let Some(name) = &port.name {
                let path = format!("{path}.name");
                check_section(check, path.as_str(), name);
                let message = format!("the port `{name}` is given twice");
                check.require(names.insert(name), path, message);
            }
            if let (Some(_), Some(_)) = (port.protocol, port.app_protocol) {
                let message = "`protocol` says what is spoken already";
                check.error(format!("{path}.appProtocol"), message);
            }
            check.require(
                port.port > 0,
                format!("{path}.port"),
                "expected a port from 1 to 65535, found `0`",
            );
            check.require(
                port.target_port != Some(0),
                format!("{path}.targetPort"),
                "expected a port from 1 to 65535, found `0`",
            );
            check.require(
                numbers.insert(port.port),
                format!("{path}.port"),
                format!("port {} is given twice", port.port),
            );
        }
        let count = self.endpoints.len();
        check.require(
            count <= MAX_ENDPOINTS,
            "spec.endpoints",
            format!("at most {MAX_ENDPOINTS} endpoints, found {count}"),
        );
        let mut addresses = BTreeSet::new();
        for (index, endpoint) in self.endpoints.iter().enumerate() {
            let path = format!("spec.endpoints[{index}]");
            endpoint.check(check, &path);
            check.require(
                addresses.insert(endpoint.address),
                format!("{path}.address"),
                format!("the address {} is given twice", endpoint.address),
            );
        }
    }
}

impl EndpointSpec {
    fn check(&self, check: &mut Checker<'_>, path: &str) {
        if self.identity.is_some() && self.address.port.is_none() {
            check.error_with_help(
                format!("{path}.address"),
                "an endpoint with an identity needs the port of its sidecar",
                format!(
                    "sidecars listen on 15008: `{}`",
                    EndpointAddress {
                        ip: self.address.ip,
                        port: Some(15008)
                    }
                ),
            );
        }
        check.require(
            self.weight <= MAX_WEIGHT,
            format!("{path}.weight"),
            format!(
                "expected a weight from 0 to {MAX_WEIGHT}, found `{}`",
                self.weight
            ),
        );
        check_labels(check, &format!("{path}.labels"), &self.labels);
    }
}
