//! A caller that floods a server takes nothing from the others.

use std::time::Duration;

use selvage_tests::app::App;
use selvage_tests::mesh::{Mesh, service};
use selvage_tests::pki::spiffe_id;
use selvage_tests::sidecar::Sidecar;

use super::capacity::{CAPACITY, PLACES, Tally, application, offer, p99};

/// The server with a fixed limit, and what one steady caller gets beside one
/// that sends four times what the server can do.
async fn steady_beside_a_flood(app: &App, per_caller: &str, lasts: Duration) -> (Tally, Tally) {
    let policy = format!(
        "kind: ServerPolicy\nmetadata: {{ name: orders, namespace: shop }}\nspec:\n  \
         targetRefs: [{{ kind: Service, name: orders, port: 80 }}]\n  \
         concurrency: {{ mode: fixed, max: {PLACES}{per_caller} }}\n"
    );
    let mesh = Mesh::builder(app.address, "http2")
        .server_resources(&policy)
        .start()
        .await;
    let endpoint = (mesh.server.inbound(), Some(spiffe_id("shop", "orders")));
    let flood = Sidecar::builder("flood")
        .resources(&service("orders", "http2", &[endpoint]))
        .start(&mesh.pki)
        .await;
    let ([flood], [steady]) = tokio::join!(
        offer(flood.outbound(), 4.0 * CAPACITY, lasts, [""]),
        offer(mesh.outbound(), 0.1 * CAPACITY, lasts, [""]),
    );
    let shed = mesh.server.metrics().await;
    let per_caller = shed.count("selvage_shed_total", &[("reason", "per-caller")]);
    println!(
        "steady: {} sent, {} answered, p99 {:?}; flood: {} sent, {} answered; {per_caller} over the caller's own limit",
        steady.sent,
        steady.answered.len(),
        p99(&steady.answered),
        flood.sent,
        flood.answered.len(),
    );
    (steady, flood)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flooding_caller_takes_nothing_from_another() {
    let app = application().await;
    let own = ", perCaller: { maxConcurrent: 10 }";
    let lasts = Duration::from_secs(4);
    let (steady, flood) = steady_beside_a_flood(&app, own, lasts).await;
    assert!(
        steady.share() >= 0.999,
        "{:?} of {}",
        steady.shed,
        steady.sent
    );
    assert!(flood.answered.len() > 100, "it has its own share");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_bulkheads_a_flood_takes_everything() {
    let app = application().await;
    let lasts = Duration::from_secs(2);
    let (steady, _) = steady_beside_a_flood(&app, "", lasts).await;
    assert!(
        steady.share() < 0.8,
        "else the bulkhead would prove nothing"
    );
}
