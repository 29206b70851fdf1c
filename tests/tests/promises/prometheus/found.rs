//! The mesh is found by its control plane's list alone, every panel of the dashboard has data, and
//! the README's commands run.

use std::collections::BTreeSet;
use std::time::Duration;

use selvage_tests::client;
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::load::Load;
use selvage_tests::process::binary;
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::Value;
use tokio::process::Command;

use super::server::{CONTROL_PLANE, OWN, Prometheus};
use super::{absent, caller, commands, failing, files, read, replica, said, well};

/// What Grafana puts in place of `$__rate_interval`: four times the interval of scrapes at least.
const RATE_INTERVAL: &str = "5s";

/// A policy that changes what callers are told.
const CHANGE: &str = "\
kind: TrafficPolicy
metadata: { name: orders, namespace: shop }
spec: { targetRefs: [{ kind: Service, name: orders }], timeouts: { request: 5s } }
";

#[tokio::test]
async fn every_sidecar_is_found_and_every_panel_has_data() {
    let app = well().await;
    let control = ControlPlane::start().await;
    let _first = replica(&control, "orders-1", "orders", &app).await;
    let mut second = replica(&control, "orders-2", "orders", &app).await;
    let mut caller = caller(&control, "client-1", "client").await;
    let prometheus = Prometheus::watching(control.http).await;
    control.registered("orders", 2).await;
    let load = Load::start(caller.outbound(), ORDERS, 4, Duration::from_millis(10));

    prometheus
        .scrapes(&["client-1", "orders-1", "orders-2"])
        .await;
    for workload in ["client-1", "orders-1", "orders-2"] {
        counts_requests(&prometheus, workload).await;
    }
    wait::until("the control plane's own metrics", PATIENCE, async || {
        let streams = "selvage_connected_proxies{job=\"selvage-control-plane\"}";
        prometheus.value(streams).await == Some(3.0)
    })
    .await;
    control.apply(CHANGE).await; // something to push
    for workload in ["client-1", "orders-1"] {
        let found = prometheus.discovered(workload).await;
        assert_eq!(found["__meta_selvage_label_version"], "v1", "{found}");
    }
    dashboard_has_data(&prometheus).await;
    rules_are_sound(&prometheus, &caller).await;
    prometheus.is_calm().await;
    readme_runs(&prometheus, &control).await;

    // What says goodbye leaves the list, and nobody is told that it is down.
    second.terminate();
    second.process.exit(2 * PATIENCE).await;
    let targets = client::get(control.http, CONTROL_PLANE, "/sd/prometheus").await;
    assert!(!targets.text().contains("orders-2"), "{}", targets.text());
    prometheus.scrapes(&["client-1", "orders-1"]).await;
    let tally = load.stop().await;
    assert_eq!(tally.failed, 0, "{tally:?}");
    caller.terminate();
    caller.process.exit(2 * PATIENCE).await;
    prometheus.scrapes(&["orders-1"]).await;
    // Here a minute is a second, and the list is taken every five: what left it may have fired.
    prometheus.calms_down().await;
}

/// Waits until what the sidecar of `workload` has counted is there.
async fn counts_requests(prometheus: &Prometheus, workload: &str) {
    let sum = format!("sum(selvage_http_requests_total{{workload=\"{workload}\"}})");
    wait::until(&format!("requests of {workload}"), PATIENCE, async || {
        prometheus
            .value(&sum)
            .await
            .is_some_and(|count| count > 0.0)
    })
    .await;
    let found = prometheus
        .query(&format!("up{{workload=\"{workload}\"}}"))
        .await;
    let (labels, _) = found.first().expect("it is scraped");
    assert_eq!(labels["namespace"], "shop", "{labels}");
    assert!(
        workload.starts_with(labels["service"].as_str().expect("a service")),
        "{labels}"
    );
}

/// Every query of every panel returns at least one number.
async fn dashboard_has_data(prometheus: &Prometheus) {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("it is JSON");
    let services = prometheus.label_values(variable(&dashboard)).await;
    assert_eq!(services, serde_json::json!(["shop/orders"]));
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().expect("there are panels") {
        let title = panel["title"].as_str().expect("a panel has a title");
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
            let shipped = target["expr"].as_str().expect("a target has a query");
            let expression = shipped
                .replace("$__rate_interval", RATE_INTERVAL)
                .replace("$destination", "shop/orders");
            assert!(!expression.contains('$'), "{title}: {expression}");
            wait::until(
                &format!("data of {title}: {expression}"),
                PATIENCE,
                async || {
                    let result = prometheus.query(&expression).await;
                    result.iter().any(|(_, value)| value.is_finite())
                },
            )
            .await;
            queries += 1;
        }
    }
    println!("{queries} queries of the dashboard have data");
    assert!(queries >= 40, "{queries}");
}

/// The query that fills the choice of services: `label_values(SERIES, destination)`.
fn variable(dashboard: &Value) -> &str {
    let variables = dashboard["templating"]["list"].as_array();
    let query = variables
        .into_iter()
        .flatten()
        .find(|variable| variable["name"] == "destination")
        .and_then(|variable| variable["query"]["query"].as_str());
    query
        .and_then(|query| query.strip_prefix("label_values("))
        .and_then(|query| query.strip_suffix(", destination)"))
        .expect("services are chosen by the label of a series")
}

/// Every rule is evaluated without an error, and every alert says what an operator needs, in words
/// that hold today.
async fn rules_are_sound(prometheus: &Prometheus, sidecar: &Sidecar) {
    let data = prometheus.data("/api/v1/rules").await;
    let mut alerts = BTreeSet::new();
    let mut actions = read("README.md");
    for group in data["groups"].as_array().expect("there are groups") {
        for rule in group["rules"].as_array().expect("a group has rules") {
            assert_eq!(rule["health"], "ok", "{rule}");
            if rule["type"] != "alerting" {
                continue;
            }
            let severity = rule["labels"]["severity"].as_str();
            assert!(matches!(severity, Some("critical" | "warning")), "{rule}");
            for annotation in ["summary", "description", "action", "runbook"] {
                let text = rule["annotations"][annotation].as_str().unwrap_or_default();
                assert!(!text.is_empty(), "no {annotation}: {rule}");
                actions = actions + "\n" + text;
            }
            alerts.insert(rule["name"].as_str().expect("an alert's name").to_owned());
        }
    }
    let shipped: BTreeSet<_> = files::values("rules/alerts.yml", "alert")
        .into_iter()
        .collect();
    let seen = [
        failing::ALERTS,
        absent::WITHOUT_SIDECARS,
        absent::WITHOUT_CONTROL_PLANE,
    ];
    let seen: BTreeSet<_> = seen
        .into_iter()
        .flatten()
        .map(|(name, ..)| (*name).to_owned())
        .collect();
    assert_eq!(alerts, shipped, "what Prometheus has read");
    assert_eq!(alerts, seen, "what other tests see firing");
    assert!(read("README.md").contains("\n## When an alert fires\n"));
    advice_holds(&actions, sidecar).await;
}

/// The commands and the admin paths between backticks are there.
async fn advice_holds(text: &str, sidecar: &Sidecar) {
    let mut advice: Vec<&str> = text
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .collect();
    advice.sort_unstable();
    advice.dedup();
    let commands: Vec<_> = advice
        .iter()
        .filter_map(|word| word.strip_prefix("selvage "))
        .collect();
    assert!(commands.len() >= 4, "{commands:?}");
    for command in commands {
        let (name, rest) = command.split_once(' ').unwrap_or((command, ""));
        let mut words = vec![name];
        words.extend(rest.split(' ').filter(|word| *word == "show"));
        let mut help = Command::new(binary("selvage"));
        help.args(words).arg("--help");
        assert!(said(help).await.contains("Usage"), "selvage {command}");
    }
    let paths: Vec<_> = advice
        .iter()
        .filter(|word| ["/clusters", "/events", "/certs"].contains(word))
        .collect();
    assert_eq!(paths.len(), 3, "{advice:?}");
    for path in paths {
        let answer = client::get(sidecar.admin(), "localhost", path).await;
        assert_eq!(answer.status, 200, "{path}");
    }
}

/// Runs the blocks of the README that ask a running mesh.
async fn readme_runs(prometheus: &Prometheus, control: &ControlPlane) {
    let selvage = binary("selvage");
    let folder = selvage.parent().expect("a binary lies in a folder");
    let path = std::env::var("PATH").unwrap_or_default();
    let asking: Vec<_> = commands()
        .into_iter()
        .filter(|block| block.starts_with("curl ") || block.starts_with("selvage "))
        .collect();
    assert_eq!(asking.len(), 2, "{asking:?}");
    for block in asking {
        let script = block
            .replace(CONTROL_PLANE, &control.http.to_string())
            .replace(OWN, &prometheus.address.to_string());
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", &script])
            .env("PATH", format!("{}:{path}", folder.display()))
            .env("SELVAGE_SERVER", format!("http://{}", control.http))
            .env("SELVAGE_TOKEN_FILE", control.data().join("operator.token"));
        println!("{script}{}", said(shell).await);
    }
}
