//! `selvage run`: a command never runs without its sidecar, and loses nothing
//! by having one; `probe`, for whoever has nothing else to ask with.

use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use selvage_tests::app::App;
use selvage_tests::control_plane::some_token;
use selvage_tests::mesh::{Mesh, service};
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::process::binary;
use selvage_tests::sidecar::{Sidecar, Written};
use selvage_tests::wait;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::Command;

/// Longer than any command here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A sidecar that knows no service.
fn alone() -> (Pki, Written) {
    let pki = Pki::new();
    let written = Sidecar::builder("job").write(&pki);
    (pki, written)
}

async fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null());
    let output = wait::within("the end of selvage run", LIMIT, command.output()).await;
    output.unwrap()
}

async fn code(command: Command) -> Option<i32> {
    output(command).await.status.code()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn the_exit_code_is_the_commands_own() {
    let (_pki, sidecar) = alone();
    for (script, expected) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 42", 42),
        ("exit 255", 255),
        ("kill -TERM $$", 143),
        ("kill -KILL $$", 137),
    ] {
        let ended = code(sidecar.beside(&[], &["sh", "-c", script])).await;
        assert_eq!(ended, Some(expected), "{script}");
    }
}

#[tokio::test]
async fn input_and_output_are_the_commands_own() {
    let (_pki, sidecar) = alone();
    let output = output(sidecar.beside(
        &[],
        &[
            "sh",
            "-c",
            "echo out; cat; echo \"$0 $#\"",
            "a b",
            "--",
            "-x",
        ],
    ))
    .await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "out\na b 2\n");
    // Nor does a sidecar that is well talk in between.
    assert_eq!(said(&output), "");
}

#[tokio::test]
async fn what_its_sidecar_tells_is_told_on_stderr_to_the_last_line() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let endpoint = (mesh.server.inbound(), Some(spiffe_id("shop", "orders")));
    let job = Sidecar::builder("job")
        .resources(&service("orders", "http", &[endpoint]))
        .set("telemetry.accessLog", "json")
        .write(&mesh.pki);
    // It ends while its last request is hardly recorded.
    let script = "for n in 1 2 3; do curl --silent --show-error --fail --max-time 5 \
        --header 'host: orders.shop' http://$SELVAGE_OUTBOUND_LISTENER/$n; done";
    let output = output(job.beside(&[], &["sh", "-c", script])).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("access"));
    let said = said(&output);
    for path in ["/1", "/2", "/3"] {
        let told = format!("\"path\":\"{path}\"");
        assert_eq!(said.matches(&told).count(), 1, "{path}: {said}");
    }
}

#[tokio::test]
async fn what_is_meant_for_one_of_the_two_is_left_to_it() {
    let (_pki, sidecar) = alone();
    let run = |traces: Option<&str>| {
        let script = "echo $OTEL_EXPORTER_OTLP_COMPRESSION ${NOTIFY_SOCKET-nobody}";
        let mut command = sidecar.beside(&[], &["sh", "-c", script]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
        command.env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip");
        command.env("NOTIFY_SOCKET", "/nobody/listens");
        if let Some(traces) = traces {
            command.env("SELVAGE_TELEMETRY_TRACES", traces);
        }
        output(command)
    };
    let refused = run(None).await;
    assert_eq!(refused.status.code(), Some(125));
    assert!(said(&refused).contains("OTEL_EXPORTER_OTLP_COMPRESSION"));
    let ran = run(Some("off")).await;
    assert_eq!(ran.status.code(), Some(0), "{}", said(&ran));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "gzip nobody\n");
}

#[tokio::test]
async fn a_command_that_cannot_be_run_is_said_as_shells_say_it() {
    let (_pki, sidecar) = alone();
    let plain = sidecar.folder.path().join("no-program");
    std::fs::write(&plain, "nothing to run").unwrap();
    let plain = plain.to_str().unwrap();
    for (program, expected) in [("./not-there", 127), ("no-such-command", 127), (plain, 126)] {
        let ended = output(sidecar.beside(&[], &[program])).await;
        let said = said(&ended);
        assert_eq!(ended.status.code(), Some(expected), "{said}");
        let errors = said.lines().filter(|line| line.starts_with("error: "));
        assert_eq!(errors.count(), 1, "{said}");
        assert!(said.contains(&format!("cannot run {program}")), "{said}");
    }
}

#[tokio::test]
async fn a_command_is_not_begun_without_its_sidecar() {
    let pki = Pki::new();
    // Bound and never accepted from: a control plane that is away.
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = away.local_addr().unwrap();
    let waiting = Sidecar::builder("job").joining(address, &some_token());
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let blocked = Sidecar::builder("job").set("outbound.address", taken.clone());
    let wrong = Sidecar::builder("job").set("workers", "many");
    for (builder, words) in [
        (waiting, "not ready within"),
        (blocked, "cannot listen on"),
        (wrong, "workers"),
    ] {
        let sidecar = builder.write(&pki);
        let mark = sidecar.folder.path().join("begun");
        let touch = ["touch", mark.to_str().unwrap()];
        let ended = output(sidecar.beside(&["--ready-within", "500ms"], &touch)).await;
        let said = said(&ended);
        assert_eq!(ended.status.code(), Some(125), "{said}");
        assert!(said.contains(words), "{words}: {said}");
        assert!(!mark.exists(), "{words}");
    }
}

#[tokio::test]
async fn what_it_is_told_the_command_is_told() {
    let (_pki, sidecar) = alone();
    for (signal, name) in [
        (Signal::TERM, "TERM"),
        (Signal::HUP, "HUP"),
        (Signal::USR1, "USR1"),
        (Signal::INT, "INT"),
    ] {
        let script = format!("trap 'kill $!; exit 9' {name}; sleep 60 & echo begun; wait");
        let mut command = sidecar.beside(&[], &["sh", "-c", &script]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let begun = wait::within("the command's first word", LIMIT, lines.next_line()).await;
        assert_eq!(begun.unwrap().as_deref(), Some("begun"));
        let pid = Pid::from_raw(child.id().unwrap().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
        let status = wait::within("its end", LIMIT, child.wait()).await.unwrap();
        assert_eq!(status.code(), Some(9), "{name}");
    }
}

#[tokio::test]
async fn a_job_calls_at_once_and_ends_as_it_would_alone() {
    let jobs: u32 = if std::env::var_os("SELVAGE_LONG").is_some() {
        1000
    } else {
        100
    };
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let endpoint = (mesh.server.inbound(), Some(spiffe_id("shop", "orders")));
    let job = Sidecar::builder("job")
        .resources(&service("orders", "http", &[endpoint]))
        .write(&mesh.pki);
    // What curl says is its exit code: a request that fails is never asked again.
    let script = "curl --silent --show-error --fail --max-time 5 --output /dev/null \
        --header 'host: orders.shop' http://$SELVAGE_OUTBOUND_LISTENER/job && exit $0";
    let start = Instant::now();
    let mut failed = Vec::new();
    for number in 0..jobs {
        let expected = i32::try_from(number % 3).unwrap();
        let ended = output(job.beside(&[], &["sh", "-c", script, &expected.to_string()])).await;
        if ended.status.code() != Some(expected) {
            failed.push((number, ended.status, said(&ended)));
        }
    }
    let each = start.elapsed() / jobs;
    println!("{jobs} jobs, {} failed, {each:?} each", failed.len());
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(app.count(), jobs as usize);
    // 35 ms on two cores of 2026, curl and the shell included.
    assert!(each < Duration::from_millis(500), "{each:?} each");
}

async fn probe(question: &str, address: &str) -> (Option<i32>, String) {
    let mut command = Command::new(binary("selvage-proxy"));
    command.args(["probe", question, "--address", address]);
    let ended = output(command).await;
    (ended.status.code(), said(&ended))
}

#[tokio::test]
async fn a_probe_says_what_the_sidecar_says() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let telemetry = mesh.client.telemetry().to_string();
    for question in ["live", "ready"] {
        let (code, said) = probe(question, &telemetry).await;
        assert_eq!((code, said.as_str()), (Some(0), ""));
    }
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = away.local_addr().unwrap();
    let token = some_token();
    let waiting = Sidecar::builder("waiting")
        .joining(address, &token)
        .without_readiness();
    let waiting = waiting.start(&mesh.pki).await;
    let telemetry = waiting.telemetry().to_string();
    assert_eq!(probe("live", &telemetry).await.0, Some(0));
    let (code, said) = probe("ready", &telemetry).await;
    assert_eq!(code, Some(1));
    assert!(said.contains("not ready: no identity yet"), "{said}");
    // Bound and closed again.
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = nobody.local_addr().unwrap().to_string();
    let (code, said) = probe("live", &nobody).await;
    assert_eq!((code, said.lines().count()), (Some(1), 1), "{said}");
}
