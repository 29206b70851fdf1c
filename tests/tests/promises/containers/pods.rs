//! Application and sidecar in one pod: they share a network and nothing else,
//! and what the pods are is what the manifests say.

use std::fs;
use std::path::Path;

use selvage_tests::metrics::Metrics;
use selvage_tests::process::target;
use selvage_tests::wait::{self, PATIENCE};

use super::lab::{Lab, commands_of, examples};

/// The pods of the services, as the README has them.
pub(super) const PODS: [&str; 3] = ["ratings-1-pod-0", "ratings-2-pod-0", "web-pod-0"];

/// What the README says, until all sidecars are ready and both replicas are known to be healthy.
pub(super) async fn up(lab: &Lab) {
    let folder = examples("kubernetes");
    lab.shell(&folder, &commands_of(&folder)[0]).await;
    for pod in PODS {
        let what = format!("readiness of {pod}");
        wait::until(&what, 2 * PATIENCE, async || {
            probe(lab, pod, "ready").await.0 == Some(0)
        })
        .await;
    }
    wait::until("two healthy replicas", 2 * PATIENCE, async || {
        let said = status(lab).await;
        let row = said.lines().find(|line| line.starts_with("shop/ratings "));
        row.is_some_and(|row| row.contains("2 of 2"))
    })
    .await;
}

async fn status(lab: &Lab) -> String {
    let plane = "control-plane-pod-0-control-plane";
    lab.run(&["podman", "exec", plane, "/selvage", "status"])
        .await
}

/// The exit code of a probe of a pod's sidecar, and why not.
async fn probe(lab: &Lab, pod: &str, question: &str) -> (Option<i32>, String) {
    let sidecar = format!("{pod}-selvage");
    lab.code(&[
        "podman",
        "exec",
        &sidecar,
        "/selvage-proxy",
        "probe",
        question,
    ])
    .await
}

/// What the application of a pod gets there.
async fn curl(lab: &Lab, pod: &str, arguments: &[&str]) -> String {
    let app = format!("{pod}-app");
    let mut command = vec!["podman", "exec", &app, "curl", "-sS", "--max-time", "10"];
    command.extend(arguments);
    lab.run(&command).await
}

#[tokio::test]
async fn an_application_calls_another_pod_through_both_sidecars() {
    const CALLS: u64 = 20;
    let lab = Lab::enter().await;
    up(&lab).await;
    let mut answered = [0; 2];
    for _ in 0..CALLS {
        let host = curl(&lab, "web-pod-0", &["http://localhost:9001/cgi-bin/host"]).await;
        let replica = PODS[..2].iter().position(|pod| *pod == host);
        answered[replica.unwrap_or_else(|| panic!("{host} is no replica"))] += 1;
    }
    for (pod, answered) in PODS.iter().zip(answered) {
        let text = curl(&lab, pod, &["http://localhost:15020/metrics"]).await;
        let metrics = Metrics::parse(&text);
        let inbound = [
            ("direction", "inbound"),
            ("source", "shop/web"),
            ("destination", "shop/ratings"),
            ("code", "200"),
        ];
        let counted = metrics.count("selvage_http_requests_total", &inbound);
        assert_eq!(
            counted,
            answered,
            "{pod}: {}",
            metrics.lines("selvage_http")
        );
        let server = |outcome| {
            let labels = [("side", "server"), ("outcome", outcome)];
            metrics.count("selvage_tls_handshakes_total", &labels)
        };
        assert_eq!(
            server("ok") > 0,
            answered > 0,
            "{}",
            metrics.lines("selvage_tls")
        );
        let all = metrics.count("selvage_tls_handshakes_total", &[("side", "server")]);
        assert_eq!(all, server("ok"), "no handshake failed");
    }
    println!("answered by the replicas: {answered:?}");
    // Nobody else's network has the application.
    let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let infra = lab
        .run(&[
            "podman",
            "pod",
            "inspect",
            PODS[0],
            "-f",
            "{{.InfraContainerID}}",
        ])
        .await;
    let address = lab.run(&["podman", "inspect", "-f", address, &infra]).await;
    let (code, said) = lab
        .code(&[
            "podman",
            "exec",
            "web-pod-0-app",
            "curl",
            "-sS",
            &format!("http://{address}:8080/"),
        ])
        .await;
    assert_eq!(
        code,
        Some(7),
        "the application is reached past its sidecar: {said}"
    );
}

#[tokio::test]
async fn probes_exit_0_and_1_and_containers_have_no_power() {
    let lab = Lab::enter().await;
    up(&lab).await;
    for pod in PODS {
        for question in ["live", "ready"] {
            assert_eq!(
                probe(&lab, pod, question).await.0,
                Some(0),
                "{pod} {question}"
            );
        }
    }
    curl(
        &lab,
        "web-pod-0",
        &["-X", "POST", "http://localhost:15000/drain"],
    )
    .await;
    let (code, said) = probe(&lab, "web-pod-0", "ready").await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("draining"), "{said}");
    assert_eq!(probe(&lab, "web-pod-0", "live").await.0, Some(0));

    for (container, user) in [
        ("control-plane-pod-0-control-plane", "1337"),
        ("ratings-1-pod-0-selvage", "1337"),
        ("ratings-1-pod-0-app", "1000"),
    ] {
        let pid = lab.pid(container).await;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap_or_default()
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        assert_eq!(field("Uid:"), user, "{container}");
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:"] {
            assert_eq!(field(set).trim_start_matches('0'), "", "{container} {set}");
        }
        assert_eq!(field("NoNewPrivs:"), "1", "{container}");
        assert_eq!(
            field("Seccomp:"),
            "2",
            "{container} has a filter of system calls"
        );
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("it runs");
        let root = mounts
            .lines()
            .find(|line| line.split(' ').nth(4) == Some("/"));
        let options = root
            .and_then(|line| line.split(' ').nth(5))
            .expect("it has a root");
        assert!(
            options.split(',').any(|option| option == "ro"),
            "{container}: {options}"
        );
    }
}

#[tokio::test]
async fn manifests_are_valid() {
    let validator = target().join("kubernetes-validate/bin/kubernetes-validate");
    let folder = examples("kubernetes");
    let manifests = manifests(&folder);
    assert_eq!(manifests.len(), 4, "{manifests:?}");
    for manifest in manifests {
        let mut command = tokio::process::Command::new(&validator);
        command.args(["-k", "1.32", "--strict"]).arg(&manifest);
        let output = command.output().await;
        let output = output.unwrap_or_else(|error| {
            panic!("{}: {error}; tests/run fetches it", validator.display())
        });
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{}: {said}{complaints}",
            manifest.display()
        );
        println!("{said}");
    }
    // The one kind of form where the validator does not look: the sidecar is an init container that stays.
    let native = fs::read_to_string(folder.join("ratings-native.yaml")).expect("it is there");
    let init = native
        .split("initContainers:")
        .nth(1)
        .expect("it has init containers");
    let init = init.split("      containers:").next().unwrap_or_default();
    for word in ["restartPolicy: Always", "startupProbe:", "probe, ready"] {
        assert!(init.contains(word), "{word}");
    }
}

fn manifests(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut all: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    all.sort();
    all
}
