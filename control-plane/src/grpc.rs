//! The port for proxies: TLS from the authority's current configuration,
//! bounds on connections and handshakes, and the services behind it. Knows
//! connections, not what is said on them.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use selvage_certs::{PeerIdentity, recheck};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::Connected;

use crate::ca::Authority;
use crate::peer::Peer;

/// Connections at a time; one proxy needs one.
pub(crate) const MAX_CONNECTIONS: usize = 10_000;
/// Handshakes at a time.
pub(crate) const MAX_HANDSHAKES: usize = 256;
/// A client that has not finished its handshake by then is dropped.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Calls at a time on one connection.
pub(crate) const MAX_STREAMS: u32 = 100;
/// Bytes of request headers, decoded.
pub(crate) const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// A call other than a stream is answered by then.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a silent client is pinged, and how long it may take to answer.
pub(crate) const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// See [`KEEPALIVE_INTERVAL`].
pub(crate) const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Finished handshakes on their way to the HTTP server.
const ACCEPTED: usize = 64;
/// Room for small frames: h2 allows them in proportion to this window.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;
/// After an error of `accept`, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until told to stop, then lets calls finish.
///
/// # Errors
/// The server ends by itself.
pub(crate) async fn serve(
    listener: TcpListener,
    authority: Arc<Authority>,
    routes: Routes,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    let accepting = tokio::spawn(accept(listener, authority, accepted, stop.clone()));
    let served = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .timeout(CALL_TIMEOUT)
        .add_routes(routes)
        .serve_with_incoming_shutdown(ReceiverStream::new(connections), stop.cancelled())
        .await;
    accepting.abort();
    served
}

async fn accept(
    listener: TcpListener,
    authority: Arc<Authority>,
    accepted: mpsc::Sender<io::Result<Connection>>,
    stop: CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let handshakes = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    loop {
        let permits = async {
            let connection = Arc::clone(&connections).acquire_owned().await.ok()?;
            let handshake = Arc::clone(&handshakes).acquire_owned().await.ok()?;
            Some((connection, handshake, listener.accept().await))
        };
        let next = tokio::select! {
            next = permits => next,
            () = stop.cancelled() => return,
        };
        let Some((connection, handshake, stream)) = next else {
            return;
        };
        let stream = match stream {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let authority = Arc::clone(&authority);
        let accepted = accepted.clone();
        tokio::spawn(async move {
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, shake(stream, &authority)).await;
            drop(handshake);
            match shaken {
                Ok(Ok((stream, peer))) => {
                    let connection = Connection {
                        stream,
                        peer,
                        _permit: connection,
                    };
                    // A closed channel means the server is stopping.
                    let _ = accepted.send(Ok(connection)).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "handshake refused"),
                Err(_) => tracing::debug!("handshake timed out"),
            }
        });
    }
}

async fn shake(
    stream: TcpStream,
    authority: &Authority,
) -> io::Result<(TlsStream<TcpStream>, Peer)> {
    let address = stream.peer_addr()?;
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(authority.server_config())
        .accept(stream)
        .await?;
    let chain = stream.get_ref().1.peer_certificates();
    let identity = chain.map(|chain| identify(chain, authority)).transpose()?;
    Ok((stream, Peer { identity, address }))
}

/// Verified by the handshake already; once more, so that a resumed session
/// could never stand on an older bundle.
fn identify(chain: &[CertificateDer<'_>], authority: &Authority) -> io::Result<PeerIdentity> {
    recheck(chain, None, authority.bundle(), SystemTime::now()).map_err(io::Error::other)
}

/// A connection that holds its place among [`MAX_CONNECTIONS`].
struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
