//! One of two replicas is killed, paused, cut off and moved, under a steady
//! load of the other pod's application: which requests fail, and for how long.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use super::lab::Lab;
use super::pods::{PODS, up};
use super::steady::{Sent, Steady, answers, effect, first_answer};

const SECOND: Duration = Duration::from_secs(1);
/// How long a fault is looked at.
const LOOK: Duration = Duration::from_secs(4);
/// An application's way to `ratings`, as in web.yaml.
const RATINGS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9001);
/// What a caller that cares says: a try has two seconds, and is repeated.
const POLICY: &str = "\
kind: TrafficPolicy
metadata: { name: ratings, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: ratings }]
  timeouts: { request: 6s, backendRequest: 2s }
  retry: { attempts: 2, on: [connect-failure, reset, timeout] }
";

/// Two replicas under load, and the one of them that answers more: the worse one to lose.
async fn under_load(lab: &Lab) -> (Steady, &'static str) {
    up(lab).await;
    let apply = format!(
        "podman exec -i control-plane-pod-0-control-plane /selvage apply -f - <<'END'\n{POLICY}END\n"
    );
    lab.shell(lab.folder(), &apply).await;
    let load = Steady::start(lab, lab.pid("web-pod-0-selvage").await, RATINGS);
    let [one, other, _] = PODS;
    load.until("answers of both replicas", |sent| {
        answers(sent, one, Duration::ZERO) > 0 && answers(sent, other, Duration::ZERO) > 0
    })
    .await;
    let both = load.now();
    load.goes_on(2 * SECOND).await;
    let sent = load.so_far();
    let busier = if answers(&sent, one, both) > answers(&sent, other, both) {
        one
    } else {
        other
    };
    (load, busier)
}

/// Shows what a fault did until it was mended. No request may fail, then or later; some may be late:
/// those that the replica had when it fell silent, and the few that are tried there again.
fn judge(what: &str, sent: &[Sent], fault: Duration, mended: Duration) {
    let effect = effect(sent, fault, mended);
    println!(
        "{what}: {} requests, {} late, the last of them sent {} ms after the fault",
        effect.requests,
        effect.late,
        effect.last_late.as_millis(),
    );
    let failed: Vec<_> = sent.iter().filter(|one| one.outcome.is_err()).collect();
    let all = sent.len();
    assert!(
        failed.is_empty(),
        "of {all}, fault at {fault:?}: {failed:#?}"
    );
    assert!(effect.late * 10 <= effect.requests, "{effect:?}");
}

/// How long after it was mended the replica answered again.
fn back_after(sent: &[Sent], replica: &str, mended: Duration) -> Duration {
    let back = first_answer(sent, replica, mended).expect("it was waited for");
    println!(
        "  {replica} answers {} ms after it was mended",
        back.as_millis()
    );
    back
}

#[tokio::test]
async fn a_killed_replica_costs_no_request_and_comes_back() {
    let lab = Lab::enter().await;
    let (load, replica) = under_load(&lab).await;
    let (app, sidecar) = (format!("{replica}-app"), format!("{replica}-selvage"));
    let fault = load.now();
    lab.run(&["podman", "kill", &app, &sidecar]).await;
    load.goes_on(LOOK).await;
    // What restarts containers is not Podman's kill, which counts as somebody's wish.
    let started = load.now();
    lab.run(&["podman", "start", &app, &sidecar]).await;
    load.until("the replica's return", |sent| {
        answers(sent, replica, started) > 0
    })
    .await;
    let sent = load.stop().await;
    judge("killed", &sent, fault, started);
    let back = back_after(&sent, replica, started);
    assert!(back < 10 * SECOND, "{back:?}");
}

#[tokio::test]
async fn a_paused_replica_costs_time_and_no_request() {
    let lab = Lab::enter().await;
    let (load, replica) = under_load(&lab).await;
    let (app, sidecar) = (format!("{replica}-app"), format!("{replica}-selvage"));
    let fault = load.now();
    lab.run(&["podman", "pause", &app, &sidecar]).await;
    load.goes_on(LOOK).await;
    let woken = load.now();
    lab.run(&["podman", "unpause", &app, &sidecar]).await;
    load.until("the replica's return", |sent| {
        answers(sent, replica, woken) > 0
    })
    .await;
    let sent = load.stop().await;
    judge("paused", &sent, fault, woken);
    let back = back_after(&sent, replica, woken);
    assert!(back < 10 * SECOND, "{back:?}");
}

#[tokio::test]
async fn a_replica_that_is_cut_off_and_comes_back_elsewhere_is_found_there() {
    let lab = Lab::enter().await;
    let (load, replica) = under_load(&lab).await;
    let infra = lab
        .run(&[
            "podman",
            "pod",
            "inspect",
            replica,
            "-f",
            "{{.InfraContainerID}}",
        ])
        .await;
    let old = address(&lab, &infra).await;
    let fault = load.now();
    lab.run(&["podman", "network", "disconnect", "mesh", &infra])
        .await;
    load.goes_on(LOOK).await;
    // Somebody else has its address by then.
    lab.run(&[
        "podman",
        "run",
        "-d",
        "--network",
        "mesh",
        "--ip",
        &old,
        "localhost/selvage-app:latest",
    ])
    .await;
    lab.run(&["podman", "network", "connect", "mesh", &infra])
        .await;
    let connected = load.now();
    let new = address(&lab, &infra).await;
    assert_ne!(old, new, "it has moved");
    load.until("the replica's return", |sent| {
        answers(sent, replica, connected) > 0
    })
    .await;
    load.goes_on(SECOND).await;
    let sent = load.stop().await;
    judge("cut off", &sent, fault, connected);
    println!("  moved from {old} to {new}");
    let back = back_after(&sent, replica, connected);
    assert!(back < 5 * SECOND, "{back:?}");
}

async fn address(lab: &Lab, container: &str) -> String {
    let asked = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    lab.run(&["podman", "inspect", "-f", asked, container])
        .await
}
