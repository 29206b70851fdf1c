//! A caller's proxy: the journey of `proxy/src/request.rs` over the simulated
//! network. It decides nothing: limits, budget, endpoint, classification,
//! breaker, retries and deadline are asked of `selvage_policy`, in the order
//! and with the arguments of the real journey. A [`Watch`] looks on.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use selvage_policy::balance::{self, Picked};
use selvage_policy::classify::{Class, Outcome, TransportFailure, classify};
use selvage_policy::deadline::{self, DeadlineOwner};
use selvage_policy::endpoint::{InFlight, Report};
use selvage_policy::flag::Flag;
use selvage_policy::retry::{Attempts, Ended, Next, Pushback};
use selvage_policy::snapshot::{BreakerPolicy, Snapshot};
use selvage_policy::table::{LiveService, LiveServices};

use crate::clock::{Clock, Late};
use crate::mesh::{PORT, service_name};
use crate::network::{Connection, Link, Refused};
use crate::server::{Reply, Request};
use crate::watch::Watch;

/// Between two rounds of connect probes, and how long each may take (`housekeeping`).
const CHORES: Duration = Duration::from_secs(1);
/// From the head of a response to the end of its body.
const BODY: Duration = Duration::from_millis(1);

/// See the module.
pub(crate) struct Proxy {
    clock: Clock,
    number: usize,
    table: LiveServices,
    live: RefCell<Arc<LiveService>>,
    links: RefCell<HashMap<SocketAddr, Rc<Link>>>,
    rng: RefCell<fastrand::Rng>,
    rules: Cell<Rules>,
    pub(crate) watch: Watch,
}

/// What is followed of what the hop below says, and said to the hop above.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The mark of a hop below that it asked in vain is believed.
    pub(crate) marks: bool,
    /// What is marked so is no hard failure of who answers ([`Report::from_below`]).
    pub(crate) from_below: bool,
    /// Where no endpoint is left to ask, that is marked too.
    pub(crate) nobody: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            marks: true,
            from_below: true,
            nobody: true,
        }
    }
}

/// What a caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) flag: Option<Flag>,
    pub(crate) tries: u32,
    /// Marked for the hop above: it was asked for in vain.
    pub(crate) exhausted: bool,
}

impl Answer {
    /// Whether it came whole and well.
    pub(crate) const fn is_ok(&self) -> bool {
        self.status < 500 && self.flag.is_none()
    }

    fn refusal(flag: Flag, tries: u32) -> Self {
        Self {
            status: flag.status().as_u16(),
            flag: Some(flag),
            tries,
            exhausted: false,
        }
    }
}

/// The head of a response.
struct Head {
    status: StatusCode,
    exhausted: bool,
    breaks: bool,
}

/// What became of a try.
struct Tried {
    outcome: Outcome,
    head: Option<Head>,
    in_flight: InFlight,
}

impl Tried {
    /// Whether the hop below asked in vain already.
    fn is_exhausted(&self, rules: Rules) -> bool {
        let says_so = |head: &Head| !head.status.is_success() && head.exhausted;
        rules.marks && self.head.as_ref().is_some_and(says_so)
    }
}

enum Failure {
    /// A limit of ours: no other endpoint would help.
    Ours(Flag),
    Upstream(TransportFailure),
    TimedOut,
}

/// What one exchange knows from its start to its end.
struct Exchange<'a> {
    live: &'a LiveService,
    request: &'a Request,
    deadline: (Option<Instant>, DeadlineOwner),
}

impl Proxy {
    /// A proxy that knows `snapshot`, and reaches its endpoints by `links`.
    pub(crate) fn new(
        clock: &Clock,
        number: usize,
        snapshot: &Snapshot,
        links: HashMap<SocketAddr, Rc<Link>>,
        seed: u64,
    ) -> Rc<Self> {
        let table = LiveServices::new(clock.now());
        let live = joined(&table, snapshot, clock.now());
        let proxy = Rc::new(Self {
            clock: clock.clone(),
            number,
            watch: Watch::new(clock, &live),
            table,
            live: RefCell::new(live),
            links: RefCell::new(links),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            rules: Cell::default(),
        });
        let phase = CHORES.mul_f64(proxy.rng.borrow_mut().f64());
        clock.spawn(Rc::clone(&proxy).keeps_house(phase));
        proxy
    }

    /// From here on it does without some of the rules.
    pub(crate) fn follows(&self, rules: Rules) {
        self.rules.set(rules);
    }

    /// Swaps in another Snapshot.
    pub(crate) fn learns(&self, snapshot: &Snapshot) {
        let live = joined(&self.table, snapshot, self.clock.now());
        self.watch.offered(&live);
        *self.live.borrow_mut() = live;
    }

    pub(crate) fn number(&self) -> usize {
        self.number
    }

    pub(crate) fn link(&self, address: SocketAddr) -> Rc<Link> {
        Rc::clone(&self.links.borrow()[&address])
    }

    /// Handles one request.
    pub(crate) async fn handle(&self, request: &Request) -> Answer {
        let live = Arc::clone(&self.live.borrow());
        let limits = &live.service.policy.limits;
        let Some(_permit) = live.state.admit_request(limits) else {
            return Answer::refusal(Flag::Overflow, 0);
        };
        let timeouts = &live.service.policy.timeouts;
        let exchange = Exchange {
            live: &live,
            request,
            deadline: deadline::deadline(timeouts, None, self.clock.now()),
        };
        self.exchange(&exchange).await
    }

    /// The tries of one request, until one is returned.
    async fn exchange(&self, exchange: &Exchange<'_>) -> Answer {
        let Exchange { live, request, .. } = *exchange;
        let mut attempts = Attempts::begin(&live.service.policy, &request.method, false);
        live.state.budget().request(self.clock.now());
        self.watch.requested();
        let rules = self.rules.get();
        let failures = &live.service.policy.failures;
        let mut failed = None;
        loop {
            let tried = match self.attempt(exchange, &mut attempts).await {
                Ok(tried) => tried,
                Err(flag) => {
                    let nobody = flag == Flag::NoHealthyEndpoint;
                    return Answer {
                        exhausted: nobody && rules.nobody,
                        ..Answer::refusal(failed.unwrap_or(flag), attempts.tries())
                    };
                }
            };
            let tried = self.record(exchange, tried);
            let ended = Ended {
                outcome: tried.outcome,
                replayable: true,
                untouched: false,
                pushback: Pushback::None,
                exhausted_below: tried.is_exhausted(rules),
            };
            let next = attempts.after(
                &ended,
                exchange.deadline.0,
                live.state.budget(),
                self.clock.now(),
                &mut self.rng.borrow_mut(),
            );
            match next {
                Next::Return(why) => {
                    self.watch.returned(why);
                    let passed_on = tried.is_exhausted(rules)
                        && classify(failures, &tried.outcome).is_failure();
                    let answer = self.answer(exchange, tried, attempts.tries()).await;
                    return Answer {
                        exhausted: why.marks_exhausted() || passed_on,
                        ..answer
                    };
                }
                Next::RetryAfter { wait, .. } => {
                    self.watch.retries();
                    failed = failure(&tried.outcome);
                    drop(tried);
                    self.clock.sleep(wait).await;
                }
            }
        }
    }

    /// Tries once; the flag, where nothing was tried.
    async fn attempt(
        &self,
        exchange: &Exchange<'_>,
        attempts: &mut Attempts,
    ) -> Result<Tried, Flag> {
        let now = self.clock.now();
        let port = exchange.live.port(PORT).ok_or(Flag::NoService)?;
        let (tried, retryable) = (attempts.tried(), attempts.retryable());
        let picked = balance::pick(
            &port.rotation,
            tried,
            retryable,
            now,
            &mut self.rng.borrow_mut(),
        );
        let Picked {
            index,
            mut in_flight,
            transition,
        } = picked.map_err(|_| Flag::NoHealthyEndpoint)?;
        attempts.sent_to(index);
        let address = port.port.endpoints[index].key.address;
        self.watch.picked(&in_flight, transition);
        let link = self.link(address);
        link.renew(in_flight.generation());
        let timeouts = &exchange.live.service.policy.timeouts;
        let this_try = timeouts.backend_request.map(|limit| now + limit);
        let until = [this_try, exchange.deadline.0].into_iter().flatten().min();
        let sent = {
            let sending = pin!(self.send(exchange, &link, until));
            self.probing(exchange, &mut in_flight, sending).await
        };
        let (outcome, head) = match sent {
            Ok(head) => {
                in_flight.first_byte(self.clock.now());
                let outcome = Outcome::Response {
                    status: head.status,
                    grpc_status: None,
                    flag: None,
                };
                (outcome, Some(head))
            }
            Err(Failure::Ours(flag)) => return Err(flag),
            Err(Failure::Upstream(failure)) => (Outcome::Transport(failure), None),
            Err(Failure::TimedOut) => (self.timed_out(exchange), None),
        };
        Ok(Tried {
            outcome,
            head,
            in_flight,
        })
    }

    fn timed_out(&self, exchange: &Exchange<'_>) -> Outcome {
        match exchange.deadline.1 {
            DeadlineOwner::Caller if self.is_over(exchange) => Outcome::CallerDeadline,
            _ => Outcome::Transport(TransportFailure::Timeout),
        }
    }

    fn is_over(&self, exchange: &Exchange<'_>) -> bool {
        let past = |deadline: Instant| deadline <= self.clock.now();
        exchange.deadline.0.is_some_and(past)
    }

    /// Lets a try go on while its HalfOpen endpoint is judged by the time it takes.
    async fn probing<T>(
        &self,
        exchange: &Exchange<'_>,
        in_flight: &mut InFlight,
        mut sending: std::pin::Pin<&mut impl Future<Output = T>>,
    ) -> T {
        if let Some(decides) = in_flight.probe_deadline() {
            match self.clock.within(Some(decides), sending.as_mut()).await {
                Ok(sent) => return sent,
                Err(Late) => {
                    let late = Report {
                        class: Class::HardFailure,
                        could_not_connect: false,
                        retry_after: None,
                    };
                    self.learn(exchange, in_flight, &late);
                }
            }
        }
        sending.await
    }

    async fn send(
        &self,
        exchange: &Exchange<'_>,
        link: &Rc<Link>,
        until: Option<Instant>,
    ) -> Result<Head, Failure> {
        let connection = match link.connection() {
            Some(connection) => connection,
            None => self.connect(exchange, link, until).await?,
        };
        if let (Some(deadline), _) = exchange.deadline {
            deadline::remaining(deadline, self.clock.now()).ok_or(Failure::Ours(Flag::Timeout))?;
        }
        let asking = pin!(async {
            link.deliver(&connection).await;
            let reply = link.server.serve(self.number, exchange.request).await;
            link.travel().await;
            reply
        });
        let asked = self.clock.within(until, asking).await;
        let reply = asked.map_err(|Late| Failure::TimedOut)?;
        match reply {
            Reply::Reset => Err(Failure::Upstream(TransportFailure::Reset)),
            Reply::Unprocessed => Err(Failure::Upstream(TransportFailure::Unprocessed)),
            Reply::Head {
                status,
                exhausted,
                breaks,
            } => Ok(Head {
                status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY),
                exhausted,
                breaks,
            }),
        }
    }

    /// Waits for a connection.
    async fn connect(
        &self,
        exchange: &Exchange<'_>,
        link: &Rc<Link>,
        until: Option<Instant>,
    ) -> Result<Rc<Connection>, Failure> {
        let state = &exchange.live.state;
        let policy = &exchange.live.service.policy;
        let _pending = state
            .admit_pending(&policy.limits)
            .ok_or(Failure::Ours(Flag::Overflow))?;
        let permit = || state.admit_connection(&policy.limits);
        let connecting = pin!(link.connect(permit, policy.timeouts.connect));
        match self.clock.within(until, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Err(Late) if self.is_over(exchange) => Err(Failure::TimedOut),
            Ok(Err(Refused)) | Err(Late) => Err(Failure::Upstream(TransportFailure::Connect)),
        }
    }

    /// What the head already says is learnt; a success is one only when its body has come.
    fn record(&self, exchange: &Exchange<'_>, mut tried: Tried) -> Tried {
        let failures = &exchange.live.service.policy.failures;
        let judged = Report::of(failures, &tried.outcome, None);
        let rules = self.rules.get();
        let report = if rules.from_below && tried.is_exhausted(rules) {
            judged.from_below()
        } else {
            judged
        };
        self.watch.tried(&tried.in_flight, report.class);
        if tried.head.is_none() || report.class != Class::Success || tried.in_flight.is_probe() {
            self.learn(exchange, &mut tried.in_flight, &report);
        }
        tried
    }

    fn learn(&self, exchange: &Exchange<'_>, in_flight: &mut InFlight, report: &Report) {
        let breaker: &BreakerPolicy = &exchange.live.service.policy.breaker;
        let now = self.clock.now();
        let transition = in_flight.observe(report, breaker, now, &mut self.rng.borrow_mut());
        if let Some(transition) = transition {
            self.watch.note(in_flight.endpoint(), transition);
        }
    }

    /// Passes the response on, to its last byte.
    async fn answer(&self, exchange: &Exchange<'_>, tried: Tried, tries: u32) -> Answer {
        let Tried {
            outcome,
            head,
            mut in_flight,
        } = tried;
        let Some(head) = head else {
            return Answer::refusal(failure(&outcome).unwrap_or(Flag::Timeout), tries);
        };
        let span = if head.breaks { BODY / 2 } else { BODY };
        let body = pin!(self.clock.sleep(span));
        let (end, flag) = match self.clock.within(exchange.deadline.0, body).await {
            Ok(()) if head.breaks => (
                Outcome::Transport(TransportFailure::Reset),
                Some(Flag::Reset),
            ),
            Ok(()) => (outcome, None),
            Err(Late) => (Outcome::Cancelled, Some(Flag::Timeout)),
        };
        if end == Outcome::Transport(TransportFailure::Reset) {
            self.watch.broke(&in_flight);
        }
        let failures = &exchange.live.service.policy.failures;
        self.learn(exchange, &mut in_flight, &Report::of(failures, &end, None));
        Answer {
            status: head.status.as_u16(),
            flag,
            tries,
            exhausted: false,
        }
    }

    /// Connects by itself to what could not be connected to.
    async fn keeps_house(self: Rc<Self>, phase: Duration) {
        self.clock.sleep(phase).await;
        loop {
            self.clock.sleep(CHORES).await;
            let mut due = self.table.connect_probes(self.clock.now());
            // They come in no order, and a run must be the same each time.
            due.sort_by_key(|state| state.key().address);
            for state in due {
                self.watch.probes_connect();
                let proxy = Rc::clone(&self);
                self.clock.spawn(async move {
                    let link = proxy.link(state.key().address);
                    let dialling = pin!(link.dial(None));
                    let until = proxy.clock.now() + CHORES;
                    let Ok(Ok(())) = proxy.clock.within(Some(until), dialling).await else {
                        state.connect_probe_failed();
                        return;
                    };
                    if let Some(transition) = state.connect_probe_succeeded(proxy.clock.now()) {
                        proxy.watch.note(&state, transition);
                    }
                });
            }
        }
    }
}

/// What the caller hears if nothing follows; an answer of the application is not kept.
fn failure(outcome: &Outcome) -> Option<Flag> {
    match outcome {
        Outcome::Transport(failure) => Some(failure.flag()),
        Outcome::CallerDeadline => Some(Flag::Timeout),
        Outcome::Response { .. } | Outcome::Cancelled => None,
    }
}

fn joined(table: &LiveServices, snapshot: &Snapshot, now: Instant) -> Arc<LiveService> {
    let view = table.join(snapshot, now);
    let live = view.service(&service_name());
    Arc::clone(live.expect("the Snapshot knows the service"))
}
