//! A change that is applied reaches every proxy that needs it, within seconds
//! and in one piece.

use std::time::Duration;

use http::Method;
use selvage_tests::app::App;
use selvage_tests::client;
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait::{self, PATIENCE};
use serde_json::json;

use super::scene;

/// Services that register one after the other, each asked for right after.
const FRESH_SERVICES: usize = 30;

const DENY: &str = "kind: AuthorizationPolicy\nmetadata: { name: closed, namespace: shop }\nspec:\n  targetRefs: [{ kind: Service, name: orders }]\n  rules: [{ name: nobody, action: deny }]\n";

const IN_TURN: &str = "kind: TrafficPolicy\nmetadata: { name: turns, namespace: shop }\nspec:\n  targetRefs: [{ kind: Service, name: orders }]\n  loadBalancer: { algorithm: round-robin }\n";

#[tokio::test]
async fn a_policy_reaches_the_proxies_and_leaves_them_again() {
    let app = App::echo().await;
    let (control, _server, caller) = scene(json!({}), &app).await;
    assert_eq!(
        client::get(caller.outbound(), ORDERS, "/").await.status,
        200
    );
    control.apply(DENY).await;
    let took = wait::until("the denial", PATIENCE, async || {
        client::get(caller.outbound(), ORDERS, "/").await.status == 403
    })
    .await;
    println!("applied to enforced: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    let answer = control
        .ask(
            Method::DELETE,
            "/api/v1/AuthorizationPolicy/shop/closed",
            "",
        )
        .await
        .unwrap();
    assert!(answer.status.is_success(), "{}", answer.text());
    wait::until("the end of the denial", PATIENCE, async || {
        client::get(caller.outbound(), ORDERS, "/").await.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_workload_may_call_its_own_service() {
    let app = App::echo().await;
    let (_control, server, _caller) = scene(json!({}), &app).await;
    let answer = client::get(server.outbound(), ORDERS, "/").await;
    assert_eq!(answer.status, 200, "{}", answer.flag());
    assert_eq!(app.count(), 1, "through its own inbound side");
}

#[tokio::test]
async fn what_is_refused_changes_nothing() {
    let app = App::echo().await;
    let (control, _server, caller) = scene(json!({}), &app).await;
    let before = control.get("/api/v1/services").await["revision"].clone();
    // Two documents, one of them wrong: neither is taken.
    let wrong = format!(
        "{DENY}---\nkind: TrafficPolicy\nmetadata: {{ name: x, namespace: shop }}\nspec: {{ targetRef: [] }}\n"
    );
    let answer = control
        .ask(Method::POST, "/api/v1/apply", &wrong)
        .await
        .unwrap();
    assert_eq!(answer.status, 422);
    assert!(
        answer.text().contains("targetRefs"),
        "the nearest known name: {}",
        answer.text()
    );
    assert_eq!(control.get("/api/v1/services").await["revision"], before);
    assert_eq!(
        client::get(caller.outbound(), ORDERS, "/").await.status,
        200
    );
}

#[tokio::test]
async fn replicas_come_and_go() {
    let (one, two) = (App::echo().await, App::echo().await);
    let (control, mut first, caller) = scene(json!({}), &one).await;
    // By latency, one caller at a time may well stay with the replica it knows to be fast.
    control.apply(IN_TURN).await;
    let pki = Pki::new();
    let mut second = control
        .sidecar("orders-2", "orders")
        .await
        .application(80, two.address, "http")
        .start(&pki)
        .await;
    control.registered("orders", 2).await;
    wait::until("traffic to the second", PATIENCE, async || {
        assert_eq!(
            client::get(caller.outbound(), ORDERS, "/").await.status,
            200
        );
        two.count() > 0
    })
    .await;
    first.terminate();
    first.process.exit(2 * PATIENCE).await;
    let before = one.count();
    for _ in 0..20 {
        let answer = client::post(caller.outbound(), ORDERS, "/", "x").await;
        assert_eq!(answer.status, 200, "{}", answer.flag());
    }
    assert_eq!(
        one.count(),
        before,
        "a replica that said goodbye gets nothing any more"
    );
    second.terminate();
    second.process.exit(2 * PATIENCE).await;
    wait::until("no replica", PATIENCE, async || {
        client::get(caller.outbound(), ORDERS, "/").await.flag() == "no-service"
    })
    .await;
}

#[tokio::test]
async fn a_dead_application_is_reported_and_avoided() {
    let (one, two) = (App::echo().await, App::echo().await);
    let (control, _first, caller) = scene(json!({}), &one).await;
    let pki = Pki::new();
    let _second = control
        .sidecar("orders-2", "orders")
        .await
        .application(80, two.address, "http")
        .start(&pki)
        .await;
    control.registered("orders", 2).await;
    drop(two);
    for number in 0..50 {
        let answer = client::post(caller.outbound(), ORDERS, "/", number.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.flag());
    }
    let took = control.registered("orders", 1).await;
    println!("dead to reported: {took:?}");
}

#[tokio::test]
async fn an_unknown_service_is_known_as_soon_as_it_is_there() {
    let app = App::echo().await;
    let (control, _server, caller) = scene(json!({}), &app).await;
    let unknown = client::get(caller.outbound(), "later.shop", "/").await;
    assert_eq!(
        (unknown.status.as_u16(), unknown.flag()),
        (404, "no-service")
    );
    let pki = Pki::new();
    let _later = control
        .sidecar("later-1", "later")
        .await
        .application(80, app.address, "http")
        .start(&pki)
        .await;
    wait::until("the new service", PATIENCE, async || {
        client::get(caller.outbound(), "later.shop", "/")
            .await
            .status
            == 200
    })
    .await;
}

#[tokio::test]
async fn a_registered_service_is_known_to_whoever_asks_next() {
    let app = App::echo().await;
    let (control, _server, caller) = scene(json!({}), &app).await;
    let pki = Pki::new();
    let mut failed = Vec::new();
    for number in 0..FRESH_SERVICES {
        let service = format!("fresh-{number}");
        let authority = format!("{service}.shop");
        let newcomer = control
            .sidecar(&format!("newcomer-{number}"), "client")
            .await
            .write(&pki);
        let _replica = control
            .sidecar(&format!("{service}-1"), &service)
            .await
            .application(80, app.address, "http")
            .start(&pki)
            .await;
        control.registered(&service, 1).await;
        // One that runs asks for it on its open stream, one that starts on a new stream.
        let running = client::get(caller.outbound(), &authority, "/");
        let starting = async {
            let newcomer = newcomer.start().await;
            client::get(newcomer.outbound(), &authority, "/").await
        };
        let (running, starting) = tokio::join!(running, starting);
        for (who, answer) in [("running", running), ("starting", starting)] {
            if answer.status != 200 {
                failed.push(format!(
                    "{service}, {who}: {} {}",
                    answer.status,
                    answer.flag()
                ));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {}: {failed:?}",
        failed.len(),
        2 * FRESH_SERVICES
    );
}
