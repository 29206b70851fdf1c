//! How an endpoint is chosen, in the words of `loadBalancer` of a policy.

use selvage_policy::snapshot::{
    AffinityCookie, Algorithm, Balancer, HashOn, Hashing, Locality, SlowStart,
};
use serde_json::{Value, json};

use super::milliseconds;

pub(super) fn balancer(balancer: &Balancer) -> Value {
    let Balancer {
        algorithm,
        slow_start,
        locality,
    } = balancer;
    let (name, nodes) = match algorithm {
        Algorithm::PeakEwma => ("peak-ewma", None),
        Algorithm::LeastRequest => ("least-request", None),
        Algorithm::RoundRobin => ("round-robin", None),
        Algorithm::Random => ("random", None),
        Algorithm::RingHash {
            hashing: _,
            virtual_nodes,
        } => ("ring-hash", Some(virtual_nodes)),
        Algorithm::Maglev(_) => ("maglev", None),
    };
    let hashing = algorithm.hashing().map(|hashing| {
        let Hashing { on, bounded_load } = hashing;
        json!({
            "on": on.iter().map(hash_on).collect::<Vec<_>>(),
            "boundedLoad": bounded_load,
            "virtualNodes": nodes,
        })
    });
    let slow_start = slow_start.map(|policy| {
        let SlowStart {
            window,
            aggression,
            min_weight_percent,
        } = policy;
        json!({
            "windowMs": milliseconds(window),
            "aggression": aggression,
            "minWeightPercent": min_weight_percent,
        })
    });
    let locality = locality.map(|policy| {
        let Locality {
            min_healthy_percent,
        } = policy;
        json!({ "minHealthyPercent": min_healthy_percent })
    });
    json!({
        "algorithm": name,
        "hashing": hashing,
        "slowStart": slow_start,
        "locality": locality,
    })
}

fn hash_on(on: &HashOn) -> Value {
    match on {
        HashOn::Header(name) => json!({ "header": name.as_str() }),
        HashOn::Cookie(AffinityCookie { name, ttl, path }) => json!({
            "cookie": { "name": &**name, "ttlMs": ttl.map(milliseconds), "path": path.as_deref() },
        }),
        HashOn::SourceIp => json!({ "sourceIp": true }),
        HashOn::Query(name) => json!({ "query": &**name }),
    }
}
