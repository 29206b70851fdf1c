//! Dependencies between packages run one way, and the pure ones know no IO.

use std::collections::BTreeMap;

use serde_json::Value;

use super::workspace;

/// Which packages of the workspace each may know. `core` knows `api` so that
/// static mode and the control plane share one encoder.
const WALLS: [(&str, &[&str]); 11] = [
    ("selvage-certs", &[]),
    ("selvage-api", &[]),
    ("selvage-policy", &["selvage-certs"]),
    ("selvage-http1", &[]),
    ("selvage-http2", &[]),
    ("selvage-core", &["selvage-api", "selvage-certs"]),
    (
        "selvage-proxy",
        &[
            "selvage-api",
            "selvage-certs",
            "selvage-core",
            "selvage-http1",
            "selvage-http2",
            "selvage-policy",
        ],
    ),
    (
        "selvage-control-plane",
        &["selvage-api", "selvage-certs", "selvage-core"],
    ),
    (
        "selvage",
        &["selvage-control-plane", "selvage-core", "selvage-proxy"],
    ),
    (
        "selvage-examples",
        &["selvage-control-plane", "selvage-proxy"],
    ),
    ("selvage-tests", &[]),
];

/// What the pure packages must never know.
const STRANGERS: [(&str, &[&str]); 4] = [
    (
        "selvage-policy",
        &[
            "tokio",
            "hyper",
            "tonic",
            "serde",
            "prost",
            "serde_json",
            "tokio-util",
            "hyper-util",
        ],
    ),
    (
        "selvage-certs",
        &["tokio", "tokio-rustls", "hyper", "tonic"],
    ),
    ("selvage-core", &["tokio", "tonic", "redb", "hyper"]),
    ("selvage-api", &["tokio", "tonic", "hyper"]),
];

/// Each package of the workspace with the names of what it depends on, build and test dependencies apart.
fn dependencies() -> BTreeMap<String, Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(workspace())
        .output()
        .expect("cargo can be started");
    let metadata: Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let packages = metadata["packages"]
        .as_array()
        .expect("metadata lists packages");
    let name_of = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let normal = |package: &Value| {
        let all = package["dependencies"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        all.iter()
            .filter(|one| one["kind"].is_null())
            .map(name_of)
            .collect()
    };
    packages
        .iter()
        .map(|package| (name_of(package), normal(package)))
        .collect()
}

#[test]
fn packages_know_only_what_the_design_allows() {
    let dependencies = dependencies();
    let named: Vec<_> = WALLS.iter().map(|(name, _)| *name).collect();
    for (package, known) in &dependencies {
        assert!(
            named.contains(&package.as_str()),
            "{package} has no place in the design"
        );
        let allowed = WALLS
            .iter()
            .find(|(name, _)| name == package)
            .map(|(_, allowed)| *allowed)
            .unwrap_or_default();
        for dependency in known.iter().filter(|name| named.contains(&name.as_str())) {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{package} must not know {dependency}"
            );
        }
    }
    assert_eq!(
        dependencies.len(),
        WALLS.len(),
        "every package of the design is there"
    );
}

#[test]
fn pure_packages_know_no_io() {
    let dependencies = dependencies();
    for (package, strangers) in STRANGERS {
        let known = &dependencies[package];
        for stranger in strangers {
            assert!(
                !known.iter().any(|name| name == stranger),
                "{package} must not know {stranger}"
            );
        }
    }
}
