//! A Snapshot as JSON for people.
//!
//! Written by hand from the types of policy, which know no JSON, and destructured whole, so that a
//! new field is not forgotten here. What may be secret is left out: keys, and the values that filters write into headers. Nothing is
//! looked up.

mod balancer;
mod isolation;
mod routes;
mod server;

use std::collections::BTreeMap;
use std::time::Duration;

use selvage_policy::authorize::{
    Action, AuthorizationPolicy, Mode, Operation, PathMatch, Rule, Source,
};
use selvage_policy::failures::Failures;
use selvage_policy::health::{HealthCheck, Pace, Question};
use selvage_policy::snapshot::{
    BackoffPolicy, BreakerPolicy, BudgetPolicy, Endpoint, EndpointKey, InboundPolicy, Limits, Mesh,
    MutualTls, Protocol, RetryOn, RetryPolicy, Service, ServicePort, Snapshot, SuccessRate,
    Timeouts, TrafficPolicy, WorkloadName,
};
use serde_json::{Value, json};

pub use self::server::ports;

/// `/config_dump`: all a proxy knows of the mesh.
#[must_use]
pub fn snapshot(snapshot: &Snapshot) -> Value {
    let Snapshot {
        revision,
        workload,
        mesh,
        inbound,
        services,
        gateway,
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
        server,
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
            "server": server::policies(server),
        },
        "services": services,
        "gateway": gateway.as_deref().map(routes::gateway),
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
        routes,
        streams,
    } = port;
    let protocol = match protocol {
        Protocol::Detect => "detect",
        Protocol::Http => "http",
        Protocol::Http2 => "http2",
        Protocol::Grpc => "grpc",
        Protocol::Tcp => "tcp",
    };
    let endpoints: Vec<_> = endpoints.iter().map(|it| endpoint(it)).collect();
    json!({
        "port": port,
        "protocol": protocol,
        "endpoints": endpoints,
        "routes": routes.as_deref().map(routes::table),
        "streams": routes::streams(streams),
    })
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

pub(crate) fn traffic_policy(policy: &TrafficPolicy) -> Value {
    let TrafficPolicy {
        timeouts,
        retry,
        budget,
        breaker,
        limits,
        balancer,
        failures,
        health_check,
        hedge,
        fallback,
        fault,
        mirror,
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
        "failures": self::failures(failures),
        "healthCheck": health_check.as_ref().map(self::health_check),
        "hedge": hedge.as_ref().map(isolation::hedge),
        "fallback": fallback.as_ref().map(isolation::fallback),
        "fault": fault.as_ref().map(isolation::fault),
        "mirror": mirror.as_ref().map(isolation::mirror),
    })
}

fn failures(failures: &Failures) -> Value {
    let Failures {
        statuses,
        hard_statuses,
        grpc,
        hard_grpc,
    } = failures;
    json!({
        "statuses": statuses.ranges(),
        "hardStatuses": hard_statuses.ranges(),
        "grpcStatuses": grpc.numbers().collect::<Vec<_>>(),
        "hardGrpcStatuses": hard_grpc.numbers().collect::<Vec<_>>(),
    })
}

fn health_check(check: &HealthCheck) -> Value {
    let HealthCheck { question, pace } = check;
    let Pace {
        interval,
        jitter_percent,
        timeout,
        unhealthy_threshold,
        healthy_threshold,
    } = pace;
    let asked = match question {
        Question::Tcp => json!({}),
        Question::Grpc { service } => json!({ "service": &**service }),
        Question::Http {
            path,
            host,
            expected,
        } => json!({
            "path": &**path,
            "host": host.as_deref(),
            "expectedStatuses": expected.ranges(),
        }),
    };
    json!({
        question.as_str(): asked,
        "intervalMs": milliseconds(*interval),
        "jitterPercent": jitter_percent,
        "timeoutMs": milliseconds(*timeout),
        "unhealthyThreshold": unhealthy_threshold,
        "healthyThreshold": healthy_threshold,
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
pub(super) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests;
