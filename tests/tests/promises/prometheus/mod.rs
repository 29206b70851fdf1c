//! The files of `examples/prometheus/` work: a real Prometheus, started as their README says, finds
//! the mesh, fills the dashboard, and sees what goes wrong and when it is over.

mod absent; // control plane, sidecars and certificates: alerts of the mesh
mod failing; // services: alerts of what callers see
mod faster; // the same files, with time running faster
mod files; // what promtool says of them
mod found; // service discovery, dashboard, README
mod server; // a running Prometheus

use std::path::PathBuf;

use selvage_tests::app::{App, ok};
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::Sidecar;
use serde_json::json;
use tokio::process::Command;

/// The folder that is under test.
fn folder() -> PathBuf {
    workspace().join("examples/prometheus")
}

fn workspace() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("tests/ lies in the workspace")
        .to_path_buf()
}

/// One of its files.
fn read(name: &str) -> String {
    let path = folder().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The commands of the README: the contents of its blocks marked `sh`.
fn commands() -> Vec<String> {
    let text = read("README.md");
    let blocks = text.split("```sh\n").skip(1);
    blocks
        .map(|rest| {
            let (block, _) = rest.split_once("```").expect("a block has an end");
            block.to_owned()
        })
        .collect()
}

/// What a command says, on stdout and then on stderr; run in the folder of the workspace.
///
/// # Panics
/// When it fails.
async fn said(mut command: Command) -> String {
    let output = command
        .current_dir(workspace())
        .output()
        .await
        .expect("it can be started: tests/packages names what the tests need");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

/// An application that answers 200 with a few bytes.
async fn well() -> App {
    App::start(|_| async { ok("well") }).await
}

/// A sidecar that joins `control` beside a client: nobody calls it.
async fn caller(control: &ControlPlane, name: &str, service: &str) -> Sidecar {
    let sidecar = control.sidecar(name, service).await;
    sidecar
        .set("workload.labels", json!({ "version": "v1" }))
        .start(&Pki::new())
        .await
}

/// A replica of `service` that joins `control`, beside `app`.
async fn replica(control: &ControlPlane, name: &str, service: &str, app: &App) -> Sidecar {
    let sidecar = control.sidecar(name, service).await;
    sidecar
        .application(80, app.address, "http")
        .set("workload.labels", json!({ "version": "v1" }))
        .start(&Pki::new())
        .await
}
