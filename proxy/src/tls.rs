//! The TLS of the mesh hop: accepts and connects with the current identity,
//! re-checks what resumption skips; and the TLS that a gateway terminates. Certificates
//! and verifiers come from `selvage-certs`; what comes after the handshake is
//! `tls/stream.rs`.

mod stream;

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::HandshakeKind;
use rustls_pki_types::ServerName;
use selvage_certs::{HandshakeOutcome, PeerIdentity, Sni, SpiffeId, TrustDomain};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor, TlsConnector};

pub use self::stream::TlsStream;
use crate::identity::{Current, Protocols};

/// HTTP/2 between sidecars.
pub const ALPN_H2: &[u8] = b"h2";
/// HTTP/1.1 between sidecars: upgrades, and what needs its interim answers.
pub const ALPN_HTTP1: &[u8] = b"http/1.1";
/// Opaque bytes.
pub const ALPN_TCP: &[u8] = b"selvage-tcp";

/// What flows inside, as ALPN says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inside {
    /// HTTP/2.
    Http2,
    /// HTTP/1.1.
    Http1,
    /// Opaque bytes.
    Tcp,
}

impl Inside {
    /// The ALPN protocol for it.
    #[must_use]
    pub const fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => ALPN_H2,
            Self::Http1 => ALPN_HTTP1,
            Self::Tcp => ALPN_TCP,
        }
    }

    /// What is offered where this is wanted: a foreign peer may speak HTTP/1.1 alone.
    #[must_use]
    pub const fn offered(self) -> Protocols {
        match self {
            Self::Http2 => &[ALPN_H2, ALPN_HTTP1],
            Self::Http1 => &[ALPN_HTTP1],
            Self::Tcp => &[ALPN_TCP],
        }
    }

    fn of(alpn: Option<&[u8]>) -> Option<Self> {
        [Self::Http2, Self::Http1, Self::Tcp]
            .into_iter()
            .find(|inside| alpn == Some(inside.alpn()))
    }
}

/// A finished handshake of an inbound connection.
pub struct Accepted<S> {
    /// The encrypted stream.
    pub stream: TlsStream<S>,
    /// Who is on the other side.
    pub peer: PeerIdentity,
    /// What flows inside.
    pub inside: Inside,
    /// The service port that SNI named, if it named one of this trust domain.
    pub service_port: Option<u16>,
    /// Whether the session was resumed.
    pub resumed: bool,
}

/// Why there is no TLS stream.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The handshake failed, here or at the peer.
    #[error("TLS handshake: {0}")]
    Handshake(#[from] rustls::Error),
    /// The transport failed under it.
    #[error("connection lost in the TLS handshake: {0}")]
    Transport(io::Error),
    /// It took too long.
    #[error("TLS handshake timed out")]
    Timeout,
    /// No common application protocol.
    #[error("peer offers none of the protocols h2, http/1.1, selvage-tcp")]
    NoProtocol,
    /// SNI names something else in this trust domain.
    #[error("peer asks for {0}, which is not served here")]
    UnrecognizedName(String),
    /// A resumed session that no longer holds.
    #[error("resumed session refused: {0}")]
    Refused(#[from] selvage_certs::RefusedPeer),
}

impl TlsError {
    /// Sorts an error of tokio-rustls, which wraps both kinds in `io::Error`.
    fn of(error: io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(inner) => Self::Handshake(inner.clone()),
            None => Self::Transport(error),
        }
    }

    /// The label of `selvage_tls_handshakes_total`.
    #[must_use]
    pub fn outcome(&self) -> HandshakeOutcome {
        match self {
            Self::Handshake(error) => selvage_certs::handshake_outcome(error),
            Self::Refused(refused) => refused.outcome(),
            Self::Transport(_) | Self::Timeout | Self::NoProtocol | Self::UnrecognizedName(_) => {
                HandshakeOutcome::Other
            }
        }
    }
}

/// What an inbound listener serves, to judge SNI by.
pub struct Served<'a> {
    /// The trust domain.
    pub trust_domain: &'a TrustDomain,
    /// The namespace of this workload.
    pub namespace: &'a str,
    /// Its service.
    pub service: &'a str,
    /// The service ports that inbound has.
    pub ports: &'a [u16],
}

impl Served<'_> {
    /// The service port SNI names: `Ok(None)` where it names none of this
    /// trust domain, so that the only port is meant.
    fn port_of(&self, server_name: Option<&str>) -> Result<Option<u16>, TlsError> {
        let Some(name) = server_name else {
            return Ok(None);
        };
        match selvage_certs::parse_sni(name, self.trust_domain) {
            Sni::OutsideTrustDomain => Ok(None),
            Sni::Port {
                port,
                service,
                namespace,
            } if service == self.service
                && namespace == self.namespace
                && self.ports.contains(&port) =>
            {
                Ok(Some(port))
            }
            Sni::Port { .. } | Sni::Malformed => {
                Err(TlsError::UnrecognizedName(name.chars().take(253).collect()))
            }
        }
    }
}

/// A fatal `unrecognized_name` alert, as a plaintext TLS record (RFC 8446 §5.1, §6).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Tells a client that nobody has the name it asks for, and closes.
pub async fn refuse_name<S: AsyncWrite + Unpin>(mut stream: S) {
    // The peer may be gone already: then there is nobody to tell.
    let _ = stream.write_all(&UNRECOGNIZED_NAME).await;
    let _ = stream.shutdown().await;
}

/// A finished handshake of a client outside the mesh.
pub struct Terminated<S> {
    /// The encrypted stream.
    pub stream: TlsStream<S>,
    /// Whether HTTP/2 was agreed on.
    pub http2: bool,
    /// Whether the session was resumed.
    pub resumed: bool,
}

/// Accepts a connection of a client outside the mesh, who presents no identity.
///
/// # Errors
/// The handshake failed, or took longer than `limit`.
pub async fn terminate<S>(
    stream: S,
    config: Arc<rustls::ServerConfig>,
    limit: Duration,
) -> Result<Terminated<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(config).accept(stream);
    let stream = tokio::time::timeout(limit, handshake)
        .await
        .map_err(|_| TlsError::Timeout)?
        .map_err(TlsError::of)?;
    let (io, session) = stream.into_inner();
    Ok(Terminated {
        http2: session.alpn_protocol() == Some(ALPN_H2),
        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
        stream: TlsStream::new(io, session),
    })
}

/// Accepts a connection of another sidecar.
pub async fn accept<S>(
    stream: S,
    current: &Current,
    served: &Served<'_>,
    limit: Duration,
) -> Result<Accepted<S>, TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = async {
        let acceptor = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream);
        tokio::pin!(acceptor);
        let start = acceptor.as_mut().await.map_err(TlsError::of)?;
        let port = match served.port_of(start.client_hello().server_name()) {
            Ok(port) => port,
            Err(error) => {
                refuse_name(start.io).await;
                return Err(error);
            }
        };
        let stream = start
            .into_stream(current.server.clone())
            .await
            .map_err(TlsError::of)?;
        Ok((port, stream))
    };
    let (service_port, stream) = tokio::time::timeout(limit, handshake)
        .await
        .map_err(|_| TlsError::Timeout)??;
    let (io, session) = stream.into_inner();
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let chain = session.peer_certificates().unwrap_or_default();
    let peer = check(chain, resumed, None, current)?;
    let inside = Inside::of(session.alpn_protocol()).ok_or(TlsError::NoProtocol)?;
    Ok(Accepted {
        stream: TlsStream::new(io, session),
        peer,
        inside,
        service_port,
        resumed,
    })
}

/// Connects to another sidecar, expecting exactly this identity.
pub async fn connect<S>(
    stream: S,
    current: &Current,
    expected: &SpiffeId,
    server_name: ServerName<'static>,
    config: Arc<rustls::ClientConfig>,
) -> Result<(TlsStream<S>, PeerIdentity, Inside), TlsError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = TlsConnector::from(config)
        .connect(server_name, stream)
        .await
        .map_err(TlsError::of)?;
    let (io, session) = stream.into_inner();
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let chain = session.peer_certificates().unwrap_or_default();
    let peer = check(chain, resumed, Some(expected), current)?;
    let inside = Inside::of(session.alpn_protocol()).ok_or(TlsError::NoProtocol)?;
    Ok((TlsStream::new(io, session), peer, inside))
}

/// rustls runs the verifier in full handshakes only: what was resumed is
/// checked again here, against the bundle of now.
fn check(
    chain: &[rustls_pki_types::CertificateDer<'static>],
    resumed: bool,
    expected: Option<&SpiffeId>,
    current: &Current,
) -> Result<PeerIdentity, TlsError> {
    if resumed {
        let now = SystemTime::now();
        return Ok(selvage_certs::recheck(
            chain,
            expected,
            &current.bundle,
            now,
        )?);
    }
    Ok(selvage_certs::peer_identity(chain)?)
}
