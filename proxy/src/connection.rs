//! The life of a connection, top to bottom: whose it is, what is spoken on it,
//! and then HTTP or opaque bytes to its end.

mod aside;
mod gateway;
mod http1;
mod http2;
mod log;
mod prefixed;
mod serve;
mod streams;

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use selvage_certs::HandshakeOutcome;
use selvage_policy::authorize::{Caller, Operated};
use selvage_policy::flag::Flag;
use selvage_policy::snapshot::{MutualTls, Protocol};
use selvage_policy::sniff::{Sniffed, sniff};
use tokio::net::TcpStream;

use self::log::ConnectionLog;
use self::prefixed::Prefixed;
use self::serve::{Spoken, http, opaque};
use self::streams::to_service;
use crate::accept::{Origin, Purpose};
use crate::clock;
use crate::request::{Downstream, Side};
use crate::telemetry::metrics::{self, Decision};
use crate::telemetry::told::Tls;
use crate::tls::{self, Accepted, Inside, Served, TlsError};
use crate::upstream::Destination;
use crate::worker::{Worker, policy_name};

/// A caller that says nothing for this long on a port where the protocol is to
/// be detected is taken to wait for the server to speak first.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The rest of a connection's life, once it is known what it carries.
type Rest = Pin<Box<dyn Future<Output = ()>>>;

/// Serves one accepted connection to its end.
///
/// Each part of its life is boxed, and freed when it is past: the task is moved
/// several times before it first runs, and is what an idle connection keeps.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, origin: Origin) {
    let Origin {
        remote,
        port,
        purpose,
        seat,
    } = origin;
    let ends = Ends { remote, port };
    let rest = match &*purpose {
        Purpose::Inbound => Box::pin(inbound(worker, stream, ends)).await,
        Purpose::Outbound | Purpose::Upstream { .. } => {
            Box::pin(outbound(worker, stream, ends, purpose)).await
        }
        Purpose::Gateway(gate) => {
            let serving = gateway::serve(worker, stream, ends, gate.clone());
            Box::pin(serving).await
        }
    };
    if let Some(rest) = rest {
        rest.await;
    }
    drop(seat);
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
struct Ends {
    remote: SocketAddr,
    /// The port of ours.
    port: u16,
}

impl Ends {
    fn downstream(self, side: Side) -> Downstream {
        Downstream {
            side,
            peer: None,
            remote: self.remote,
            port: self.port,
            tls: Tls::None,
            bell: None,
            streams: Cell::default(),
            moved: Cell::new(clock::now()),
            owed: Cell::default(),
            certificate: OnceCell::new(),
            load: OnceCell::new(),
        }
    }
}

/// From the application. On the listener of one upstream: what its port is
/// declared as, or what is spoken. Elsewhere HTTP by authority: nothing else can
/// say where it wants to go.
async fn outbound(
    worker: Rc<Worker>,
    stream: TcpStream,
    ends: Ends,
    purpose: Arc<Purpose>,
) -> Option<Rest> {
    let downstream = ends.downstream(Side::Outbound {
        purpose: purpose.clone(),
    });
    let (protocol, known) = match &*purpose {
        Purpose::Upstream { service, port } => {
            let known = match worker.known(&purpose, None) {
                Ok(Some(known)) => Some(known),
                _ => Box::pin(worker.by_name(service, *port)).await.ok(),
            };
            // HTTP callers are told why; others are closed.
            let declared = known.as_ref().map(|known| known.port.protocol);
            (declared.unwrap_or(Protocol::Detect), known)
        }
        Purpose::Outbound | Purpose::Inbound | Purpose::Gateway(_) => (Protocol::Http, None),
    };
    let limit = match protocol {
        Protocol::Tcp => {
            let stream = Prefixed::bare(stream);
            return Box::pin(to_service(worker, stream, downstream, known)).await;
        }
        Protocol::Detect => DETECT_TIMEOUT,
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => worker.shared.settings.header_timeout,
    };
    let (sniffed, stream) = detect(Prefixed::bare(stream), limit).await?;
    let whole =
        |known: &Rc<Destination>| known.port.routes.is_none() && !known.port.streams.is_empty();
    if known.as_ref().is_some_and(whole) {
        // Whatever is spoken: its routes are for connections.
        return Box::pin(to_service(worker, stream, downstream, known)).await;
    }
    Some(match sniffed {
        Sniffed::Http1 => http(worker, stream, downstream, Spoken::Http1),
        Sniffed::Http2 => http(worker, stream, downstream, Spoken::Http2),
        _ if protocol == Protocol::Detect => {
            return Box::pin(to_service(worker, stream, downstream, known)).await;
        }
        // Whatever else it is: hyper's parser says what is wrong with it.
        _ => http(worker, stream, downstream, Spoken::Http1),
    })
}

/// From another sidecar; in permissive mode also from anybody.
async fn inbound(worker: Rc<Worker>, stream: TcpStream, ends: Ends) -> Option<Rest> {
    let settings = &worker.shared.settings;
    let declared = worker.view().ok()?.snapshot.mesh.mutual_tls;
    if settings.mutual_tls.unwrap_or(declared) == MutualTls::Strict {
        return Box::pin(mesh(&worker, Prefixed::bare(stream), ends)).await;
    }
    let (sniffed, stream) = detect(Prefixed::bare(stream), DETECT_TIMEOUT).await?;
    if sniffed != Sniffed::Tls {
        return plaintext(worker, stream, ends, sniffed);
    }
    let (hello, stream) = stream.hello(settings.handshake_timeout).await?;
    if hello.mesh {
        return Box::pin(mesh(&worker, stream, ends)).await;
    }
    // Somebody else's TLS, for the application itself.
    plaintext(worker, stream, ends, Sniffed::Tls)
}

/// Plaintext in permissive mode: to the only port, and never with an identity.
fn plaintext(
    worker: Rc<Worker>,
    stream: Prefixed<TcpStream>,
    ends: Ends,
    sniffed: Sniffed,
) -> Option<Rest> {
    let app = worker.app(None)?.clone();
    let protocol = app.port.protocol;
    let caller = worker.caller(None);
    let downstream = ends.downstream(Side::Inbound { app, caller });
    match (protocol, sniffed) {
        (Protocol::Tcp, _) => admitted(worker, stream, downstream),
        (_, Sniffed::Http2) => Some(http(worker, stream, downstream, Spoken::Http2)),
        (_, Sniffed::Http1) => Some(http(worker, stream, downstream, Spoken::Http1)),
        (Protocol::Detect, _) => admitted(worker, stream, downstream),
        // What is declared HTTP and is none: hyper's parser says what is wrong.
        _ => Some(http(worker, stream, downstream, Spoken::Http1)),
    }
}

/// Mutual TLS from another sidecar.
async fn mesh(worker: &Rc<Worker>, stream: Prefixed<TcpStream>, ends: Ends) -> Option<Rest> {
    let shared = &worker.shared;
    let limit = shared.settings.handshake_timeout;
    let begun = tokio::time::Instant::now();
    let Ok(Ok(place)) = tokio::time::timeout(limit, shared.handshakes.acquire()).await else {
        tracing::debug!(remote = %ends.remote, "limits.handshakes is reached");
        return None;
    };
    let current = shared.identity.current()?;
    let ports: Vec<u16> = shared
        .settings
        .ports
        .iter()
        .map(|port| port.service_port)
        .collect();
    let served = Served {
        trust_domain: current.bundle.trust_domain(),
        namespace: &shared.workload.namespace,
        service: &shared.workload.service,
        ports: &ports,
    };
    let left = limit.saturating_sub(begun.elapsed());
    let accepted = tls::accept(stream, &current, &served, left).await;
    let outcome = accepted
        .as_ref()
        .map_or_else(TlsError::outcome, |_| HandshakeOutcome::Ok);
    shared
        .metrics
        .handshake(worker.index, metrics::Side::Server, outcome);
    let Accepted {
        stream,
        peer,
        inside,
        service_port,
        resumed,
    } = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(remote = %ends.remote, %error, "inbound handshake refused");
            return None;
        }
    };
    drop(place);
    let Some(app) = worker.app(service_port).cloned() else {
        tracing::debug!(remote = %ends.remote, "no SNI, and more than one port");
        return None;
    };
    let declared = app.port.protocol;
    let caller = worker.caller(Some(&peer.id));
    let mut downstream = ends.downstream(Side::Inbound { app, caller });
    downstream.tls = if resumed { Tls::Resumed } else { Tls::Full };
    let certificate = format!("By={};URI={}", current.id, peer.id);
    if let Ok(certificate) = ::http::HeaderValue::try_from(certificate) {
        // Set here alone, once.
        let _ = downstream.certificate.set(certificate);
    }
    downstream.peer = Some(peer);
    let worker = worker.clone();
    match inside {
        Inside::Http2 => {
            let limit = shared.settings.header_timeout;
            let stream = Prefixed::speaking(stream, limit).await?;
            Some(http(worker, stream, downstream, Spoken::Http2))
        }
        // Boxed: it goes in and out of hyper.
        Inside::Http1 => {
            let stream = Prefixed::bare(Box::new(stream));
            Some(http(worker, stream, downstream, Spoken::Http1))
        }
        Inside::Tcp if matches!(declared, Protocol::Tcp | Protocol::Detect) => {
            admitted(worker, stream, downstream)
        }
        Inside::Tcp => {
            tracing::debug!(remote = %ends.remote, "opaque bytes toward a port declared HTTP");
            None
        }
    }
}

/// Opaque bytes toward the application, if its policy lets the caller in.
fn admitted<S>(worker: Rc<Worker>, stream: S, downstream: Downstream) -> Option<Rest>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + crate::forward::Abort + Unpin + 'static,
{
    let view = worker.view().ok()?;
    let caller = Caller {
        identity: downstream.peer.as_ref().map(|peer| &peer.id),
    };
    let operated = Operated {
        method: None,
        path: None,
    };
    let verdict = view.snapshot.inbound.authorize(caller, operated);
    for audited in &verdict.audited {
        worker.count_decision(Decision::AuditDeny, Some(audited));
    }
    if verdict.permitted {
        worker.count_decision(Decision::Allow, verdict.policy);
        return Some(opaque(worker, stream, downstream));
    }
    worker.count_decision(Decision::Deny, verdict.policy);
    let policy = policy_name(verdict.policy);
    tracing::debug!(remote = %downstream.remote, policy, "connection denied");
    if let Side::Inbound { caller, .. } = &downstream.side {
        caller.tcp.open(worker.index).set_flag(Flag::Denied);
    }
    let mut log = ConnectionLog::begin(&worker, &downstream);
    log.denied_by(&policy);
    log.ends(Some(Flag::Denied));
    stream.abort();
    None
}

/// Reads until it is clear what is spoken. Silence for `limit` is `Opaque`:
/// the server may have to speak first. `None` where the caller has gone.
async fn detect(
    mut stream: Prefixed<TcpStream>,
    limit: Duration,
) -> Option<(Sniffed, Prefixed<TcpStream>)> {
    if stream.fetch_now().await {
        let sniffed = sniff(stream.prefix());
        if sniffed != Sniffed::NeedMore {
            return Some((sniffed, stream));
        }
    }
    let reading = async {
        loop {
            if stream.fetch().await.ok()? == 0 {
                return None;
            }
            match sniff(stream.prefix()) {
                Sniffed::NeedMore => {}
                decided => return Some(decided),
            }
        }
    };
    let sniffed = match tokio::time::timeout(limit, reading).await {
        Ok(None) if stream.prefix().is_empty() => return None,
        // It closed its side, or stopped, in the middle of something.
        Ok(None) | Err(_) => Sniffed::Opaque,
        Ok(Some(sniffed)) => sniffed,
    };
    Some((sniffed, stream))
}
