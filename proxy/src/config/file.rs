//! sidecar.yaml as it is written: every setting optional, nothing checked but its own form.
//!
//! The table of settings at the end is what flags and the environment may override. This module
//! knows neither defaults nor which settings contradict each other.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use selvage_core::scalar::{ByteSize, Duration};
use serde::de;
use serde::{Deserialize, Deserializer};

use super::gateway::{self, Gateway};
use super::health::PortHealth;
use super::{AccessLogFormat, InboundTls, Token, Traces};

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct File {
    pub(super) workload: Workload,
    pub(super) trust_domain: Option<String>,
    pub(super) control_plane: ControlPlane,
    #[serde(rename = "static")]
    pub(super) local: Local,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    pub(super) admin: Admin,
    pub(super) telemetry: Telemetry,
    pub(super) drain: Drain,
    pub(super) limits: Limits,
    pub(super) workers: Option<usize>,
    pub(super) state_dir: Option<PathBuf>,
    #[serde(deserialize_with = "gateway::written")]
    pub(super) gateway: Gateway,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Workload {
    pub(super) name: Option<String>,
    pub(super) service: Option<String>,
    pub(super) namespace: Option<String>,
    pub(super) service_account: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct ControlPlane {
    pub(super) address: Option<String>,
    pub(super) token: Option<Text<Token>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Local {
    pub(super) resources: Option<PathBuf>,
    pub(super) identity: Identity,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Identity {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) trust_bundle: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Inbound {
    pub(super) address: Option<Text<SocketAddr>>,
    pub(super) advertise: Option<Text<SocketAddr>>,
    pub(super) tls: Option<InboundTls>,
    pub(super) ports: Vec<Port>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Port {
    pub(super) port: u16,
    pub(super) service_port: Option<u16>,
    #[serde(default)]
    pub(super) protocol: PortProtocol,
    #[serde(default)]
    pub(super) health: PortHealth,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum PortProtocol {
    #[default]
    Detect,
    Http,
    Http2,
    Grpc,
    Tcp,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Outbound {
    pub(super) address: Option<Text<SocketAddr>>,
    pub(super) listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Listener {
    pub(super) address: Text<SocketAddr>,
    pub(super) service: String,
    pub(super) port: Option<u16>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Admin {
    pub(super) address: Option<Text<SocketAddr>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Telemetry {
    pub(super) address: Option<Text<SocketAddr>>,
    pub(super) access_log: Option<AccessLogFormat>,
    pub(super) traces: Option<Traces>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Drain {
    pub(super) delay: Option<Duration>,
    pub(super) timeout: Option<Duration>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) header_bytes: Option<ByteSize>,
    pub(super) header_count: Option<usize>,
    pub(super) uri_bytes: Option<ByteSize>,
    pub(super) header_timeout: Option<Duration>,
    pub(super) handshake_timeout: Option<Duration>,
    pub(super) handshakes: Option<usize>,
    pub(super) streams: Option<usize>,
    pub(super) replay_bytes: Option<ByteSize>,
    pub(super) connections: Option<usize>,
}

/// A value written as text, read by its `FromStr`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Text<T>(pub(super) T);

impl FromStr for Text<SocketAddr> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || format!("expected an address and a port such as 127.0.0.1:15001, found `{text}`");
        text.parse().map(Self).map_err(|_| expected())
    }
}

impl FromStr for Text<Token> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("file:").map(Path::new) {
            Some(path) if path.as_os_str().is_empty() => Err("`file:` without a path".to_owned()),
            Some(path) => Ok(Self(Token::File(path.to_owned()))),
            None if text.trim().is_empty() => Err("expected a token or file:PATH".to_owned()),
            None => Ok(Self(Token::Literal(text.trim().to_owned()))),
        }
    }
}

impl<'de, T> Deserialize<'de> for Text<T>
where
    Self: FromStr<Err = String>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl File {
    /// Makes relative paths start at `folder`, where the file stands.
    pub(super) fn rebase(&mut self, folder: &Path) {
        let identity = &mut self.local.identity;
        let token = match &mut self.control_plane.token {
            Some(Text(Token::File(path))) => Some(path),
            _ => None,
        };
        let paths = [
            self.local.resources.as_mut(),
            identity.certificate.as_mut(),
            identity.key.as_mut(),
            identity.trust_bundle.as_mut(),
            self.state_dir.as_mut(),
            token,
        ];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&*path);
        }
        self.gateway.folder = folder.to_owned();
    }
}

/// One scalar setting: its path in the file, and how to set it from a text.
pub(super) struct Setting {
    pub(super) path: &'static str,
    pub(super) set: fn(&mut File, &str) -> Result<(), String>,
}

impl Setting {
    /// `controlPlane.address` is `SELVAGE_CONTROL_PLANE_ADDRESS`.
    pub(super) fn variable(&self) -> String {
        let mut name = String::from("SELVAGE_");
        for character in self.path.chars() {
            match character {
                '.' => name.push('_'),
                _ => {
                    if character.is_ascii_uppercase() {
                        name.push('_');
                    }
                    name.push(character.to_ascii_uppercase());
                }
            }
        }
        name
    }
}

macro_rules! settings {
    ($($path:literal => $($field:ident).+),+ $(,)?) => {
        &[$(Setting {
            path: $path,
            set: |file, text| {
                file.$($field).+ = Some(text.parse().map_err(|error| format!("{error}"))?);
                Ok(())
            },
        }),+]
    };
}

/// Every scalar setting.
pub(super) const SETTINGS: &[Setting] = settings![
    "workload.name" => workload.name,
    "workload.service" => workload.service,
    "workload.namespace" => workload.namespace,
    "workload.serviceAccount" => workload.service_account,
    "trustDomain" => trust_domain,
    "controlPlane.address" => control_plane.address,
    "controlPlane.token" => control_plane.token,
    "static.resources" => local.resources,
    "static.identity.certificate" => local.identity.certificate,
    "static.identity.key" => local.identity.key,
    "static.identity.trustBundle" => local.identity.trust_bundle,
    "inbound.address" => inbound.address,
    "inbound.advertise" => inbound.advertise,
    "inbound.tls" => inbound.tls,
    "outbound.address" => outbound.address,
    "gateway.name" => gateway.name,
    "gateway.namespace" => gateway.namespace,
    "gateway.address" => gateway.address,
    "gateway.trustedHops" => gateway.trusted_hops,
    "admin.address" => admin.address,
    "telemetry.address" => telemetry.address,
    "telemetry.accessLog" => telemetry.access_log,
    "telemetry.traces" => telemetry.traces,
    "drain.delay" => drain.delay,
    "drain.timeout" => drain.timeout,
    "limits.headerBytes" => limits.header_bytes,
    "limits.headerCount" => limits.header_count,
    "limits.uriBytes" => limits.uri_bytes,
    "limits.headerTimeout" => limits.header_timeout,
    "limits.handshakeTimeout" => limits.handshake_timeout,
    "limits.handshakes" => limits.handshakes,
    "limits.streams" => limits.streams,
    "limits.replayBytes" => limits.replay_bytes,
    "limits.connections" => limits.connections,
    "workers" => workers,
    "stateDir" => state_dir,
];
