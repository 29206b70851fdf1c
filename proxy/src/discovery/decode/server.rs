//! What protects the ports of this workload, as the engine decides by it.

use std::time::Duration;

use selvage_api::v1;
use selvage_policy::server::{
    AdaptivePolicy, Concurrency, Rate, RateKey, RateLimit, ServerPolicies, ServerPolicy,
};

use super::traffic::required;
use super::{InvalidResource, absent, invalid};

pub(super) fn server_policies(
    messages: &[v1::ServerPolicy],
) -> Result<ServerPolicies, InvalidResource> {
    let mut policies = ServerPolicies::default();
    for message in messages {
        let decoded = server_policy(message)?;
        match message.port {
            0 => policies.others = Some(decoded),
            port => {
                let port = u16::try_from(port).map_err(|error| invalid("server.port", error))?;
                policies.ports.push((port, decoded));
            }
        }
    }
    Ok(policies)
}

fn server_policy(message: &v1::ServerPolicy) -> Result<ServerPolicy, InvalidResource> {
    let v1::ServerPolicy {
        port: _,
        rate_limit: limit,
        concurrency: limits,
        max_per_caller,
    } = message;
    let mut policy = ServerPolicy {
        rate_limit: limit.as_ref().map(rate_limit).transpose()?,
        per_caller: Some(*max_per_caller).filter(|most| *most > 0),
        ..ServerPolicy::default()
    };
    if let Some(limits) = limits {
        let v1::Concurrency {
            limit: _,
            queue,
            queue_timeout,
        } = limits;
        policy.concurrency = concurrency(limits)?;
        policy.queue = *queue;
        policy.queue_timeout =
            required("server.concurrency.queue_timeout", queue_timeout.as_ref())?;
    }
    Ok(policy)
}

pub(super) fn rate_limit(message: &v1::RateLimit) -> Result<RateLimit, InvalidResource> {
    let v1::RateLimit {
        requests,
        per,
        burst,
        key: _,
        header,
    } = message;
    let key = match message.key() {
        v1::RateLimitKey::None => RateKey::None,
        v1::RateLimitKey::Identity => RateKey::Identity,
        v1::RateLimitKey::SourceIp => RateKey::SourceIp,
        v1::RateLimitKey::Header => RateKey::Header(
            http::HeaderName::from_bytes(header.as_bytes())
                .map_err(|error| invalid("server.rate_limit.header", error))?,
        ),
        v1::RateLimitKey::Unspecified => return Err(absent("server.rate_limit.key")),
    };
    let per = required("server.rate_limit.per", per.as_ref())?;
    if *requests == 0 || *burst == 0 || per == Duration::ZERO {
        return Err(invalid("server.rate_limit", "0 requests, burst or time"));
    }
    Ok(RateLimit {
        rate: Rate::new(*requests, per, *burst),
        key,
    })
}

fn concurrency(message: &v1::Concurrency) -> Result<Concurrency, InvalidResource> {
    use v1::concurrency::Limit;
    let limit = message
        .limit
        .as_ref()
        .ok_or_else(|| absent("server.concurrency.limit"))?;
    let (decoded, ordered) = match limit {
        Limit::Fixed(max) => (Concurrency::Fixed { max: *max }, *max > 0),
        Limit::Adaptive(v1::AdaptiveLimit { min, max, start }) => {
            let policy = AdaptivePolicy {
                min: *min,
                max: *max,
                start: *start,
            };
            (Concurrency::Adaptive(policy), 0 < *min && min <= max)
        }
    };
    if ordered {
        Ok(decoded)
    } else {
        Err(invalid(
            "server.concurrency.limit",
            "0, or a minimum above the maximum",
        ))
    }
}
