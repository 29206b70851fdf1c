//! Sidecars are killed, then the control plane: alerts tell of both, of who waits for the control
//! plane, and of certificates that nobody renews; all resolve when everybody is back.

use rustix::process::Signal;
use selvage_tests::client;
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::wait::PATIENCE;
use serde_json::json;

use super::server::{CONTROL_PLANE, Prometheus};
use super::{replica, well};

/// What must be seen when two of three sidecars are killed: an alert, and a label with its value.
pub(super) const WITHOUT_SIDECARS: &[(&str, &str, &str)] = &[
    ("SelvageProxyDown", "workload", "orders-1"),
    ("SelvageProxyDown", "workload", "orders-2"),
    ("SelvageRegistryFrozen", "job", "selvage-control-plane"),
];

/// What must be seen when the control plane is killed.
pub(super) const WITHOUT_CONTROL_PLANE: &[(&str, &str, &str)] = &[
    ("SelvageControlPlaneDown", "job", "selvage-control-plane"),
    ("SelvageControlPlaneDisconnected", "workload", "client-1"),
    ("SelvageCertificateExpiresSoon", "kind", "leaf"),
];

#[tokio::test]
async fn what_goes_away_fires_and_resolves() {
    let app = well().await;
    // As in the faster rules, hours of certificates are seconds: the leaf lives for a day.
    let settings = json!({ "ca": { "leafTtl": "24s" }, "registry": { "leaseTtl": "2s" } });
    let mut control = ControlPlane::with(settings).await;
    let orders = [
        replica(&control, "orders-1", "orders", &app).await,
        replica(&control, "orders-2", "orders", &app).await,
    ];
    let _caller = replica(&control, "client-1", "client", &app).await;
    let prometheus = Prometheus::watching(control.http).await;
    let all = ["client-1", "orders-1", "orders-2"];
    prometheus.scrapes(&all).await;
    prometheus.is_calm().await;

    for mut sidecar in orders {
        sidecar.process.signal(Signal::KILL);
        sidecar.process.exit(PATIENCE).await;
    }
    prometheus.fire(WITHOUT_SIDECARS).await;
    let targets = client::get(control.http, CONTROL_PLANE, "/sd/prometheus").await;
    assert!(
        all.iter().all(|workload| targets.text().contains(workload)),
        "who said no goodbye is still expected: {}",
        targets.text()
    );
    let _first = replica(&control, "orders-1", "orders", &app).await;
    let _second = replica(&control, "orders-2", "orders", &app).await;
    prometheus.resolve(WITHOUT_SIDECARS).await;

    control.stop(Signal::KILL).await;
    prometheus.fire(WITHOUT_CONTROL_PLANE).await;
    control.start_again().await;
    prometheus.resolve(WITHOUT_CONTROL_PLANE).await;
    prometheus.scrapes(&all).await;
    prometheus.calms_down().await;
}
