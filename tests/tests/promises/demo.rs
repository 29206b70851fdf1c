//! The demo shows what the mesh is for, and its report says so.

use std::time::Duration;

use selvage_tests::process::{Process, binary};
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
    assert!(
        count("/failures") <= 10,
        "in the phases of 503 and hanging, at most 10"
    );
}
