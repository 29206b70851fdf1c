//! A connection to one endpoint: TCP, and for the mesh the TLS on it.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use rustls_pki_types::ServerName;
use selvage_certs::{HandshakeOutcome, SpiffeId};
use selvage_policy::blame::was_late;
use selvage_policy::classify::TransportFailure;
use selvage_policy::flag::Flag;
use selvage_policy::snapshot::{EndpointKey, ServiceName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::buffers::write_together;
use crate::identity::Identity;
use crate::telemetry::metrics::{Metrics, Side};
use crate::tls::{self, Inside, TlsError, TlsStream};

/// A stream to an endpoint.
#[derive(Debug)]
pub enum Io {
    /// Plaintext: the application beside us, or a server outside the mesh.
    Plain(TcpStream),
    /// Mutual TLS to another sidecar.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// The socket under it.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => stream.get_ref(),
        }
    }
}

macro_rules! either {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            Io::Plain($stream) => {
                let $stream = Pin::new($stream);
                $call
            }
            Io::Tls($stream) => {
                let $stream = Pin::new(&mut **$stream);
                $call
            }
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        either!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => write_together(stream, cx, bufs),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, stream => stream.poll_shutdown(cx))
    }
}

/// Why there is no connection. Shared by all who waited for it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Refused, unreachable, reset.
    #[error("cannot connect to {0}: {1}")]
    Refused(SocketAddr, String),
    /// `timeouts.connect` ran out.
    #[error("no connection to {0} within {1:?}")]
    Timeout(SocketAddr, Duration),
    /// It ran out, and was noticed so late that it was we who did not get to run.
    #[error("no connection to {0} within {1:?}: this proxy did not get to run")]
    Starved(SocketAddr, Duration),
    /// The peer is not who it must be, or does not speak TLS.
    #[error("{0}: {1}")]
    Tls(SocketAddr, String),
    /// There is no identity of our own to present.
    #[error("no identity yet")]
    NoIdentity,
    /// A peer of the mesh that does not speak HTTP/2; its pool knows by now.
    #[error("{0} speaks HTTP/1.1 alone")]
    Http1Only(SocketAddr),
    /// `limits.maxConnections` of the service is reached.
    #[error("limits.maxConnections is reached")]
    Overflow,
}

impl ConnectError {
    /// How the policy sees it; `None` where it is our own doing.
    #[must_use]
    pub const fn failure(&self) -> Option<TransportFailure> {
        match self {
            Self::Refused(..) | Self::Timeout(..) | Self::Starved(..) => {
                Some(TransportFailure::Connect)
            }
            Self::Tls(..) => Some(TransportFailure::Tls),
            Self::NoIdentity | Self::Http1Only(_) | Self::Overflow => None,
        }
    }

    /// Whether it says nothing of the peer, because this proxy did not get to run.
    #[must_use]
    pub const fn is_starved(&self) -> bool {
        matches!(self, Self::Starved(..))
    }

    /// What the caller is told, if it is not retried.
    #[must_use]
    pub const fn flag(&self) -> Flag {
        match self {
            Self::Refused(..) => Flag::ConnectFailure,
            Self::Timeout(..) | Self::Starved(..) => Flag::ConnectFailure,
            Self::Tls(..) => Flag::TlsFailure,
            Self::Http1Only(_) => Flag::BadResponse,
            Self::NoIdentity => Flag::NotReady,
            Self::Overflow => Flag::Overflow,
        }
    }
}

/// A stream, and until when the peer's certificate holds.
#[derive(Debug)]
pub struct Connected {
    /// The stream.
    pub io: Io,
    /// The end of the peer's leaf; `None` for plaintext.
    pub expires: Option<SystemTime>,
    /// What the peer chose to speak.
    pub inside: Inside,
}

/// Whom to connect to.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Where.
    pub address: SocketAddr,
    /// As whom, with the server name that says which port is meant.
    pub mesh: Option<(SpiffeId, ServerName<'static>)>,
}

impl Peer {
    /// Whom an endpoint's key means.
    #[must_use]
    pub fn of(key: &EndpointKey) -> Self {
        let mesh = key.identity.as_ref().and_then(|identity| {
            let ServiceName { namespace, name } = &key.service;
            let trust_domain = identity.trust_domain();
            let sni = selvage_certs::sni_for(name, namespace, key.port, &trust_domain).ok()?;
            Some((identity.clone(), sni))
        });
        Self {
            address: key.address,
            mesh,
        }
    }
}

/// Connects, within `limit` (TLS included).
pub async fn connect(
    peer: &Peer,
    inside: Inside,
    limit: Option<Duration>,
    identity: &Identity,
    metrics: &Metrics,
    worker: usize,
) -> Result<Connected, ConnectError> {
    let address = peer.address;
    let connecting = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| ConnectError::Refused(address, error.to_string()))?;
        // Small writes leave at once: batching is ours to do, not the kernel's.
        let _ = stream.set_nodelay(true);
        let Some((expected, server_name)) = &peer.mesh else {
            return Ok(Connected {
                io: Io::Plain(stream),
                expires: None,
                inside,
            });
        };
        let current = identity.current().ok_or(ConnectError::NoIdentity)?;
        let config = current.client(expected, inside.offered());
        let result = tls::connect(stream, &current, expected, server_name.clone(), config).await;
        let outcome = result
            .as_ref()
            .map_or_else(TlsError::outcome, |_| HandshakeOutcome::Ok);
        metrics.handshake(worker, Side::Client, outcome);
        match result {
            Ok((stream, peer, inside)) => Ok(Connected {
                io: Io::Tls(Box::new(stream)),
                expires: Some(peer.not_after),
                inside,
            }),
            Err(TlsError::Transport(error)) => {
                Err(ConnectError::Refused(address, error.to_string()))
            }
            Err(error) => Err(ConnectError::Tls(address, error.to_string())),
        }
    };
    match limit {
        None => connecting.await,
        Some(limit) => {
            let due = Instant::now() + limit;
            let connected = tokio::time::timeout_at(due, connecting).await;
            connected.unwrap_or_else(|_| {
                let (due, noticed) = (due.into_std(), Instant::now().into_std());
                Err(if was_late(limit, due, noticed) {
                    ConnectError::Starved(address, limit)
                } else {
                    ConnectError::Timeout(address, limit)
                })
            })
        }
    }
}
