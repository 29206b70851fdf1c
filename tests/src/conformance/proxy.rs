//! A proxy of a case: a gateway, or the sidecar of a caller.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::scene::{Ground, token};
use crate::client;
use crate::pki::TRUST_DOMAIN;
use crate::process::{self, Process};
use crate::sidecar::Sidecar;
use crate::wait::{self, PATIENCE};

/// A running proxy.
pub(super) struct Proxy {
    bound: BTreeMap<String, SocketAddr>,
    _process: Kept,
}

/// What ends with it.
enum Kept {
    Gateway { _process: Process, _folder: TempDir },
    Caller { _sidecar: Sidecar },
}

impl Proxy {
    /// Where it listens: `outbound`, `service.namespace:port`, or a gateway's port.
    pub(super) fn bound(&self, name: &str) -> SocketAddr {
        *self
            .bound
            .get(name)
            .unwrap_or_else(|| panic!("nothing listens as `{name}`: {:?}", self.bound))
    }

    /// The sidecar of a caller in `namespace`.
    pub(super) async fn caller(
        ground: &Ground,
        namespace: &str,
        listeners: &[String],
        resources: &str,
    ) -> Self {
        let mut builder = Sidecar::builder("client")
            .identity(ground.pki.account(namespace, "client"))
            .set("workload.namespace", namespace);
        let mut own = Vec::new();
        for one in listeners {
            let (service, port) = one.split_once(':').expect("a listener has a port");
            let port = port.parse().expect("a port is a number");
            builder = builder.listener(service, port);
            own.push((one.clone(), service.to_owned(), port));
        }
        let builder = match &ground.control {
            None => {
                let builder = builder.resources(&ground.common());
                if resources.trim().is_empty() {
                    builder
                } else {
                    builder.resources(resources)
                }
            }
            Some(control) => builder.joining(
                control.grpc,
                &token(control, namespace, "client", "client").await,
            ),
        };
        let sidecar = builder.start(&ground.pki).await;
        let mut bound = BTreeMap::from([("outbound".to_owned(), sidecar.outbound())]);
        for (name, service, port) in own {
            bound.insert(name, sidecar.listener(&service, port));
        }
        Self {
            bound,
            _process: Kept::Caller { _sidecar: sidecar },
        }
    }

    /// The gateway `name`, whose document is given.
    pub(super) async fn gateway(
        ground: &Ground,
        name: &str,
        document: &Value,
        resources: &str,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let (namespace, short) = name.split_once('/').expect("a gateway has a namespace");
        let ports = ports(document);
        let mapped: BTreeMap<String, u16> =
            ports.iter().map(|port| (port.to_string(), 0)).collect();
        let mut config = json!({
            "gateway": { "name": short, "namespace": namespace, "address": "127.0.0.1", "ports": mapped },
            "workload": { "name": "gateway-1", "namespace": namespace, "serviceAccount": "gateway" },
            "trustDomain": TRUST_DOMAIN,
            "admin": { "address": "127.0.0.1:0" },
            "telemetry": { "address": "127.0.0.1:0" },
            "workers": 1,
            "stateDir": folder.path().join("state"),
        });
        match &ground.control {
            Some(control) => {
                let token = token(control, namespace, "gateway", short).await;
                config["controlPlane"] = json!({ "address": control.grpc, "token": token });
            }
            None => {
                let identity = ground.pki.account(namespace, "gateway");
                config["static"] = json!({
                    "resources": "./resources.yaml",
                    "identity": {
                        "certificate": identity.certificate, "key": identity.key,
                        "trustBundle": identity.trust_bundle,
                    },
                });
                let mesh = format!(
                    "kind: MeshConfig\nmetadata: {{ name: mesh }}\nspec: {{ trustDomain: {TRUST_DOMAIN} }}\n"
                );
                let all = format!("{mesh}---\n{}\n---\n{resources}", ground.common());
                std::fs::write(folder.path().join("resources.yaml"), all)
                    .expect("a temporary file can be written");
            }
        }
        let path = folder.path().join("gateway.yaml");
        std::fs::write(&path, config.to_string()).expect("a temporary file can be written");
        let mut command = Command::new(process::binary("selvage"));
        command
            .arg("gateway")
            .arg("--config")
            .arg(&path)
            .current_dir(folder.path());
        let mut process = Process::start(&format!("gateway {name}"), command);
        let telemetry = process.listening("telemetry").await;
        wait::until(&format!("readiness of {name}"), PATIENCE, async || {
            let ready = client::try_get(telemetry, "localhost", "/ready").await;
            ready.is_ok_and(|answer| answer.status == 200)
        })
        .await;
        let mut bound = BTreeMap::new();
        for port in ports {
            let address = process.listening(&format!("gateway:{port}")).await;
            bound.insert(port.to_string(), address);
        }
        Self {
            bound,
            _process: Kept::Gateway {
                _process: process,
                _folder: folder,
            },
        }
    }
}

/// The ports that a gateway listens on.
fn ports(gateway: &Value) -> Vec<u64> {
    let listeners = gateway["spec"]["listeners"].as_array();
    let mut ports: Vec<u64> = listeners
        .into_iter()
        .flatten()
        .filter_map(|one| one["port"].as_u64())
        .collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
