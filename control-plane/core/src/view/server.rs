//! What protects a workload's ports, as it is sent: the defaults stand here.

use selvage_api::v1;

use super::traffic::span;
use crate::attach::{self, Protection};
use crate::resource::ServiceName;
use crate::resource::server_policy::{
    Concurrency, DEFAULT_MAX, DEFAULT_MIN, DEFAULT_QUEUE_TIMEOUT, Mode, RateKey, RateLimit,
};
use crate::world::World;

pub(super) fn server_policies(world: &World, service: &ServiceName) -> Vec<v1::ServerPolicy> {
    let sent = |(port, protection): (Option<u16>, Protection)| v1::ServerPolicy {
        port: port.unwrap_or_default().into(),
        rate_limit: protection.rate_limit.as_ref().map(rate_limit),
        concurrency: protection.concurrency.as_ref().and_then(concurrency),
        max_per_caller: protection
            .per_caller
            .map_or(0, |bound| bound.max_concurrent),
    };
    attach::server(world, service)
        .into_iter()
        .map(sent)
        .collect()
}

pub(super) fn rate_limit(limit: &RateLimit) -> v1::RateLimit {
    let RateLimit {
        requests,
        per,
        burst,
        key,
    } = limit;
    let (key, header) = match key {
        RateKey::None => (v1::RateLimitKey::None, String::new()),
        RateKey::Identity => (v1::RateLimitKey::Identity, String::new()),
        RateKey::SourceIp => (v1::RateLimitKey::SourceIp, String::new()),
        RateKey::Header(name) => (v1::RateLimitKey::Header, name.clone()),
    };
    v1::RateLimit {
        requests: *requests,
        per: Some(span(per.0)),
        burst: burst.unwrap_or(*requests),
        key: key.into(),
        header,
    }
}

fn concurrency(given: &Concurrency) -> Option<v1::Concurrency> {
    use v1::concurrency::Limit;
    let Concurrency {
        mode,
        max,
        min,
        start,
        queue,
        queue_timeout,
        per_caller: _,
    } = given;
    let most = max.unwrap_or(DEFAULT_MAX);
    let limit = match mode {
        None | Some(Mode::Off) => return None,
        Some(Mode::Fixed) => Limit::Fixed(most),
        Some(Mode::Adaptive) => {
            let least = min.unwrap_or(DEFAULT_MIN).min(most);
            Limit::Adaptive(v1::AdaptiveLimit {
                min: least,
                max: most,
                start: start.unwrap_or(least).clamp(least, most),
            })
        }
    };
    Some(v1::Concurrency {
        limit: Some(limit),
        queue: *queue,
        queue_timeout: Some(span(queue_timeout.unwrap_or(DEFAULT_QUEUE_TIMEOUT).0)),
    })
}
