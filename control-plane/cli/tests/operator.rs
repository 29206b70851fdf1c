//! The operator's commands against a control plane that this same binary runs.
//!
//! Each test has a control plane of its own, on ports the system chooses. Sidecars are not started
//! here: what needs one is tested where meshes are run.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A control plane and the folder it runs in; ended when it goes out of scope.
struct ControlPlane {
    child: Child,
    folder: tempfile::TempDir,
    url: String,
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvage"));
    for (key, _) in
        std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("SELVAGE_"))
    {
        command.env_remove(key);
    }
    command
}

impl ControlPlane {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = binary();
        command.args([
            "control-plane",
            "--grpc-address",
            "127.0.0.1:0",
            "--http-address",
            "127.0.0.1:0",
        ]);
        command
            .current_dir(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().expect("the binary starts");
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        let events = stdout
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| serde_json::from_str::<Value>(&line).ok());
        let mut http =
            events.filter(|event| event["event"] == "listening" && event["name"] == "http");
        let url = http
            .next()
            .and_then(|event| Some(format!("http://{}", event["address"].as_str()?)));
        Self {
            child,
            folder,
            url: url.expect("it says where it listens"),
        }
    }

    /// Runs a command in the control plane's folder, where the token is found by itself.
    fn run(&self, args: &[&str]) -> Output {
        let mut command = binary();
        command
            .current_dir(self.folder.path())
            .env("SELVAGE_SERVER", &self.url);
        command.args(args).output().expect("the binary runs")
    }

    /// The exit code, what was said on stdout, and on stderr.
    fn said(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let output = self.run(args);
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["-o", "json"]].concat());
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("writable");
        path
    }
}

const SERVICE: &str = "\
kind: Service
metadata: { name: ratings, namespace: shop }
spec:
  ports: [{ port: 80, targetPort: 8080, protocol: http }]
  endpoints: [{ address: 127.0.0.1:31080 }]
";

const POLICY: &str = "\
kind: TrafficPolicy
metadata: { name: ratings, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: ratings }]
  timeouts: { request: 5s }
";

#[test]
fn what_is_applied_is_shown_changed_and_deleted() {
    let mesh = ControlPlane::start();
    mesh.file("a.yaml", SERVICE);
    mesh.file("b.yaml", POLICY);
    let files = ["-f", "a.yaml", "-f", "b.yaml"];
    let with = |command: &'static str| [&[command][..], &files].concat();

    let (code, out, _) = mesh.said(&with("diff"));
    assert_eq!((code, out.lines().count()), (Some(1), 2), "{out}");
    let (code, out, err) = mesh.said(&with("apply"));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(
        out,
        "Service shop/ratings created\nTrafficPolicy shop/ratings created\n"
    );
    let (code, out, _) = mesh.said(&with("diff"));
    assert_eq!((code, out.as_str()), (Some(0), "no difference\n"));

    mesh.file("b.yaml", &POLICY.replace("5s", "7s"));
    let (code, out, _) = mesh.said(&with("diff"));
    assert_eq!(code, Some(1));
    assert!(
        out.contains("spec.timeouts.request: \"5s\" → \"7s\""),
        "{out}"
    );
    let (_, out, _) = mesh.said(&with("apply"));
    assert_eq!(
        out,
        "Service shop/ratings unchanged\nTrafficPolicy shop/ratings configured\n"
    );

    let (code, out, _) = mesh.said(&["get", "TrafficPolicy/ratings", "-n", "shop", "-o", "yaml"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("request: 7s"), "{out}");
    let (_, out, _) = mesh.said(&["get", "services"]);
    assert!(out.contains("shop") && out.contains("ratings"), "{out}");
    assert_eq!(
        mesh.json(&["get", "Service", "-n", "elsewhere"]),
        Value::Array(Vec::new())
    );

    let (code, out, _) = mesh.said(&["delete", "TrafficPolicy/ratings", "-n", "shop"]);
    assert_eq!(
        (code, out.as_str()),
        (Some(0), "TrafficPolicy shop/ratings deleted\n")
    );
    for command in ["get", "delete"] {
        let (code, _, err) = mesh.said(&[command, "TrafficPolicy/ratings", "-n", "shop"]);
        assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
    }
}

#[test]
fn what_the_control_plane_refuses_is_shown_in_its_file() {
    let mesh = ControlPlane::start();
    mesh.file(
        "mesh.yaml",
        "kind: MeshConfig\nmetadata: { name: mesh }\nspec: { mtls: strict }\n",
    );
    assert_eq!(mesh.said(&["apply", "-f", "mesh.yaml"]).0, Some(0));
    mesh.file(
        "other.yaml",
        "\n\nkind: MeshConfig\nmetadata: { name: other }\nspec: { mtls: strict }\n",
    );
    mesh.file("service.yaml", SERVICE);
    let (code, _, err) = mesh.said(&["apply", "-f", "service.yaml", "-f", "other.yaml"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("other.yaml:4:"), "{err}");
    let (_, out, _) = mesh.said(&["get", "Service"]);
    assert_eq!(out, "no Service\n", "nothing of a refused set is applied");
}

#[test]
fn a_reference_into_nothing_warns_and_strict_refuses_it() {
    let mesh = ControlPlane::start();
    mesh.file("policy.yaml", POLICY);
    let (code, _, err) = mesh.said(&["apply", "--strict", "-f", "policy.yaml"]);
    assert_eq!(code, Some(1));
    assert!(err.contains("policy.yaml:4:"), "{err}");
    let (code, _, err) = mesh.said(&["apply", "-f", "policy.yaml"]);
    assert_eq!(code, Some(0));
    assert!(
        err.contains("warning") && err.contains("policy.yaml:4:"),
        "{err}"
    );
    let (code, out, _) = mesh.said(&["check"]);
    assert_eq!(code, Some(1));
    assert!(
        out.contains("TrafficPolicy shop/ratings is not ResolvedRefs"),
        "{out}"
    );
}

#[test]
fn a_sound_control_plane_passes_the_check() {
    let mesh = ControlPlane::start();
    let (code, out, err) = mesh.said(&["check"]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert!(out.ends_with("nothing is wrong\n"), "{out}");
    assert_eq!(mesh.json(&["check"])["findings"], Value::Array(Vec::new()));
    assert_eq!(mesh.json(&["status"])["ready"], true);
    assert_eq!(mesh.json(&["ca", "show"])["trustDomain"], "mesh.local");
}

#[test]
fn a_token_is_one_word_on_stdout() {
    let mesh = ControlPlane::start();
    let (code, out, err) = mesh.said(&[
        "token",
        "create",
        "--workload",
        "shop/orders",
        "--ttl",
        "10m",
        "--uses",
        "3",
    ]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out.split_whitespace().count(), 1, "{out}");
    let made = mesh.json(&[
        "token",
        "create",
        "--workload",
        "shop/orders",
        "--service",
        "a",
        "--service",
        "b",
    ]);
    assert_eq!(made["identity"], "spiffe://mesh.local/ns/shop/sa/orders");
    assert_eq!(made["services"], serde_json::json!(["a", "b"]));
    let (code, _, err) = mesh.said(&[
        "token",
        "create",
        "--workload",
        "shop/orders",
        "--ttl",
        "9000h",
    ]);
    assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
}

#[test]
fn the_wrong_token_is_told_as_such() {
    let mesh = ControlPlane::start();
    mesh.file("wrong", "not-the-token\n");
    let (code, _, err) = mesh.said(&["status", "--token-file", "wrong"]);
    assert_eq!((code, err.lines().count()), (Some(1), 1), "{err}");
    assert!(
        err.contains("refused the token of wrong") && !err.contains("not-the-token"),
        "{err}"
    );
}

const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: ratings, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: ratings }]
  rules:
    - { name: v1, matches: [{ path: { value: /v1 } }], backendRefs: [{ name: ratings, port: 80 }] }
";

#[test]
fn what_is_applied_explains_a_request() {
    let mesh = ControlPlane::start();
    mesh.file("a.yaml", SERVICE);
    mesh.file("b.yaml", ROUTE);
    let (code, _, err) = mesh.said(&["apply", "-f", "a.yaml", "-f", "b.yaml"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let explain =
        |url: &'static str| mesh.said(&["explain", "request", "--from", "shop/web", "--url", url]);
    let (code, out, err) = explain("http://ratings.shop/v1/stars");
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    for part in ["rule      shop/ratings/v1", "endpoint 127.0.0.1:31080"] {
        assert!(out.contains(part), "{out}");
    }
    let (code, out, err) = explain("http://ratings.shop/v2");
    assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
    assert!(out.contains("404 no-route"), "{out}");
}
