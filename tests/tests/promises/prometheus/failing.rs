//! Services fail in every way that callers can see, all at once; each alert fires for its own
//! service, and resolves when the service is mended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use selvage_tests::app::{App, ok, status};
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::load::Load;
use selvage_tests::sidecar::Sidecar;
use selvage_tests::wait::{self, PATIENCE};

use super::server::Prometheus;
use super::{replica, well};

/// What must be seen: an alert, and a label with its value.
pub(super) const ALERTS: &[(&str, &str, &str)] = &[
    ("SelvageErrorBudgetBurnsFast", "destination", "shop/broken"),
    ("SelvageBreakerOpen", "destination", "shop/broken"),
    ("SelvageBreakerFlaps", "destination", "shop/moody"),
    ("SelvageRetryBudgetExhausted", "destination", "shop/stormy"),
    ("SelvageLatencyHigh", "destination", "shop/slow"),
    (
        "SelvageErrorBudgetBurnsSlowly",
        "destination",
        "shop/broken",
    ),
];

/// How each service is called. Backoffs are faster as everything is.
const POLICIES: &str = "\
kind: TrafficPolicy
metadata: { name: broken, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: broken }]
  circuitBreaker: { backoff: { base: 300ms, max: 1s } }
---
kind: TrafficPolicy
metadata: { name: moody, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: moody }]
  circuitBreaker: { consecutiveFailures: 1, backoff: { base: 100ms, max: 200ms } }
---
kind: TrafficPolicy
metadata: { name: stormy, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: stormy }]
  retry: { attempts: 2, on: [503], backoff: { base: 1ms, max: 5ms }, budget: { percent: 1, interval: 10s, minPerSecond: 1 } }
  circuitBreaker: { consecutiveFailures: 0 }
";

/// How long the moody one keeps its mood.
const MOOD: Duration = Duration::from_millis(300);
/// How long the slow one takes.
const SLOW: Duration = Duration::from_millis(1500);

/// Whether the services are broken now.
type Fault = Arc<AtomicBool>;

#[tokio::test]
async fn what_callers_see_fires_and_resolves() {
    let fault = Fault::default();
    let control = ControlPlane::start().await;
    control.apply(POLICIES).await;
    let apps = [
        ("broken", broken(&fault).await),
        ("moody", moody(&fault).await),
        ("stormy", broken(&fault).await),
        ("slow", slow(&fault).await),
    ];
    let mut replicas = Vec::new();
    for (service, app) in &apps {
        replicas.push(replica(&control, &format!("{service}-1"), service, app).await);
        control.registered(service, 1).await;
    }
    let own = well().await;
    let caller = replica(&control, "client-1", "client", &own).await;
    let prometheus = Prometheus::watching(control.http).await;
    let loads = load(&caller);
    prometheus
        .scrapes(&["broken-1", "client-1", "moody-1", "slow-1", "stormy-1"])
        .await;
    // Counters are seen before they move: Prometheus counts from its second look on.
    wait::until("every service's success", PATIENCE, async || {
        let well = "destination:selvage_success:ratio_rate5m == 1";
        prometheus.query(well).await.len() == apps.len()
    })
    .await;
    prometheus.is_calm().await;

    fault.store(true, Ordering::SeqCst);
    prometheus.fire(ALERTS).await;
    fault.store(false, Ordering::SeqCst);
    prometheus.resolve(ALERTS).await;
    prometheus.calms_down().await;
    for load in loads {
        let tally = load.stop().await;
        assert!(tally.failed < tally.sent, "{tally:?}");
    }
}

/// Callers of each service: of each two, one repeats itself with GET.
fn load(caller: &Sidecar) -> Vec<Load> {
    ["broken.shop", "moody.shop", "stormy.shop", "slow.shop"]
        .map(|authority| Load::start(caller.outbound(), authority, 2, Duration::from_millis(20)))
        .into()
}

/// Answers 503 while there is the fault.
async fn broken(fault: &Fault) -> App {
    let fault = Arc::clone(fault);
    App::start(move |_| {
        let code = if fault.load(Ordering::SeqCst) {
            503
        } else {
            200
        };
        async move { status(code) }
    })
    .await
}

/// Answers 503 and 200 by turns while there is the fault.
async fn moody(fault: &Fault) -> App {
    let fault = Arc::clone(fault);
    let start = Instant::now();
    App::start(move |_| {
        let turns = start.elapsed().as_millis() / MOOD.as_millis();
        let fails = fault.load(Ordering::SeqCst) && turns.is_multiple_of(2);
        async move { status(if fails { 503 } else { 200 }) }
    })
    .await
}

/// Takes its time while there is the fault.
async fn slow(fault: &Fault) -> App {
    let fault = Arc::clone(fault);
    App::start(move |_| {
        let slow = fault.load(Ordering::SeqCst);
        async move {
            if slow {
                tokio::time::sleep(SLOW).await;
            }
            ok("at last")
        }
    })
    .await
}
