//! Protecting the server: how much one port of this workload takes on, and
//! from whom.
//!
//! Met by an inbound request that is authorized, before the application is
//! asked, in this order: the caller's own compartment (`Bulkhead`), the rate
//! limit (`Rate`, `KeyTable`), a place among those that are at the
//! application (`Slots`, whose limit is fixed or found by `gradient`), and
//! where there is none, a wait for it (`queue`), by `Criticality`. What is
//! held is held until the response has ended.
//!
//! The state is one per port and proxy, shared by the workers, and outlives
//! every Snapshot; the policy is an argument. Where nothing waits nothing is
//! allocated, and no lock is taken but by the request that ends a window, or a
//! reserve.

mod bulkhead;
mod criticality;
mod gradient;
mod keyed;
mod queue;
mod rate;
mod rates;
mod slots;
#[cfg(test)]
mod tests;

use crate::sync::atomic::{AtomicU64, Ordering};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use selvage_certs::SpiffeId;

use self::bulkhead::Bulkhead;
use self::slots::{Entry, Place, Slots};
use crate::flag::Flag;

pub use self::bulkhead::{CallerLoad, CallerPlace};
pub use self::criticality::{CRITICALITY, Criticality, UnknownCriticality};
pub use self::gradient::AdaptivePolicy;
pub use self::keyed::KEYS;
pub use self::rate::Rate;
pub use self::rates::{Rates, Whose};

/// The policies of one workload's ports.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServerPolicies {
    /// Of ports that a policy names.
    pub ports: Vec<(u16, ServerPolicy)>,
    /// Of every other port.
    pub others: Option<ServerPolicy>,
}

impl ServerPolicies {
    /// What protects a port.
    #[must_use]
    pub fn of(&self, port: u16) -> Option<&ServerPolicy> {
        let named = self.ports.iter().find(|(named, _)| *named == port);
        named.map(|(_, policy)| policy).or(self.others.as_ref())
    }
}

/// What protects one port.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerPolicy {
    /// Requests over time.
    pub rate_limit: Option<RateLimit>,
    /// Requests at a time.
    pub concurrency: Concurrency,
    /// How many may wait for a place; `None`: a fourth of the limit, and at least ten.
    pub queue: Option<u32>,
    /// How long one waits.
    pub queue_timeout: Duration,
    /// Requests of one caller at a time, with those of it that wait.
    pub per_caller: Option<u32>,
}

impl Default for ServerPolicy {
    fn default() -> Self {
        Self {
            rate_limit: None,
            concurrency: Concurrency::Off,
            queue: None,
            queue_timeout: Duration::from_millis(50),
            per_caller: None,
        }
    }
}

/// Requests over time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimit {
    /// How many.
    pub rate: Rate,
    /// Of whom.
    pub key: RateKey,
}

/// Whose requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RateKey {
    /// All of them.
    None,
    /// Those of one SPIFFE identity. Callers without one are together.
    Identity,
    /// Those with one value of a header. Those without it are together.
    Header(HeaderName),
    /// Those of one client's address.
    SourceIp,
}

/// Requests at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concurrency {
    /// As many as come.
    Off,
    /// So many. Upgraded and opaque connections count as long as they last.
    Fixed {
        /// The limit.
        max: u32,
    },
    /// As many as the application does well with. An upgrade counts until its
    /// 101, opaque connections do not: they tell no time.
    Adaptive(AdaptivePolicy),
}

/// Why a request was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// Over its rate.
    RateLimited,
    /// Over the rate of all who found no place in the table.
    RateTableFull,
    /// Its caller has as many as it may.
    PerCaller,
    /// As many wait as may, and none of them matters less.
    QueueFull,
    /// It waited in vain.
    QueueTimeout,
    /// One that matters more took its place in the queue.
    Displaced,
}

impl Shed {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::RateLimited,
        Self::RateTableFull,
        Self::PerCaller,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::Displaced,
    ];

    /// The word of labels and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate-limited",
            Self::RateTableFull => "rate-table-full",
            Self::PerCaller => "per-caller",
            Self::QueueFull => "queue-full",
            Self::QueueTimeout => "queue-timeout",
            Self::Displaced => "displaced",
        }
    }

    /// What the caller is told.
    #[must_use]
    pub const fn flag(self) -> Flag {
        match self {
            Self::RateLimited | Self::RateTableFull => Flag::RateLimited,
            Self::PerCaller | Self::QueueFull | Self::QueueTimeout | Self::Displaced => {
                Flag::Overloaded
            }
        }
    }
}

/// A request that is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Why.
    pub why: Shed,
    /// When one like it would pass, where that is known.
    pub retry_after: Option<Duration>,
}

/// Who asks.
pub struct Asking<'a> {
    /// What its connection's caller has in flight; looked at where a policy bounds that.
    pub caller: &'a dyn Fn() -> CallerLoad,
    /// Whose it is.
    pub identity: Option<&'a SpiffeId>,
    /// The address it came from.
    pub source: Option<IpAddr>,
    /// Its headers; none for opaque bytes.
    pub headers: Option<&'a HeaderMap>,
    /// How much it matters.
    pub criticality: Criticality,
}

/// What is decided of a request that is not refused.
#[derive(Debug)]
pub enum Admission {
    /// It may go on.
    Admitted(Admitted),
    /// It may, once it has a place.
    Waits(Waits),
}

/// A request the application is busy with.
#[derive(Debug, Default)]
#[must_use = "its places are given back when this is dropped"]
pub struct Admitted {
    #[expect(dead_code, reason = "held for its drop")]
    caller: Option<CallerPlace>,
    place: Option<Place>,
}

/// A request that waits for its place. Dropped, it waits no longer.
#[derive(Debug)]
pub struct Waits {
    server: Arc<ServerState>,
    caller: Option<CallerPlace>,
    waiting: slots::Waiting,
    criticality: Criticality,
}

/// What is going on at one port.
#[derive(Debug)]
pub struct ServerState {
    rates: Rates,
    bulkhead: Bulkhead,
    slots: Arc<Slots>,
    sheds: [[AtomicU64; Criticality::ALL.len()]; Shed::ALL.len()],
}

/// A port's load, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerLoad {
    /// The limit of now; `None` where there is none.
    pub limit: Option<u32>,
    /// Requests that have a place.
    pub in_flight: u32,
    /// Requests that wait for one.
    pub queued: u32,
}

impl ServerState {
    /// A port that nobody has called. `epoch` is no later than any `now` that
    /// follows; `seed` is nobody else's to know.
    #[must_use]
    pub fn new(epoch: Instant, seed: u64) -> Self {
        Self {
            rates: Rates::new(epoch, seed),
            bulkhead: Bulkhead::default(),
            slots: Slots::new(epoch),
            sheds: Default::default(),
        }
    }

    /// Takes over the limit of a policy; called when a Snapshot comes.
    pub fn set_policy(&self, policy: Option<&ServerPolicy>) {
        let concurrency = policy.map_or(Concurrency::Off, |policy| policy.concurrency);
        self.slots.set_policy(concurrency);
    }

    /// What a caller has in flight. Takes a lock: once per connection.
    #[must_use]
    pub fn caller(&self, identity: Option<&SpiffeId>) -> CallerLoad {
        self.bulkhead.of(identity)
    }

    /// Decides on a request.
    ///
    /// # Errors
    /// Why it is turned away; it is counted.
    pub fn admit(
        self: &Arc<Self>,
        policy: &ServerPolicy,
        asking: &Asking<'_>,
        now: Instant,
    ) -> Result<Admission, Refused> {
        let refuse = |why, retry_after| {
            self.count(why, asking.criticality);
            Refused { why, retry_after }
        };
        let caller = match policy.per_caller {
            None => None,
            Some(most) => match (asking.caller)().admit(most) {
                None => return Err(refuse(Shed::PerCaller, None)),
                held => held,
            },
        };
        if let Some(limit) = &policy.rate_limit {
            let whose = Whose {
                identity: asking.identity,
                headers: asking.headers,
                source: asking.source,
            };
            self.rates
                .take(limit, &whose, now)
                .map_err(|over| refuse(over.why, over.retry_after))?;
        }
        let place = match (policy.concurrency, asking.headers) {
            (Concurrency::Off, _) | (Concurrency::Adaptive(_), None) => None,
            (Concurrency::Fixed { .. } | Concurrency::Adaptive(_), _) => {
                match self.slots.enter(policy, asking.criticality, now) {
                    Entry::Placed(place) => Some(place),
                    Entry::Shed(why) => return Err(refuse(why, None)),
                    Entry::Waits(waiting) => {
                        return Ok(Admission::Waits(Waits {
                            server: Arc::clone(self),
                            caller,
                            waiting,
                            criticality: asking.criticality,
                        }));
                    }
                }
            }
        };
        Ok(Admission::Admitted(Admitted { caller, place }))
    }

    fn count(&self, why: Shed, criticality: Criticality) {
        self.sheds[why as usize][criticality as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// What was turned away so far.
    #[must_use]
    pub fn shed(&self, why: Shed, criticality: Criticality) -> u64 {
        self.sheds[why as usize][criticality as usize].load(Ordering::Relaxed)
    }

    /// The load of now.
    #[must_use]
    pub fn load(&self) -> ServerLoad {
        let (limit, in_flight, queued) = self.slots.in_use();
        ServerLoad {
            limit: (limit != u32::MAX).then_some(limit),
            in_flight,
            queued,
        }
    }
}

impl fmt::Debug for Asking<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asking")
            .field("identity", &self.identity)
            .field("criticality", &self.criticality)
            .finish_non_exhaustive()
    }
}

impl Admitted {
    /// The head of the answer came, `took` after the application could have
    /// begun with it.
    pub fn answered(&mut self, took: Duration, now: Instant) {
        if let Some(place) = &mut self.place {
            place.answered(took, now);
        }
    }

    /// Its time says nothing: the application failed, or waited itself.
    pub fn says_nothing(&mut self) {
        if let Some(place) = &mut self.place {
            place.says_nothing();
        }
    }

    /// It was given up before there was an answer.
    pub fn given_up(&mut self, now: Instant) {
        if let Some(place) = &mut self.place {
            place.given_up(now);
        }
    }

    /// The request became a tunnel.
    pub fn tunnels(&mut self) {
        if self.place.as_ref().is_some_and(Place::is_adaptive) {
            self.place = None;
        }
    }
}

impl Waits {
    /// When it has waited long enough: then [`Waits::give_up`].
    #[must_use]
    pub const fn until(&self) -> Instant {
        self.waiting.until()
    }

    /// Whether it has its place, or lost it to another. Not called again after that.
    ///
    /// # Errors
    /// It was displaced.
    pub fn poll(&mut self, cx: &Context<'_>, now: Instant) -> Poll<Result<Admitted, Refused>> {
        let polled = self.waiting.poll(cx, now);
        polled.map(|decided| self.decide(decided))
    }

    /// Its time is over.
    ///
    /// # Errors
    /// It has no place.
    pub fn give_up(&mut self, now: Instant) -> Result<Admitted, Refused> {
        let decided = self.waiting.give_up(now);
        self.decide(decided)
    }

    fn decide(&mut self, decided: Result<Place, Shed>) -> Result<Admitted, Refused> {
        match decided {
            Ok(place) => Ok(Admitted {
                caller: self.caller.take(),
                place: Some(place),
            }),
            Err(why) => {
                self.server.count(why, self.criticality);
                Err(Refused {
                    why,
                    retry_after: None,
                })
            }
        }
    }
}
