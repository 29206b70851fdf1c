//! What the command line promises without a control plane: diagnostics, exit codes, help, completions.
//!
//! The binary is run as a user runs it. What needs a running mesh is tested where meshes are run.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn selvage(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvage"));
    for (key, _) in
        std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("SELVAGE_"))
    {
        command.env_remove(key);
    }
    command.args(args).output().expect("the binary runs")
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// A folder of its own for one test.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("writable");
        path
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

const GOOD: &str = "\
kind: Service
metadata: { name: ratings, namespace: shop }
spec:
  ports: [{ port: 80, targetPort: 8080, protocol: http }]
---
kind: TrafficPolicy
metadata: { name: ratings, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: ratings }]
  timeouts: { request: 5s }
";

#[test]
fn valid_resources_are_counted() {
    let folder = Folder::new();
    let file = folder.file("good.yaml", GOOD);
    for path in [text(&file), text(folder.0.path())] {
        let output = selvage(&["validate", "-f", path]);
        assert_eq!(output.status.code(), Some(0), "{}", err(&output));
        assert_eq!(out(&output), "2 valid resources\n");
    }
    let output = selvage(&["validate", "-f", text(&file), "-o", "json"]);
    let answer: serde_json::Value = serde_json::from_str(&out(&output)).expect("JSON");
    assert_eq!(
        (answer["valid"].as_bool(), answer["resources"].as_u64()),
        (Some(true), Some(2))
    );
}

#[test]
fn an_unknown_key_is_named_with_file_line_column_and_neighbour() {
    let folder = Folder::new();
    let file = folder.file("bad.yaml", &GOOD.replace("timeouts: {", "timeout: {"));
    let output = selvage(&["validate", "-f", text(&file)]);
    assert_eq!(output.status.code(), Some(1));
    let error = err(&output);
    assert!(error.contains("bad.yaml:10:3"), "{error}");
    assert!(error.contains("timeouts"), "{error}");
    assert!(
        !error.contains('\u{1b}'),
        "colours only on a terminal: {error}"
    );
}

#[test]
fn one_bad_file_of_a_folder_refuses_all() {
    let folder = Folder::new();
    folder.file("a.yaml", GOOD);
    folder.file("b.yaml", "kind: Servce\nmetadata: { name: x }\nspec: {}\n");
    folder.file("notes.txt", "not a resource");
    let output = selvage(&["validate", "-f", text(folder.0.path())]);
    assert_eq!(output.status.code(), Some(1));
    let error = err(&output);
    assert!(
        error.contains("b.yaml:1:") && error.contains("`Service`"),
        "{error}"
    );
}

#[test]
fn a_dangling_reference_is_a_warning_and_strict_refuses_it() {
    let folder = Folder::new();
    let file = folder.file(
        "policy.yaml",
        &GOOD.replace(
            "kind: Service, name: ratings",
            "kind: Service, name: rating",
        ),
    );
    let output = selvage(&["validate", "-f", text(&file)]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(
        err(&output).contains("warning") && err(&output).contains("ratings"),
        "{}",
        err(&output)
    );
    let output = selvage(&["validate", "--strict", "-f", text(&file)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("error"), "{}", err(&output));
}

#[test]
fn a_file_that_is_not_there_is_one_line() {
    let output = selvage(&["validate", "-f", "/nowhere/x.yaml"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(err(&output).lines().count(), 1, "{}", err(&output));
    assert!(err(&output).contains("/nowhere/x.yaml"));
}

#[test]
fn a_token_that_cannot_be_read_says_what_to_do() {
    let output = selvage(&["status", "--token-file", "/nowhere/token"]);
    assert_eq!(output.status.code(), Some(1));
    let error = err(&output);
    assert!(
        error.contains("/nowhere/token") && error.contains("--token-file"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1, "{error}");
}

#[test]
fn a_control_plane_that_is_away_says_how_to_start_one() {
    let folder = Folder::new();
    let token = folder.file("operator.token", "secret\n");
    // Bound and not accepting would hang; bound and let go refuses.
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    for command in [
        &["get", "Service"][..],
        &["check"],
        &["status"],
        &["ca", "show"],
        &["delete", "Service/x"],
    ] {
        let args: Vec<&str> = [command, &["--server", &url, "--token-file", text(&token)]].concat();
        let output = selvage(&args);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let error = err(&output);
        assert!(
            error.contains(&url) && error.contains("selvage control-plane"),
            "{error}"
        );
        assert!(!error.contains("secret"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn apply_refuses_what_does_not_parse_before_it_asks_anyone() {
    let folder = Folder::new();
    let file = folder.file(
        "bad.yaml",
        "kind: Service\nmetadata: { nam: x }\nspec: {}\n",
    );
    for command in ["apply", "diff"] {
        let output = selvage(&[command, "-f", text(&file), "--server", "http://127.0.0.1:1"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(err(&output).contains("bad.yaml:2:"), "{}", err(&output));
    }
}

#[test]
fn wrong_usage_ends_with_two() {
    for args in [
        &[][..],
        &["frobnicate"],
        &["validate"],
        &["get"],
        &["get", "Gatway"],
        &["delete", "Service"],
        &["token", "create", "--workload", "orders"],
        &[
            "token",
            "create",
            "--workload",
            "shop/orders",
            "--uses",
            "0",
        ],
        &["status", "-o", "xml"],
    ] {
        let output = selvage(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", err(&output));
        assert!(!err(&output).is_empty(), "{args:?}");
    }
}

#[test]
fn commands_to_come_are_refused_as_such() {
    for args in [
        &["capture", "--anything"][..],
        &["ca", "init"],
        &["ca", "rotate"],
    ] {
        let output = selvage(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(
            err(&output).contains("not supported yet"),
            "{}",
            err(&output)
        );
    }
}

#[test]
fn the_help_of_every_command_ends_with_an_example() {
    for args in [
        &["proxy"][..],
        &["gateway"],
        &["run"],
        &["control-plane"],
        &["apply"],
        &["diff"],
        &["validate"],
        &["get"],
        &["delete"],
        &["token", "create"],
        &["check"],
        &["status"],
        &["ca", "show"],
        &["completions"],
    ] {
        let output = selvage(&[args, &["--help"]].concat());
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        let help = out(&output);
        let example = help
            .trim_end()
            .rsplit("Example:\n")
            .next()
            .expect("split gives one part at least");
        assert!(
            example
                .trim()
                .starts_with(&format!("selvage {}", args.join(" "))),
            "{help}"
        );
    }
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = selvage(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        for command in ["apply", "validate", "control-plane", "completions"] {
            assert!(out(&output).contains(command), "{shell}: {command}");
        }
    }
}
