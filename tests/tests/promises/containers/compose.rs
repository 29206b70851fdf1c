//! Two services and their sidecars in one file: up, called through, down.

use std::fs;

use selvage_tests::process::Process;
use selvage_tests::wait::{self, PATIENCE};

use super::lab::{Lab, commands_of, examples};

#[tokio::test]
async fn compose_up_call_down() {
    let lab = Lab::enter().await;
    // Tokens are written beside the file, so it is a copy that is run.
    let folder = tempfile::tempdir().unwrap();
    for name in ["compose.yaml", "ratings.yaml", "web.yaml"] {
        fs::copy(examples("compose").join(name), folder.path().join(name)).unwrap();
    }
    let socket = lab.folder().join("podman.sock");
    let address = format!("unix://{}", socket.display());
    let service = lab.command(&["podman", "system", "service", "-t", "0", &address]);
    let _service = Process::start("podman", service.into());
    wait::until("podman's socket", PATIENCE, async || socket.exists()).await;

    let commands = commands_of(&examples("compose"));
    let [up, call, down] = &commands[..] else {
        panic!("up, call, down: {commands:?}");
    };
    let within = |commands: &str| {
        format!("export DOCKER_HOST={address} COMPOSE_PROJECT_NAME=selvage\n{commands}")
    };
    lab.shell(folder.path(), &within(up)).await;
    let said = lab.shell(folder.path(), &within(call)).await;
    println!("{said}");
    assert!(
        said.starts_with("ratings\n"),
        "ratings did not answer: {said}"
    );
    for service in ["shop/ratings", "shop/web"] {
        assert!(
            said.contains(service),
            "{service} is not registered: {said}"
        );
    }
    lab.shell(folder.path(), &within(down)).await;
    let left = lab.run(&["podman", "ps", "-a", "-q"]).await;
    assert_eq!(left, "", "containers are left");
}
