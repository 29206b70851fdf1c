//! A control plane hands out identity and policy, and may go away at any moment.

mod absence; // its restarts and its absence cost no request
mod distribution; // a change reaches every proxy, whole
mod joining; // who gets an identity, and who does not

use selvage_tests::app::App;
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::sidecar::{ORDERS, Sidecar};

/// A control plane, a replica of `orders` beside `app`, and a caller.
async fn scene(settings: serde_json::Value, app: &App) -> (ControlPlane, Sidecar, Sidecar) {
    let pki = selvage_tests::pki::Pki::new();
    let control = ControlPlane::with(settings).await;
    let server = control
        .sidecar("orders-1", "orders")
        .await
        .application(80, app.address, "http")
        .start(&pki)
        .await;
    control.registered("orders", 1).await;
    let caller = control
        .sidecar("client-1", "client")
        .await
        .listener(ORDERS, 80)
        .start(&pki)
        .await;
    (control, server, caller)
}
