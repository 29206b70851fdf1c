//! A control plane under test: the binary `selvage control-plane` on ports of
//! its own, spoken to as an operator does, over its API.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::body;
use crate::client::{self, Answer, Http1};
use crate::metrics::Metrics;
use crate::process::{self, Process};
use crate::sidecar::{Builder, Sidecar};
use crate::wait::{self, PATIENCE};

/// A running control plane with an empty store.
pub struct ControlPlane {
    /// Its process.
    pub process: Process,
    /// Where proxies reach it.
    pub grpc: SocketAddr,
    /// Where operators reach it.
    pub http: SocketAddr,
    folder: TempDir,
    settings: Value,
}

impl ControlPlane {
    /// Starts one with its defaults.
    pub async fn start() -> Self {
        Self::with(json!({})).await
    }

    /// Starts one with settings of control-plane.yaml beside its folder and its ports.
    pub async fn with(settings: Value) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (process, grpc, http) = launch(&folder, &settings, any, any).await;
        Self {
            process,
            grpc,
            http,
            folder,
            settings,
        }
    }

    /// Ends it with `signal` and starts it again: same ports, same data.
    pub async fn restart(&mut self, signal: Signal) {
        self.stop(signal).await;
        self.start_again().await;
    }

    /// Ends it with `signal`.
    pub async fn stop(&mut self, signal: Signal) {
        self.process.signal(signal);
        self.process.exit(PATIENCE).await;
    }

    /// Starts it after [`stop`](Self::stop): same ports, same data.
    pub async fn start_again(&mut self) {
        let (process, ..) = launch(&self.folder, &self.settings, self.grpc, self.http).await;
        self.process = process;
    }

    /// Its data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The operator's token.
    ///
    /// # Panics
    /// When it is not there.
    #[must_use]
    pub fn operator_token(&self) -> String {
        let path = self.data().join("operator.token");
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }

    /// Asks the operator API.
    ///
    /// # Errors
    /// When there is no whole answer, as while it restarts.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        text: &str,
    ) -> Result<Answer, body::BoxError> {
        let mut connection = Http1::try_connect(self.http).await?;
        let mut request = client::request(
            method,
            &self.http.to_string(),
            path,
            body::full(text.to_owned()),
        );
        let token = format!("Bearer {}", self.operator_token());
        request
            .headers_mut()
            .insert("authorization", token.parse().expect("a token is ASCII"));
        Ok(connection.call(request).await?)
    }

    /// What a GET of the operator API says.
    ///
    /// # Panics
    /// When that is not 200 and JSON.
    pub async fn get(&self, path: &str) -> Value {
        let answer = self
            .ask(Method::GET, path, "")
            .await
            .expect("the operator API answers");
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        serde_json::from_slice(&answer.body).expect("the operator API speaks JSON")
    }

    /// Applies documents, and returns the revision that this made.
    ///
    /// # Panics
    /// When they are refused.
    pub async fn apply(&self, yaml: &str) -> u64 {
        let answer = self
            .ask(Method::POST, "/api/v1/apply", yaml)
            .await
            .expect("the operator API answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let said: Value =
            serde_json::from_slice(&answer.body).expect("the operator API speaks JSON");
        said["revision"]
            .as_u64()
            .expect("an apply makes a revision")
    }

    /// A join token for any number of workloads of `shop/ACCOUNT`.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn token(&self, account: &str) -> String {
        let asked = json!({ "workload": format!("shop/{account}"), "uses": 100 });
        let answer = self
            .ask(Method::POST, "/api/v1/tokens", &asked.to_string())
            .await;
        let answer = answer.expect("the operator API answers");
        assert_eq!(answer.status, 201, "{}", answer.text());
        let said: Value =
            serde_json::from_slice(&answer.body).expect("the operator API speaks JSON");
        said["token"].as_str().expect("a token is text").to_owned()
    }

    /// A sidecar of `shop/SERVICE` that joins this control plane, not yet started.
    pub async fn sidecar(&self, name: &str, service: &str) -> Builder {
        Sidecar::builder(name)
            .service(service)
            .joining(self.grpc, &self.token(service).await)
    }

    /// What `/metrics` says now.
    pub async fn metrics(&self) -> Metrics {
        Metrics::parse(
            &client::get(self.http, &self.http.to_string(), "/metrics")
                .await
                .text(),
        )
    }

    /// Waits until the service has this many healthy workloads; returns how long that took.
    /// A proxy that asks for the service afterwards is told of them.
    pub async fn registered(&self, service: &str, count: usize) -> Duration {
        wait::until(
            &format!("{count} healthy workloads of {service}"),
            3 * PATIENCE,
            async || {
                let services = self.get("/api/v1/services").await;
                let all = services["items"].as_array().cloned().unwrap_or_default();
                let workloads = all
                    .iter()
                    .find(|one| one["name"] == service)
                    .map(|one| one["workloads"].clone());
                let workloads = workloads
                    .and_then(|list| list.as_array().cloned())
                    .unwrap_or_default();
                workloads
                    .iter()
                    .filter(|one| one["healthy"] == true)
                    .count()
                    == count
            },
        )
        .await
    }
}

async fn launch(
    folder: &TempDir,
    settings: &Value,
    grpc: SocketAddr,
    http: SocketAddr,
) -> (Process, SocketAddr, SocketAddr) {
    let mut config = settings.clone();
    config["trustDomain"] = json!(crate::pki::TRUST_DOMAIN);
    config["dataDir"] = json!(folder.path().join("data"));
    config["grpc"] = json!({ "address": grpc });
    config["http"] = json!({ "address": http });
    let path = folder.path().join("control-plane.yaml");
    std::fs::write(&path, config.to_string()).expect("a temporary file can be written");
    let mut command = Command::new(process::binary("selvage"));
    command
        .arg("control-plane")
        .arg("--config")
        .arg(&path)
        .current_dir(folder.path());
    let mut process = Process::start("control plane", command);
    let grpc = process.listening("grpc").await;
    let http = process.listening("http").await;
    wait::until("readiness of the control plane", PATIENCE, async || {
        client::try_get(http, &http.to_string(), "/ready")
            .await
            .is_ok_and(|answer| answer.status == 200)
    })
    .await;
    (process, grpc, http)
}

/// A join token that is well formed, and nobody's.
#[must_use]
pub fn some_token() -> String {
    format!("selvage1.{0}.{0}", "0".repeat(64))
}
