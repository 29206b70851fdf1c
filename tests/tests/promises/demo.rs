//! The demo shows what the mesh is for, and its report says so.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::Method;
use rustix::process::{Pid, Signal};
use selvage_tests::body;
use selvage_tests::client::{self, Http1};
use selvage_tests::process::{Process, binary};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn the_demo_survives_its_own_faults() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut command = Command::new(binary("demo"));
    command
        .args(["--for", "30s", "--report"])
        .arg(&report)
        .current_dir(folder.path());
    let mut demo = Process::start("demo", command);
    let running = demo
        .event("its first line", |event| event["event"] == "running")
        .await;
    assert!(
        running["proxies"]
            .as_array()
            .is_some_and(|proxies| proxies.len() >= 6),
        "{running}"
    );
    let status = demo.exit(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(0));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    println!("{report:#}");
    let count = |path: &str| {
        report
            .pointer(path)
            .and_then(Value::as_u64)
            .unwrap_or_else(|| panic!("no {path}: {report}"))
    };
    assert_eq!(report["mtls"], true);
    assert!(count("/requests") > 1000);
    assert!(count("/breakerTransitions/open") >= 1 && count("/breakerTransitions/closed") >= 1);
    assert!(count("/certificatesIssued") >= 8);
    assert!(report["p50Ms"].as_f64().is_some() && report["p99Ms"].as_f64().is_some());
    for phase in ["healthy", "refuse"] {
        assert_eq!(report["failuresByPhase"][phase], 0, "{phase}");
    }
    assert_eq!(
        report["byKind"]["get"]["failures"], 0,
        "what may be repeated is"
    );
    assert!(
        count("/failures") <= 10,
        "in the phases of 503 and hanging, at most 10"
    );
}

#[tokio::test]
async fn killing_the_demos_control_plane_costs_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut command = Command::new(binary("demo"));
    command
        .args(["--no-faults", "--for", "15s", "--report"])
        .arg(&report)
        .current_dir(folder.path());
    let mut demo = Process::start("demo", command);
    let running = demo
        .event("its first line", |event| event["event"] == "running")
        .await;
    let pid = running["controlPlane"]["pid"].as_i64().expect("a pid");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).expect("a pid is positive");
    rustix::process::kill_process(pid, Signal::KILL).expect("the control plane runs");
    let back = demo
        .event("the control plane's return", |event| {
            event["event"] == "restarted"
        })
        .await;
    println!("{back}");
    let took = apply_to_all(&running).await;
    println!("a change reached every proxy after {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let status = demo.exit(Duration::from_secs(60)).await;
    assert_eq!(status.code(), Some(0));
    let report: Value = serde_json::from_str(&std::fs::read_to_string(&report).unwrap()).unwrap();
    println!("{report:#}");
    assert_eq!(report["failures"], 0);
    assert_eq!(report["mtls"], true);
}

/// Applies a change that concerns every proxy, and waits until each has it.
async fn apply_to_all(running: &Value) -> Duration {
    const MESH: &str = "kind: MeshConfig\nmetadata: { name: mesh }\nspec: { trustDomain: mesh.local, \
        mtls: strict, authorization: { default: deny }, telemetry: { seriesLimit: 9876 } }\n";
    let text = |pointer: &str| {
        running
            .pointer(pointer)
            .and_then(Value::as_str)
            .expect("text")
    };
    let operator: SocketAddr = text("/operator/url")
        .trim_start_matches("http://")
        .parse()
        .expect("an address");
    let token = format!("Bearer {}", text("/operator/token"));
    wait::until(
        "the operator API to take the change",
        PATIENCE,
        async || {
            let body = body::full(MESH.to_owned());
            let mut request =
                client::request(Method::POST, &operator.to_string(), "/api/v1/apply", body);
            request
                .headers_mut()
                .insert("authorization", token.parse().expect("a token is ASCII"));
            let Ok(mut connection) = Http1::try_connect(operator).await else {
                return false;
            };
            matches!(connection.call(request).await, Ok(answer) if answer.status == 200)
        },
    )
    .await;
    let applied = Instant::now();
    for proxy in running["proxies"].as_array().expect("a list") {
        let admin: SocketAddr = proxy["admin"].as_str().expect("text").parse().unwrap();
        wait::until("the change at every proxy", PATIENCE, async || {
            let dump = client::get(admin, &admin.to_string(), "/config_dump").await;
            let dump: Value = serde_json::from_slice(&dump.body).unwrap_or_default();
            dump["mesh"]["seriesLimit"] == 9876
        })
        .await;
    }
    applied.elapsed()
}
