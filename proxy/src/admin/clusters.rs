//! Endpoints with their live state, as JSON for people: `/clusters`. What is
//! told of each comes from whoever looks; nothing is looked up here.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use selvage_policy::snapshot::ServiceName;
use serde_json::{Value, json};

use super::dump::milliseconds;

/// One endpoint with its live state.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointState {
    /// The service and its port.
    pub service: ServiceName,
    /// The service's port.
    pub port: u16,
    /// `namespace/workload`, or the address.
    pub id: String,
    /// Where its connections go.
    pub address: SocketAddr,
    /// Who it has to be; `None` is plaintext.
    pub identity: Option<String>,
    /// Its breaker.
    pub breaker: BreakerShown,
    /// Whether the registry says that the application answers.
    pub registered_healthy: bool,
    /// What this proxy's own checks say; `None` where it makes none.
    pub checks: Option<ChecksShown>,
    /// Its share of traffic.
    pub weight: u32,
    /// Requests in flight.
    pub pending: u32,
    /// Its peak EWMA, with penalties.
    pub latency: Duration,
    /// Where it stands, as its labels say.
    pub zone: Option<String>,
    /// The part of its weight that slow start grants it now.
    pub share: f64,
    /// It left the Snapshot and finishes what it has.
    pub draining: bool,
}

/// A breaker, and how it came to its state.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerShown {
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// The last change: when and why; `None` where there was none.
    pub since: Option<(SystemTime, String)>,
    /// Until when it is ejected.
    pub open_until: Option<SystemTime>,
    /// Successes of the window, and the requests that were judged in it.
    pub window: (u64, u64),
}

/// What checks say, and how they came to say so.
#[derive(Debug, Clone, PartialEq)]
pub struct ChecksShown {
    /// Whether they leave it in rotation.
    pub healthy: bool,
    /// The last change: when and why; `None` where there was none.
    pub since: Option<(SystemTime, String)>,
}

/// By service, then by port, in their order.
#[must_use]
pub fn clusters(endpoints: impl IntoIterator<Item = EndpointState>) -> Value {
    let mut services: BTreeMap<String, BTreeMap<u16, Vec<Value>>> = BTreeMap::new();
    for endpoint in endpoints {
        services
            .entry(endpoint.service.to_string())
            .or_default()
            .entry(endpoint.port)
            .or_default()
            .push(shown(endpoint));
    }
    json!({ "services": services })
}

fn shown(endpoint: EndpointState) -> Value {
    let EndpointState {
        service: _,
        port: _,
        id,
        address,
        identity,
        breaker,
        registered_healthy,
        checks,
        weight,
        pending,
        latency,
        zone,
        share,
        draining,
    } = endpoint;
    let BreakerShown {
        state,
        since,
        open_until,
        window: (successes, requests),
    } = breaker;
    let well = registered_healthy && checks.as_ref().is_none_or(|checks| checks.healthy);
    let (since, reason) = said(since);
    let checks = checks.map(|ChecksShown { healthy, since }| {
        let (since, reason) = said(since);
        json!({ "healthy": healthy, "since": since, "reason": reason })
    });
    let rate = (requests > 0).then(|| successes as f64 * 100.0 / requests as f64);
    json!({
        "id": id,
        "address": address.to_string(),
        "identity": identity,
        "breaker": state,
        "since": since,
        "reason": reason,
        "ejectedUntil": open_until.and_then(time),
        "successRatePercent": rate.map(|rate| (rate * 10.0).round() / 10.0),
        "windowRequests": requests,
        "healthy": well,
        "registeredHealthy": registered_healthy,
        "checks": checks,
        "draining": draining,
        "weight": weight,
        "pending": pending,
        "latencyMs": milliseconds(latency),
        "zone": zone,
        "share": (share * 1e3).round() / 1e3,
    })
}

fn said(since: Option<(SystemTime, String)>) -> (Option<String>, Option<String>) {
    let (at, reason) = since.unzip();
    (at.and_then(time), reason)
}

/// RFC 3339; `None` for what no calendar knows.
#[must_use]
pub fn time(at: SystemTime) -> Option<String> {
    let time = jiff::Timestamp::try_from(at).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: &str, port: u16) -> EndpointState {
        EndpointState {
            service: ServiceName::new("shop", name),
            port,
            id: format!("shop/{name}-1"),
            address: "127.0.0.1:1".parse().expect("an address"),
            identity: None,
            breaker: BreakerShown {
                state: "open",
                since: Some((
                    SystemTime::UNIX_EPOCH,
                    "5 hard failures in a row".to_owned(),
                )),
                open_until: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(2)),
                window: (2, 3),
            },
            registered_healthy: true,
            checks: None,
            weight: 3,
            pending: 2,
            latency: Duration::from_micros(1500),
            zone: Some("eu-1".to_owned()),
            share: 0.25,
            draining: false,
        }
    }

    #[test]
    fn clusters_are_grouped_by_service_and_port() {
        let all = [("b", 80), ("a", 80), ("a", 81), ("a", 80)];
        let shown = clusters(all.map(|(name, port)| endpoint(name, port)));
        let of_a = shown["services"]["shop/a"]["80"].as_array();
        assert_eq!(of_a.map(Vec::len), Some(2));
        assert_eq!(
            shown["services"]["shop/b"]["80"][0],
            json!({
                "id": "shop/b-1",
                "address": "127.0.0.1:1",
                "identity": null,
                "breaker": "open",
                "since": "1970-01-01T00:00:00Z",
                "reason": "5 hard failures in a row",
                "ejectedUntil": "1970-01-01T00:00:02Z",
                "successRatePercent": 66.7,
                "windowRequests": 3,
                "healthy": true,
                "registeredHealthy": true,
                "checks": null,
                "draining": false,
                "weight": 3,
                "pending": 2,
                "latencyMs": 1.5,
                "zone": "eu-1",
                "share": 0.25,
            })
        );
    }

    #[test]
    fn whoever_says_that_it_is_ill_is_heard() {
        let checks = |healthy| {
            let since = None;
            Some(ChecksShown { healthy, since })
        };
        let table = [
            (true, None, true),
            (false, None, false),
            (true, checks(true), true),
            (true, checks(false), false),
            (false, checks(true), false),
        ];
        for (registered_healthy, checks, expected) in table {
            let one = EndpointState {
                registered_healthy,
                checks,
                ..endpoint("a", 80)
            };
            assert_eq!(shown(one)["healthy"], expected);
        }
    }
}
