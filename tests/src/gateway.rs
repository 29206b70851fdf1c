//! A gateway under test: its configuration, its resources and its process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::client;
use crate::metrics::Metrics;
use crate::pki::{Identity, TRUST_DOMAIN};
use crate::process::{self, Process};
use crate::wait::{self, PATIENCE};

/// What a gateway is to be; [`Builder::start`] makes it so. It serves the Gateway `shop/public`.
pub struct Builder {
    config: Value,
    resources: String,
    wait_until_ready: bool,
    folder: TempDir,
}

/// A running gateway.
pub struct Gateway {
    /// Its process.
    pub process: Process,
    folder: TempDir,
    admin: SocketAddr,
    telemetry: SocketAddr,
}

impl Gateway {
    /// A gateway that binds each of `ports` wherever there is room, without an identity.
    ///
    /// # Panics
    /// When no folder can be made.
    #[must_use]
    pub fn builder(ports: &[u16]) -> Builder {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let ports: serde_json::Map<String, Value> = ports
            .iter()
            .map(|port| (port.to_string(), json!(0)))
            .collect();
        Builder {
            config: json!({
                "gateway": { "name": "public", "namespace": "shop", "address": "127.0.0.1", "ports": ports },
                "trustDomain": TRUST_DOMAIN,
                "admin": { "address": "127.0.0.1:0" },
                "telemetry": { "address": "127.0.0.1:0" },
                "drain": { "delay": "0s", "timeout": "10s" },
                "workers": 1,
                "stateDir": folder.path().join("state"),
            }),
            resources: format!(
                "kind: MeshConfig\nmetadata: {{ name: mesh }}\nspec: {{ trustDomain: {TRUST_DOMAIN} }}\n"
            ),
            wait_until_ready: true,
            folder,
        }
    }

    /// Where a port of its listeners is bound.
    pub async fn port(&mut self, port: u16) -> SocketAddr {
        self.process.listening(&format!("gateway:{port}")).await
    }

    /// Its admin port.
    #[must_use]
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// What an address of its admin port says.
    ///
    /// # Panics
    /// When it is no JSON.
    pub async fn shows(&self, path: &str) -> Value {
        let answer = client::get(self.admin, "localhost", path).await;
        serde_json::from_slice(&answer.body).expect("the admin port says JSON")
    }

    /// What `/metrics` says now.
    pub async fn metrics(&self) -> Metrics {
        let answer = client::get(self.telemetry, "localhost", "/metrics").await;
        assert_eq!(answer.status, 200, "/metrics answers");
        Metrics::parse(&answer.text())
    }

    /// What `/ready` says now, with its status.
    pub async fn readiness(&self) -> (u16, String) {
        let answer = client::get(self.telemetry, "localhost", "/ready").await;
        (answer.status.as_u16(), answer.text())
    }

    /// Waits until it is ready.
    pub async fn is_ready(&self) {
        wait::until("readiness of a gateway", PATIENCE, async || {
            self.readiness().await.0 == 200
        })
        .await;
    }

    /// Replaces its resources while it runs; the mesh stays.
    pub fn write_resources(&self, yaml: &str) {
        write(self.folder.path(), "resources/more.yaml", yaml);
    }

    /// Asks it to drain and end (SIGTERM).
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }
}

impl Builder {
    /// Its certificate toward the mesh, of the service account `shop/gateway`.
    #[must_use]
    pub fn identity(mut self, identity: &Identity) -> Self {
        self.config["workload"] = json!({ "serviceAccount": "gateway" });
        self.config["static"]["identity"] = json!({
            "certificate": identity.certificate, "key": identity.key,
            "trustBundle": identity.trust_bundle,
        });
        self
    }

    /// Takes identity and resources from a control plane, joining with `token`,
    /// which is one of `shop/public`: nobody else is told of the Gateway.
    #[must_use]
    pub fn joining(mut self, control_plane: SocketAddr, token: &str) -> Self {
        self.config["workload"] = json!({ "serviceAccount": "public" });
        self.config["controlPlane"] = json!({ "address": control_plane, "token": token });
        self
    }

    /// Any setting of gateway.yaml by its path, such as `limits.headerBytes`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        let place = path
            .split('.')
            .fold(&mut self.config, |place, key| &mut place[key]);
        *place = value.into();
        self
    }

    /// Its resources beside the mesh, as YAML documents.
    #[must_use]
    pub fn resources(self, yaml: &str) -> Self {
        write(self.folder.path(), "resources/more.yaml", yaml);
        self
    }

    /// Returns from `start` once its admin ports are bound.
    #[must_use]
    pub const fn without_readiness(mut self) -> Self {
        self.wait_until_ready = false;
        self
    }

    /// Where its gateway.yaml stands, and what paths in its resources start at.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_path_buf()
    }

    /// Writes its files.
    #[must_use]
    pub fn write(mut self) -> (TempDir, PathBuf) {
        if self.config.get("controlPlane").is_none() {
            self.config["static"]["resources"] = json!("./resources/");
            write(self.folder.path(), "resources/mesh.yaml", &self.resources);
        }
        write(self.folder.path(), "gateway.yaml", &self.config.to_string());
        let path = self.folder.path().join("gateway.yaml");
        (self.folder, path)
    }

    /// Writes its files, starts it, and waits until it is ready.
    pub async fn start(self) -> Gateway {
        let waits = self.wait_until_ready;
        let (folder, path) = self.write();
        let mut command = Command::new(process::binary("selvage"));
        command
            .args(["gateway", "--config"])
            .arg(path)
            .current_dir(folder.path());
        let mut process = Process::start("gateway", command);
        let gateway = Gateway {
            admin: process.listening("admin").await,
            telemetry: process.listening("telemetry").await,
            process,
            folder,
        };
        if waits {
            gateway.is_ready().await;
        }
        gateway
    }
}

/// Written beside and renamed, as an editor does: a reader sees the old file or the new one.
fn write(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    let parent = path.parent().expect("it lies in a folder");
    std::fs::create_dir_all(parent).expect("a folder can be made in a temporary one");
    let new = folder.join(".new");
    std::fs::write(&new, text).expect("a temporary file can be written");
    std::fs::rename(&new, path).expect("a file can be renamed in its folder");
}
