//! What the admin and telemetry ports show of this proxy: gauges, endpoints,
//! certificates and the journal, gathered where they are known.

use std::time::{Duration, Instant, SystemTime};

use selvage_policy::breaker::BreakerState;
use selvage_policy::crowd::Spill;
use selvage_policy::endpoint::{EndpointState, Standings};
use selvage_policy::snapshot::{Endpoint, ZONE_LABEL};
use serde_json::{Map, Value, json};

use crate::admin::EventFilter;
use crate::admin::clusters::{self, BreakerShown, ChecksShown, time};
use crate::gateway::{CertificateShown, Gateway, OneShown, PortShown};
use crate::journal::{Change, Event};
use crate::telemetry::metrics::{CertificateKind, EndpointCondition, Gauges};
use crate::worker::Shared;

/// Fills in the gauges of a scrape.
pub(super) fn fill(shared: &Shared, gauges: &mut Gauges) {
    if let Some(connected) = shared.discovery.is_connected() {
        gauges.discovery_connected(connected);
    }
    if let Some(current) = shared.identity.current() {
        for (kind, expiry) in current.expiries() {
            let kind = match kind {
                "leaf" => CertificateKind::Leaf,
                "issuer" => CertificateKind::Issuer,
                _ => CertificateKind::Root,
            };
            if let Some(expiry) = expiry {
                gauges.certificate_expiry(kind, expiry);
            }
        }
    }
    for shown in shared.gateway.iter().flat_map(|it| it.certificates()) {
        if let Some(expires) = shown.expires {
            gauges.listener_expiry(&shown.listener, expires);
        }
    }
    for (port, state) in &shared.servers {
        gauges.port(*port, state);
    }
    let Some(view) = shared.discovery.view() else {
        return;
    };
    gauges.snapshot_version(view.snapshot.revision);
    let now = Instant::now();
    for live in view.live.services() {
        let label = live.service.name.to_string();
        for port in &live.ports {
            for (endpoint, state) in port.port.endpoints.iter().zip(&port.states) {
                gauges.endpoints(&label, condition(endpoint, state, now), 1);
            }
            for why in Spill::ALL {
                gauges.spills(&label, why, port.rotation.spilled(why));
            }
        }
    }
    for state in shared.discovery.live().draining() {
        let label = state.key().service.to_string();
        gauges.endpoints(&label, EndpointCondition::Draining, 1);
    }
}

fn condition(endpoint: &Endpoint, state: &EndpointState, now: Instant) -> EndpointCondition {
    match state.state(now) {
        _ if !endpoint.healthy || !state.is_healthy() => EndpointCondition::Unhealthy,
        BreakerState::Closed => EndpointCondition::Closed,
        BreakerState::Open => EndpointCondition::Open,
        BreakerState::HalfOpen => EndpointCondition::HalfOpen,
    }
}

/// Every endpoint with its live state, those that drain at the end.
pub(super) fn endpoints(shared: &Shared) -> Vec<clusters::EndpointState> {
    let Some(view) = shared.discovery.view() else {
        return Vec::new();
    };
    let clock = Clock::now();
    let mut all = Vec::new();
    for live in view.live.services() {
        let is_checked = live.service.policy.health_check.is_some();
        for port in &live.ports {
            for (endpoint, state) in port.port.endpoints.iter().zip(&port.states) {
                all.push(clusters::EndpointState {
                    id: endpoint.id.to_string(),
                    weight: endpoint.weight,
                    registered_healthy: endpoint.healthy,
                    draining: false,
                    zone: endpoint.labels.get(ZONE_LABEL).cloned(),
                    share: port.rotation.share_of(state, clock.instant),
                    ..shown(state, is_checked, &clock)
                });
            }
        }
    }
    let draining = shared.discovery.live().draining();
    all.extend(draining.iter().map(|state| shown(state, false, &clock)));
    all
}

/// What its live state says; as if it drained.
fn shown(state: &EndpointState, is_checked: bool, clock: &Clock) -> clusters::EndpointState {
    let Standings {
        breaker,
        last_transition,
        open_until,
        successes,
        requests,
        health,
    } = state.standings(clock.instant);
    let key = state.key();
    let checks = is_checked.then(|| ChecksShown {
        healthy: health.is_healthy(),
        since: health
            .last_change()
            .map(|(at, change)| (clock.time_of(*at), change.to_string())),
    });
    clusters::EndpointState {
        service: key.service.clone(),
        port: key.port,
        id: key.address.to_string(),
        address: key.address,
        identity: key.identity.as_ref().map(ToString::to_string),
        breaker: BreakerShown {
            state: breaker.as_str(),
            since: last_transition.map(|(at, it)| (clock.time_of(at), it.reason.to_string())),
            open_until: open_until.map(|until| clock.time_of(until)),
            window: (successes, requests),
        },
        registered_healthy: true,
        checks,
        weight: 0,
        pending: state.pending(),
        latency: latency(state, clock.instant),
        zone: None,
        share: 1.0,
        draining: true,
    }
}

/// What one request to an idle endpoint is thought to take, penalties included.
fn latency(state: &EndpointState, now: Instant) -> Duration {
    let cost = state.cost(1.0, now) / (f64::from(state.pending()) + 1.0);
    Duration::try_from_secs_f64(cost).unwrap_or(Duration::MAX)
}

/// The two clocks, looked at together.
struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    fn now() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }

    /// What people call a moment, past or to come.
    fn time_of(&self, at: Instant) -> SystemTime {
        match at.checked_duration_since(self.instant) {
            Some(ahead) => self.time + ahead,
            None => self.time - (self.instant - at),
        }
    }
}

/// What a gateway is bound to, of `/clusters`.
pub(super) fn gateway(gateway: &Gateway) -> Value {
    let ports = gateway
        .ports()
        .into_iter()
        .map(|PortShown { port, bound }| {
            let shown = match bound {
                Ok(address) => json!({ "address": address }),
                Err(error) => json!({ "error": error }),
            };
            (port.to_string(), shown)
        });
    json!({ "name": gateway.name(), "ports": ports.collect::<Map<_, _>>() })
}

/// `/certs`: our own identity, and of a gateway what its listeners present.
pub(super) fn certificates(shared: &Shared) -> Value {
    let mut all = identity(shared);
    if let Some(gateway) = &shared.gateway {
        let listeners = gateway.certificates().into_iter().map(|shown| {
            let CertificateShown {
                listener,
                expires,
                error,
                certificates,
            } = shown;
            let one = |OneShown {
                           name,
                           expires,
                           error,
                       }| {
                json!({ "name": name, "expires": expires.and_then(time), "error": error })
            };
            json!({
                "listener": &*listener,
                "expires": expires.and_then(time),
                "error": error,
                "certificates": certificates.into_iter().map(one).collect::<Vec<_>>(),
            })
        });
        all["gateway"] = listeners.collect();
    }
    all
}

fn identity(shared: &Shared) -> Value {
    let Some(current) = shared.identity.current() else {
        return Value::Null;
    };
    let seconds = |time: Option<SystemTime>| {
        let since = time?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        jiff::Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok()
    };
    let [(_, leaf), (_, issuer), (_, root)] = current.expiries();
    let shown = |time| seconds(time).map(|time| time.to_string());
    json!({
        "identity": current.id.to_string(),
        "trustDomain": current.bundle.trust_domain().as_str(),
        "expires": {"leaf": shown(leaf), "issuer": shown(issuer), "root": shown(root)},
        "trustBundle": {"epoch": current.bundle.epoch(), "sha256": current.bundle.fingerprints()},
    })
}

/// `/events`: the newest last.
pub(super) fn events(shared: &Shared, filter: &EventFilter) -> Value {
    let events = shared.journal.events();
    let wanted = events.iter().filter(|event| is_wanted(event, filter));
    Value::Array(wanted.map(event).collect())
}

fn is_wanted(event: &Event, filter: &EventFilter) -> bool {
    let EventFilter { service, endpoint } = filter;
    let is = |asked: &Option<String>, there: String| asked.as_ref().is_none_or(|it| *it == there);
    is(service, event.endpoint.service.to_string())
        && is(endpoint, event.endpoint.address.to_string())
}

fn event(event: &Event) -> Value {
    let open_for = match &event.change {
        Change::Breaker(transition) => transition.open_for,
        Change::Health(_) | Change::Application(_) => None,
    };
    json!({
        "time": time(event.time),
        "kind": event.change.kind(),
        "service": event.endpoint.service.to_string(),
        "port": event.endpoint.port,
        "endpoint": event.endpoint.address,
        "from": event.change.from(),
        "to": event.change.to(),
        "reason": event.change.reason(),
        "openForMs": open_for.map(|open| open.as_millis() as u64),
    })
}
