//! How an endpoint is chosen. What policy could not have said (a hashing
//! algorithm without a key, a bound of no bound) is refused here too: a proxy
//! does not count on who sends.

use selvage_api::v1;
use selvage_policy::snapshot::{
    AffinityCookie, Algorithm, Balancer, HashOn, Hashing, Locality, SlowStart,
};

use super::traffic::{duration, required};
use super::{InvalidResource, absent, invalid};

/// Points of one endpoint on a ring.
const MOST_NODES: u32 = 1 << 16;

pub(super) fn balancer(message: &v1::TrafficPolicy) -> Result<Balancer, InvalidResource> {
    let slow_start = message.slow_start.as_ref().map(slow_start).transpose()?;
    let locality = message.locality.as_ref().map(|message| {
        let v1::Locality {
            min_healthy_percent,
        } = message;
        Locality {
            min_healthy_percent: *min_healthy_percent,
        }
    });
    Ok(Balancer {
        algorithm: algorithm(message)?,
        slow_start,
        locality,
    })
}

fn algorithm(message: &v1::TrafficPolicy) -> Result<Algorithm, InvalidResource> {
    let hashing = message.hashing.as_ref();
    let keyed = || hashing.ok_or_else(|| absent("policy.hashing"));
    Ok(match message.load_balancer() {
        v1::LoadBalancer::PeakEwma => Algorithm::PeakEwma,
        v1::LoadBalancer::LeastRequest => Algorithm::LeastRequest,
        v1::LoadBalancer::RoundRobin => Algorithm::RoundRobin,
        v1::LoadBalancer::Random => Algorithm::Random,
        v1::LoadBalancer::RingHash => {
            let virtual_nodes = keyed()?.virtual_nodes;
            if !(1..=MOST_NODES).contains(&virtual_nodes) {
                return Err(absent("policy.hashing.virtual_nodes"));
            }
            Algorithm::RingHash {
                hashing: self::hashing(keyed()?)?,
                virtual_nodes,
            }
        }
        v1::LoadBalancer::Maglev => Algorithm::Maglev(self::hashing(keyed()?)?),
        v1::LoadBalancer::Unspecified => return Err(absent("policy.load_balancer")),
    })
}

fn hashing(message: &v1::Hashing) -> Result<Hashing, InvalidResource> {
    let v1::Hashing {
        on,
        bounded_load,
        virtual_nodes: _,
    } = message;
    let bounded_load = match bounded_load {
        0 => None,
        percent if *percent > 100 => Some(*percent),
        _ => return Err(absent("policy.hashing.bounded_load")),
    };
    if on.is_empty() {
        return Err(absent("policy.hashing.on"));
    }
    Ok(Hashing {
        on: on.iter().map(hash_on).collect::<Result<_, _>>()?,
        bounded_load,
    })
}

fn hash_on(message: &v1::HashOn) -> Result<HashOn, InvalidResource> {
    use v1::hash_on::On;
    let v1::HashOn { on } = message;
    Ok(
        match on.as_ref().ok_or_else(|| absent("policy.hashing.on"))? {
            On::Header(name) => {
                let name = http::HeaderName::from_bytes(name.as_bytes());
                HashOn::Header(name.map_err(|error| invalid("policy.hashing.on.header", error))?)
            }
            On::Cookie(cookie) => HashOn::Cookie(affinity_cookie(cookie)?),
            On::SourceIp(true) => HashOn::SourceIp,
            On::SourceIp(false) => return Err(absent("policy.hashing.on.source_ip")),
            On::Query(name) => HashOn::Query(name.as_str().into()),
        },
    )
}

fn affinity_cookie(message: &v1::AffinityCookie) -> Result<AffinityCookie, InvalidResource> {
    let v1::AffinityCookie { name, ttl, path } = message;
    let ttl = ttl.as_ref();
    Ok(AffinityCookie {
        name: name.as_str().into(),
        ttl: ttl
            .map(|ttl| duration("policy.hashing.on.cookie.ttl", ttl))
            .transpose()?,
        path: Some(path.as_str())
            .filter(|path| !path.is_empty())
            .map(Into::into),
    })
}

fn slow_start(message: &v1::SlowStart) -> Result<SlowStart, InvalidResource> {
    let v1::SlowStart {
        window,
        aggression,
        min_weight_percent,
    } = message;
    if !(aggression.is_finite() && *aggression > 0.0) {
        return Err(absent("policy.slow_start.aggression"));
    }
    Ok(SlowStart {
        window: required("policy.slow_start.window", window.as_ref())?,
        aggression: *aggression,
        min_weight_percent: *min_weight_percent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(algorithm: v1::LoadBalancer, hashing: Option<v1::Hashing>) -> v1::TrafficPolicy {
        v1::TrafficPolicy {
            load_balancer: algorithm.into(),
            hashing,
            ..v1::TrafficPolicy::default()
        }
    }

    fn hashing(on: v1::hash_on::On, bounded_load: u32, virtual_nodes: u32) -> Option<v1::Hashing> {
        Some(v1::Hashing {
            on: vec![v1::HashOn { on: Some(on) }],
            bounded_load,
            virtual_nodes,
        })
    }

    #[test]
    fn what_no_policy_could_say_is_refused() {
        use v1::hash_on::On;
        let user = || On::Header("x-user".to_owned());
        let (ring, maglev) = (v1::LoadBalancer::RingHash, v1::LoadBalancer::Maglev);
        let nothing = Some(v1::Hashing::default());
        let table = [
            (
                policy(v1::LoadBalancer::Unspecified, None),
                "policy.load_balancer",
            ),
            (policy(maglev, None), "policy.hashing"),
            (policy(maglev, nothing), "policy.hashing.on"),
            (
                policy(ring, hashing(user(), 125, 0)),
                "policy.hashing.virtual_nodes",
            ),
            (
                policy(ring, hashing(user(), 125, u32::MAX)),
                "policy.hashing.virtual_nodes",
            ),
            (
                policy(maglev, hashing(user(), 100, 0)),
                "policy.hashing.bounded_load",
            ),
            (
                policy(maglev, hashing(On::SourceIp(false), 0, 0)),
                "policy.hashing.on.source_ip",
            ),
            (
                policy(maglev, hashing(On::Header("a b".to_owned()), 0, 0)),
                "policy.hashing.on.header",
            ),
        ];
        for (message, field) in table {
            let refused = balancer(&message).expect_err(field);
            assert_eq!(refused.field, field);
        }
        let aggression = v1::TrafficPolicy {
            slow_start: Some(v1::SlowStart {
                aggression: f64::NAN,
                ..v1::SlowStart::default()
            }),
            ..policy(v1::LoadBalancer::PeakEwma, None)
        };
        let refused = balancer(&aggression).expect_err("no number");
        assert_eq!(refused.field, "policy.slow_start.aggression");
    }

    #[test]
    fn what_is_sent_is_what_is_decided_by() {
        let on = v1::hash_on::On::Header("x-user".to_owned());
        let found = balancer(&policy(v1::LoadBalancer::RingHash, hashing(on, 0, 64)));
        let expected = Algorithm::RingHash {
            hashing: Hashing {
                on: vec![HashOn::Header(http::HeaderName::from_static("x-user"))],
                bounded_load: None,
            },
            virtual_nodes: 64,
        };
        assert_eq!(found.map(|found| found.algorithm), Ok(expected));
        let plain = balancer(&policy(v1::LoadBalancer::PeakEwma, None));
        assert_eq!(plain, Ok(Balancer::default()));
    }
}
