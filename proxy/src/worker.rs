//! One worker: a thread with its own connections, pools and caches. What it
//! shares with the others stands in [`Shared`]; everything else is its own, so
//! that a request takes no lock and wakes no other thread.

mod routes;
mod shared;
mod streams;

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::uri::Authority;
use selvage_certs::SpiffeId;
use selvage_policy::authority::{self, InvalidAuthority};
use selvage_policy::authorize::AuthorizationPolicy;
use selvage_policy::breaker::Transition;
use selvage_policy::flag::Flag;
use selvage_policy::route::StreamRoute;
use selvage_policy::route::weights::Turns;
use selvage_policy::said::Ignored;
use selvage_policy::snapshot::{Endpoint, EndpointKey, ServiceName};
use selvage_policy::table::{LivePort, LiveService};

pub use self::routes::Ruled;
pub use self::shared::{AppPort, Settings, Shared, application};
use crate::accept::Purpose;
use crate::discovery::{Missing, View};
use crate::error::ProxyError;
use crate::lifecycle::Direction;
use crate::telemetry::metrics::{Counter, Decision, HttpSeries, TcpSeries};
use crate::timers::Timers;
use crate::upstream::Destination;
use crate::upstream::connect::Peer;
use crate::upstream::events::Events;
use crate::upstream::pool::Pool;

/// Authorities remembered per worker; beyond it the cache starts anew.
const AUTHORITIES: usize = 4096;
/// Callers remembered per worker, for the handles of their series.
const CALLERS: usize = 4096;
/// How often idle connections are looked for.
const TIDY: Duration = Duration::from_secs(5);
/// More than the allocator keeps for later, so that it goes back at once.
const NUDGE: usize = 4 << 20;
/// The route of a request that no route resource matched.
pub const DEFAULT_ROUTE: &str = "default";

/// `namespace/name` of what decided; `default` where no policy did.
#[must_use]
pub fn policy_name(policy: Option<&AuthorizationPolicy>) -> String {
    policy.map_or_else(
        || "default".to_owned(),
        |policy| format!("{}/{}", policy.namespace, policy.name),
    )
}

/// What a worker resolved under one view, until the view changes.
#[derive(Default)]
struct Resolved {
    view: Option<Arc<View>>,
    authorities: HashMap<Box<str>, Rc<Destination>>,
    ports: HashMap<(ServiceName, u16), Rc<Destination>>,
    /// What listeners are for: a few of them.
    named: Vec<(ServiceName, Option<u16>, Rc<Destination>)>,
    decisions: HashMap<(Decision, usize), Arc<Counter>>,
    /// Routes of whole connections, by their addresses.
    streams: HashMap<usize, (Arc<StreamRoute>, Turns)>,
    /// Rules that were met, by their addresses.
    rules: HashMap<usize, Rc<Ruled>>,
}

fn no_view() -> ProxyError {
    ProxyError::new(Flag::NotReady, "no snapshot yet")
}

/// See the module.
pub struct Worker {
    /// Its number, for its cells of the metrics.
    pub index: usize,
    /// What it shares.
    pub shared: Arc<Shared>,
    /// Timers for its requests.
    pub timers: Timers,
    rng: RefCell<fastrand::Rng>,
    resolved: RefCell<Resolved>,
    pools: RefCell<HashMap<EndpointKey, Rc<Pool>>>,
    apps: Vec<Rc<Destination>>,
    callers: RefCell<HashMap<Option<SpiffeId>, Rc<CallerSeries>>>,
    own_label: Arc<str>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

/// What the traffic of one caller is counted in, on the inbound side.
#[derive(Debug)]
pub struct CallerSeries {
    /// `namespace/serviceAccount`, `-` where unknown.
    pub source: Arc<str>,
    /// Requests.
    pub http: Arc<HttpSeries>,
    /// Connections of opaque bytes.
    pub tcp: Arc<TcpSeries>,
}

impl Worker {
    /// A worker with nothing open.
    #[must_use]
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let label: Arc<str> =
            format!("{}/{}", shared.workload.namespace, shared.workload.service).into();
        let mut worker = Self {
            index,
            timers: Timers::default(),
            rng: RefCell::new(fastrand::Rng::new()),
            resolved: RefCell::default(),
            pools: RefCell::default(),
            apps: Vec::new(),
            callers: RefCell::default(),
            own_label: label,
            shared,
        };
        let shared = worker.shared.clone();
        worker.apps = shared
            .apps
            .iter()
            .filter_map(|app| {
                app.ports
                    .first()
                    .map(|port| Rc::new(worker.build(app, port, Direction::Inbound)))
            })
            .collect();
        Rc::new(worker)
    }

    /// Draws from the worker's own random source.
    pub fn with_rng<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.rng.borrow_mut())
    }

    /// `namespace/service` of ours.
    #[must_use]
    pub const fn own_label(&self) -> &Arc<str> {
        &self.own_label
    }

    /// The view of now.
    ///
    /// # Errors
    /// `not-ready` before the first.
    pub fn view(&self) -> Result<Arc<View>, ProxyError> {
        self.current()?;
        let resolved = self.resolved.borrow();
        resolved.view.clone().ok_or_else(no_view)
    }

    /// Sees to it that what was resolved is of the view of now.
    fn current(&self) -> Result<(), ProxyError> {
        let mut resolved = self.resolved.borrow_mut();
        if let Some(view) = &resolved.view
            && self.shared.discovery.is_current(view)
        {
            return Ok(());
        }
        let view = self.shared.discovery.view();
        let there = view.is_some();
        if let Some(view) = &view {
            self.shared.protect(&view.snapshot);
        }
        *resolved = Resolved {
            view,
            ..Resolved::default()
        };
        if there { Ok(()) } else { Err(no_view()) }
    }

    /// The destination of a request, if it is known under the view of now.
    ///
    /// # Errors
    /// `not-ready` before the first view.
    pub fn known(
        &self,
        purpose: &Purpose,
        authority: Option<&Authority>,
    ) -> Result<Option<Rc<Destination>>, ProxyError> {
        self.current()?;
        let resolved = self.resolved.borrow();
        Ok(match purpose {
            Purpose::Upstream { service, port } => resolved
                .named
                .iter()
                .find(|known| known.0 == *service && known.1 == *port)
                .map(|known| known.2.clone()),
            Purpose::Outbound | Purpose::Inbound | Purpose::Gateway(_) => authority
                .and_then(|authority| resolved.authorities.get(authority.as_str()))
                .cloned(),
        })
    }

    /// The destination an authority names, for the listener on `listener_port`.
    pub async fn by_authority(
        &self,
        authority: Option<&Authority>,
        listener_port: u16,
    ) -> Result<Rc<Destination>, ProxyError> {
        self.view()?;
        let Some(authority) = authority else {
            return Err(ProxyError::new(
                Flag::BadRequest,
                "no authority to route by",
            ));
        };
        if let Some(known) = self.resolved.borrow().authorities.get(authority.as_str()) {
            return Ok(known.clone());
        }
        let target = authority::parse(authority.as_str(), &self.shared.workload.namespace)
            .map_err(|error| match error {
                InvalidAuthority::NotAService => {
                    ProxyError::new(Flag::NoService, "the authority names no service")
                }
                InvalidAuthority::Malformed(why) => ProxyError::new(Flag::BadRequest, why),
            })?;
        let live = self.find(&target.name).await?;
        let port = authority::choose_port(&live.service, target.port, listener_port)
            .map(|port| port.port)
            .ok_or_else(|| ProxyError::new(Flag::NoService, "the service has no such port"))?;
        let destination = self.destination(&live, port)?;
        if self.is_live(&target.name, &live)? {
            let mut resolved = self.resolved.borrow_mut();
            if resolved.authorities.len() >= AUTHORITIES {
                resolved.authorities.clear();
            }
            resolved
                .authorities
                .insert(authority.as_str().into(), destination.clone());
        }
        Ok(destination)
    }

    /// The destination a listener is for.
    pub async fn by_name(
        &self,
        service: &ServiceName,
        port: Option<u16>,
    ) -> Result<Rc<Destination>, ProxyError> {
        let live = self.find(service).await?;
        let chosen = authority::choose_port(&live.service, port, 0)
            .map(|port| port.port)
            .ok_or_else(|| ProxyError::new(Flag::NoService, "the service has no such port"))?;
        let destination = self.destination(&live, chosen)?;
        if self.is_live(service, &live)? {
            let mut resolved = self.resolved.borrow_mut();
            resolved
                .named
                .retain(|known| known.0 != *service || known.1 != port);
            resolved
                .named
                .push((service.clone(), port, destination.clone()));
        }
        Ok(destination)
    }

    /// The view may have changed while a service was waited for.
    fn is_live(&self, name: &ServiceName, live: &Arc<LiveService>) -> Result<bool, ProxyError> {
        let view = self.view()?;
        let now = view.live.service(name);
        Ok(now.is_some_and(|now| Arc::ptr_eq(now, live)))
    }

    async fn find(&self, service: &ServiceName) -> Result<Arc<LiveService>, ProxyError> {
        self.shared
            .discovery
            .service(service)
            .await
            .map_err(|missing| match missing {
                Missing::NoService => ProxyError::new(Flag::NoService, "no such service"),
                Missing::NotReady => {
                    ProxyError::new(Flag::NotReady, "the service is not known yet")
                }
            })
    }

    fn destination(
        &self,
        live: &Arc<LiveService>,
        port: u16,
    ) -> Result<Rc<Destination>, ProxyError> {
        self.view()?;
        let key = (live.service.name.clone(), port);
        if let Some(known) = self.resolved.borrow().ports.get(&key)
            && Arc::ptr_eq(&known.service, &live.service)
        {
            return Ok(known.clone());
        }
        let live_port = live
            .port(port)
            .ok_or_else(|| ProxyError::new(Flag::NoService, "the service has no such port"))?;
        if live_port
            .port
            .endpoints
            .iter()
            .any(|endpoint| self.is_own(endpoint.key.address))
        {
            return Err(ProxyError::new(
                Flag::Loop,
                "an endpoint is one of our own outbound listeners",
            ));
        }
        let destination = Rc::new(self.build(live, live_port, Direction::Outbound));
        self.resolved
            .borrow_mut()
            .ports
            .insert(key, destination.clone());
        Ok(destination)
    }

    fn is_own(&self, address: SocketAddr) -> bool {
        self.shared.own.load().iter().any(|bound| {
            *bound == address
                || (bound.port() == address.port()
                    && address.ip().is_loopback()
                    && bound.ip().is_unspecified())
        })
    }

    fn build_pool(&self, endpoint: &Endpoint, idle: Option<Duration>) -> Rc<Pool> {
        let pool = self.pool(endpoint);
        pool.set_idle(idle);
        pool
    }

    fn pool(&self, endpoint: &Endpoint) -> Rc<Pool> {
        let key = &endpoint.key;
        if let Some(pool) = self.pools.borrow().get(key) {
            return pool.clone();
        }
        let pool = Pool::new(
            Peer::of(key),
            self.shared.identity.clone(),
            self.shared.metrics.clone(),
            self.index,
        );
        self.pools.borrow_mut().insert(key.clone(), pool.clone());
        pool
    }

    fn build(&self, live: &LiveService, port: &LivePort, direction: Direction) -> Destination {
        let ServiceName { namespace, name } = &live.service.name;
        let label: Arc<str> = format!("{namespace}/{name}").into();
        let metrics = &self.shared.metrics;
        let source = match direction {
            // Callers have series of their own, see `caller`.
            Direction::Inbound => "-",
            Direction::Outbound => &self.own_label,
        };
        let authority = format!("{name}.{namespace}:{}", port.port.port);
        Destination {
            authority: Authority::try_from(authority)
                .unwrap_or_else(|_| Authority::from_static("service")),
            service: live.service.clone(),
            port: port.port.clone(),
            live: live.state.clone(),
            policy: live.service.policy.clone(),
            route: DEFAULT_ROUTE.into(),
            mirrors: Box::default(),
            hedging: None,
            states: port.states.as_slice().into(),
            rotation: port.rotation.clone(),
            turns: Default::default(),
            pools: port
                .port
                .endpoints
                .iter()
                .map(|endpoint| self.build_pool(endpoint, live.service.policy.timeouts.idle))
                .collect(),
            http: metrics.http(direction, source, &label, DEFAULT_ROUTE),
            tcp: metrics.tcp(direction, source, &label),
            series: metrics.destination(&label),
            events: Events::of(&live.service.policy, false, metrics, &label),
            label,
        }
    }

    /// The application's port: the one that is named, or the only one.
    #[must_use]
    pub fn app(&self, service_port: Option<u16>) -> Option<&Rc<Destination>> {
        match service_port {
            Some(port) => self.apps.iter().find(|app| app.port.port == port),
            None => match self.apps.as_slice() {
                [only] => Some(only),
                _ => None,
            },
        }
    }

    /// What the traffic of an inbound caller is counted in.
    #[must_use]
    pub fn caller(&self, peer: Option<&SpiffeId>) -> Rc<CallerSeries> {
        let mut callers = self.callers.borrow_mut();
        if let Some(known) = callers.get(&peer.cloned()) {
            return known.clone();
        }
        if callers.len() >= CALLERS {
            callers.clear();
        }
        let source: Arc<str> =
            match peer.and_then(|id| Some((id.namespace()?, id.service_account()?))) {
                Some((namespace, account)) => format!("{namespace}/{account}").into(),
                None => "-".into(),
            };
        let metrics = &self.shared.metrics;
        let own = &self.own_label;
        let series = Rc::new(CallerSeries {
            http: metrics.http(Direction::Inbound, &source, own, DEFAULT_ROUTE),
            tcp: metrics.tcp(Direction::Inbound, &source, own),
            source,
        });
        callers.insert(peer.cloned(), series.clone());
        series
    }

    /// Counts a decision of authorization, made by a policy of the view of now.
    pub fn count_decision(&self, decision: Decision, policy: Option<&AuthorizationPolicy>) {
        let mut resolved = self.resolved.borrow_mut();
        // Its address stands for it as long as the view does.
        let key = (
            decision,
            policy.map_or(0, |policy| std::ptr::from_ref(policy).addr()),
        );
        let counter = resolved.decisions.entry(key).or_insert_with(|| {
            let name = policy_name(policy);
            self.shared
                .metrics
                .authorization(&self.own_label, decision, &name)
        });
        counter.inc(self.index);
    }

    /// Counts a field that said nonsense.
    pub fn ignores(&self, field: Ignored) {
        self.shared.metrics.header_ignored(self.index, field);
    }

    /// Counts, logs and keeps a breaker's transition.
    pub fn note(&self, destination: &Destination, endpoint: &EndpointKey, transition: Transition) {
        destination.series.transition(self.index, transition.to);
        self.shared.journal.note(endpoint, transition);
    }

    /// Closes idle connections, and forgets endpoints that left, for as long
    /// as it is polled.
    pub async fn tidy(self: Rc<Self>) {
        // What was gone over last: the view, and how many pools were left.
        let mut seen = (Weak::<View>::new(), 0);
        loop {
            tokio::time::sleep(TIDY).await;
            // The allocator gives pages back only while it is at work. After a burst nobody
            // may call it for long: a block that is never touched is work enough.
            drop(std::hint::black_box(Vec::<u8>::with_capacity(NUDGE)));
            let mut pools = self.pools.borrow_mut();
            for pool in pools.values() {
                pool.tidy();
            }
            let Ok(view) = self.view() else { continue };
            // Under the same view only a pool that came since can be of an endpoint that left.
            if std::ptr::eq(seen.0.as_ptr(), Arc::as_ptr(&view)) && seen.1 == pools.len() {
                continue;
            }
            pools.retain(|key, _| {
                let known = view
                    .live
                    .service(&key.service)
                    .and_then(|live| live.port(key.port));
                known.is_some_and(|port| {
                    let endpoints = &port.port.endpoints;
                    // They are in the order of their keys.
                    let found = endpoints.binary_search_by(|endpoint| endpoint.key.cmp(key));
                    found.is_ok()
                }) || self.apps.iter().any(|app| app.states[0].key() == key)
            });
            seen = (Arc::downgrade(&view), pools.len());
        }
    }
}
