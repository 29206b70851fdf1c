//! An application that plays a script on each connection, byte for byte.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use crate::wire::Wire;

/// A running scripted application; dropped, it is gone with all its connections.
pub struct RawApp {
    /// Where it listens.
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    task: AbortHandle,
}

impl RawApp {
    /// Starts on a port of its own; the script is given each connection and its number, from 0.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start<F, R>(script: F) -> Self
    where
        F: Fn(Wire, usize) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&accepted);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new(); // dropped with this task, and every connection with it
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                connections.spawn(script(
                    Wire::of(stream),
                    counter.fetch_add(1, Ordering::SeqCst),
                ));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            accepted,
            task: task.abort_handle(),
        }
    }

    /// How many connections it accepted so far.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for RawApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address of loopback at which every connection is refused, held so that nobody else takes it.
pub struct ClosedPort {
    /// The address.
    pub address: SocketAddr,
    _socket: socket2::Socket,
}

impl ClosedPort {
    /// Takes a free port without listening on it.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket can be made");
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .expect("a port is free");
        let address = socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket());
        Self {
            address: address.expect("a bound socket has an address"),
            _socket: socket,
        }
    }
}

impl Default for ClosedPort {
    fn default() -> Self {
        Self::new()
    }
}
