//! A replica that is restarted again and again costs no request.

use std::time::Duration;

use rustix::process::Signal;
use selvage_tests::app::App;
use selvage_tests::load::Load;
use selvage_tests::mesh::service;
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::PATIENCE;

#[tokio::test]
async fn restarting_a_replicas_sidecar_costs_no_request() {
    // 100 restarts and 50,000 requests with `tests/run --long`, a tenth of both otherwise.
    let (restarts, requests) = if selvage_tests::is_long() {
        (100, 50_000)
    } else {
        (10, 5_000)
    };
    let (pki, app) = (Pki::new(), App::echo().await);
    let start = || {
        Sidecar::builder("orders")
            .application(80, app.address, "http")
            .set("drain.delay", "100ms")
            .start(&pki)
    };
    let (mut one, two, three) = (start().await, start().await, start().await);
    let id = || Some(spiffe_id("shop", "orders"));
    let replicas = [
        (one.inbound(), id()),
        (two.inbound(), id()),
        (three.inbound(), id()),
    ];
    let caller = Sidecar::builder("client")
        .resources(&service("orders", "http", &replicas))
        .start(&pki)
        .await;
    let load = Load::start(caller.outbound(), ORDERS, 8, Duration::ZERO);
    for _ in 0..restarts {
        load.passes(requests / restarts / 2).await;
        one.restart(Signal::TERM, 2 * PATIENCE).await;
        load.passes(requests / restarts / 2).await;
    }
    let tally = load.stop().await;
    let retries = caller
        .metrics()
        .await
        .count("selvage_http_retries_total", &[]);
    println!(
        "{restarts} restarts, {} requests, {} failed, {retries} retries",
        tally.sent, tally.failed
    );
    assert_eq!(tally.failed, 0, "{tally:?}");
    assert!(tally.sent >= requests);
}
