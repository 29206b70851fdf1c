//! The right configuration for the right command, and a port that is taken.

use std::net::TcpListener;
use std::process::Command;

use selvage_tests::client;
use selvage_tests::gateway::Gateway;
use selvage_tests::pki::Pki;
use selvage_tests::process::binary;
use selvage_tests::sidecar::Sidecar;

use super::{all, backend, gateway, listener, named, route};

#[test]
fn the_wrong_command_for_a_configuration_says_so() {
    let (folder, gateway) = Gateway::builder(&[80]).write();
    let sidecar = Sidecar::builder("orders").write(&Pki::new());
    let refused = |command: &[&str], config: &std::path::Path| {
        let mut process = Command::new(binary("selvage"));
        process.args(command).arg("--config").arg(config);
        if command[0] == "run" {
            process.args(["--", "true"]);
        }
        let output = process.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    for command in [&["proxy"][..], &["run"]] {
        let said = refused(command, &gateway);
        assert!(said.contains("run it with `selvage gateway`"), "{said}");
    }
    let said = refused(&["gateway"], &sidecar.config);
    assert!(said.contains("run it with `selvage proxy`"), "{said}");
    drop(folder);
}

#[tokio::test]
async fn a_port_that_is_taken_leaves_the_others_alone() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap().port();
    let app = named("app").await;
    let resources = all(&[
        backend("app", "http", app.address),
        gateway(&[
            listener("one", 80, "HTTP", ""),
            listener("two", 81, "HTTP", ""),
        ]),
        route("HTTPRoute", "one", "one", &[("app", 1)]),
        route("HTTPRoute", "two", "two", &[("app", 1)]),
    ]);
    let mut edge = Gateway::builder(&[80])
        .set("gateway.ports.81", place)
        .resources(&resources)
        .without_readiness()
        .start()
        .await;
    let one = edge.port(80).await;
    assert_eq!(client::get(one, "a", "/").await.status, 200);
    let (status, said) = edge.readiness().await;
    assert_eq!(status, 503);
    assert!(said.contains("listeners not bound yet"), "{said}");
    let shown = edge.shows("/clusters").await["gateway"]["ports"]["81"].clone();
    assert!(
        shown["error"]
            .as_str()
            .unwrap()
            .contains("cannot listen on"),
        "{shown}"
    );
    drop(taken);
    let two = edge.port(81).await;
    assert_eq!(two.port(), place);
    edge.is_ready().await;
    assert_eq!(client::get(two, "a", "/").await.status, 200);
}
