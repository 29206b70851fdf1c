//! The mesh goes on while its control plane is away, and takes up where it was.

use std::time::Duration;

use rustix::process::Signal;
use selvage_tests::app::App;
use selvage_tests::client;
use selvage_tests::load::Load;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait::{self, PATIENCE};
use serde_json::json;

use super::scene;

fn budget(percent: usize) -> String {
    format!(
        "kind: TrafficPolicy\nmetadata: {{ name: orders, namespace: shop }}\nspec:\n  targetRefs: [{{ kind: Service, name: orders }}]\n  retry: {{ attempts: 1, on: [503], budget: {{ percent: {percent}, interval: 10s, minPerSecond: 1 }} }}\n"
    )
}

#[tokio::test]
async fn killing_it_loses_no_request_and_no_change() {
    let app = App::echo().await;
    let (mut control, _server, caller) = scene(json!({}), &app).await;
    let load = Load::start(caller.outbound(), ORDERS, 4, Duration::from_millis(2));
    load.passes(100).await;
    control.restart(Signal::KILL).await;
    let revision = control.apply("kind: AuthorizationPolicy\nmetadata: { name: reads, namespace: shop }\nspec:\n  targetRefs: [{ kind: Service, name: orders }]\n  rules: [{ name: all, action: allow, to: [{ methods: [GET, POST] }] }]\n").await;
    let took = wait::until("the proxies at the new revision", PATIENCE, async || {
        let proxies = control.get("/api/v1/proxies").await;
        let items = proxies["items"].as_array().cloned().unwrap_or_default();
        items.len() == 2
            && items
                .iter()
                .all(|one| one.to_string().contains(&revision.to_string()))
    })
    .await;
    println!("after its restart, applied to acknowledged everywhere: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    load.passes(100).await;
    let tally = load.stop().await;
    assert_eq!(tally.failed, 0, "{tally:?}");
}

#[tokio::test]
async fn every_acknowledged_change_survives_a_kill() {
    let app = App::echo().await;
    let (mut control, _server, caller) = scene(json!({}), &app).await;
    for round in 0..20_usize {
        let mut acknowledged = control.apply(&budget(1)).await;
        let mut percent = 1;
        // Killed at another moment in each round, while the next change is on its way.
        let killer = async {
            tokio::time::sleep(Duration::from_millis(round as u64 * 3)).await;
            control.process.signal(Signal::KILL);
        };
        let applier = async {
            for next in 2..100 {
                let Ok(answer) = control
                    .ask(http::Method::POST, "/api/v1/apply", &budget(next))
                    .await
                else {
                    break;
                };
                let said: serde_json::Value =
                    serde_json::from_slice(&answer.body).unwrap_or_default();
                let Some(revision) = said["revision"].as_u64() else {
                    break;
                };
                (acknowledged, percent) = (revision, next);
            }
        };
        tokio::join!(killer, applier);
        control.process.exit(PATIENCE).await;
        control.start_again().await;
        let kept = control.get("/api/v1/TrafficPolicy/shop/orders").await;
        let seen = kept["document"]["spec"]["retry"]["budget"]["percent"]
            .as_u64()
            .expect("the policy is there");
        // The change under way at the kill may have been taken too, but none before it may be missing.
        assert!(
            seen as usize == percent || seen as usize == percent + 1,
            "round {round}: {percent} was acknowledged, {seen} is there"
        );
        let revision = control.get("/api/v1/services").await["revision"]
            .as_u64()
            .expect("there is a revision");
        assert!(
            revision >= acknowledged,
            "round {round}: {acknowledged} was acknowledged, {revision} is there"
        );
    }
    assert_eq!(
        client::get(caller.outbound(), ORDERS, "/").await.status,
        200
    );
}

#[tokio::test]
async fn its_absence_past_every_lease_costs_nothing() {
    // Five minutes at the leases of everyday with `tests/run --long`, five short ones otherwise.
    let (lease, absence) = if selvage_tests::is_long() {
        ("15s", 300)
    } else {
        ("1s", 5)
    };
    let app = App::echo().await;
    let (mut control, _server, caller) =
        scene(json!({ "registry": { "leaseTtl": lease } }), &app).await;
    let load = Load::start(caller.outbound(), ORDERS, 2, Duration::from_millis(5));
    control.stop(Signal::TERM).await;
    // Many leases long, so that every one of them has run out when it comes back.
    tokio::time::sleep(Duration::from_secs(absence)).await;
    control.start_again().await;
    control.registered("orders", 1).await;
    load.passes(50).await;
    let tally = load.stop().await;
    println!(
        "{absence} s without a control plane, leases of {lease}: {} requests, {} failed",
        tally.sent, tally.failed
    );
    assert_eq!(tally.failed, 0, "{tally:?}");
}

#[tokio::test]
async fn a_restarted_sidecar_needs_no_control_plane() {
    let app = App::echo().await;
    let (mut control, mut server, mut caller) = scene(json!({}), &app).await;
    assert_eq!(
        client::get(caller.outbound(), ORDERS, "/").await.status,
        200
    );
    control.stop(Signal::KILL).await;
    server.restart(Signal::KILL, PATIENCE).await;
    caller.restart(Signal::TERM, 2 * PATIENCE).await;
    let answer = client::get(caller.outbound(), ORDERS, "/").await;
    assert_eq!(
        answer.status,
        200,
        "from what stateDir keeps: {}",
        answer.flag()
    );
}

#[tokio::test]
async fn an_unhealthy_lease_comes_back_with_its_workload() {
    let app = App::echo().await;
    let (control, mut server, caller) =
        scene(json!({ "registry": { "leaseTtl": "1s" } }), &app).await;
    server.restart(Signal::KILL, PATIENCE).await;
    control.registered("orders", 1).await;
    wait::until("service", PATIENCE, async || {
        client::get(caller.outbound(), ORDERS, "/").await.status == 200
    })
    .await;
}
