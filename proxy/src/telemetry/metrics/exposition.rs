//! From cells to the families of the text format.
//!
//! The one collector that is registered. It runs on the thread that scrapes, holds the tables'
//! lock only to list the series, and reads cells while workers go on counting.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};
use selvage_policy::said::Ignored;

use selvage_policy::crowd::Spill;

use super::super::log_lines;
use super::Core;
use super::families::{Family, counter, family, gauge, histogram};
use super::gauges::Gauges;
use super::labels::{
    BREAKER_STATES, DIRECTIONS, EndpointCondition, Event, HANDSHAKE_OUTCOMES, OutcomeKey,
    RETRY_OUTCOMES, Side, handshake_cell,
};
use super::process;
use super::protection;
use super::tables::{Kept, OVERFLOW};

const REQUESTS: Family = (
    "selvage_http_requests_total",
    "HTTP requests that ended",
    MetricType::COUNTER,
);
const DURATIONS: Family = (
    "selvage_http_request_duration_seconds",
    "Time from a request's head to the end of its response",
    MetricType::HISTOGRAM,
);
const ACTIVE: Family = (
    "selvage_http_active_requests",
    "HTTP requests in flight",
    MetricType::GAUGE,
);
const RETRIES: Family = (
    "selvage_http_retries_total",
    "Retries by what became of them",
    MetricType::COUNTER,
);
const EXHAUSTED: Family = (
    "selvage_retry_budget_exhausted_total",
    "Retries that the budget did not allow",
    MetricType::COUNTER,
);
const TRANSITIONS: Family = (
    "selvage_breaker_transitions_total",
    "Changes of state of circuit breakers",
    MetricType::COUNTER,
);
const ENDPOINTS: Family = (
    "selvage_endpoints",
    "Endpoints by how this proxy sees them",
    MetricType::GAUGE,
);
const SPILLS: Family = (
    "selvage_balancer_spills_total",
    "Requests that left their zone, or the endpoint of their key",
    MetricType::COUNTER,
);
const TCP_OPENED: Family = (
    "selvage_tcp_connections_opened_total",
    "Opaque connections opened",
    MetricType::COUNTER,
);
const TCP_CLOSED: Family = (
    "selvage_tcp_connections_closed_total",
    "Opaque connections closed",
    MetricType::COUNTER,
);
const TCP_BYTES: Family = (
    "selvage_tcp_bytes_total",
    "Bytes of opaque connections",
    MetricType::COUNTER,
);
const HANDSHAKES: Family = (
    "selvage_tls_handshakes_total",
    "TLS handshakes by how they ended",
    MetricType::COUNTER,
);
const CERTIFICATES: Family = (
    "selvage_certificate_expiry_timestamp_seconds",
    "When certificates expire, since 1970",
    MetricType::GAUGE,
);
const LISTENER_CERTIFICATES: Family = (
    "selvage_gateway_certificate_expiry_timestamp_seconds",
    "When the first certificate that a listener presents expires, since 1970",
    MetricType::GAUGE,
);
const AUTHORIZATION: Family = (
    "selvage_authorization_decisions_total",
    "Decisions of authorization",
    MetricType::COUNTER,
);
const HEDGES: Family = (
    "selvage_hedges_total",
    "Second tries beside a slow one, by what became of them",
    MetricType::COUNTER,
);
const FALLBACKS: Family = (
    "selvage_fallbacks_total",
    "Requests for which something stood in, by its name",
    MetricType::COUNTER,
);
const FAULTS: Family = (
    "selvage_faults_total",
    "Faults injected on purpose",
    MetricType::COUNTER,
);
const MIRRORS: Family = (
    "selvage_mirrors_total",
    "Copies of requests, by what became of them",
    MetricType::COUNTER,
);
const DISCOVERY: Family = (
    "selvage_discovery_connected",
    "Whether the stream to the control plane is up",
    MetricType::GAUGE,
);
const SNAPSHOT: Family = (
    "selvage_snapshot_version",
    "Revision of the Snapshot in use",
    MetricType::GAUGE,
);
const ACCESS_LOG_DROPPED: Family = (
    "selvage_access_log_dropped_total",
    "Lines of the access log that were not written",
    MetricType::COUNTER,
);
const LOG_DROPPED: Family = (
    "selvage_log_dropped_total",
    "Lines of the log that stderr did not take",
    MetricType::COUNTER,
);
const SPANS: Family = (
    "selvage_spans_total",
    "Spans of sampled requests by what became of them",
    MetricType::COUNTER,
);
const HEADERS_IGNORED: Family = (
    "selvage_headers_ignored_total",
    "Header fields that said nonsense to this proxy",
    MetricType::COUNTER,
);
const TRACES_NOT_KEPT: Family = (
    "selvage_traces_not_kept_total",
    "Inbound requests whose trace found no place among those in flight",
    MetricType::COUNTER,
);
const BUILD: Family = (
    "selvage_build_info",
    "What runs; always 1",
    MetricType::GAUGE,
);

const FAMILIES: &[Family] = &[
    REQUESTS,
    DURATIONS,
    ACTIVE,
    RETRIES,
    EXHAUSTED,
    TRANSITIONS,
    ENDPOINTS,
    SPILLS,
    TCP_OPENED,
    TCP_CLOSED,
    TCP_BYTES,
    HANDSHAKES,
    CERTIFICATES,
    AUTHORIZATION,
    HEDGES,
    FALLBACKS,
    FAULTS,
    MIRRORS,
    DISCOVERY,
    SNAPSHOT,
    ACCESS_LOG_DROPPED,
    LOG_DROPPED,
    SPANS,
    HEADERS_IGNORED,
    TRACES_NOT_KEPT,
    BUILD,
];

/// All families as one collector.
pub(super) struct Families {
    core: Arc<Core>,
    descriptions: Vec<Desc>,
}

impl Families {
    pub(super) fn of(core: Arc<Core>) -> Self {
        // Labels vary within this collector only, so that the registry need not know them.
        let descriptions = FAMILIES
            .iter()
            .copied()
            .chain(protection::FAMILIES)
            .chain(process::FAMILIES)
            .map(|(name, help, _)| {
                Desc::new(name.to_owned(), help.to_owned(), Vec::new(), HashMap::new())
                    .expect("names are valid and help is there")
            })
            .collect();
        Self { core, descriptions }
    }
}

impl Collector for Families {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let gauges = self.core.gauges();
        let kept = self.core.series();
        let mut families = Vec::with_capacity(self.descriptions.len());
        families.extend(http(&kept));
        families.extend(tcp(&kept));
        families.extend(destinations(&kept));
        families.push(authorization(&kept));
        families.extend(Event::ALL.map(|event| events(event, &kept)));
        families.push(endpoints(&gauges, &kept));
        families.push(spills(&gauges, &kept));
        families.extend(protection::families(&gauges));
        families.extend(singles(&gauges));
        families.extend(fixed(&self.core));
        families.extend(process::families());
        families
    }
}

fn http(kept: &Kept) -> [MetricFamily; 2] {
    let mut requests = Vec::new();
    let mut durations = Vec::with_capacity(kept.http.len());
    for (key, series) in &kept.http {
        let [source, destination, route] = &key.labels;
        let labels = [
            ("direction", key.word.as_str()),
            ("source", source),
            ("destination", destination),
            ("route", route),
        ];
        durations.push(histogram(&labels, &series.durations));
        series.outcomes.for_each(|outcome, count| {
            let [code, grpc, flag] = match outcome.map(OutcomeKey) {
                Some(key) => [key.code(), key.grpc_status(), key.flag().to_owned()],
                None => [OVERFLOW; 3].map(str::to_owned),
            };
            let outcome = [("code", &*code), ("grpc_status", &*grpc), ("flag", &*flag)];
            requests.push(counter(&[&labels[..], &outcome[..]].concat(), count));
        });
    }
    [family(REQUESTS, requests), family(DURATIONS, durations)]
}

fn tcp(kept: &Kept) -> [MetricFamily; 3] {
    let (mut opened, mut closed, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
    for (key, series) in &kept.tcp {
        let [source, destination] = &key.labels;
        let labels = [
            ("direction", key.word.as_str()),
            ("source", source),
            ("destination", destination),
        ];
        let with = |name, value| [&labels[..], &[(name, value)]].concat();
        // Closed is read first: a connection that ends meanwhile is not seen closed but unopened.
        series.closed.for_each(|outcome, count| {
            let flag = outcome.map_or(OVERFLOW, |key| OutcomeKey(key).flag());
            closed.push(counter(&with("flag", flag), count));
        });
        opened.push(counter(&labels, series.opened.value()));
        bytes.push(counter(&with("flow", "received"), series.received.value()));
        bytes.push(counter(&with("flow", "sent"), series.sent.value()));
    }
    [
        family(TCP_OPENED, opened),
        family(TCP_CLOSED, closed),
        family(TCP_BYTES, bytes),
    ]
}

fn destinations(kept: &Kept) -> [MetricFamily; 3] {
    let (mut retries, mut exhausted, mut transitions) = (Vec::new(), Vec::new(), Vec::new());
    for (key, series) in &kept.destinations {
        let destination = ("destination", &*key.labels[0]);
        for (index, outcome) in RETRY_OUTCOMES.into_iter().enumerate() {
            let labels = [destination, ("outcome", outcome.as_str())];
            retries.push(counter(&labels, series.retries.value(index)));
        }
        exhausted.push(counter(&[destination], series.exhausted.value()));
        for (index, to) in BREAKER_STATES.into_iter().enumerate() {
            transitions.push(counter(
                &[destination, ("to", to)],
                series.transitions.value(index),
            ));
        }
    }
    [
        family(RETRIES, retries),
        family(EXHAUSTED, exhausted),
        family(TRANSITIONS, transitions),
    ]
}

fn authorization(kept: &Kept) -> MetricFamily {
    let decision = |(key, count): &(super::tables::Key<_, 2>, Arc<super::Counter>)| {
        let [destination, policy] = &key.labels;
        let word: super::Decision = key.word;
        let labels = [
            ("destination", &**destination),
            ("decision", word.as_str()),
            ("policy", policy),
        ];
        counter(&labels, count.value())
    };
    family(
        AUTHORIZATION,
        kept.authorization.iter().map(decision).collect(),
    )
}

fn events(event: Event, kept: &Kept) -> MetricFamily {
    let name = match event {
        Event::Hedge => HEDGES,
        Event::Fallback => FALLBACKS,
        Event::Fault => FAULTS,
        Event::Mirror => MIRRORS,
    };
    let of_event = kept.events.iter().filter(|(key, _)| key.word == event);
    let metrics = of_event.map(|(key, count)| {
        let [destination, label] = &key.labels;
        let labels = [("destination", &**destination), (event.label(), &**label)];
        counter(&labels, count.value())
    });
    family(name, metrics.collect())
}

/// A destination that has series has lines for its endpoints too; others share what is free.
fn endpoints(gauges: &Gauges, kept: &Kept) -> MetricFamily {
    let known = kept.known_destinations();
    let mut free = kept.free_lines;
    let mut overflow = [0; 5];
    let mut metrics = Vec::new();
    let mut show = |destination: &str, counts: &[u64; 5]| {
        for condition in EndpointCondition::ALL {
            let labels = [("destination", destination), ("state", condition.as_str())];
            metrics.push(gauge(&labels, counts[condition as usize] as f64));
        }
    };
    for (destination, counts) in &gauges.endpoints {
        if known.contains(&**destination) {
            show(destination, counts);
        } else if let Some(left) = free.checked_sub(counts.len()) {
            free = left;
            show(destination, counts);
        } else {
            overflow
                .iter_mut()
                .zip(counts)
                .for_each(|(sum, count)| *sum += count);
        }
    }
    if overflow != [0; 5] {
        show(OVERFLOW, &overflow);
    }
    family(ENDPOINTS, metrics)
}

/// A destination that has series has lines for these too; others are summed.
fn spills(gauges: &Gauges, kept: &Kept) -> MetricFamily {
    let known = kept.known_destinations();
    let mut shown: BTreeMap<&str, [u64; 2]> = BTreeMap::new();
    for (destination, counts) in &gauges.spills {
        let label = match known.contains(&**destination) {
            true => destination,
            false => OVERFLOW,
        };
        let sums = shown.entry(label).or_default();
        sums.iter_mut()
            .zip(counts)
            .for_each(|(sum, count)| *sum += count);
    }
    let metrics = shown.iter().flat_map(|(destination, counts)| {
        Spill::ALL.map(|why| {
            let labels = [("destination", *destination), ("reason", why.as_str())];
            counter(&labels, counts[why as usize])
        })
    });
    family(SPILLS, metrics.collect())
}

fn singles(gauges: &Gauges) -> Vec<MetricFamily> {
    let expiry = |(kind, seconds): (&super::CertificateKind, &f64)| {
        gauge(&[("kind", kind.as_str())], *seconds)
    };
    let mut families = vec![family(
        CERTIFICATES,
        gauges.certificates.iter().map(expiry).collect(),
    )];
    if !gauges.listeners.is_empty() {
        let ends = gauges.listeners.iter();
        let of_listener = ends.map(|(name, seconds)| gauge(&[("listener", &**name)], *seconds));
        families.push(family(LISTENER_CERTIFICATES, of_listener.collect()));
    }
    if let Some(connected) = gauges.discovery_connected {
        families.push(family(
            DISCOVERY,
            vec![gauge(&[], f64::from(u8::from(connected)))],
        ));
    }
    if let Some(revision) = gauges.snapshot_version {
        families.push(family(SNAPSHOT, vec![gauge(&[], revision as f64)]));
    }
    families
}

fn fixed(core: &Core) -> Vec<MetricFamily> {
    let active = DIRECTIONS.map(|direction| {
        gauge(
            &[("direction", direction.as_str())],
            core.active(direction) as f64,
        )
    });
    let handshakes = Side::ALL.into_iter().flat_map(|side| {
        HANDSHAKE_OUTCOMES.into_iter().map(move |outcome| {
            let labels = [("side", side.as_str()), ("outcome", outcome.as_str())];
            counter(
                &labels,
                core.handshakes.value(handshake_cell(side, outcome)),
            )
        })
    });
    let counts = &core.spans;
    let spans = [
        ("exported", &counts.exported),
        ("dropped", &counts.dropped),
        ("failed", &counts.failed),
    ]
    .map(|(outcome, count)| counter(&[("outcome", outcome)], count.load(Relaxed)));
    let ignored = Ignored::ALL.map(|field| {
        counter(
            &[("header", field.as_str())],
            core.headers_ignored.value(field as usize),
        )
    });
    let build = [
        ("version", env!("CARGO_PKG_VERSION")),
        ("rustc", option_env!("SELVAGE_RUSTC").unwrap_or("unknown")),
    ];
    vec![
        family(ACTIVE, active.into()),
        family(HANDSHAKES, handshakes.collect()),
        family(
            ACCESS_LOG_DROPPED,
            vec![counter(&[], core.access_log_dropped.load(Relaxed))],
        ),
        family(LOG_DROPPED, vec![counter(&[], log_lines::dropped())]),
        family(SPANS, spans.into()),
        family(HEADERS_IGNORED, ignored.into()),
        family(
            TRACES_NOT_KEPT,
            vec![counter(&[], core.traces_not_kept.value())],
        ),
        family(BUILD, vec![gauge(&build, 1.0)]),
    ]
}
