//! What protects the ports of this workload, and how it goes, as JSON for people.

use selvage_policy::server::{
    AdaptivePolicy, Concurrency, RateKey, RateLimit, ServerLoad, ServerPolicies, ServerPolicy,
};
use serde_json::{Value, json};

use super::milliseconds;

/// The ports of this workload in `/clusters`: the limit of now, which is null
/// where there is none, who is at the application, and who waits.
#[must_use]
pub fn ports(ports: impl IntoIterator<Item = (u16, ServerLoad)>) -> Value {
    let shown = |(port, load)| {
        let ServerLoad {
            limit,
            in_flight,
            queued,
        } = load;
        json!({ "port": port, "limit": limit, "inFlight": in_flight, "queued": queued })
    };
    ports.into_iter().map(shown).collect()
}

pub(super) fn policies(policies: &ServerPolicies) -> Value {
    let ServerPolicies { ports, others } = policies;
    let mut shown: Vec<Value> = ports
        .iter()
        .map(|(named, policy)| self::policy(Some(*named), policy))
        .collect();
    shown.extend(others.as_ref().map(|others| policy(None, others)));
    Value::Array(shown)
}

fn policy(port: Option<u16>, policy: &ServerPolicy) -> Value {
    let ServerPolicy {
        rate_limit,
        concurrency,
        queue,
        queue_timeout,
        per_caller,
    } = policy;
    json!({
        "port": port,
        "rateLimit": rate_limit.as_ref().map(self::rate_limit),
        "concurrency": self::concurrency(*concurrency),
        "queue": queue,
        "queueTimeoutMs": milliseconds(*queue_timeout),
        "maxPerCaller": per_caller,
    })
}

pub(super) fn rate_limit(limit: &RateLimit) -> Value {
    let RateLimit { rate, key } = limit;
    let key = match key {
        RateKey::None => "none".to_owned(),
        RateKey::Identity => "identity".to_owned(),
        RateKey::SourceIp => "sourceIp".to_owned(),
        RateKey::Header(name) => format!("header:{name}"),
    };
    json!({
        "intervalMs": rate.interval().as_nanos() as f64 / 1e6,
        "burst": rate.burst(),
        "key": key,
    })
}

fn concurrency(concurrency: Concurrency) -> Value {
    match concurrency {
        Concurrency::Off => json!({ "mode": "off" }),
        Concurrency::Fixed { max } => json!({ "mode": "fixed", "max": max }),
        Concurrency::Adaptive(AdaptivePolicy { min, max, start }) => {
            json!({ "mode": "adaptive", "min": min, "max": max, "start": start })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use selvage_policy::server::Rate;

    use super::*;

    #[test]
    fn policy_and_load_are_shown() {
        let limit = RateLimit {
            rate: Rate::new(10, Duration::from_secs(1), 5),
            key: RateKey::Header(http::HeaderName::from_static("x-user")),
        };
        let adaptive = AdaptivePolicy {
            min: 20,
            max: 1000,
            start: 20,
        };
        let shown = policies(&ServerPolicies {
            ports: vec![(
                80,
                ServerPolicy {
                    rate_limit: Some(limit),
                    concurrency: Concurrency::Adaptive(adaptive),
                    ..ServerPolicy::default()
                },
            )],
            others: Some(ServerPolicy::default()),
        });
        for (pointer, expected) in [
            ("/0/port", json!(80)),
            ("/0/rateLimit/intervalMs", json!(100.0)),
            ("/0/rateLimit/burst", json!(5)),
            ("/0/rateLimit/key", json!("header:x-user")),
            ("/0/concurrency/mode", json!("adaptive")),
            ("/0/queueTimeoutMs", json!(50.0)),
            ("/1/port", Value::Null),
            ("/1/concurrency/mode", json!("off")),
        ] {
            assert_eq!(shown.pointer(pointer), Some(&expected), "{pointer}");
        }
        let load = ServerLoad {
            limit: Some(37),
            in_flight: 30,
            queued: 2,
        };
        let expected = json!([{ "port": 80, "limit": 37, "inFlight": 30, "queued": 2 }]);
        assert_eq!(ports([(80, load)]), expected);
    }
}
