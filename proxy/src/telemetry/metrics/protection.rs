//! What the protected ports of this workload say at a scrape: their limits,
//! what is in use of them, and what was turned away.
//!
//! A port has at most [`PORT_LINES`] lines. The first [`SHOWN_PORTS`] are shown,
//! the others together as one, so that the reserved lines suffice for all.

use prometheus::proto::{MetricFamily, MetricType};
use selvage_policy::server::{Criticality, ServerLoad, ServerState, Shed};

use super::families::{Family, counter, family, gauge};
use super::gauges::Gauges;
use super::tables::OVERFLOW;

const LIMIT: Family = (
    "selvage_concurrency_limit",
    "Requests that may be at the application at a time",
    MetricType::GAUGE,
);
const IN_FLIGHT: Family = (
    "selvage_concurrency_in_flight",
    "Requests that have a place at the application",
    MetricType::GAUGE,
);
const QUEUED: Family = (
    "selvage_concurrency_queued",
    "Requests that wait for a place at the application",
    MetricType::GAUGE,
);
const SHED: Family = (
    "selvage_shed_total",
    "Inbound requests and connections that a ServerPolicy turned away",
    MetricType::COUNTER,
);

pub(super) const FAMILIES: [Family; 4] = [LIMIT, IN_FLIGHT, QUEUED, SHED];

/// Ports that are shown apart from each other.
const SHOWN_PORTS: usize = 3;
/// Three gauges, and a counter for each reason and criticality.
const PORT_LINES: usize = 3 + SHEDS;
const SHEDS: usize = Shed::ALL.len() * Criticality::ALL.len();
/// Lines of all of it.
pub(super) const LINES: usize = (SHOWN_PORTS + 1) * PORT_LINES + 2 * FAMILIES.len();

/// One port at a scrape, or several together.
#[derive(Debug, Default, Clone)]
pub(super) struct PortSum {
    limit: Option<u64>,
    in_flight: u64,
    queued: u64,
    sheds: [u64; SHEDS],
}

impl PortSum {
    pub(super) fn of(state: &ServerState) -> Self {
        let ServerLoad {
            limit,
            in_flight,
            queued,
        } = state.load();
        let mut sheds = [0; SHEDS];
        for (sum, (why, criticality)) in sheds.iter_mut().zip(reasons()) {
            *sum = state.shed(why, criticality);
        }
        Self {
            limit: limit.map(u64::from),
            in_flight: in_flight.into(),
            queued: queued.into(),
            sheds,
        }
    }

    fn add(&mut self, other: &Self) {
        if let Some(limit) = other.limit {
            *self.limit.get_or_insert(0) += limit;
        }
        self.in_flight += other.in_flight;
        self.queued += other.queued;
        for (sum, more) in self.sheds.iter_mut().zip(other.sheds) {
            *sum += more;
        }
    }
}

fn reasons() -> impl Iterator<Item = (Shed, Criticality)> {
    Shed::ALL
        .into_iter()
        .flat_map(|why| Criticality::ALL.map(|criticality| (why, criticality)))
}

/// The families of what the sources said. A limit is shown where there is one,
/// a reason once it occurred.
pub(super) fn families(gauges: &Gauges) -> [MetricFamily; 4] {
    let mut shown: Vec<(String, PortSum)> = Vec::new();
    for (port, sum) in &gauges.ports {
        if let Some((_, others)) = shown.get_mut(SHOWN_PORTS) {
            others.add(sum);
            continue;
        }
        let label = if shown.len() < SHOWN_PORTS {
            port.to_string()
        } else {
            OVERFLOW.to_owned()
        };
        shown.push((label, sum.clone()));
    }
    let mut metrics = [const { Vec::new() }; 4];
    for (port, sum) in &shown {
        let label = ("port", port.as_str());
        if let Some(limit) = sum.limit {
            let values = [limit, sum.in_flight, sum.queued];
            for (metrics, value) in metrics.iter_mut().zip(values) {
                metrics.push(gauge(&[label], value as f64));
            }
        }
        for (count, (why, criticality)) in sum.sheds.iter().zip(reasons()) {
            if *count > 0 {
                let labels = [
                    label,
                    ("reason", why.as_str()),
                    ("criticality", criticality.as_str()),
                ];
                metrics[3].push(counter(&labels, *count));
            }
        }
    }
    let mut kinds = FAMILIES.into_iter();
    metrics.map(|metrics| family(kinds.next().unwrap_or(SHED), metrics))
}
