//! From wire messages to the Snapshot: the one place where a resource becomes
//! policy. Messages are destructured whole, so that a new field breaks the
//! build here instead of vanishing; what is malformed is refused by name.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use selvage_api::v1;
use selvage_certs::{SpiffeId, TrustDomain};
use selvage_policy::authorize::{
    Action, AuthorizationPolicy, Mode, Operation, PathMatch, Rule, Source,
};
use selvage_policy::snapshot::{
    BackoffPolicy, Balancer, BreakerPolicy, BudgetPolicy, Endpoint, EndpointKey, InboundPolicy,
    Limits, Mesh, MutualTls, Protocol, RetryOn, RetryPolicy, Service, ServiceName, ServicePort,
    Snapshot, SuccessRate, Timeouts, TrafficPolicy, WorkloadName,
};

/// A resource this proxy cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidResource {
    field: String,
    reason: String,
}

fn invalid(field: impl Into<String>, reason: impl std::fmt::Display) -> InvalidResource {
    InvalidResource {
        field: field.into(),
        reason: reason.to_string(),
    }
}

fn absent(field: &str) -> InvalidResource {
    invalid(field, "is missing or has an unknown value")
}

/// A refused resource, by name.
pub type Refusal = (Option<v1::ResourceName>, InvalidResource);

/// Makes a Snapshot from everything held. Needs the workload among it.
///
/// # Errors
/// Every resource that cannot be taken, with the reason; the caller goes on
/// with the Snapshot it has.
pub fn snapshot<'a>(
    workload: &WorkloadName,
    revision: u64,
    resources: impl Iterator<Item = &'a v1::Resource>,
) -> Result<Snapshot, Vec<Refusal>> {
    let mut refused = Vec::new();
    let mut own = None;
    let mut services = HashMap::new();
    for resource in resources {
        let v1::Resource {
            name,
            version: _,
            features: _,
            body,
        } = resource;
        let result = match body {
            Some(v1::resource::Body::Workload(message)) => {
                decode_workload(message).map(|decoded| own = Some(decoded))
            }
            Some(v1::resource::Body::Service(message)) => decode_service(message).map(|service| {
                services.insert(service.name.clone(), Arc::new(service));
            }),
            // The bundle goes to the identity, not into the Snapshot.
            Some(v1::resource::Body::TrustBundle(_)) => Ok(()),
            None => Err(absent("body")),
        };
        if let Err(error) = result {
            refused.push((name.clone(), error));
        }
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    let Some((mesh, inbound)) = own else {
        return Err(vec![(None, absent("workload"))]);
    };
    Ok(Snapshot {
        revision,
        workload: workload.clone(),
        mesh,
        inbound,
        services,
    })
}

fn decode_workload(message: &v1::Workload) -> Result<(Mesh, InboundPolicy), InvalidResource> {
    let v1::Workload {
        trust_domain,
        mutual_tls: _,
        authorization_default: _,
        authorization,
        series_limit,
    } = message;
    let mutual_tls = match message.mutual_tls() {
        v1::MutualTls::Strict => MutualTls::Strict,
        v1::MutualTls::Permissive => MutualTls::Permissive,
        v1::MutualTls::Unspecified => return Err(absent("mutual_tls")),
    };
    let default_deny = match message.authorization_default() {
        v1::AuthorizationDefault::Allow => false,
        v1::AuthorizationDefault::Deny => true,
        v1::AuthorizationDefault::Unspecified => return Err(absent("authorization_default")),
    };
    let trust_domain =
        TrustDomain::parse(trust_domain).map_err(|error| invalid("trust_domain", error))?;
    let authorization = authorization.iter().map(policy).collect::<Result<_, _>>()?;
    Ok((
        Mesh {
            trust_domain,
            mutual_tls,
            series_limit: *series_limit as usize,
        },
        InboundPolicy {
            default_deny,
            authorization,
        },
    ))
}

fn policy(message: &v1::AuthorizationPolicy) -> Result<AuthorizationPolicy, InvalidResource> {
    let v1::AuthorizationPolicy {
        namespace,
        name,
        mode: _,
        rules,
    } = message;
    let mode = match message.mode() {
        v1::AuthorizationMode::Enforce => Mode::Enforce,
        v1::AuthorizationMode::Audit => Mode::Audit,
        v1::AuthorizationMode::Unspecified => return Err(absent("authorization.mode")),
    };
    let rules = rules.iter().map(rule).collect::<Result<_, _>>()?;
    Ok(AuthorizationPolicy {
        namespace: namespace.as_str().into(),
        name: name.as_str().into(),
        mode,
        rules,
    })
}

fn rule(message: &v1::AuthorizationRule) -> Result<Rule, InvalidResource> {
    let v1::AuthorizationRule {
        name,
        action: _,
        from,
        to,
    } = message;
    let action = match message.action() {
        v1::AuthorizationAction::Allow => Action::Allow,
        v1::AuthorizationAction::Deny => Action::Deny,
        v1::AuthorizationAction::Unspecified => return Err(absent("rule.action")),
    };
    Ok(Rule {
        name: name.as_str().into(),
        action,
        from: from.iter().map(source).collect::<Result<_, _>>()?,
        to: to.iter().map(operation).collect::<Result<_, _>>()?,
    })
}

fn source(message: &v1::AuthorizationSource) -> Result<Source, InvalidResource> {
    let v1::AuthorizationSource {
        identities,
        not_identities,
        namespaces,
        not_namespaces,
    } = message;
    let ids = |list: &[String]| {
        list.iter()
            .map(|id| SpiffeId::parse(id).map_err(|error| invalid("rule.from.identities", error)))
            .collect::<Result<Vec<_>, _>>()
    };
    let names = |list: &[String]| list.iter().map(|name| name.as_str().into()).collect();
    Ok(Source {
        identities: ids(identities)?,
        not_identities: ids(not_identities)?,
        namespaces: names(namespaces),
        not_namespaces: names(not_namespaces),
    })
}

fn operation(message: &v1::AuthorizationOperation) -> Result<Operation, InvalidResource> {
    let v1::AuthorizationOperation {
        methods,
        not_methods,
        paths,
        not_paths,
    } = message;
    let verbs = |list: &[String]| {
        list.iter()
            .map(|text| method("rule.to.methods", text))
            .collect::<Result<Vec<_>, _>>()
    };
    let matches = |list: &[v1::PathMatch]| list.iter().map(path).collect::<Result<Vec<_>, _>>();
    Ok(Operation {
        methods: verbs(methods)?,
        not_methods: verbs(not_methods)?,
        paths: matches(paths)?,
        not_paths: matches(not_paths)?,
    })
}

fn method(field: &str, text: &str) -> Result<http::Method, InvalidResource> {
    http::Method::from_bytes(text.as_bytes()).map_err(|error| invalid(field, error))
}

fn path(message: &v1::PathMatch) -> Result<PathMatch, InvalidResource> {
    let v1::PathMatch { r#type: _, value } = message;
    match message.r#type() {
        v1::PathMatchType::Exact => Ok(PathMatch::Exact(value.as_str().into())),
        v1::PathMatchType::Prefix => Ok(PathMatch::Prefix(value.as_str().into())),
        v1::PathMatchType::Unspecified => Err(absent("rule.to.paths.type")),
    }
}

fn decode_service(message: &v1::Service) -> Result<Service, InvalidResource> {
    let v1::Service {
        namespace,
        name,
        ports,
        endpoints,
        policy,
    } = message;
    let service = ServiceName::new(namespace, name);
    let policy = policy.as_ref().ok_or_else(|| absent("policy"))?;
    let mut decoded = Vec::with_capacity(ports.len());
    for message in ports {
        let v1::ServicePort {
            port,
            target_port,
            protocol: _,
        } = message;
        let port = port_number("port", *port)?;
        let target = port_number("target_port", *target_port)?;
        let mut serving = Vec::new();
        for endpoint in endpoints {
            if let Some(endpoint) = decode_endpoint(endpoint, &service, port, target)? {
                serving.push(Arc::new(endpoint));
            }
        }
        serving.sort_by(|a, b| a.key.cmp(&b.key));
        // Two of one key would be one endpoint with one state.
        serving.dedup_by(|a, b| a.key == b.key);
        decoded.push(Arc::new(ServicePort {
            service: service.clone(),
            port,
            protocol: protocol(message.protocol())?,
            endpoints: serving,
        }));
    }
    decoded.sort_by_key(|port| port.port);
    Ok(Service {
        name: service,
        ports: decoded,
        policy: Arc::new(traffic_policy(policy)?),
    })
}

fn port_number(field: &str, number: u32) -> Result<u16, InvalidResource> {
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| invalid(field, format!("{number} is not a port")))
}

fn protocol(protocol: v1::Protocol) -> Result<Protocol, InvalidResource> {
    match protocol {
        v1::Protocol::Detect => Ok(Protocol::Detect),
        v1::Protocol::Http => Ok(Protocol::Http),
        v1::Protocol::Http2 => Ok(Protocol::Http2),
        v1::Protocol::Grpc => Ok(Protocol::Grpc),
        v1::Protocol::Tcp => Ok(Protocol::Tcp),
        v1::Protocol::Unspecified => Err(absent("protocol")),
    }
}

/// The endpoint as it serves this port; `None` where it does not.
fn decode_endpoint(
    message: &v1::Endpoint,
    service: &ServiceName,
    service_port: u16,
    target_port: u16,
) -> Result<Option<Endpoint>, InvalidResource> {
    let v1::Endpoint {
        id,
        address,
        port,
        identity,
        weight,
        labels,
        ports,
    } = message;
    let healthy = if ports.is_empty() {
        true
    } else {
        let serves = |serving: &&v1::EndpointPort| serving.port == u32::from(service_port);
        match ports.iter().find(serves) {
            None => return Ok(None),
            Some(serving) => match serving.health() {
                v1::Health::Healthy => true,
                v1::Health::Unhealthy => false,
                v1::Health::Unspecified => return Err(absent("endpoint.health")),
            },
        }
    };
    let ip: IpAddr = address
        .parse()
        .map_err(|error| invalid("endpoint.address", error))?;
    let port = if *port == 0 {
        target_port
    } else {
        port_number("endpoint.port", *port)?
    };
    let identity = match identity.as_str() {
        "" => None,
        text => Some(SpiffeId::parse(text).map_err(|error| invalid("endpoint.identity", error))?),
    };
    Ok(Some(Endpoint {
        key: EndpointKey {
            service: service.clone(),
            port: service_port,
            address: SocketAddr::new(ip, port),
            identity,
        },
        id: id.as_str().into(),
        weight: *weight,
        labels: labels.clone(),
        healthy,
    }))
}

fn traffic_policy(message: &v1::TrafficPolicy) -> Result<TrafficPolicy, InvalidResource> {
    let v1::TrafficPolicy {
        timeouts: limits,
        retry,
        circuit_breaker,
        limits: bounds,
        load_balancer: _,
        retry_budget,
    } = message;
    let balancer = match message.load_balancer() {
        v1::LoadBalancer::PeakEwma => Balancer::PeakEwma,
        v1::LoadBalancer::Unspecified => return Err(absent("policy.load_balancer")),
    };
    let breaker = circuit_breaker
        .as_ref()
        .ok_or_else(|| absent("policy.circuit_breaker"))?;
    let v1::Limits {
        max_connections,
        max_requests,
        max_pending,
    } = bounds.as_ref().ok_or_else(|| absent("policy.limits"))?;
    let v1::RetryBudget {
        percent,
        interval,
        min_per_second,
    } = retry_budget
        .as_ref()
        .ok_or_else(|| absent("policy.retry_budget"))?;
    Ok(TrafficPolicy {
        timeouts: timeouts(limits.as_ref().ok_or_else(|| absent("policy.timeouts"))?)?,
        retry: retry.as_ref().map(retry_policy).transpose()?,
        budget: BudgetPolicy {
            percent: *percent,
            interval: required("policy.retry_budget.interval", interval.as_ref())?,
            min_per_second: *min_per_second,
        },
        breaker: breaker_policy(breaker)?,
        limits: Limits {
            max_connections: *max_connections,
            max_requests: *max_requests,
            max_pending: *max_pending,
        },
        balancer,
    })
}

fn duration(field: &str, message: &prost_types::Duration) -> Result<Duration, InvalidResource> {
    Duration::try_from(*message).map_err(|error| invalid(field, error))
}

fn required(
    field: &str,
    message: Option<&prost_types::Duration>,
) -> Result<Duration, InvalidResource> {
    duration(field, message.ok_or_else(|| absent(field))?)
}

/// Absent is the default, zero is none.
fn limit(
    field: &str,
    message: Option<&prost_types::Duration>,
    default: Option<Duration>,
) -> Result<Option<Duration>, InvalidResource> {
    match message {
        None => Ok(default),
        Some(message) => Ok(Some(duration(field, message)?).filter(|limit| !limit.is_zero())),
    }
}

fn timeouts(message: &v1::Timeouts) -> Result<Timeouts, InvalidResource> {
    let v1::Timeouts {
        request,
        backend_request,
        connect,
        idle,
    } = message;
    let default = Timeouts::default();
    Ok(Timeouts {
        request: limit("timeouts.request", request.as_ref(), default.request)?,
        backend_request: limit(
            "timeouts.backend_request",
            backend_request.as_ref(),
            default.backend_request,
        )?,
        connect: limit("timeouts.connect", connect.as_ref(), default.connect)?,
        idle: limit("timeouts.idle", idle.as_ref(), default.idle)?,
        idle_tcp: limit("timeouts.idle", idle.as_ref(), default.idle_tcp)?,
    })
}

fn retry_policy(message: &v1::Retry) -> Result<RetryPolicy, InvalidResource> {
    let v1::Retry {
        attempts,
        on,
        methods,
        backoff,
        buffer_limit,
    } = message;
    let mut conditions = RetryOn::default();
    for v1::RetryCondition { condition } in on {
        use v1::retry_condition::Condition;
        match condition.as_ref().ok_or_else(|| absent("retry.on"))? {
            Condition::Transport(number) => match v1::TransportCondition::try_from(*number) {
                Ok(v1::TransportCondition::ConnectFailure) => conditions.connect_failure = true,
                Ok(v1::TransportCondition::Reset) => conditions.reset = true,
                Ok(v1::TransportCondition::Timeout) => conditions.timeout = true,
                Ok(v1::TransportCondition::Unspecified) | Err(_) => {
                    return Err(absent("retry.on.transport"));
                }
            },
            Condition::Status(code) => {
                let status = u16::try_from(*code)
                    .ok()
                    .and_then(|code| http::StatusCode::from_u16(code).ok());
                conditions
                    .statuses
                    .push(status.ok_or_else(|| absent("retry.on.status"))?);
            }
            Condition::GrpcStatus(code) => conditions.grpc_statuses.push(*code),
        }
    }
    let methods = if methods.is_empty() {
        [
            http::Method::GET,
            http::Method::HEAD,
            http::Method::OPTIONS,
            http::Method::PUT,
            http::Method::DELETE,
        ]
        .to_vec()
    } else {
        methods
            .iter()
            .map(|text| method("retry.methods", text))
            .collect::<Result<_, _>>()?
    };
    Ok(RetryPolicy {
        attempts: *attempts,
        on: conditions,
        methods,
        backoff: backoff_policy(backoff.as_ref())?,
        buffer_limit: usize::try_from(*buffer_limit)
            .map_err(|error| invalid("retry.buffer_limit", error))?,
    })
}

fn backoff_policy(message: Option<&v1::Backoff>) -> Result<BackoffPolicy, InvalidResource> {
    let v1::Backoff { base, max } = message.ok_or_else(|| absent("backoff"))?;
    Ok(BackoffPolicy {
        base: required("backoff.base", base.as_ref())?,
        max: required("backoff.max", max.as_ref())?,
    })
}

fn breaker_policy(message: &v1::CircuitBreaker) -> Result<BreakerPolicy, InvalidResource> {
    let v1::CircuitBreaker {
        consecutive_failures,
        success_rate,
        backoff,
        max_open_percent,
    } = message;
    let success_rate = match success_rate {
        None => None,
        Some(v1::SuccessRate {
            threshold_percent,
            window,
            minimum_requests,
        }) => Some(SuccessRate {
            threshold_percent: *threshold_percent,
            window: required("success_rate.window", window.as_ref())?,
            minimum_requests: *minimum_requests,
        }),
    };
    Ok(BreakerPolicy {
        consecutive_failures: *consecutive_failures,
        success_rate,
        backoff: backoff_policy(backoff.as_ref())?,
        max_open_percent: *max_open_percent,
    })
}

/// The trust bundle among the resources, if there is one.
pub fn trust_bundle<'a>(
    resources: impl Iterator<Item = &'a v1::Resource>,
) -> Option<&'a v1::TrustBundle> {
    resources
        .into_iter()
        .find_map(|resource| match &resource.body {
            Some(v1::resource::Body::TrustBundle(bundle)) => Some(bundle),
            _ => None,
        })
}
