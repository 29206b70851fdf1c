//! What systemd is told, with the test as the service manager: ready when it is
//! ready, stopping when it is told to, alive in between. No systemd runs here;
//! the units are checked by its own tool.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::process::Signal;
use selvage_tests::app::ClosedPort;
use selvage_tests::control_plane::some_token;
use selvage_tests::pki::Pki;
use selvage_tests::process::{Process, binary};
use selvage_tests::sidecar::Sidecar;
use selvage_tests::wait::PATIENCE;
use tempfile::TempDir;

use super::lab::examples;

/// A notify socket.
struct Manager {
    socket: tokio::net::UnixDatagram,
    address: String,
    _folder: Option<TempDir>,
}

impl Manager {
    fn at_a_path() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self::of(socket, path.display().to_string(), Some(folder))
    }

    fn in_the_abstract() -> Self {
        let name = format!("selvage-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        Self::of(
            UnixDatagram::bind_addr(&address).unwrap(),
            format!("@{name}"),
            None,
        )
    }

    fn of(socket: UnixDatagram, address: String, folder: Option<TempDir>) -> Self {
        socket.set_nonblocking(true).unwrap();
        Self {
            socket: tokio::net::UnixDatagram::from_std(socket).unwrap(),
            address,
            _folder: folder,
        }
    }

    /// The next datagram, as lines; `None` where there is none within `limit`.
    async fn hears_within(&self, limit: Duration) -> Option<Vec<String>> {
        let mut buffer = [0; 512];
        let heard = tokio::time::timeout(limit, self.socket.recv(&mut buffer)).await;
        let length = heard.ok()?.unwrap();
        let text = std::str::from_utf8(&buffer[..length]).unwrap();
        Some(text.lines().map(str::to_owned).collect())
    }

    async fn hears(&self) -> Vec<String> {
        self.hears_within(PATIENCE)
            .await
            .expect("word comes in time")
    }
}

#[tokio::test]
async fn a_sidecar_says_ready_then_stopping() {
    for manager in [Manager::at_a_path(), Manager::in_the_abstract()] {
        let builder = Sidecar::builder("told").environment("NOTIFY_SOCKET", &manager.address);
        let mut sidecar = builder.start(&Pki::new()).await;
        assert_eq!(manager.hears().await, ["READY=1", "STATUS=ready"]);
        assert_eq!(sidecar.readiness().await, Some(200));
        sidecar.terminate();
        assert_eq!(manager.hears().await, ["STOPPING=1", "STATUS=draining"]);
        assert!(sidecar.process.exit(PATIENCE).await.success());
    }
}

#[tokio::test]
async fn a_sidecar_that_is_not_ready_says_what_it_waits_for() {
    let manager = Manager::at_a_path();
    let nobody = ClosedPort::new();
    let builder = Sidecar::builder("told").joining(nobody.address, &some_token());
    let builder = builder.environment("NOTIFY_SOCKET", &manager.address);
    let sidecar = builder.without_readiness().start(&Pki::new()).await;
    let waiting = "STATUS=waiting: no identity yet, no snapshot yet";
    assert_eq!(manager.hears().await, [waiting]);
    // Nothing is ready in this time that would not be for ever.
    assert_eq!(manager.hears_within(Duration::from_millis(500)).await, None);
    assert_eq!(sidecar.readiness().await, Some(503));
    sidecar.terminate();
    assert_eq!(manager.hears().await, ["STOPPING=1", "STATUS=draining"]);
}

#[tokio::test]
async fn a_drain_that_is_not_the_end_is_not_stopping() {
    let manager = Manager::at_a_path();
    let builder = Sidecar::builder("told").environment("NOTIFY_SOCKET", &manager.address);
    let sidecar = builder.start(&Pki::new()).await;
    assert_eq!(manager.hears().await, ["READY=1", "STATUS=ready"]);
    let answer = selvage_tests::client::post(sidecar.admin(), "localhost", "/drain", "").await;
    assert!(answer.status.is_success());
    assert_eq!(manager.hears().await, ["STATUS=draining"]);
}

#[tokio::test]
async fn a_watchdog_hears_twice_in_its_time() {
    let manager = Manager::at_a_path();
    let builder = Sidecar::builder("told").environment("NOTIFY_SOCKET", &manager.address);
    let builder = builder.environment("WATCHDOG_USEC", "1000000");
    let _sidecar = builder.start(&Pki::new()).await;
    let mut heard = Vec::new();
    while heard.len() < 4 {
        let word = manager.hears_within(Duration::from_secs(1)).await;
        heard.push(word.expect("within the watchdog's time").join(" "));
    }
    heard.sort();
    let alive = "WATCHDOG=1";
    assert_eq!(heard, ["READY=1 STATUS=ready", alive, alive, alive]);
}

#[tokio::test]
async fn a_control_plane_says_ready_then_stopping() {
    let manager = Manager::at_a_path();
    let folder = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(binary("selvage"));
    command
        .args(["control-plane", "--grpc-address", "127.0.0.1:0"])
        .args(["--http-address", "127.0.0.1:0", "--data-dir", "data"])
        .current_dir(folder.path())
        .env("NOTIFY_SOCKET", &manager.address);
    let mut plane = Process::start("control plane", command);
    assert_eq!(manager.hears().await, ["READY=1", "STATUS=ready"]);
    let http = plane.listening("http").await;
    let ready = selvage_tests::client::get(http, &http.to_string(), "/ready").await;
    assert_eq!(ready.status, 200);
    plane.signal(Signal::TERM);
    assert_eq!(manager.hears().await, ["STOPPING=1", "STATUS=stopping"]);
    assert!(plane.exit(PATIENCE).await.success());
}

/// `systemd-analyze` of the two units, whose programs are where the tests have them.
async fn analyze(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new("systemd-analyze");
    command.args(arguments);
    for (unit, program) in [
        ("selvage-proxy.service", "selvage-proxy"),
        ("selvage-control-plane.service", "selvage"),
    ] {
        let text = std::fs::read_to_string(examples("systemd").join(unit)).unwrap();
        let installed = format!("/usr/local/bin/{program} ");
        assert!(text.contains(&installed), "{unit} runs {program}");
        let here = format!(
            "{} ",
            std::path::absolute(binary(program)).unwrap().display()
        );
        std::fs::write(folder.path().join(unit), text.replace(&installed, &here)).unwrap();
        command.arg(folder.path().join(unit));
    }
    let output = command.output().await.expect("systemd-analyze is there");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

#[tokio::test]
async fn systemd_finds_nothing_wrong_with_the_units() {
    assert_eq!(analyze(&["verify"]).await, "");
    // Its measure of exposure, from 0 to 10, times ten.
    analyze(&["security", "--offline=true", "--threshold=20", "--no-pager"]).await;
}
