//! Rules of routes as one worker serves them: whose turn it is among their
//! backends, and each backend as a destination that shares endpoints, state,
//! connections and budget with its service, and has the rule's policy and label.
//! Made at a rule's first request, forgotten with the view.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use selvage_policy::authority;
use selvage_policy::flag::Flag;
use selvage_policy::mirror::MirrorPolicy;
use selvage_policy::route::session::{Tags, backend_tag};
use selvage_policy::route::weights::Turns;
use selvage_policy::route::{Filters, RouteBackend, RouteTarget, Rule};
use selvage_policy::server::Rates;
use selvage_policy::snapshot::Backend;

use super::Worker;
use super::shared::RuleRates;
use crate::clock;
use crate::error::ProxyError;
use crate::lifecycle::Direction;
use crate::telemetry::metrics::HttpSeries;
use crate::upstream::Destination;
use crate::upstream::events::Events;

/// Rules remembered per worker; beyond it the cache starts anew.
const RULES: usize = 16_384;

/// A rule at one worker. It keeps the rule, whose address it is known by.
#[derive(Debug)]
pub struct Ruled {
    /// The rule.
    pub rule: Arc<Rule>,
    turns: RefCell<Turns>,
    /// Beside the rule's backends.
    destinations: Box<[OnceCell<Rc<Destination>>]>,
    answers: OnceCell<Arc<HttpSeries>>,
    /// Whether it wants something of answers.
    pub dresses: bool,
    /// Where it has session persistence.
    sessions: Option<Sessions>,
    /// Where it limits how fast requests come in: shared by the workers.
    pub rates: Option<Arc<Rates>>,
}

/// How tokens name the backends of a rule, and the endpoints of each.
#[derive(Debug)]
struct Sessions {
    backends: Box<[Option<u64>]>,
    endpoints: Box<[OnceCell<Tags>]>,
}

impl Sessions {
    fn of(rule: &Rule) -> Self {
        let tag = |backend: &RouteBackend| match &backend.to {
            RouteTarget::Service(to) => Some(backend_tag(&rule.label, to)),
            RouteTarget::Invalid(_) => None,
        };
        Self {
            backends: rule.backends.iter().map(tag).collect(),
            endpoints: rule.backends.iter().map(|_| OnceCell::new()).collect(),
        }
    }
}

impl Ruled {
    fn new(rule: &Arc<Rule>, turns: Turns, rates: &RuleRates) -> Self {
        let wants =
            |filters: &Filters| filters.response_headers.is_some() || filters.cors.is_some();
        let backends = &rule.backends;
        let dresses = rule.session.is_some()
            || wants(&rule.filters)
            || backends.iter().any(|backend| wants(&backend.filters));
        Self {
            rule: rule.clone(),
            turns: RefCell::new(turns),
            destinations: backends.iter().map(|_| OnceCell::new()).collect(),
            answers: OnceCell::new(),
            dresses,
            sessions: rule.session.as_ref().map(|_| Sessions::of(rule)),
            rates: rule.rate_limit.as_ref().map(|_| rates.of(&rule.label)),
        }
    }

    /// How tokens name a backend that can be used.
    #[must_use]
    pub fn tag(&self, backend: usize) -> Option<u64> {
        self.sessions.as_ref()?.backends[backend]
    }

    /// The backend that a token names so, whatever its weight.
    #[must_use]
    pub fn tagged(&self, tag: u64) -> Option<usize> {
        let backends = &self.sessions.as_ref()?.backends;
        backends.iter().position(|own| *own == Some(tag))
    }

    /// The endpoint of a backend that a token names so.
    #[must_use]
    pub fn endpoint(&self, backend: usize, of: &Destination, tag: u64) -> Option<usize> {
        let known = &self.sessions.as_ref()?.endpoints[backend];
        known.get_or_init(|| Tags::of(&of.port.endpoints)).find(tag)
    }

    /// The index of the backend that is next; `None`: there is none, or none
    /// has any weight.
    #[must_use]
    pub fn next(&self) -> Option<usize> {
        self.turns.borrow_mut().take()
    }
}

fn invalid(detail: String) -> ProxyError {
    ProxyError::new(Flag::InvalidBackend, detail)
}

impl Worker {
    /// A rule of the view of now.
    #[must_use]
    pub fn ruled(&self, rule: &Arc<Rule>) -> Rc<Ruled> {
        let mut resolved = self.resolved.borrow_mut();
        let address = Arc::as_ptr(rule).addr();
        if let Some(known) = resolved.rules.get(&address) {
            return known.clone();
        }
        if resolved.rules.len() >= RULES {
            resolved.rules.clear();
        }
        let weights = rule.backends.iter().map(|backend| backend.weight);
        let turns = self.with_rng(|rng| Turns::begin(weights, rng));
        let ruled = Rc::new(Ruled::new(rule, turns, &self.shared.rates));
        resolved.rules.insert(address, ruled.clone());
        ruled
    }

    /// What requests of a rule that no service answers are counted in;
    /// `destination` is what they were for.
    #[must_use]
    pub fn answers<'r>(&self, ruled: &'r Ruled, destination: &str) -> &'r Arc<HttpSeries> {
        let (metrics, own) = (&self.shared.metrics, &self.own_label);
        let series = || metrics.http(Direction::Outbound, own, destination, &ruled.rule.label);
        ruled.answers.get_or_init(series)
    }

    /// A backend of a rule, if it is known already.
    ///
    /// # Errors
    /// `invalid-backend`.
    pub fn backend_at_once(
        &self,
        ruled: &Ruled,
        index: usize,
    ) -> Result<Option<Rc<Destination>>, ProxyError> {
        if let Some(known) = ruled.destinations[index].get() {
            return Ok(Some(known.clone()));
        }
        let backend = &ruled.rule.backends[index];
        let to = match &backend.to {
            RouteTarget::Service(to) => to,
            RouteTarget::Invalid(why) => return Err(invalid(why.to_string())),
        };
        let plain = self.settled(to)?;
        Ok(plain.map(|plain| self.keep(ruled, index, &plain)))
    }

    /// A backend of a rule, waited for.
    ///
    /// # Errors
    /// `invalid-backend` where it does not exist or speaks no HTTP,
    /// `not-ready` where nobody said so in time.
    pub async fn backend(
        &self,
        ruled: &Ruled,
        index: usize,
    ) -> Result<Rc<Destination>, ProxyError> {
        if let Some(known) = self.backend_at_once(ruled, index)? {
            return Ok(known);
        }
        let RouteTarget::Service(to) = &ruled.rule.backends[index].to else {
            return Err(invalid("it has no service".to_owned()));
        };
        let plain = self.target(to).await?;
        Ok(self.keep(ruled, index, &plain))
    }

    /// What a reference of a route leads to, waited for.
    ///
    /// # Errors
    /// See [`Self::backend`].
    pub async fn target(&self, to: &Backend) -> Result<Rc<Destination>, ProxyError> {
        let found = self.by_name(&to.service, to.port).await;
        found.map_err(|error| match error.flag {
            Flag::NoService => invalid(format!("{}: {}", to.service, error.detail)),
            _ => error,
        })
    }

    /// The same, if it is known under the view that the request began with.
    ///
    /// # Errors
    /// See [`Self::backend`].
    pub fn settled(&self, to: &Backend) -> Result<Option<Rc<Destination>>, ProxyError> {
        let live = {
            let resolved = self.resolved.borrow();
            let view = resolved.view.as_ref();
            view.and_then(|view| view.live.service(&to.service).cloned())
        };
        let Some(live) = live else {
            return Ok(None);
        };
        let port = authority::choose_port(&live.service, to.port, 0);
        let Some(port) = port.map(|port| port.port) else {
            return Err(invalid(format!("{} has no such port", to.service)));
        };
        self.destination(&live, port).map(Some)
    }

    fn keep(&self, ruled: &Ruled, index: usize, plain: &Destination) -> Rc<Destination> {
        let made = || Rc::new(self.by_way_of(&ruled.rule, &ruled.rule.backends[index], plain));
        ruled.destinations[index].get_or_init(made).clone()
    }

    /// A destination as a rule leads to it.
    fn by_way_of(&self, rule: &Rule, backend: &RouteBackend, plain: &Destination) -> Destination {
        let own = &plain.service.policy;
        let policy = backend.policy.as_ref().unwrap_or(own).clone();
        let mirrors: Box<[Arc<MirrorPolicy>]> = {
            let (rules, own) = (&rule.filters.mirrors, &backend.filters.mirrors);
            rules.iter().chain(own).cloned().collect()
        };
        let hedging = policy
            .hedge
            .as_ref()
            .filter(|hedge| own.hedge.as_ref() != Some(hedge))
            .map(|hedge| {
                let now = clock::recent().into_std();
                plain.live.hedging_of(&rule.label, hedge, now)
            });
        let metrics = &self.shared.metrics;
        let (own, to) = (&self.own_label, &plain.label);
        Destination {
            http: metrics.http(Direction::Outbound, own, to, &rule.label),
            events: Events::of(&policy, !mirrors.is_empty(), metrics, to),
            policy,
            route: rule.label.clone(),
            mirrors,
            hedging,
            service: plain.service.clone(),
            port: plain.port.clone(),
            live: plain.live.clone(),
            states: plain.states.clone(),
            pools: plain.pools.clone(),
            rotation: plain.rotation.clone(),
            turns: plain.turns.clone(),
            authority: plain.authority.clone(),
            label: plain.label.clone(),
            tcp: plain.tcp.clone(),
            series: plain.series.clone(),
        }
    }
}
