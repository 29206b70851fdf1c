//! What the tests of this package share: a fixed point in time, a seeded
//! random source, and small Snapshots. Nothing of it exists outside tests.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::test_runner::Config as ProptestConfig;
use selvage_certs::TrustDomain;

use crate::snapshot::{
    Endpoint, EndpointKey, InboundPolicy, Mesh, MutualTls, Protocol, Service, ServiceName,
    ServicePort, Snapshot, TrafficPolicy, WorkloadName,
};

/// The moment every test begins at.
#[allow(
    clippy::disallowed_methods,
    reason = "the only way to make a first Instant"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

thread_local! {
    static LOOKS: Cell<usize> = const { Cell::new(0) };
}

/// Counts a look at one endpoint, which is what a pick costs.
pub(crate) fn looked() {
    LOOKS.set(LOOKS.get() + 1);
}

/// The looks since this was last asked, by this thread.
pub(crate) fn looks() -> usize {
    LOOKS.take()
}

/// How many sequences of events a model of a state machine hears.
pub(crate) fn sequences() -> ProptestConfig {
    ProptestConfig {
        cases: 100_000,
        // What fails is shrunk and printed; it then belongs into a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

pub(crate) fn seeded() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

pub(crate) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(crate) fn key(n: u16) -> EndpointKey {
    EndpointKey {
        service: ServiceName::new("shop", "ratings"),
        port: 80,
        address: SocketAddr::from(([10, 0, 0, 1], 1000 + n)),
        identity: None,
    }
}

pub(crate) fn endpoint(n: u16, weight: u32, healthy: bool) -> Arc<Endpoint> {
    Arc::new(Endpoint {
        key: key(n),
        id: format!("shop/ratings-{n}").into(),
        weight,
        labels: BTreeMap::new(),
        healthy,
    })
}

pub(crate) fn service_port(port: u16, endpoints: Vec<Arc<Endpoint>>) -> Arc<ServicePort> {
    Arc::new(ServicePort {
        service: ServiceName::new("shop", "ratings"),
        port,
        protocol: Protocol::Http,
        endpoints,
        routes: None,
        streams: Vec::new(),
    })
}

pub(crate) fn service(ports: Vec<Arc<ServicePort>>) -> Arc<Service> {
    Arc::new(Service {
        name: ServiceName::new("shop", "ratings"),
        ports,
        policy: Arc::new(TrafficPolicy::default()),
    })
}

pub(crate) fn snapshot(services: Vec<Arc<Service>>) -> Snapshot {
    Snapshot {
        revision: 1,
        workload: WorkloadName {
            namespace: "shop".into(),
            name: "gateway-1".into(),
            service: "gateway".into(),
        },
        mesh: Mesh {
            trust_domain: TrustDomain::parse("mesh.local").expect("a trust domain"),
            mutual_tls: MutualTls::Strict,
            series_limit: 10_000,
        },
        inbound: InboundPolicy::default(),
        gateway: None,
        services: services
            .into_iter()
            .map(|s| (s.name.clone(), s))
            .collect::<HashMap<_, _>>(),
    }
}
