//! How an endpoint is chosen, as it is sent: the defaults stand here.
//!
//! Leaves may come from several policies. The algorithm decides: what only
//! another algorithm would look at is left out, since each document was
//! consistent by itself.

use selvage_api::v1;

use super::traffic::span;
use crate::resource::load_balancer::{Algorithm, BoundedLoad, HashOn, LoadBalancer, Prefer};
use crate::scalar::Percent;

/// Points of an endpoint on a ring.
const VIRTUAL_NODES: u32 = 4096;
/// What an endpoint may have in flight, in per cent of the mean.
const BOUNDED_LOAD: u32 = 125;
const AGGRESSION: f64 = 1.0;
const MIN_WEIGHT: Percent = Percent(10);
const MIN_HEALTHY: Percent = Percent(70);

/// The balancing part of a policy.
pub(super) struct Balancing {
    pub(super) load_balancer: v1::LoadBalancer,
    pub(super) hashing: Option<v1::Hashing>,
    pub(super) slow_start: Option<v1::SlowStart>,
    pub(super) locality: Option<v1::Locality>,
}

/// What no policy sets is filled in.
pub(super) fn balancing(policy: &LoadBalancer) -> Balancing {
    let algorithm = policy.algorithm.unwrap_or_default();
    let load_balancer = match algorithm {
        Algorithm::PeakEwma => v1::LoadBalancer::PeakEwma,
        Algorithm::LeastRequest => v1::LoadBalancer::LeastRequest,
        Algorithm::RoundRobin => v1::LoadBalancer::RoundRobin,
        Algorithm::Random => v1::LoadBalancer::Random,
        Algorithm::RingHash => v1::LoadBalancer::RingHash,
        Algorithm::Maglev => v1::LoadBalancer::Maglev,
    };
    let hashes = algorithm.hashes();
    Balancing {
        load_balancer,
        hashing: hashes.then(|| hashing(policy, algorithm)),
        slow_start: slow_start(policy).filter(|_| !hashes),
        locality: locality(policy).filter(|_| !hashes),
    }
}

fn hashing(policy: &LoadBalancer, algorithm: Algorithm) -> v1::Hashing {
    let nodes = policy.virtual_nodes.unwrap_or(VIRTUAL_NODES);
    v1::Hashing {
        on: policy.hash.iter().flatten().map(hash_on).collect(),
        bounded_load: match policy.bounded_load {
            None => BOUNDED_LOAD,
            Some(BoundedLoad::Off) => 0,
            Some(BoundedLoad::Percent(percent)) => percent,
        },
        virtual_nodes: match algorithm {
            Algorithm::RingHash => nodes,
            _ => 0,
        },
    }
}

fn hash_on(on: &HashOn) -> v1::HashOn {
    use v1::hash_on::On;
    let on = match on {
        HashOn::Header(name) => On::Header(name.to_ascii_lowercase()),
        HashOn::Cookie(cookie) => On::Cookie(v1::AffinityCookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(|ttl| span(ttl.0)),
            path: cookie.path.clone().unwrap_or_default(),
        }),
        HashOn::SourceIp(_) => On::SourceIp(true),
        HashOn::Query(name) => On::Query(name.clone()),
    };
    v1::HashOn { on: Some(on) }
}

fn slow_start(policy: &LoadBalancer) -> Option<v1::SlowStart> {
    let slow_start = &policy.slow_start;
    let window = slow_start.window.filter(|window| !window.0.is_zero())?;
    Some(v1::SlowStart {
        window: Some(span(window.0)),
        aggression: slow_start.aggression.unwrap_or(AGGRESSION),
        min_weight_percent: slow_start.min_weight_percent.unwrap_or(MIN_WEIGHT).0.into(),
    })
}

fn locality(policy: &LoadBalancer) -> Option<v1::Locality> {
    let locality = &policy.locality;
    let wanted = match locality.prefer {
        Some(prefer) => prefer == Prefer::Zone,
        None => locality.min_healthy_percent.is_some(),
    };
    wanted.then(|| v1::Locality {
        min_healthy_percent: locality.min_healthy_percent.unwrap_or(MIN_HEALTHY).0.into(),
    })
}
