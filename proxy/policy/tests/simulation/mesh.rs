//! A mesh of one service, its callers' proxies and their load; what a scenario
//! sets up, runs to its end, and asks.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use selvage_certs::TrustDomain;
use selvage_policy::snapshot::{
    BackoffPolicy, Endpoint, EndpointKey, InboundPolicy, Mesh as MeshSettings, MutualTls, Protocol,
    RetryOn, RetryPolicy, Service, ServiceName, ServicePort, Snapshot, TrafficPolicy, WorkloadName,
};

use crate::client::{Call, Calls, Load, calls};
use crate::clock::Clock;
use crate::network::Link;
use crate::proxy::Proxy;
use crate::server::{Plan, Server};

/// The port of the service.
pub(crate) const PORT: u16 = 80;
/// After the last request is sent, for what is in flight.
const REST: Duration = Duration::from_secs(5);

/// The name of the service that is called.
pub(crate) fn service_name() -> ServiceName {
    ServiceName::new("shop", "ratings")
}

pub(crate) const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub(crate) const fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Two retries of what may be repeated, each try within 250 ms.
pub(crate) fn retries() -> TrafficPolicy {
    let statuses = [
        StatusCode::BAD_GATEWAY,
        StatusCode::SERVICE_UNAVAILABLE,
        StatusCode::GATEWAY_TIMEOUT,
    ];
    let idempotent = [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::PUT,
        Method::DELETE,
    ];
    let mut policy = TrafficPolicy {
        retry: Some(RetryPolicy {
            attempts: 2,
            on: RetryOn {
                connect_failure: true,
                reset: true,
                timeout: true,
                statuses: statuses.into(),
                grpc_statuses: Vec::new(),
            },
            methods: idempotent.into(),
            backoff: BackoffPolicy {
                base: millis(25),
                max: millis(250),
            },
            buffer_limit: 64 * 1024,
        }),
        ..TrafficPolicy::default()
    };
    policy.timeouts.backend_request = Some(millis(250));
    policy
}

/// Where each run of the simulator begins; the one look at a clock.
#[allow(
    clippy::disallowed_methods,
    reason = "the only way to make a first Instant"
)]
pub(crate) fn start() -> Instant {
    Instant::now()
}

/// A service and its callers.
pub(crate) struct Mesh {
    pub(crate) clock: Clock,
    pub(crate) servers: Vec<Rc<Server>>,
    pub(crate) proxies: Vec<Rc<Proxy>>,
    calls: Calls,
    seed: u64,
}

impl Mesh {
    /// As many callers' proxies as asked, of one service with a server per plan.
    pub(crate) fn new(seed: u64, policy: &TrafficPolicy, callers: usize, plans: &[Plan]) -> Self {
        let clock = Clock::new(start());
        let servers: Vec<_> = (0u64..)
            .zip(plans)
            .map(|(n, plan)| {
                let plan = plan.clone();
                Server::new(
                    &clock,
                    address(0, n as u16),
                    plan,
                    None,
                    seed_of(seed, 1, n),
                )
            })
            .collect();
        let proxies = (0..callers)
            .map(|n| proxy_of(&clock, n, policy, &servers, seed_of(seed, 2, n as u64)))
            .collect();
        Self {
            clock,
            servers,
            proxies,
            calls: Calls::default(),
            seed,
        }
    }

    /// Lets every caller send `load` until `end`, and what is in flight end.
    pub(crate) fn run(self, load: &Load, end: Duration) -> Outcome {
        for (n, proxy) in (0u64..).zip(&self.proxies) {
            let seed = seed_of(self.seed, 3, n);
            let (clock, calls_) = (self.clock.clone(), Rc::clone(&self.calls));
            let caller = calls(clock, Rc::clone(proxy), load.clone(), end, calls_, seed);
            self.clock.spawn(caller);
        }
        self.clock.run(self.clock.at(end + REST));
        let mut made = self.calls.take();
        made.sort_by_key(|call| call.at);
        Outcome {
            calls: made,
            servers: self.servers,
            proxies: self.proxies,
        }
    }
}

/// A run that has ended.
pub(crate) struct Outcome {
    /// Every call that ended, in the order they were sent.
    pub(crate) calls: Vec<Call>,
    pub(crate) servers: Vec<Rc<Server>>,
    pub(crate) proxies: Vec<Rc<Proxy>>,
}

/// A caller's proxy of a service with these servers.
pub(crate) fn proxy_of(
    clock: &Clock,
    number: usize,
    policy: &TrafficPolicy,
    servers: &[Rc<Server>],
    seed: u64,
) -> Rc<Proxy> {
    let links: HashMap<SocketAddr, Rc<Link>> = (0u64..)
        .zip(servers)
        .map(|(n, server)| {
            let link = Link::new(clock, server, seed_of(seed, 4, n));
            (server.address, link)
        })
        .collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    Proxy::new(clock, number, &snapshot(policy, &addresses), links, seed)
}

/// The address of the `n`th server of the `hop`th service.
pub(crate) fn address(hop: u8, n: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, hop, 1], 1000 + n))
}

/// A random source of its own for each actor.
pub(crate) const fn seed_of(seed: u64, kind: u64, n: u64) -> u64 {
    (seed * 8 + kind) * 65_536 + n
}

/// What proxies know of the service.
pub(crate) fn snapshot(policy: &TrafficPolicy, addresses: &[SocketAddr]) -> Snapshot {
    let endpoints = addresses.iter().map(|address| {
        Arc::new(Endpoint {
            key: EndpointKey {
                service: service_name(),
                port: PORT,
                address: *address,
                identity: None,
            },
            id: address.to_string().into(),
            weight: 1,
            labels: BTreeMap::new(),
            healthy: true,
        })
    });
    let port = ServicePort {
        service: service_name(),
        port: PORT,
        protocol: Protocol::Http,
        endpoints: endpoints.collect(),
        routes: None,
        streams: Vec::new(),
    };
    let service = Service {
        name: service_name(),
        ports: vec![Arc::new(port)],
        policy: Arc::new(policy.clone()),
    };
    Snapshot {
        revision: 1,
        workload: WorkloadName {
            namespace: "shop".into(),
            name: "caller".into(),
            service: "caller".into(),
        },
        mesh: MeshSettings {
            trust_domain: TrustDomain::parse("mesh.local").expect("a trust domain"),
            mutual_tls: MutualTls::Strict,
            series_limit: 10_000,
        },
        inbound: InboundPolicy::default(),
        services: HashMap::from([(service.name.clone(), Arc::new(service))]),
        gateway: None,
    }
}
