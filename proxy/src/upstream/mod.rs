//! The way to a service: its endpoints with their live state, the worker's
//! connections to each, and how a request travels there. The application
//! beside us is such a service too, with one endpoint and no breaker.

pub mod checks;
pub mod connect;
mod counted;
pub mod events;
pub mod expiry;
pub mod failure;
pub mod http2;
pub mod pool;

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::Version;
use http::uri::Authority;
use selvage_policy::affinity;
use selvage_policy::balance::{self, Ask, NoHealthyEndpoint, Picked, Turns};
use selvage_policy::endpoint::EndpointState;
use selvage_policy::hedge::{HedgePolicy, Hedging};
use selvage_policy::mirror::MirrorPolicy;
use selvage_policy::rotation::Rotation;
use selvage_policy::service::ServiceState;
use selvage_policy::snapshot::{Protocol, Service, ServicePort, TrafficPolicy};

use crate::http::head::{Asked, Hop};
use crate::telemetry::metrics::{DestinationSeries, HttpSeries, TcpSeries};

use self::connect::ConnectError;
use self::events::Events;
use self::pool::{Lease, Opening, Pool};

/// One port of a service as one worker calls it, by itself or by way of a route.
#[derive(Debug)]
pub struct Destination {
    /// The service.
    pub service: Arc<Service>,
    /// Its port, with its endpoints.
    pub port: Arc<ServicePort>,
    /// How it is called: the service's own policy, or that of a route.
    pub policy: Arc<TrafficPolicy>,
    /// `namespace/name/rule` of the route that leads here, or `default`.
    pub route: Arc<str>,
    /// Who gets copies, beside the policy's own mirror.
    pub mirrors: Box<[Arc<MirrorPolicy>]>,
    /// Of its requests that could be hedged, where a route says how.
    pub hedging: Option<Arc<Hedging>>,
    /// Limits and budget, shared by the workers.
    pub live: Arc<ServiceState>,
    /// Beside `port.endpoints`, in their order.
    pub states: Rc<[Arc<EndpointState>]>,
    /// This worker's connections, in the same order.
    pub pools: Rc<[Rc<Pool>]>,
    /// Those of the endpoints that are offered, to pick from.
    pub rotation: Arc<Rotation>,
    /// Whose turn it is at this worker, where endpoints take turns.
    pub turns: Rc<RefCell<Turns>>,
    /// `host:port` for requests that name none.
    pub authority: Authority,
    /// `namespace/service`.
    pub label: Arc<str>,
    /// What its requests are counted in.
    pub http: Arc<HttpSeries>,
    /// What its connections are counted in.
    pub tcp: Arc<TcpSeries>,
    /// Retries and transitions.
    pub series: Arc<DestinationSeries>,
    /// What its policy does beside sending requests.
    pub events: Events,
}

/// How a request reaches an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// What is spoken.
    pub hop: Hop,
    /// On a connection that served nothing before and serves nothing after.
    pub alone: bool,
    /// Another sidecar is at the other end: its word is believed.
    pub mesh: bool,
}

impl Destination {
    /// How callers treat it.
    #[must_use]
    pub fn policy(&self) -> &Arc<TrafficPolicy> {
        &self.policy
    }

    /// What is known of its requests that could be hedged.
    pub fn hedging(&self, policy: &HedgePolicy, now: Instant) -> &Hedging {
        match &self.hedging {
            Some(hedging) => hedging,
            None => self.live.hedging(policy, now),
        }
    }

    /// Chooses the endpoint of the next try.
    pub fn pick(
        &self,
        ask: Ask<'_>,
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Result<Picked, NoHealthyEndpoint> {
        let mut turns = self.turns.borrow_mut();
        balance::pick_for(&self.rotation, ask, Some(&mut turns), now, rng)
    }

    /// The endpoint that a session stays with, if it may be asked.
    #[must_use]
    pub fn pinned(&self, index: usize, now: Instant) -> Option<Picked> {
        let endpoint = self.port.endpoints.get(index)?;
        balance::pick_pinned(endpoint, &self.states[index], index, now)
    }

    /// The key of a connection of opaque bytes, where endpoints are chosen by one.
    #[must_use]
    pub fn key_of_connection(&self, source: IpAddr) -> Option<u64> {
        let hashing = self.policy().balancer.algorithm.hashing()?;
        affinity::of_connection(&hashing.on, source)
    }

    /// How a request travels to the endpoint at `index`.
    #[must_use]
    pub fn way(&self, index: usize, asked: &Asked) -> Way {
        let mesh = self.port.endpoints[index].key.identity.is_some();
        // What HTTP/2 cannot carry through: upgrades, and interim answers.
        let http1_only =
            asked.upgrade.is_some() || asked.expects_continue || self.pools[index].is_http1_only();
        let hop = match (mesh, self.port.protocol) {
            (true, _) if http1_only => Hop::Http1,
            (true, _) => Hop::MeshHttp2,
            (false, Protocol::Http2 | Protocol::Grpc) => Hop::PlainHttp2,
            (false, Protocol::Detect) if asked.version == Version::HTTP_2 => Hop::PlainHttp2,
            (false, Protocol::Http | Protocol::Detect | Protocol::Tcp) => Hop::Http1,
        };
        Way {
            hop,
            alone: asked.upgrade.is_some(),
            mesh,
        }
    }

    /// A connection to the endpoint at `index` that is there already.
    #[must_use]
    pub fn lease_at_once(&self, index: usize, way: Way) -> Option<Lease> {
        let pool = &self.pools[index];
        match way.hop {
            Hop::Http1 if way.alone => None,
            Hop::Http1 => pool.idle_http1(),
            Hop::MeshHttp2 | Hop::PlainHttp2 => pool.stream(&self.opening()),
        }
    }

    /// A connection to the endpoint at `index`, opened for it.
    pub async fn lease(&self, index: usize, way: Way) -> Result<Lease, ConnectError> {
        let opening = self.opening();
        let pool = &self.pools[index];
        match way.hop {
            Hop::Http1 => pool.fresh_http1(&opening).await,
            Hop::MeshHttp2 | Hop::PlainHttp2 => pool.http2(&opening).await,
        }
    }

    fn opening(&self) -> Opening<'_> {
        Opening {
            timeout: self.policy().timeouts.connect,
            limits: &self.policy().limits,
            live: &self.live,
        }
    }
}
