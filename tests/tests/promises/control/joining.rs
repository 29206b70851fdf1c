//! A workload joins with a token that is bound to its identity; nothing else
//! gets a certificate.

use std::time::Duration;

use selvage_tests::app::App;
use selvage_tests::client;
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::load::Load;
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::json;

use super::scene;

#[tokio::test]
async fn a_workload_with_a_token_is_in_the_mesh() {
    let app = App::echo().await;
    let (control, server, caller) = scene(json!({}), &app).await;
    let answer = client::get(caller.outbound(), ORDERS, "/").await;
    assert_eq!(answer.status, 200, "{}", answer.flag());
    assert!(
        app.last()
            .header("x-forwarded-client-cert")
            .ends_with(&spiffe_id("shop", "client"))
    );
    let outcome = [("side", "server"), ("outcome", "ok")];
    assert_eq!(
        server
            .metrics()
            .await
            .count("selvage_tls_handshakes_total", &outcome),
        1,
        "over mutual TLS"
    );
    assert_eq!(
        caller
            .metrics()
            .await
            .count("selvage_discovery_connected", &[]),
        1
    );
    let metrics = control.metrics().await;
    assert_eq!(metrics.count("selvage_connected_proxies", &[]), 2);
    assert_eq!(
        metrics.sum(
            "selvage_registered_endpoints",
            &[("service", "shop/orders")]
        ),
        1.0,
        "{}",
        metrics.lines("selvage_registered")
    );
}

#[tokio::test]
async fn a_wrong_token_gets_nothing() {
    let pki = Pki::new();
    let control = ControlPlane::start().await;
    let token = control.token("orders").await;
    let other = ControlPlane::start().await;
    // Another control plane's token is a wrong one twice: its root is not ours, and its secret unknown.
    for (name, wrong) in [
        ("of another mesh", other.token("orders").await),
        ("forged", format!("{}0", &token[..token.len() - 1])),
    ] {
        if wrong == token {
            continue;
        }
        let sidecar = Sidecar::builder("orders")
            .joining(control.grpc, &wrong)
            .without_readiness()
            .write(&pki);
        let mut process = selvage_tests::process::Process::start("sidecar", sidecar.command());
        wait::until(
            &format!("{name}: words about it"),
            2 * PATIENCE,
            async || {
                process.has_ended()
                    || process.log().to_lowercase().contains("token")
                    || process.log().to_lowercase().contains("fingerprint")
            },
        )
        .await;
        assert!(!process.log().contains("panicked"), "{}", process.log());
        assert!(!process.log().contains(&wrong), "a token is never logged");
    }
    assert_eq!(
        control
            .metrics()
            .await
            .count("selvage_connected_proxies", &[]),
        0
    );
}

#[tokio::test]
async fn a_token_is_for_its_own_service_account() {
    let pki = Pki::new();
    let control = ControlPlane::start().await;
    let token = control.token("orders").await;
    // It says `payments`, but its token says `orders`.
    let sidecar = Sidecar::builder("payments")
        .joining(control.grpc, &token)
        .without_readiness()
        .write(&pki);
    let mut process = selvage_tests::process::Process::start("sidecar", sidecar.command());
    wait::until("words about it", 2 * PATIENCE, async || {
        process.has_ended() || process.log().contains("payments")
    })
    .await;
    let services = control.get("/api/v1/services").await.to_string();
    assert!(!services.contains("payments"), "{services}");
}

#[tokio::test]
async fn certificates_are_renewed_under_load_without_a_loss() {
    let app = App::echo().await;
    let (control, server, caller) = scene(json!({ "ca": { "leafTtl": "20s" } }), &app).await;
    let expiry = async |sidecar: &Sidecar| {
        sidecar.metrics().await.sum(
            "selvage_certificate_expiry_timestamp_seconds",
            &[("kind", "leaf")],
        )
    };
    let before = (expiry(&server).await, expiry(&caller).await);
    let load = Load::start(caller.outbound(), ORDERS, 4, Duration::from_millis(2));
    wait::until("both renewals", Duration::from_secs(40), async || {
        expiry(&server).await > before.0 + 8.0 && expiry(&caller).await > before.1 + 8.0
    })
    .await;
    load.passes(500).await;
    let tally = load.stop().await;
    assert_eq!(tally.failed, 0, "{tally:?}");
    let renewals = control
        .metrics()
        .await
        .count("selvage_certificates_issued_total", &[("kind", "renew")]);
    assert!(
        (2..=4).contains(&renewals),
        "one or two for each in half of a life or a little more, not {renewals}"
    );
    assert_eq!(
        caller
            .metrics()
            .await
            .count("selvage_http_retries_total", &[]),
        0,
        "nor was one retried"
    );
}
