//! The sample service's sockets: listening, and in one mode refusing, on the same port.
//!
//! It refuses to know what requests mean.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use super::Shop;
use crate::schedule::Mode;

/// What a port speaks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Connections that wait to be accepted.
const BACKLOG: u32 = 512;
/// Connections that are served at a time.
const CONNECTIONS: usize = 1024;
/// How long to wait after accepting failed (descriptors ran out, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Binds, says so, and serves from then on.
pub(super) fn start(
    shop: &Arc<Shop>,
    name: &str,
    address: SocketAddr,
    protocol: Protocol,
) -> anyhow::Result<()> {
    let listener = bind(address)?.listen(BACKLOG)?;
    let address = listener.local_addr()?;
    crate::role::tell_listening(name, address);
    tokio::spawn(serve(shop.clone(), listener, address, protocol));
    Ok(())
}

fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Listens while the mode is not to refuse; refusing, it keeps the port by a socket that is bound
/// and does not listen, so that nobody else gets it.
async fn serve(
    shop: Arc<Shop>,
    mut listener: TcpListener,
    address: SocketAddr,
    protocol: Protocol,
) {
    let connections = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
    let mut mode = shop.mode.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => Some(accepted),
            // The sender lives as long as the process.
            _ = mode.wait_for(|mode| *mode == Mode::Refuse) => None,
        };
        match accepted {
            Some(Ok((stream, _))) => {
                let Ok(permit) = connections.clone().try_acquire_owned() else {
                    continue;
                };
                let shop = shop.clone();
                tokio::spawn(async move {
                    connection(shop, stream, protocol).await;
                    drop(permit);
                });
            }
            Some(Err(_)) => tokio::time::sleep(ACCEPT_PAUSE).await,
            None => {
                drop(listener);
                match refuse(&mut mode, address).await {
                    Ok(again) => listener = again,
                    Err(error) => {
                        complain(&format!("{address} cannot be bound again: {error}"));
                        std::process::exit(1);
                    }
                }
            }
        }
    }
}

async fn refuse(
    mode: &mut watch::Receiver<Mode>,
    address: SocketAddr,
) -> std::io::Result<TcpListener> {
    let placeholder = bind(address)?;
    let _ = mode.wait_for(|mode| *mode != Mode::Refuse).await;
    placeholder.listen(BACKLOG)
}

async fn connection(shop: Arc<Shop>, stream: TcpStream, protocol: Protocol) {
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(stream);
    let mut mode = shop.mode.clone();
    let service = service_fn(move |request| super::handle(shop.clone(), request));
    // A connection's error is its peer's affair: the peer sees it as well.
    match protocol {
        Protocol::Http1 => {
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(io, service)
                .await;
        }
        Protocol::Http2 => {
            let mut connection = std::pin::pin!(
                http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .serve_connection(io, service)
            );
            tokio::select! {
                _ = connection.as_mut() => return,
                _ = mode.wait_for(|mode| *mode == Mode::Refuse) => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        }
    }
}

fn complain(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
