//! A Snapshot, and the live state beside it, as JSON for people.
//!
//! Written by hand from the types of policy, which know no JSON, and destructured whole, so that a
//! new field is not forgotten here. Nothing secret is in a Snapshot, and nothing is looked up.

mod balancer;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use selvage_policy::authorize::{
    Action, AuthorizationPolicy, Mode, Operation, PathMatch, Rule, Source,
};
use selvage_policy::snapshot::{
    BackoffPolicy, BreakerPolicy, BudgetPolicy, Endpoint, EndpointKey, InboundPolicy, Limits, Mesh,
    MutualTls, Protocol, RetryOn, RetryPolicy, Service, ServiceName, ServicePort, Snapshot,
    SuccessRate, Timeouts, TrafficPolicy, WorkloadName,
};
use serde_json::{Value, json};

/// One endpoint with its live state, for `/clusters`.
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
    /// Its breaker: `closed`, `open` or `half_open`.
    pub breaker: &'static str,
    /// Whether the registry says that the application answers.
    pub healthy: bool,
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
}

/// `/clusters`: by service, then by port, in their order.
#[must_use]
pub fn clusters(endpoints: impl IntoIterator<Item = EndpointState>) -> Value {
    let mut services: BTreeMap<String, BTreeMap<u16, Vec<Value>>> = BTreeMap::new();
    for endpoint in endpoints {
        let EndpointState {
            service,
            port,
            id,
            address,
            identity,
            breaker,
            healthy,
            weight,
            pending,
            latency,
            zone,
            share,
        } = endpoint;
        let value = json!({
            "id": id,
            "address": address.to_string(),
            "identity": identity,
            "breaker": breaker,
            "healthy": healthy,
            "weight": weight,
            "pending": pending,
            "latencyMs": milliseconds(latency),
            "zone": zone,
            "share": (share * 1e3).round() / 1e3,
        });
        services
            .entry(service.to_string())
            .or_default()
            .entry(port)
            .or_default()
            .push(value);
    }
    json!({ "services": services })
}

/// `/config_dump`: all a proxy knows of the mesh.
#[must_use]
pub fn snapshot(snapshot: &Snapshot) -> Value {
    let Snapshot {
        revision,
        workload,
        mesh,
        inbound,
        services,
    } = snapshot;
    let WorkloadName {
        namespace,
        name,
        service,
    } = workload;
    let Mesh {
        trust_domain,
        mutual_tls,
        series_limit,
    } = mesh;
    let InboundPolicy {
        default_deny,
        authorization,
    } = inbound;
    let services: BTreeMap<String, Value> = services
        .iter()
        .map(|(name, it)| (name.to_string(), self::service(it)))
        .collect();
    json!({
        "revision": revision,
        "workload": { "namespace": &**namespace, "name": &**name, "service": &**service },
        "mesh": {
            "trustDomain": trust_domain.as_str(),
            "mtls": match mutual_tls {
                MutualTls::Strict => "strict",
                MutualTls::Permissive => "permissive",
            },
            "seriesLimit": series_limit,
        },
        "inbound": {
            "default": if *default_deny { "deny" } else { "allow" },
            "authorization": authorization.iter().map(authorization_policy).collect::<Vec<_>>(),
        },
        "services": services,
    })
}

fn service(service: &Service) -> Value {
    let Service {
        name: _,
        ports,
        policy,
    } = service;
    json!({
        "ports": ports.iter().map(|port| service_port(port)).collect::<Vec<_>>(),
        "policy": traffic_policy(policy),
    })
}

fn service_port(port: &ServicePort) -> Value {
    let ServicePort {
        service: _,
        port,
        protocol,
        endpoints,
    } = port;
    let protocol = match protocol {
        Protocol::Detect => "detect",
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
    };
    let endpoints: Vec<_> = endpoints.iter().map(|it| endpoint(it)).collect();
    json!({ "port": port, "protocol": protocol, "endpoints": endpoints })
}

fn endpoint(endpoint: &Endpoint) -> Value {
    let Endpoint {
        key,
        id,
        weight,
        labels,
        healthy,
    } = endpoint;
    let EndpointKey {
        service: _,
        port: _,
        address,
        identity,
    } = key;
    json!({
        "id": &**id,
        "address": address.to_string(),
        "identity": identity.as_ref().map(selvage_certs::SpiffeId::as_str),
        "weight": weight,
        "labels": labels,
        "healthy": healthy,
    })
}

fn traffic_policy(policy: &TrafficPolicy) -> Value {
    let TrafficPolicy {
        timeouts,
        retry,
        budget,
        breaker,
        limits,
        balancer,
    } = policy;
    let Timeouts {
        request,
        backend_request,
        connect,
        idle,
        idle_tcp,
    } = timeouts;
    let BudgetPolicy {
        percent,
        interval,
        min_per_second,
    } = budget;
    let Limits {
        max_connections,
        max_requests,
        max_pending,
    } = limits;
    json!({
        "timeouts": {
            "requestMs": request.map(milliseconds),
            "backendRequestMs": backend_request.map(milliseconds),
            "connectMs": connect.map(milliseconds),
            "idleMs": idle.map(milliseconds),
            "idleTcpMs": idle_tcp.map(milliseconds),
        },
        "retry": retry.as_ref().map(retry_policy),
        "budget": {
            "percent": percent,
            "intervalMs": milliseconds(*interval),
            "minPerSecond": min_per_second,
        },
        "circuitBreaker": breaker_policy(breaker),
        "limits": {
            "maxConnections": max_connections,
            "maxRequests": max_requests,
            "maxPending": max_pending,
        },
        "loadBalancer": self::balancer::balancer(balancer),
    })
}

fn retry_policy(policy: &RetryPolicy) -> Value {
    let RetryPolicy {
        attempts,
        on,
        methods,
        backoff,
        buffer_limit,
    } = policy;
    let RetryOn {
        connect_failure,
        reset,
        timeout,
        statuses,
        grpc_statuses,
    } = on;
    json!({
        "attempts": attempts,
        "on": {
            "connectFailure": connect_failure,
            "reset": reset,
            "timeout": timeout,
            "statuses": statuses.iter().map(http::StatusCode::as_u16).collect::<Vec<_>>(),
            "grpcStatuses": grpc_statuses,
        },
        "methods": words(methods),
        "backoff": self::backoff(backoff),
        "bufferBytes": buffer_limit,
    })
}

fn breaker_policy(policy: &BreakerPolicy) -> Value {
    let BreakerPolicy {
        consecutive_failures,
        success_rate,
        backoff,
        max_open_percent,
    } = policy;
    let rate = success_rate.as_ref().map(|rate| {
        let SuccessRate {
            threshold_percent,
            window,
            minimum_requests,
        } = rate;
        json!({
            "thresholdPercent": threshold_percent,
            "windowMs": milliseconds(*window),
            "minimumRequests": minimum_requests,
        })
    });
    json!({
        "consecutiveFailures": consecutive_failures,
        "successRate": rate,
        "backoff": self::backoff(backoff),
        "maxOpenPercent": max_open_percent,
    })
}

fn backoff(policy: &BackoffPolicy) -> Value {
    let BackoffPolicy { base, max } = policy;
    json!({ "baseMs": milliseconds(*base), "maxMs": milliseconds(*max) })
}

fn authorization_policy(policy: &AuthorizationPolicy) -> Value {
    let AuthorizationPolicy {
        namespace,
        name,
        mode,
        rules,
    } = policy;
    json!({
        "namespace": &**namespace,
        "name": &**name,
        "mode": match mode {
            Mode::Enforce => "enforce",
            Mode::Audit => "audit",
        },
        "rules": rules.iter().map(rule).collect::<Vec<_>>(),
    })
}

fn rule(rule: &Rule) -> Value {
    let Rule {
        name,
        action,
        from,
        to,
    } = rule;
    let from = from.iter().map(|source| {
        let Source {
            identities,
            not_identities,
            namespaces,
            not_namespaces,
        } = source;
        json!({
            "identities": words(identities),
            "notIdentities": words(not_identities),
            "namespaces": words(namespaces),
            "notNamespaces": words(not_namespaces),
        })
    });
    let to = to.iter().map(|operation| {
        let Operation {
            methods,
            not_methods,
            paths,
            not_paths,
        } = operation;
        json!({
            "methods": words(methods),
            "notMethods": words(not_methods),
            "paths": paths.iter().map(path_match).collect::<Vec<_>>(),
            "notPaths": not_paths.iter().map(path_match).collect::<Vec<_>>(),
        })
    });
    json!({
        "name": &**name,
        "action": match action {
            Action::Allow => "allow",
            Action::Deny => "deny",
        },
        "from": from.collect::<Vec<_>>(),
        "to": to.collect::<Vec<_>>(),
    })
}

fn path_match(path: &PathMatch) -> Value {
    match path {
        PathMatch::Exact(path) => json!({ "type": "Exact", "value": &**path }),
        PathMatch::Prefix(path) => json!({ "type": "PathPrefix", "value": &**path }),
    }
}

fn words<T: ToString>(list: &[T]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

/// To the microsecond, as far as a float goes.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests;
