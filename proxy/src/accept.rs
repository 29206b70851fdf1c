//! Listeners, and how an accepted connection reaches a worker. One socket per
//! address, accepted on one worker and handed to the one with the fewest
//! connections: nothing waits in the backlog of a socket that nobody reads any
//! more, and a few long-lived HTTP/2 connections do not all sit on one worker.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use selvage_policy::snapshot::ServiceName;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::lifecycle::{Direction, Lifecycle, OpenConnection};

/// Connections the kernel keeps for us between two accepts.
const BACKLOG: i32 = 4096;
/// Connections on their way from one worker to another.
const HANDOFF: usize = 1024;
/// Pause after accept failed for want of a resource (EMFILE, ENOMEM): no spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a listener is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Mutual TLS from other sidecars.
    Inbound,
    /// HTTP by authority.
    Outbound,
    /// One upstream: "talk to localhost".
    Upstream {
        /// The service.
        service: ServiceName,
        /// Its port; `None`: 80 if it has it, else its only one.
        port: Option<u16>,
    },
    /// A port of a gateway.
    Gateway(Gate),
}

/// A port of a gateway: all its listeners share one socket.
#[derive(Debug, Clone)]
pub struct Gate {
    /// As its listeners name it, wherever it is bound.
    pub port: u16,
    /// Cancelled when its last listener has left, and when the proxy drains.
    pub closing: CancellationToken,
}

/// One port is bound once.
impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        self.port == other.port
    }
}

impl Eq for Gate {}

impl Purpose {
    /// The side it is on.
    #[must_use]
    pub const fn direction(&self) -> Direction {
        match self {
            Self::Inbound => Direction::Inbound,
            Self::Outbound | Self::Upstream { .. } | Self::Gateway(_) => Direction::Outbound,
        }
    }

    /// Cancelled when what it is for is to end.
    #[must_use]
    pub fn closing<'p>(&'p self, lifecycle: &'p Lifecycle) -> &'p CancellationToken {
        match self {
            Self::Gateway(gate) => &gate.closing,
            _ => lifecycle.closing(self.direction()),
        }
    }
}

/// A bound socket, not yet accepted from.
#[derive(Debug)]
pub struct Listener {
    /// As printed: `inbound`, `outbound`, `listener:<service>.<namespace>:<port>`, `gateway:<port>`.
    pub name: String,
    /// What it is for.
    pub purpose: Arc<Purpose>,
    /// Where it is bound.
    pub address: SocketAddr,
    socket: std::net::TcpListener,
}

impl Listener {
    /// Binds and listens.
    pub fn bind(name: String, purpose: Purpose, address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restart must not wait for connections in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        // Small writes leave at once: batching is ours to do, not the kernel's. Accepted
        // sockets have it from here, which saves a call for each.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let socket: std::net::TcpListener = socket.into();
        let address = socket.local_addr()?;
        Ok(Self {
            name,
            purpose: Arc::new(purpose),
            address,
            socket,
        })
    }
}

/// A connection on its way to a worker.
#[derive(Debug)]
pub struct Arrival {
    /// The socket, registered with no runtime.
    pub stream: std::net::TcpStream,
    /// Where it comes from and what for.
    pub origin: Origin,
}

/// Where a connection comes from and what for.
#[derive(Debug)]
pub struct Origin {
    /// The address of its other end.
    pub remote: SocketAddr,
    /// The port it came to.
    pub port: u16,
    /// What its listener is for.
    pub purpose: Arc<Purpose>,
    /// Counts it, here and toward the drain.
    pub seat: Seat,
}

/// A connection's place among those of its worker and of the proxy.
#[derive(Debug)]
pub struct Seat {
    load: Arc<AtomicUsize>,
    _open: OpenConnection,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One worker as the others see it.
#[derive(Debug, Clone)]
struct Door {
    load: Arc<AtomicUsize>,
    sender: mpsc::Sender<Arrival>,
}

/// Where accepted connections go. Cloned to each worker.
#[derive(Debug, Clone)]
pub struct Dispatcher {
    doors: Vec<Door>,
    lifecycle: Arc<Lifecycle>,
    /// Most connections at a time, both directions.
    limit: usize,
}

impl Dispatcher {
    /// For `workers` workers: the dispatcher, and what each of them receives.
    #[must_use]
    pub fn new(
        workers: usize,
        limit: usize,
        lifecycle: &Arc<Lifecycle>,
    ) -> (Self, Vec<mpsc::Receiver<Arrival>>) {
        let mut doors = Vec::with_capacity(workers);
        let mut receivers = Vec::with_capacity(workers);
        for _ in 0..workers {
            let (sender, receiver) = mpsc::channel(HANDOFF);
            doors.push(Door {
                load: Arc::default(),
                sender,
            });
            receivers.push(receiver);
        }
        (
            Self {
                doors,
                lifecycle: lifecycle.clone(),
                limit,
            },
            receivers,
        )
    }

    fn full(&self) -> bool {
        let open = self.lifecycle.connections(Direction::Inbound)
            + self.lifecycle.connections(Direction::Outbound);
        open >= self.limit
    }

    /// The worker with the fewest connections; this one where there is a tie.
    fn choose(&self, here: usize) -> usize {
        let load = |index: usize| self.doors[index].load.load(Ordering::Relaxed);
        let mut best = here;
        for index in 0..self.doors.len() {
            if load(index) < load(best) {
                best = index;
            }
        }
        best
    }

    fn seat(&self, worker: usize, direction: Direction) -> Seat {
        let load = self.doors[worker].load.clone();
        load.fetch_add(1, Ordering::Relaxed);
        Seat {
            load,
            _open: self.lifecycle.opened(direction),
        }
    }
}

/// Accepts on worker `here` until the drain closes this direction, and then
/// once more what the kernel had already taken in. `serve` runs a connection
/// of this worker.
pub async fn accept_loop(
    listener: Listener,
    here: usize,
    dispatcher: Dispatcher,
    serve: Rc<dyn Fn(TcpStream, Origin)>,
) -> io::Result<()> {
    let direction = listener.purpose.direction();
    let closing = listener.purpose.closing(&dispatcher.lifecycle).clone();
    // The drain waits until the backlog is empty, too.
    let _accepting = dispatcher.lifecycle.accepting(direction);
    let socket = TcpListener::from_std(listener.socket)?;
    let entrance = Entrance {
        purpose: listener.purpose,
        port: listener.address.port(),
        here,
        dispatcher: &dispatcher,
        serve: &*serve,
    };
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = socket.accept() => accepted,
            () = closing.cancelled() => break,
        };
        match accepted {
            Ok((stream, remote)) => entrance.place(stream, remote),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(listener = listener.name, %error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let socket = socket.into_std()?;
    while let Ok((stream, remote)) = socket.accept() {
        stream.set_nonblocking(true)?;
        entrance.place(TcpStream::from_std(stream)?, remote);
    }
    Ok(())
}

/// The peer went away between its SYN and our accept; the listener is well.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// What one listener needs to hand its connections on.
struct Entrance<'a> {
    purpose: Arc<Purpose>,
    port: u16,
    here: usize,
    dispatcher: &'a Dispatcher,
    serve: &'a dyn Fn(TcpStream, Origin),
}

impl Entrance<'_> {
    /// Gives a connection to the worker with the fewest.
    fn place(&self, stream: TcpStream, remote: SocketAddr) {
        let dispatcher = self.dispatcher;
        if dispatcher.full() {
            tracing::debug!(
                limit = dispatcher.limit,
                "connection refused: limits.connections reached"
            );
            return;
        }
        let chosen = dispatcher.choose(self.here);
        let origin = Origin {
            remote,
            port: self.port,
            purpose: self.purpose.clone(),
            seat: dispatcher.seat(chosen, self.purpose.direction()),
        };
        if chosen == self.here {
            (self.serve)(stream, origin);
            return;
        }
        let Ok(stream) = stream.into_std() else {
            return;
        };
        let arrival = Arrival { stream, origin };
        if dispatcher.doors[chosen].sender.try_send(arrival).is_err() {
            tracing::warn!(
                worker = chosen,
                "connection dropped: the worker does not keep up"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worker_with_the_fewest_connections_gets_the_next() {
        let lifecycle = Lifecycle::new();
        let (dispatcher, _receivers) = Dispatcher::new(3, 10, &lifecycle);
        assert_eq!(dispatcher.choose(1), 1, "a tie stays here");
        let _first = dispatcher.seat(1, Direction::Inbound);
        assert_eq!(dispatcher.choose(1), 0);
        let _second = dispatcher.seat(0, Direction::Inbound);
        assert_eq!(dispatcher.choose(1), 2);
        drop(_first);
        assert_eq!(dispatcher.choose(1), 1);
    }

    #[test]
    fn seats_are_counted_out_when_dropped() {
        let lifecycle = Lifecycle::new();
        let (dispatcher, _receivers) = Dispatcher::new(1, 1, &lifecycle);
        let seat = dispatcher.seat(0, Direction::Outbound);
        assert!(dispatcher.full());
        drop(seat);
        assert!(!dispatcher.full());
        assert_eq!(lifecycle.connections(Direction::Outbound), 0);
    }
}
