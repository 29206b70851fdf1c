//! A running Prometheus: started as the README says, on a faster copy of the shipped files, asked
//! over its API.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use selvage_tests::client;
use selvage_tests::process::Process;
use selvage_tests::wait::{self, PATIENCE};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::faster::faster;
use super::{commands, read, said};

/// The control plane's address in the shipped files.
pub(super) const CONTROL_PLANE: &str = "127.0.0.1:15014";
/// Prometheus' own in the README.
pub(super) const OWN: &str = "127.0.0.1:9090";
/// A fault is seen, and an alert fires, within this; the longest `for` is 15 s here.
const SEEN: Duration = Duration::from_secs(60);

/// One alert that fires, or is pending: about to.
#[derive(Debug, Clone)]
struct Alert {
    name: String,
    state: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

/// A Prometheus; dropped, it is gone.
pub(super) struct Prometheus {
    pub(super) address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts one on the shipped files, that asks the control plane at `control_plane`.
    pub(super) async fn watching(control_plane: SocketAddr) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        copy(folder.path(), control_plane);
        let config = folder.path().join("prometheus.yml");
        let mut check = Command::new("promtool");
        check.args(["check", "config"]).arg(&config);
        said(check).await;
        let shipped = commands()
            .into_iter()
            .find(|block| block.starts_with("prometheus "));
        let line = shipped
            .expect("the README starts a Prometheus")
            .replace("examples/prometheus", &folder.path().display().to_string())
            .replace(OWN, "127.0.0.1:0");
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("exec {line}"))
            .current_dir(folder.path());
        let process = Process::start("prometheus", command);
        let mut found = None;
        wait::until("the address of prometheus", PATIENCE, async || {
            found = bound(&process.log());
            found.is_some()
        })
        .await;
        let address = found.expect("it was just found");
        wait::until("readiness of prometheus", PATIENCE, async || {
            client::try_get(address, OWN, "/-/ready")
                .await
                .is_ok_and(|answer| answer.status == 200)
        })
        .await;
        Self {
            address,
            _process: process,
            _folder: folder,
        }
    }

    /// The `data` of an answer of its API.
    pub(super) async fn data(&self, path: &str) -> Value {
        let answer = client::get(self.address, OWN, path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        let mut said: Value = serde_json::from_slice(&answer.body).expect("the API speaks JSON");
        assert_eq!(said["status"], "success", "{path}: {said}");
        said["data"].take()
    }

    /// The values of an expression now, by their series' labels.
    pub(super) async fn query(&self, expression: &str) -> Vec<(Value, f64)> {
        let path = format!("/api/v1/query?query={}", encode(expression));
        let data = self.data(&path).await;
        let result = data["result"].as_array().cloned().unwrap_or_default();
        let value = |sample: &Value| sample["value"][1].as_str()?.parse().ok();
        result
            .iter()
            .filter_map(|sample| Some((sample["metric"].clone(), value(sample)?)))
            .collect()
    }

    /// The one value of an expression that adds up to one, or nothing yet.
    pub(super) async fn value(&self, expression: &str) -> Option<f64> {
        let result = self.query(expression).await;
        assert!(result.len() <= 1, "{expression}: {result:?}");
        result.first().map(|(_, value)| *value)
    }

    /// The destinations of `series`.
    pub(super) async fn label_values(&self, series: &str) -> Value {
        let path = format!(
            "/api/v1/label/destination/values?match[]={}",
            encode(series)
        );
        self.data(&path).await
    }

    async fn alerts(&self) -> Vec<Alert> {
        let data = self.data("/api/v1/alerts").await;
        let list = data["alerts"].as_array().cloned().unwrap_or_default();
        let texts = |value: &Value| serde_json::from_value(value.clone()).unwrap_or_default();
        list.iter()
            .map(|alert| Alert {
                name: alert["labels"]["alertname"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned(),
                state: alert["state"].as_str().unwrap_or_default().to_owned(),
                labels: texts(&alert["labels"]),
                annotations: texts(&alert["annotations"]),
            })
            .collect()
    }

    async fn firing(&self) -> Vec<String> {
        let alerts = self.alerts().await.into_iter();
        alerts
            .filter(|alert| alert.state == "firing")
            .map(|alert| alert.name)
            .collect()
    }

    /// Nothing fires.
    pub(super) async fn is_calm(&self) {
        let firing = self.firing().await;
        assert!(firing.is_empty(), "all is well, but for {firing:?}");
    }

    /// Waits until nothing fires any more.
    pub(super) async fn calms_down(&self) {
        wait::until("the end of all alerts", SEEN, async || {
            self.firing().await.is_empty()
        })
        .await;
    }

    /// Waits until each of `expected` fires: an alert, and a label of it with its value.
    pub(super) async fn fire(&self, expected: &[(&str, &str, &str)]) {
        for (name, label, value) in expected {
            let what = format!("{name} for {label}={value} to fire");
            let took = wait::until(&what, SEEN, async || {
                let alert = self.one(name, label, value).await;
                alert.is_some_and(|alert| alert.state == "firing")
            })
            .await;
            println!("{what}: {took:?}");
            let alert = self.one(name, label, value).await.expect("it fires");
            for (annotation, text) in &alert.annotations {
                assert!(
                    !text.is_empty() && !text.contains("<no value>") && !text.contains("error"),
                    "{name}: {annotation}: {text}"
                );
            }
        }
    }

    /// Waits until none of `expected` fires any more.
    pub(super) async fn resolve(&self, expected: &[(&str, &str, &str)]) {
        for (name, label, value) in expected {
            let what = format!("{name} for {label}={value} to resolve");
            let took = wait::until(&what, SEEN, async || {
                self.one(name, label, value).await.is_none()
            })
            .await;
            println!("{what}: {took:?}");
        }
    }

    async fn one(&self, name: &str, label: &str, value: &str) -> Option<Alert> {
        let mut alerts = self.alerts().await.into_iter();
        alerts.find(|alert| {
            alert.name == name && alert.labels.get(label).is_some_and(|found| found == value)
        })
    }

    /// What service discovery says of a workload, before any relabelling.
    pub(super) async fn discovered(&self, workload: &str) -> Value {
        let data = self.data("/api/v1/targets?state=active").await;
        let targets = data["activeTargets"].as_array();
        let target = targets
            .into_iter()
            .flatten()
            .find(|target| target["labels"]["workload"] == workload);
        target.expect("it is scraped")["discoveredLabels"].clone()
    }

    /// The workloads whose sidecars are scraped, with what became of the last scrape.
    pub(super) async fn sidecars(&self) -> BTreeMap<String, String> {
        let data = self.data("/api/v1/targets?state=active").await;
        let targets = data["activeTargets"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        targets
            .iter()
            .filter(|target| target["labels"]["job"] == "selvage-sidecars")
            .map(|target| (text(&target["labels"]["workload"]), text(&target["health"])))
            .collect()
    }

    /// Waits until exactly these sidecars are scraped, and answer.
    pub(super) async fn scrapes(&self, workloads: &[&str]) {
        let expected: BTreeMap<String, String> = workloads
            .iter()
            .map(|workload| ((*workload).to_owned(), "up".to_owned()))
            .collect();
        // Prometheus takes what its discovery says every five seconds.
        let what = format!("the scrapes of {workloads:?}");
        wait::until(&what, 3 * PATIENCE, async || {
            self.sidecars().await == expected
        })
        .await;
    }
}

/// Copies the shipped files, with time running faster and the control plane's address in its place.
fn copy(folder: &Path, control_plane: SocketAddr) {
    std::fs::create_dir(folder.join("rules")).expect("a folder can be made in a temporary one");
    for file in ["prometheus.yml", "rules/recording.yml", "rules/alerts.yml"] {
        let text = faster(&read(file)).replace(CONTROL_PLANE, &control_plane.to_string());
        std::fs::write(folder.join(file), text).expect("a temporary file can be written");
    }
}

/// The address in the line of its log that says it.
fn bound(log: &str) -> Option<SocketAddr> {
    let line = log.lines().find(|line| line.contains("\"Listening on\""))?;
    let (_, address) = line.split_once("address=")?;
    address.split_whitespace().next()?.parse().ok()
}

/// Percent-encodes a query.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a string takes everything");
        }
    }
    encoded
}
