//! One replica of a service, which can be broken in the ways that services
//! break, and mended; it keeps the moment of every connection and request, so
//! that a test can say what a failing service had to bear.
//!
//! It speaks the little HTTP/1.1 that a proxy sends for a GET, by hand: a
//! library in between would decide how a connection ends.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// The body of an answer.
const BODY: [u8; 128] = [b'x'; 128];
/// A head that is longer is none.
const LONGEST_HEAD: usize = 16 * 1024;
/// Between the first bytes of an answer and the reset that ends it: they shall arrive.
const BEFORE_RESET: Duration = Duration::from_millis(5);

/// How a replica is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// Its process is gone: connections are closed, new ones refused.
    Refuse,
    /// It takes requests and never answers them.
    Hang,
    /// It answers at once, with this status.
    Status(u16),
    /// It answers 200, and resets the connection in the middle of the body.
    ResetMidBody,
    /// It takes this many times as long.
    Slow(u32),
}

impl Fault {
    /// In a word or two.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::None => "healthy".to_owned(),
            Self::Refuse => "refuses".to_owned(),
            Self::Hang => "hangs".to_owned(),
            Self::Status(status) => format!("answers {status}"),
            Self::ResetMidBody => "resets mid-body".to_owned(),
            Self::Slow(times) => format!("{times} times slower"),
        }
    }
}

/// What a replica is like while it is well.
#[derive(Debug, Clone, Copy)]
pub struct Nature {
    /// How long a request takes.
    pub takes: Duration,
    /// Requests worked on at a time; those beyond wait their turn, without a bound. `None`: all.
    pub slots: Option<usize>,
}

/// What a replica saw, each kind in order.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// When connections were accepted.
    pub accepted: Vec<Instant>,
    /// When requests came.
    pub requests: Vec<Instant>,
}

/// A running replica; dropped, it is gone with all its connections.
pub struct Replica {
    /// Where it listens.
    pub address: SocketAddr,
    fault: watch::Sender<Fault>,
    seen: Arc<Mutex<Seen>>,
    task: AbortHandle,
}

impl Replica {
    /// Starts on a port of its own, well.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start(nature: Nature) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = hold(any).and_then(listen).expect("a port is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let (fault, faults) = watch::channel(Fault::None);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let desk = Desk {
            nature,
            slots: Arc::new(Semaphore::new(
                nature.slots.unwrap_or(Semaphore::MAX_PERMITS),
            )),
            fault: faults,
            seen: Arc::clone(&seen),
        };
        let task = tokio::spawn(live(listener, address, desk)).abort_handle();
        Self {
            address,
            fault,
            seen,
            task,
        }
    }

    /// Breaks it, or mends it; returns when that was.
    #[must_use]
    pub fn turn(&self, fault: Fault) -> Instant {
        self.fault.send_replace(fault);
        Instant::now()
    }

    /// What it saw so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Requests that came in `[from, to)`.
    #[must_use]
    pub fn requests_between(&self, from: Instant, to: Instant) -> usize {
        count(
            &self
                .seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .requests,
            from,
            to,
        )
    }

    /// Connections that were accepted in `[from, to)`.
    #[must_use]
    pub fn accepted_between(&self, from: Instant, to: Instant) -> usize {
        count(
            &self
                .seen
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .accepted,
            from,
            to,
        )
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn count(moments: &[Instant], from: Instant, to: Instant) -> usize {
    let before = |limit: Instant| moments.partition_point(|moment| *moment < limit);
    before(to).saturating_sub(before(from))
}

/// What every connection of a replica shares.
#[derive(Clone)]
struct Desk {
    nature: Nature,
    slots: Arc<Semaphore>,
    fault: watch::Receiver<Fault>,
    seen: Arc<Mutex<Seen>>,
}

impl Desk {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A bound socket without a listener: whoever connects is refused, and nobody else takes the port.
fn hold(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Its lives, one after another: each ends by [`Fault::Refuse`].
async fn live(mut listener: TcpListener, address: SocketAddr, mut desk: Desk) {
    loop {
        {
            let mut connections = JoinSet::new(); // dropped with this life, and every connection with it
            let mut fault = desk.fault.clone();
            loop {
                tokio::select! {
                    biased;
                    ended = fault.wait_for(|fault| *fault == Fault::Refuse) => match ended {
                        Ok(_) => break,
                        Err(_) => return,
                    },
                    accepted = listener.accept() => {
                        let Ok((stream, _)) = accepted else { return };
                        desk.note(|seen| seen.accepted.push(Instant::now()));
                        connections.spawn(serve(stream, desk.clone()));
                        while connections.try_join_next().is_some() {}
                    }
                }
            }
        }
        drop(listener);
        let held = hold(address).expect("the port was ours just now");
        if desk
            .fault
            .wait_for(|fault| *fault != Fault::Refuse)
            .await
            .is_err()
        {
            return;
        }
        listener = listen(held).expect("the port is held");
    }
}

/// Serves one connection until it ends; how it ends is the caller's affair.
async fn serve(mut stream: TcpStream, desk: Desk) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(1024);
    while read_head(&mut stream, &mut buffer).await.is_ok() {
        desk.note(|seen| seen.requests.push(Instant::now()));
        let fault = *desk.fault.borrow();
        if answer(&mut stream, &desk, fault).await.is_err() {
            return;
        }
    }
}

/// Takes one head out of `buffer`, reading what is missing.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            buffer.drain(..end + 4);
            return Ok(());
        }
        if buffer.len() > LONGEST_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn answer(stream: &mut TcpStream, desk: &Desk, fault: Fault) -> io::Result<()> {
    match fault {
        Fault::Hang => {
            // Until the other side gives up: whatever it says is read and left.
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await? > 0 {}
            Err(io::ErrorKind::UnexpectedEof.into())
        }
        Fault::Status(status) => {
            let head = format!("HTTP/1.1 {status} Fault\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(head.as_bytes()).await
        }
        Fault::ResetMidBody => {
            let head = "HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n";
            stream.write_all(&[head.as_bytes(), &BODY].concat()).await?;
            tokio::time::sleep(BEFORE_RESET).await;
            SockRef::from(&*stream).set_linger(Some(Duration::ZERO))?;
            Err(io::ErrorKind::ConnectionReset.into())
        }
        // A request that was taken before its process ended goes with its connection.
        Fault::None | Fault::Refuse => work(stream, desk, 1).await,
        Fault::Slow(times) => work(stream, desk, times).await,
    }
}

async fn work(stream: &mut TcpStream, desk: &Desk, times: u32) -> io::Result<()> {
    let slot = Arc::clone(&desk.slots).acquire_owned().await;
    let slot = slot.map_err(io::Error::other)?;
    tokio::time::sleep(desk.nature.takes * times).await;
    drop(slot);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", BODY.len());
    stream.write_all(&[head.as_bytes(), &BODY].concat()).await
}
