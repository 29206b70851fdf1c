//! What lies between a proxy and the servers it calls: time to travel,
//! connections that are shared by requests, refusals, and packets that are lost.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use selvage_policy::service::ConnectionPermit;

use crate::clock::{Clock, TaskId};
use crate::server::{Mode, Server};

/// One way, on the mean.
const ONE_WAY: Duration = Duration::from_micros(250);
/// The first wait of TCP before it sends again what was not acknowledged; doubled each time.
const RETRANSMIT: Duration = Duration::from_millis(200);

/// A connection could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

/// The way from one proxy to one server.
pub(crate) struct Link {
    clock: Clock,
    pub(crate) server: Rc<Server>,
    rng: RefCell<fastrand::Rng>,
    connected: RefCell<Option<Rc<Connection>>>,
    connecting: RefCell<Option<Rc<Connecting>>>,
    /// The breaker's, in which the connection was used last.
    generation: Cell<u32>,
    dials: Cell<usize>,
}

/// A connection that requests share.
pub(crate) struct Connection {
    /// The server's incarnation that it is with.
    incarnation: usize,
    /// When its first byte was sent that is not acknowledged.
    unacknowledged: Cell<Option<Instant>>,
    _permit: ConnectionPermit,
}

/// A connection being made, for all who wait for it.
#[derive(Default)]
struct Connecting {
    result: RefCell<Option<Result<Rc<Connection>, Refused>>>,
    waiting: RefCell<Vec<TaskId>>,
}

impl Link {
    pub(crate) fn new(clock: &Clock, server: &Rc<Server>, seed: u64) -> Rc<Self> {
        Rc::new(Self {
            clock: clock.clone(),
            server: Rc::clone(server),
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            connected: RefCell::default(),
            connecting: RefCell::default(),
            generation: Cell::new(0),
            dials: Cell::new(0),
        })
    }

    /// Connects attempted.
    pub(crate) fn dials(&self) -> usize {
        self.dials.get()
    }

    /// Drops a connection that was made in another state of the breaker.
    pub(crate) fn renew(&self, generation: u32) {
        if self.generation.replace(generation) != generation {
            *self.connected.borrow_mut() = None;
        }
    }

    /// The connection, if one is there as far as the proxy has heard.
    pub(crate) fn connection(&self) -> Option<Rc<Connection>> {
        let heard = self.clock.elapsed().saturating_sub(ONE_WAY);
        let incarnation = self.server.incarnation(heard);
        let connected = self.connected.borrow();
        let is_open = |connection: &&Rc<Connection>| connection.incarnation == incarnation;
        connected.as_ref().filter(is_open).cloned()
    }

    /// Makes a connection; whoever comes meanwhile waits for the same one.
    pub(crate) async fn connect(
        self: &Rc<Self>,
        permit: impl FnOnce() -> Option<ConnectionPermit>,
        timeout: Option<Duration>,
    ) -> Result<Rc<Connection>, Refused> {
        let under_way = self.connecting.borrow().clone();
        let connecting = match under_way {
            Some(connecting) => connecting,
            None => self.begin(permit().ok_or(Refused)?, timeout),
        };
        poll_fn(|_| match &*connecting.result.borrow() {
            Some(result) => Poll::Ready(result.clone()),
            None => {
                connecting.waiting.borrow_mut().push(self.clock.current());
                Poll::Pending
            }
        })
        .await
    }

    fn begin(
        self: &Rc<Self>,
        permit: ConnectionPermit,
        timeout: Option<Duration>,
    ) -> Rc<Connecting> {
        let connecting = Rc::<Connecting>::default();
        *self.connecting.borrow_mut() = Some(Rc::clone(&connecting));
        let (link, told) = (Rc::clone(self), Rc::clone(&connecting));
        self.clock.spawn(async move {
            let result = match link.dial(timeout).await {
                Ok(()) => Ok(link.shake_hands(permit).await),
                Err(refused) => Err(refused),
            };
            *link.connecting.borrow_mut() = None;
            *told.result.borrow_mut() = Some(result);
            for task in told.waiting.take() {
                link.clock.wake(task);
            }
        });
        connecting
    }

    /// A round trip of TLS.
    async fn shake_hands(&self, permit: ConnectionPermit) -> Rc<Connection> {
        self.travel().await;
        self.travel().await;
        let connection = Rc::new(Connection {
            incarnation: self.server.incarnation(self.clock.elapsed()),
            unacknowledged: Cell::new(None),
            _permit: permit,
        });
        *self.connected.borrow_mut() = Some(Rc::clone(&connection));
        connection
    }

    /// A bare connect.
    pub(crate) async fn dial(&self, timeout: Option<Duration>) -> Result<(), Refused> {
        self.dials.set(self.dials.get() + 1);
        self.travel().await;
        match self.server.mode() {
            Mode::Unreachable => {
                match timeout {
                    Some(timeout) => self.clock.sleep(timeout).await,
                    None => std::future::pending().await,
                }
                Err(Refused)
            }
            Mode::Refuses | Mode::Drains => {
                self.travel().await;
                Err(Refused)
            }
            _ => {
                self.travel().await;
                Ok(())
            }
        }
    }

    /// Takes a message to the server, which may have to wait until packets
    /// pass again and TCP sends the next time.
    pub(crate) async fn deliver(&self, connection: &Connection) {
        let now = self.clock.now();
        if self.server.mode() == Mode::Unreachable && connection.unacknowledged.get().is_none() {
            connection.unacknowledged.set(Some(now));
        }
        if let Some(since) = connection.unacknowledged.get() {
            let sent = since - self.clock.at(Duration::ZERO);
            let Some(heals) = self.server.changes_after(sent) else {
                return std::future::pending().await;
            };
            self.clock
                .sleep_until(sent_again(since, self.clock.at(heals)))
                .await;
            connection.unacknowledged.set(None);
        }
        self.travel().await;
    }

    /// One way.
    pub(crate) async fn travel(&self) {
        let share = 0.8 + 0.4 * self.rng.borrow_mut().f64();
        self.clock.sleep(ONE_WAY.mul_f64(share)).await;
    }
}

/// When TCP sends again, for the first time after `heals`, what it sent at `since`.
fn sent_again(since: Instant, heals: Instant) -> Instant {
    let mut wait = RETRANSMIT;
    let mut at = since + wait;
    while at < heals {
        wait *= 2;
        at += wait;
    }
    at
}
