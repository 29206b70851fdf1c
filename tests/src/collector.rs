//! An OpenTelemetry collector: `collector.py` in the environment that
//! `tests/run` prepares, so that what is exported is read by another
//! implementation of the protocol than the one that wrote it.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde_json::Value;
use tokio::process::Command;

use crate::process::{Process, target};
use crate::wait::{self, PATIENCE};

/// A running collector.
pub struct Collector {
    /// Its process.
    pub process: Process,
    /// Where it takes OTLP by gRPC.
    pub grpc: SocketAddr,
    /// Where it takes OTLP by HTTP.
    pub http: SocketAddr,
}

fn python() -> PathBuf {
    let path = target().join("otlp/venv/bin/python");
    assert!(
        path.exists(),
        "{} is not there: `tests/run` makes it",
        path.display()
    );
    path
}

impl Collector {
    /// Starts one on ports of its own.
    pub async fn start() -> Self {
        Self::with(&[]).await
    }

    /// Starts one with options of `collector.py`.
    pub async fn with(options: &[&str]) -> Self {
        let mut command = Command::new(python());
        command
            .arg("-B")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/src/collector.py"))
            .args(options);
        let mut process = Process::start("collector", command);
        let grpc = process.listening("grpc").await;
        let http = process.listening("http").await;
        Self {
            process,
            grpc,
            http,
        }
    }

    /// The variables that have a sidecar export to it at once, by `grpc` or `http/protobuf`.
    ///
    /// # Panics
    /// On another protocol.
    #[must_use]
    pub fn variables(&self, protocol: &str) -> Vec<(&'static str, String)> {
        let address = match protocol {
            "grpc" => self.grpc,
            "http/protobuf" => self.http,
            other => panic!("no such protocol: {other}"),
        };
        vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ]
    }

    /// What was exported to it so far, request by request.
    #[must_use]
    pub fn exports(&self) -> Vec<Value> {
        let events = self.process.events();
        let exports = events.into_iter();
        exports.filter(|event| event["event"] == "export").collect()
    }

    /// The spans of one trace, in the order of their beginnings, once there are `count`.
    pub async fn spans(&self, trace: &str, count: usize) -> Vec<Value> {
        let mut found = Vec::new();
        let what = format!("{count} spans of {trace}");
        wait::until(&what, PATIENCE, async || {
            found = self.spans_now(trace);
            found.len() >= count
        })
        .await;
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }

    /// The spans of one trace that are there, in the order of their beginnings.
    #[must_use]
    pub fn spans_now(&self, trace: &str) -> Vec<Value> {
        let exports = self.exports();
        let spans = exports
            .iter()
            .flat_map(|export| export["spans"].as_array().cloned().unwrap_or_default());
        let mut spans: Vec<_> = spans.filter(|span| span["trace"] == trace).collect();
        spans.sort_by_key(|span| span["start"].as_u64());
        spans
    }
}
