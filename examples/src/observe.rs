//! What can be seen from outside: every `/metrics` of the mesh, and every sidecar's `/clusters`, once a second.
//!
//! It gathers and computes rows. It refuses to know how they are shown.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::exposition::{Sample, Scrape, quantile};
use crate::http::Http;
use crate::mesh::{CONTROL_PLANE, Mesh};
use crate::tally::Tally;
use crate::topology::{NAMESPACE, SERVICES};

/// How long one scrape may take; the next second brings another.
const SCRAPE: Duration = Duration::from_millis(800);
/// The name of a request's duration in the exposition.
const DURATION: &str = "selvage_http_request_duration_seconds_bucket";

/// One replica in one second.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The replica.
    pub(crate) workload: String,
    /// Requests a second that its sidecar took.
    pub(crate) rps: f64,
    /// Percent of them answered below 400; none without requests.
    pub(crate) success: Option<f64>,
    /// Milliseconds inside it, callees included.
    pub(crate) p50_ms: Option<f64>,
    /// As above.
    pub(crate) p99_ms: Option<f64>,
    /// Whether its sidecar is alive and answers.
    pub(crate) seen: bool,
}

/// How callers see the endpoints of one service: state → endpoints, summed over callers.
pub(crate) type States = BTreeMap<String, u64>;

/// One second of the mesh.
#[derive(Debug, Default)]
pub(crate) struct Second {
    /// The replicas, in the order of the topology.
    pub(crate) rows: Vec<Row>,
    /// Replica → states of its breakers, over all callers and ports.
    pub(crate) replicas: BTreeMap<String, States>,
    /// Service → states of its endpoints in the eyes of its callers.
    pub(crate) breakers: BTreeMap<&'static str, States>,
}

/// Scrapes and what they were a second ago.
#[derive(Debug)]
pub(crate) struct Observer {
    http: Http,
    before: BTreeMap<String, (u64, Scrape)>,
    /// Sums of all that was ever scraped.
    pub(crate) tally: Tally,
}

impl Observer {
    /// An observer that has seen nothing.
    pub(crate) fn new() -> Self {
        Self {
            http: Http::http1(SCRAPE),
            before: BTreeMap::new(),
            tally: Tally::default(),
        }
    }

    /// Scrapes every process once, all at a time.
    pub(crate) async fn look(&mut self, mesh: &Mesh, elapsed: Duration) -> Second {
        let scrapes = self.scrape(mesh).await;
        for (process, (generation, scrape)) in &scrapes {
            self.tally.note(process, *generation, scrape);
        }
        let rows = mesh
            .workloads
            .iter()
            .filter(|workload| workload.serves.is_some())
            .map(|workload| {
                let sidecar = workload.sidecar();
                let now = scrapes.get(&sidecar);
                let before = self
                    .before
                    .get(&sidecar)
                    .filter(|before| Some(before.0) == now.map(|now| now.0));
                row(
                    &workload.name,
                    before.map(|before| &before.1),
                    now.map(|now| &now.1),
                    elapsed,
                )
            });
        let rows = rows.collect();
        let breakers = SERVICES.iter().map(|service| {
            let destination = format!("{NAMESPACE}/{}", service.name);
            let samples = scrapes
                .values()
                .flat_map(|(_, scrape)| scrape.of("selvage_endpoints"));
            let mut states = States::new();
            for sample in samples.filter(|sample| sample.label("destination") == destination) {
                *states.entry(sample.label("state").to_owned()).or_default() += sample.value as u64;
            }
            (service.name, states)
        });
        let replicas = self.replicas(mesh).await;
        let second = Second {
            replicas,
            rows,
            breakers: breakers.collect(),
        };
        self.before.extend(scrapes);
        second
    }

    /// What every sidecar's breakers hold of every replica.
    async fn replicas(&self, mesh: &Mesh) -> BTreeMap<String, States> {
        let mut looks = JoinSet::new();
        for workload in &mesh.workloads {
            let Some(address) = mesh.fleet.address(&workload.sidecar(), "admin") else {
                continue;
            };
            let http = self.http.clone();
            looks.spawn(async move {
                let answer = http.get(&format!("http://{address}/clusters")).await.ok()?;
                serde_json::from_slice::<Value>(&answer.body).ok()
            });
        }
        let mut replicas = BTreeMap::new();
        while let Some(look) = looks.join_next().await {
            if let Ok(Some(clusters)) = look {
                count_breakers(&clusters, &mut replicas);
            }
        }
        replicas
    }

    async fn scrape(&self, mesh: &Mesh) -> BTreeMap<String, (u64, Scrape)> {
        let mut targets: Vec<(String, Option<SocketAddr>)> = vec![(
            CONTROL_PLANE.to_owned(),
            mesh.fleet.address(CONTROL_PLANE, "http"),
        )];
        for workload in &mesh.workloads {
            let sidecar = workload.sidecar();
            let address = mesh.fleet.address(&sidecar, "telemetry");
            targets.push((sidecar, address));
        }
        let mut scrapes = JoinSet::new();
        for (process, address) in targets {
            let (Some(address), Some((_, generation))) = (address, mesh.fleet.process(&process))
            else {
                continue;
            };
            let http = self.http.clone();
            scrapes.spawn(async move {
                let answer = http.get(&format!("http://{address}/metrics")).await.ok()?;
                let text = String::from_utf8(answer.body.to_vec()).ok()?;
                Some((process, (generation, Scrape::parse(&text))))
            });
        }
        let mut seen = BTreeMap::new();
        while let Some(result) = scrapes.join_next().await {
            seen.extend(result.ok().flatten());
        }
        seen
    }
}

/// Adds one sidecar's `/clusters`: services, their ports, their endpoints.
fn count_breakers(clusters: &Value, replicas: &mut BTreeMap<String, States>) {
    let services = clusters["services"].as_object().into_iter().flatten();
    let ports = services.flat_map(|(_, ports)| ports.as_object().into_iter().flatten());
    for endpoint in ports.flat_map(|(_, endpoints)| endpoints.as_array().into_iter().flatten()) {
        let id = endpoint["id"]
            .as_str()
            .and_then(|id| id.strip_prefix(NAMESPACE)?.strip_prefix('/'));
        let (Some(id), Some(breaker)) = (id, endpoint["breaker"].as_str()) else {
            continue;
        };
        let state = if endpoint["healthy"] == false {
            "unhealthy"
        } else {
            breaker
        };
        *replicas
            .entry(id.to_owned())
            .or_default()
            .entry(state.to_owned())
            .or_default() += 1;
    }
}

fn inbound(sample: &Sample) -> bool {
    sample.label("direction") == "inbound"
}

fn row(workload: &str, before: Option<&Scrape>, now: Option<&Scrape>, elapsed: Duration) -> Row {
    let count = |keep: &dyn Fn(&Sample) -> bool| {
        let sum = |scrape: Option<&Scrape>| {
            scrape.map_or(0.0, |s| {
                s.sum("selvage_http_requests_total", |x| inbound(x) && keep(x))
            })
        };
        now.map_or(0.0, |_| (sum(now) - sum(before)).max(0.0))
    };
    let (all, good) = (
        count(&|_| true),
        count(&|sample| matches!(sample.label("code").as_bytes(), [b'1'..=b'3', ..])),
    );
    let buckets = buckets(before, now);
    let milliseconds = |q| quantile(&buckets, q).map(|seconds| seconds * 1000.0);
    Row {
        workload: workload.to_owned(),
        rps: all / elapsed.as_secs_f64().max(0.001),
        success: (all > 0.0).then(|| 100.0 * good / all),
        p50_ms: milliseconds(0.5),
        p99_ms: milliseconds(0.99),
        seen: now.is_some(),
    }
}

/// The cumulative buckets of the inbound durations that came between two scrapes, by upper bound.
fn buckets(before: Option<&Scrape>, now: Option<&Scrape>) -> Vec<(f64, f64)> {
    let mut buckets: Vec<(f64, f64)> = Vec::new();
    for (scrape, sign) in [(now, 1.0), (before, -1.0)] {
        for sample in scrape
            .into_iter()
            .flat_map(|scrape| scrape.of(DURATION))
            .filter(|sample| inbound(sample))
        {
            let Ok(upper) = sample.label("le").parse::<f64>() else {
                continue;
            };
            match buckets.iter_mut().find(|bucket| bucket.0 == upper) {
                Some(bucket) => bucket.1 += sign * sample.value,
                None => buckets.push((upper, sign * sample.value)),
            }
        }
    }
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    buckets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(good: u32, bad: u32, fast: u32) -> Scrape {
        let all = good + bad;
        Scrape::parse(&format!(
            "selvage_http_requests_total{{direction=\"inbound\",code=\"200\"}} {good}\n\
             selvage_http_requests_total{{direction=\"inbound\",code=\"503\"}} {bad}\n\
             selvage_http_requests_total{{direction=\"outbound\",code=\"200\"}} 1000\n\
             {DURATION}{{direction=\"inbound\",le=\"0.001\"}} {fast}\n\
             {DURATION}{{direction=\"inbound\",le=\"+Inf\"}} {all}\n"
        ))
    }

    #[test]
    fn a_row_tells_what_came_since_the_last_look() {
        let (before, now) = (scrape(100, 0, 0), scrape(130, 10, 40));
        let row = row(
            "orders-1",
            Some(&before),
            Some(&now),
            Duration::from_secs(2),
        );
        assert_eq!((row.rps, row.success), (20.0, Some(75.0)));
        assert_eq!(row.p50_ms, Some(0.5));
    }

    #[test]
    fn breakers_are_counted_by_replica_over_callers_and_ports() {
        let endpoint = |id: &str, breaker: &str, healthy: bool| serde_json::json!({ "id": id, "breaker": breaker, "healthy": healthy });
        let clusters = serde_json::json!({ "services": { "shop/inventory": {
            "80": [endpoint("shop/inventory-1", "closed", true), endpoint("shop/inventory-2", "open", true)],
            "9090": [endpoint("shop/inventory-1", "closed", true), endpoint("shop/inventory-2", "open", false)],
        } } });
        let mut replicas = BTreeMap::new();
        count_breakers(&clusters, &mut replicas);
        assert_eq!(
            replicas["inventory-1"],
            BTreeMap::from([("closed".to_owned(), 2)])
        );
        let broken = BTreeMap::from([("open".to_owned(), 1), ("unhealthy".to_owned(), 1)]);
        assert_eq!(replicas["inventory-2"], broken);
    }

    #[test]
    fn a_replica_that_is_not_seen_has_no_figures() {
        let row = row(
            "orders-1",
            Some(&scrape(1, 1, 1)),
            None,
            Duration::from_secs(1),
        );
        assert!(!row.seen);
        assert_eq!((row.rps, row.success), (0.0, None));
    }
}
