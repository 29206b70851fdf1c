//! `Service` of the core group, `apiVersion: v1`, as manifests for Kubernetes
//! have it. It says the same as a Service of Selvage: its ports. What it says
//! of clusters is read over where nobody misses it (the address within a
//! cluster, the pods behind it: here workloads register themselves), and
//! refused where it would change who can call, or where calls go. Refuses to
//! know policy and registrations.

use std::collections::BTreeMap;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use super::{AppProtocol, PortSpec, ServiceSpec};
use crate::config::Checker;

/// `spec` of a core `Service`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CoreServiceSpec {
    #[serde(default)]
    ports: Vec<CorePort>,
    #[serde(default, rename = "type")]
    _kind: Kind,
    #[serde(default, rename = "sessionAffinity")]
    _session_affinity: Affinity,
    #[serde(default, rename = "internalTrafficPolicy")]
    _internal_traffic_policy: Internal,
    #[serde(default, rename = "selector")]
    _selector: BTreeMap<String, String>,
    #[serde(rename = "clusterIP")]
    _cluster_ip: Option<String>,
    #[serde(default, rename = "clusterIPs")]
    _cluster_ips: Vec<String>,
    #[serde(default, rename = "ipFamilies")]
    _ip_families: Vec<String>,
    #[serde(rename = "ipFamilyPolicy")]
    _ip_family_policy: Option<String>,
}

/// Others say how the world outside reaches a service: that is a Gateway's to say.
#[derive(Debug, Default, Deserialize)]
enum Kind {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
}

/// Others are a route's `sessionPersistence`, or a policy's `loadBalancer`.
#[derive(Debug, Default, Deserialize)]
enum Affinity {
    #[default]
    None,
}

#[derive(Debug, Default, Deserialize)]
enum Internal {
    #[default]
    Cluster,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CorePort {
    name: Option<String>,
    port: u16,
    target_port: Option<TargetPort>,
    #[serde(default, rename = "protocol")]
    _protocol: Transport,
    app_protocol: Option<AppProtocol>,
}

#[derive(Debug, Default, Deserialize)]
enum Transport {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
}

/// A number, or the name of a port of pods, which say theirs when they register.
#[derive(Debug)]
enum TargetPort {
    Number(u16),
    Name,
}

impl<'de> Deserialize<'de> for TargetPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl Visitor<'_> for Either {
            type Value = TargetPort;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a port from 1 to 65535, or the name of one")
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<TargetPort, E> {
                let port = u16::try_from(number).ok().filter(|port| *port > 0);
                port.map(TargetPort::Number)
                    .ok_or_else(|| E::custom(format!("expected 1 to 65535, found `{number}`")))
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<TargetPort, E> {
                match crate::resource::is_dns_label(name) {
                    true => Ok(TargetPort::Name),
                    false => Err(E::custom(format!("expected a port, found `{name}`"))),
                }
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl CoreServiceSpec {
    pub(crate) fn check(&self, _own_namespace: &str, check: &mut Checker<'_>) {
        for (index, port) in self.ports.iter().enumerate() {
            check.require(
                port.name.is_some() || self.ports.len() == 1,
                format!("spec.ports[{index}]"),
                "where a service has several ports, each has a name",
            );
        }
        self.meant().check(check);
    }

    /// The same as a Service of Selvage.
    pub(crate) fn meant(&self) -> ServiceSpec {
        let port = |port: &CorePort| PortSpec {
            port: port.port,
            target_port: match port.target_port {
                Some(TargetPort::Number(number)) => Some(number),
                Some(TargetPort::Name) | None => None,
            },
            protocol: None,
            name: port.name.clone(),
            app_protocol: port.app_protocol,
        };
        ServiceSpec {
            ports: self.ports.iter().map(port).collect(),
            endpoints: Vec::new(),
        }
    }
}
