//! An overloaded server does what it can, for those who matter most, instead
//! of nothing for anybody.

use std::time::Duration;

use selvage_tests::client;
use selvage_tests::mesh::Mesh;

use super::capacity::{CAPACITY, Tally, application, offer, p99};

/// A fifth critical, a fifth sheddable.
const MIX: [&str; 5] = ["critical", "", "default", "", "sheddable"];

const ADAPTIVE: &str = "
kind: ServerPolicy
metadata: { name: orders, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: orders }]
  concurrency: { mode: adaptive }
";

struct Figures {
    goodput: f64,
    p99: Duration,
    critical: f64,
    sheddable: f64,
}

/// What came of `times` the capacity for so long.
async fn loaded(name: &str, mesh: &Mesh, times: f64, lasts: Duration) -> Figures {
    let rate = CAPACITY * times;
    let tallies = offer(mesh.outbound(), rate, lasts, MIX).await;
    let answered = tallies.iter().flat_map(|tally| &tally.answered);
    let shed = tallies.iter().flat_map(|tally| &tally.shed);
    let figures = Figures {
        goodput: answered.clone().count() as f64 / lasts.as_secs_f64() / CAPACITY,
        p99: p99(answered),
        critical: tallies[0].share(),
        sheddable: tallies[4].share(),
    };
    println!(
        "{name:<9} {times} × capacity: goodput {:.1} % of capacity, p99 {:?}; answered: critical {:.1} %, default {:.1} %, sheddable {:.1} %; shed after p99 {:?}",
        figures.goodput * 100.0,
        figures.p99,
        figures.critical * 100.0,
        tallies[1..4].iter().map(Tally::share).sum::<f64>() / 3.0 * 100.0,
        figures.sheddable * 100.0,
        p99(shed),
    );
    figures
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_three_times_its_capacity_a_server_serves_what_it_can() {
    let app = application().await;
    let mesh = Mesh::builder(app.address, "http2")
        .server_resources(ADAPTIVE)
        .start()
        .await;
    let calm = loaded("adaptive", &mesh, 0.3, Duration::from_millis(1500)).await;
    let over = loaded("adaptive", &mesh, 3.0, Duration::from_secs(4)).await;
    assert!(over.goodput >= 0.9, "goodput");
    assert!(over.critical >= 0.99, "critical");
    assert!(over.sheddable < over.critical / 2.0, "sheddable go first");
    assert!(over.p99 <= calm.p99 * 3 * 5, "five times what is promised");
    shown(&mesh).await;
}

/// What it did is told, and nobody's breaker minded.
async fn shown(mesh: &Mesh) {
    let server = mesh.server.metrics().await;
    let sheds = server.count("selvage_shed_total", &[]);
    let flagged = server.count(
        "selvage_http_requests_total",
        &[("direction", "inbound"), ("flag", "overloaded")],
    );
    assert_eq!(sheds, flagged, "{}", server.lines("selvage_shed_total"));
    let sheddable = server.count("selvage_shed_total", &[("criticality", "sheddable")]);
    assert!(sheds > 500 && sheddable > 100);
    assert!(server.sum("selvage_concurrency_limit", &[("port", "80")]) >= 20.0);
    let clusters = client::get(mesh.server.admin(), "localhost", "/clusters").await;
    let clusters: serde_json::Value = serde_json::from_slice(&clusters.body).unwrap();
    assert_eq!(clusters["ports"][0]["port"], 80, "{clusters}");
    assert_eq!(clusters["ports"][0]["inFlight"], 0, "{clusters}");
    assert!(clusters["ports"][0]["limit"].as_u64() >= Some(20));
    let caller = mesh.client.metrics().await;
    assert_eq!(caller.count("selvage_breaker_transitions_total", &[]), 0);
    let closed = [("destination", "shop/orders"), ("state", "closed")];
    assert_eq!(caller.count("selvage_endpoints", &closed), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_the_same_server_collapses() {
    let app = application().await;
    let mesh = Mesh::of(app.address, "http2").await;
    let over = loaded("none", &mesh, 3.0, Duration::from_secs(4)).await;
    assert!(over.goodput < 0.6, "else the limit would prove nothing");
    assert!(over.critical < 0.5);
}
