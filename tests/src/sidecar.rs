//! A sidecar under test: its configuration, its resources and its process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::client;
use crate::metrics::Metrics;
use crate::pki::{Identity, Pki, TRUST_DOMAIN};
use crate::process::{self, Process};
use crate::wait::{self, PATIENCE};

/// The authority of the one service that most tests call.
pub const ORDERS: &str = "orders.shop";

/// What a sidecar is to be; [`Builder::start`] makes it so.
pub struct Builder {
    name: String,
    service: String,
    source: Source,
    inbound: Vec<Value>,
    listeners: Vec<Value>,
    settings: Vec<(String, Value)>,
    resources: String,
    environment: BTreeMap<String, String>,
    wait_until_ready: bool,
    under: Vec<String>,
}

/// A running sidecar.
pub struct Sidecar {
    /// Its process.
    pub process: Process,
    written: Written,
    bound: BTreeMap<String, SocketAddr>,
}

/// The configuration of a sidecar, before anything is started.
pub struct Written {
    /// Holds everything below.
    pub folder: TempDir,
    /// `sidecar.yaml`.
    pub config: PathBuf,
    /// The listeners it binds by name, beyond those that every sidecar has.
    listeners: Vec<String>,
    wait_until_ready: bool,
    name: String,
    environment: BTreeMap<String, String>,
    under: Vec<String>,
}

/// Where a sidecar learns of the mesh.
enum Source {
    Files(Option<Identity>),
    ControlPlane { address: SocketAddr, token: String },
}

impl Sidecar {
    /// A sidecar in namespace `shop`, named as its service and its service account.
    #[must_use]
    pub fn builder(name: &str) -> Builder {
        Builder {
            name: name.to_owned(),
            service: name.to_owned(),
            source: Source::Files(None),
            inbound: Vec::new(),
            listeners: Vec::new(),
            settings: Vec::new(),
            resources: String::new(),
            environment: BTreeMap::new(),
            wait_until_ready: true,
            under: Vec::new(),
        }
    }

    /// Where it takes HTTP by authority.
    #[must_use]
    pub fn outbound(&self) -> SocketAddr {
        self.bound("outbound")
    }

    /// Where it takes mutual TLS.
    #[must_use]
    pub fn inbound(&self) -> SocketAddr {
        self.bound("inbound")
    }

    /// Its admin port.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.bound("admin")
    }

    /// Its telemetry port.
    #[must_use]
    pub fn telemetry(&self) -> SocketAddr {
        self.bound("telemetry")
    }

    fn bound(&self, name: &str) -> SocketAddr {
        *self
            .bound
            .get(name)
            .unwrap_or_else(|| panic!("the sidecar has no listener `{name}`"))
    }

    /// The listener of its own that stands for one port of one service, such as `orders.shop`.
    #[must_use]
    pub fn listener(&self, service: &str, port: u16) -> SocketAddr {
        self.bound(&format!("listener:{service}:{port}"))
    }

    /// Ends it with `signal` and starts it again on the same ports; returns when it is ready.
    pub async fn restart(&mut self, signal: Signal, limit: Duration) {
        self.process.signal(signal);
        self.process.exit(limit).await;
        self.written.keep_addresses(&self.bound);
        (self.process, self.bound) = self.written.launch().await;
        self.wait_until_ready().await;
    }

    async fn wait_until_ready(&self) {
        if self.written.wait_until_ready {
            let what = format!("readiness of {}", self.written.name);
            wait::until(&what, PATIENCE, async || {
                self.readiness().await == Some(200)
            })
            .await;
        }
    }

    /// What `/metrics` says now.
    pub async fn metrics(&self) -> Metrics {
        let answer = client::get(self.telemetry(), "localhost", "/metrics").await;
        assert_eq!(answer.status, 200, "/metrics answers");
        Metrics::parse(&answer.text())
    }

    /// The status of `/ready` now, or `None` when nobody answers.
    pub async fn readiness(&self) -> Option<u16> {
        client::try_get(self.telemetry(), "localhost", "/ready")
            .await
            .ok()
            .map(|answer| answer.status.as_u16())
    }

    /// The folder of its resources, which it watches.
    #[must_use]
    pub fn resources(&self) -> PathBuf {
        self.written.folder.path().join("resources")
    }

    /// Replaces its resources while it runs.
    ///
    /// # Panics
    /// When they cannot be written.
    pub fn write_resources(&self, yaml: &str) {
        write_resources(&self.resources(), yaml);
    }

    /// Asks it to drain and end (SIGTERM).
    pub fn terminate(&self) {
        self.process.signal(Signal::TERM);
    }

    /// Waits for a line of its JSON access log that holds all of `words`.
    pub async fn accessed(&mut self, words: &[&str]) -> Value {
        let holds = |event: &Value| {
            let line = event.to_string();
            event["event"] == "access" && words.iter().all(|word| line.contains(word))
        };
        self.process
            .event(&format!("an access record with {words:?}"), holds)
            .await
    }

    /// Waits until one more line of its log holds all of `words`.
    pub async fn logged(&self, words: &[&str]) {
        wait::until(&format!("a log line with {words:?}"), PATIENCE, || async {
            self.process
                .log()
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
        })
        .await;
    }
}

impl Builder {
    /// The service that it is a replica of, when not named as itself.
    #[must_use]
    pub fn service(mut self, service: &str) -> Self {
        service.clone_into(&mut self.service);
        self
    }

    /// Its certificate, when not the proper one of its service account.
    #[must_use]
    pub fn identity(mut self, identity: Identity) -> Self {
        self.source = Source::Files(Some(identity));
        self
    }

    /// Takes identity and resources from a control plane, joining with `token`.
    #[must_use]
    pub fn joining(mut self, control_plane: SocketAddr, token: &str) -> Self {
        self.source = Source::ControlPlane {
            address: control_plane,
            token: token.to_owned(),
        };
        self
    }

    /// The application behind it: it serves `service_port` and speaks `protocol`.
    #[must_use]
    pub fn application(
        mut self,
        service_port: u16,
        application: SocketAddr,
        protocol: &str,
    ) -> Self {
        self.inbound.push(json!({
            "port": application.port(), "servicePort": service_port, "protocol": protocol,
        }));
        self
    }

    /// A listener of its own for one port of a service.
    #[must_use]
    pub fn listener(mut self, service: &str, port: u16) -> Self {
        self.listeners
            .push(json!({ "address": "127.0.0.1:0", "service": service, "port": port }));
        self
    }

    /// Any setting of sidecar.yaml by its path, such as `limits.headerBytes`.
    #[must_use]
    pub fn set(mut self, path: &str, value: impl Into<Value>) -> Self {
        self.settings.push((path.to_owned(), value.into()));
        self
    }

    /// More resources, as YAML documents.
    #[must_use]
    pub fn resources(mut self, yaml: &str) -> Self {
        self.resources = join(&self.resources, yaml);
        self
    }

    /// A variable of its environment.
    #[must_use]
    pub fn environment(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    /// The command that runs it, such as a profiler with its options.
    #[must_use]
    pub fn under(mut self, command: &[String]) -> Self {
        self.under = command.to_vec();
        self
    }

    /// Returns from `start` once the listeners are bound.
    #[must_use]
    pub fn without_readiness(mut self) -> Self {
        self.wait_until_ready = false;
        self
    }

    /// Writes sidecar.yaml and the resources into a new folder.
    ///
    /// # Panics
    /// When they cannot be written.
    #[must_use]
    pub fn write(self, pki: &Pki) -> Written {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let mut config = json!({
            "workload": {
                "name": self.name, "service": self.service,
                "namespace": "shop", "serviceAccount": self.service,
            },
            "trustDomain": TRUST_DOMAIN,
            "inbound": { "address": "127.0.0.1:0", "ports": self.inbound },
            "outbound": { "address": "127.0.0.1:0", "listeners": self.listeners },
            "admin": { "address": "127.0.0.1:0" },
            "telemetry": { "address": "127.0.0.1:0" },
            "drain": { "delay": "0s", "timeout": "10s" },
            "workers": 1,
            "stateDir": folder.path().join("state"),
        });
        match self.source {
            Source::Files(identity) => {
                let identity = identity.unwrap_or_else(|| pki.account("shop", &self.service));
                config["static"] = json!({
                    "resources": "./resources/",
                    "identity": {
                        "certificate": identity.certificate, "key": identity.key,
                        "trustBundle": identity.trust_bundle,
                    },
                });
            }
            Source::ControlPlane { address, token } => {
                config["controlPlane"] = json!({ "address": address, "token": token });
            }
        }
        for (path, value) in self.settings {
            set(&mut config, &path, value);
        }
        let listeners = config["outbound"]["listeners"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let listeners = listeners.iter().map(|one| {
            format!(
                "listener:{}:{}",
                one["service"].as_str().unwrap_or_default(),
                one["port"]
            )
        });
        let inbound = (!self.inbound.is_empty()).then(|| "inbound".to_owned());
        let path = folder.path().join("sidecar.yaml");
        std::fs::write(&path, config.to_string()).expect("a temporary file can be written");
        let mesh = format!(
            "kind: MeshConfig\nmetadata: {{ name: mesh }}\nspec: {{ trustDomain: {TRUST_DOMAIN} }}\n"
        );
        let resources = if self.resources.contains("kind: MeshConfig") {
            self.resources
        } else {
            join(&mesh, &self.resources)
        };
        write_resources(&folder.path().join("resources"), &resources);
        Written {
            config: path,
            listeners: inbound.into_iter().chain(listeners).collect(),
            wait_until_ready: self.wait_until_ready,
            name: self.name,
            environment: self.environment,
            under: self.under,
            folder,
        }
    }

    /// Writes its files, starts it, and waits until it is ready.
    pub async fn start(self, pki: &Pki) -> Sidecar {
        self.write(pki).start().await
    }
}

impl Written {
    /// The command that starts it.
    #[must_use]
    pub fn command(&self) -> Command {
        let binary = process::binary("selvage-proxy");
        let mut command = match self.under.split_first() {
            None => Command::new(binary),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(binary);
                command
            }
        };
        command
            .arg("--config")
            .arg(&self.config)
            .envs(&self.environment)
            .current_dir(self.folder.path());
        command
    }

    /// `selvage run` with `more` of its options, and `command` beside this sidecar.
    #[must_use]
    pub fn beside(&self, more: &[&str], command: &[&str]) -> Command {
        let mut run = Command::new(process::binary("selvage"));
        run.arg("run").arg("--config").arg(&self.config);
        run.args(more).arg("--").args(command);
        run.envs(&self.environment)
            .current_dir(self.folder.path())
            .kill_on_drop(true);
        run
    }

    /// Starts it, and waits until it is ready.
    pub async fn start(self) -> Sidecar {
        let (process, bound) = self.launch().await;
        let sidecar = Sidecar {
            process,
            written: self,
            bound,
        };
        sidecar.wait_until_ready().await;
        sidecar
    }

    /// Starts the process, and waits until its listeners are bound.
    async fn launch(&self) -> (Process, BTreeMap<String, SocketAddr>) {
        let mut process = Process::start(&format!("sidecar {}", self.name), self.command());
        let mut bound = BTreeMap::new();
        let own = ["outbound", "admin", "telemetry"];
        for name in own
            .iter()
            .copied()
            .chain(self.listeners.iter().map(String::as_str))
        {
            bound.insert(name.to_owned(), process.listening(name).await);
        }
        (process, bound)
    }

    /// Replaces port 0 by what was bound, so that the next start takes the same ports.
    fn keep_addresses(&self, bound: &BTreeMap<String, SocketAddr>) {
        let text = std::fs::read_to_string(&self.config).expect("the configuration was written");
        let mut config: Value = serde_json::from_str(&text).expect("it was written as JSON");
        for name in ["outbound", "inbound", "admin", "telemetry"] {
            // One without an application has no inbound side.
            if let Some(address) = bound.get(name) {
                config[name]["address"] = json!(address);
            }
        }
        let listeners = self
            .listeners
            .iter()
            .filter(|name| name.starts_with("listener:"));
        for (index, name) in listeners.enumerate() {
            config["outbound"]["listeners"][index]["address"] = json!(bound[name]);
        }
        std::fs::write(&self.config, config.to_string()).expect("a temporary file can be written");
    }

    /// Runs it to its end, for at most `limit`: exit code and stderr. `what` should end it.
    pub async fn fail(&self, what: &str, limit: Duration) -> (Option<i32>, String) {
        let mut command = self.command();
        command.kill_on_drop(true);
        let output = wait::within(&format!("the refusal of {what}"), limit, command.output()).await;
        let output = output.expect("the proxy can be started");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

fn join(first: &str, second: &str) -> String {
    if first.is_empty() {
        second.to_owned()
    } else {
        format!("{first}\n---\n{second}")
    }
}

fn set(config: &mut Value, path: &str, value: Value) {
    let place = path.split('.').fold(config, |place, key| &mut place[key]);
    *place = value;
}

fn write_resources(folder: &Path, yaml: &str) {
    std::fs::create_dir_all(folder).expect("a folder can be made in a temporary one");
    // Written beside and renamed, as an editor does: a reader sees the old file or the new one.
    let new = folder.join(".new");
    std::fs::write(&new, yaml).expect("a temporary file can be written");
    std::fs::rename(&new, folder.join("mesh.yaml")).expect("a file can be renamed in its folder");
}
