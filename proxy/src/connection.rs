//! The life of a connection, top to bottom: whose it is, what is spoken on it,
//! and then HTTP or opaque bytes to its end.

mod http2;
mod prefixed;
mod serve;

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use selvage_certs::HandshakeOutcome;
use selvage_policy::authorize::{Caller, Operated};
use selvage_policy::flag::Flag;
use selvage_policy::snapshot::{MutualTls, Protocol};
use selvage_policy::sniff::{SNIFF_BYTES, Sniffed, sniff};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use self::prefixed::Prefixed;
use self::serve::{Spoken, http, opaque};
use crate::accept::{Purpose, Seat};
use crate::request::{Downstream, Side};
use crate::telemetry::access_log::Tls;
use crate::telemetry::metrics::{self, Decision};
use crate::tls::{self, Accepted, Inside, Served, TlsError};
use crate::worker::{Worker, policy_name};

/// A caller that says nothing for this long on a port where the protocol is to
/// be detected is taken to wait for the server to speak first.
pub const DETECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves one accepted connection to its end.
pub async fn serve(worker: Rc<Worker>, stream: TcpStream, purpose: Arc<Purpose>, seat: Seat) {
    let (Ok(remote), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else {
        return;
    };
    let downstream = Downstream {
        side: Side::Outbound {
            purpose: purpose.clone(),
        },
        peer: None,
        remote,
        local,
        tls: Tls::None,
        bell: None,
        streams: Cell::default(),
        moved: Cell::new(tokio::time::Instant::now()),
        owed: Cell::default(),
        certificate: OnceCell::new(),
    };
    match &*purpose {
        // Boxed here and below: what is moved is small, and what is past is freed.
        Purpose::Inbound => Box::pin(inbound(&worker, stream, downstream)).await,
        Purpose::Outbound => Box::pin(outbound(&worker, stream, downstream)).await,
        Purpose::Upstream { service, port } => {
            let protocol = match worker.by_name(service, *port).await {
                Ok(destination) => destination.port.protocol,
                // HTTP callers are told why; others are closed.
                Err(_) => Protocol::Detect,
            };
            Box::pin(upstream(&worker, stream, downstream, protocol)).await;
        }
    }
    drop(seat);
}

/// HTTP by authority: nothing else can say where it wants to go.
async fn outbound(worker: &Rc<Worker>, stream: TcpStream, downstream: Downstream) {
    let limit = worker.shared.settings.header_timeout;
    match detect(stream, limit).await {
        Some((Sniffed::Http2, stream)) => http(worker, stream, downstream, Spoken::Http2).await,
        // Whatever else it is: hyper's parser says what is wrong with it.
        Some((_, stream)) => http(worker, stream, downstream, Spoken::Http1).await,
        None => {}
    }
}

/// A listener of one upstream: what its port is declared as, or what is spoken.
async fn upstream(
    worker: &Rc<Worker>,
    stream: TcpStream,
    downstream: Downstream,
    protocol: Protocol,
) {
    match protocol {
        Protocol::Tcp => Box::pin(opaque(worker, Prefixed::bare(stream), downstream)).await,
        Protocol::Detect => match detect(stream, DETECT_TIMEOUT).await {
            Some((Sniffed::Http1, stream)) => http(worker, stream, downstream, Spoken::Http1).await,
            Some((Sniffed::Http2, stream)) => http(worker, stream, downstream, Spoken::Http2).await,
            Some((_, stream)) => Box::pin(opaque(worker, stream, downstream)).await,
            None => {}
        },
        Protocol::Http | Protocol::Http2 | Protocol::Grpc => {
            outbound(worker, stream, downstream).await;
        }
    }
}

/// From another sidecar; in permissive mode also from anybody.
async fn inbound(worker: &Rc<Worker>, stream: TcpStream, downstream: Downstream) {
    let Ok(view) = worker.view() else { return };
    let settings = &worker.shared.settings;
    let mode = settings.mutual_tls.unwrap_or(view.snapshot.mesh.mutual_tls);
    if mode == MutualTls::Strict {
        return Box::pin(mesh(worker, Prefixed::bare(stream), downstream)).await;
    }
    match detect(stream, DETECT_TIMEOUT).await {
        Some((Sniffed::Tls, stream)) => {
            match stream.offers_mesh(settings.handshake_timeout).await {
                Some((true, stream)) => Box::pin(mesh(worker, stream, downstream)).await,
                // Somebody else's TLS, for the application itself.
                Some((false, stream)) => plaintext(worker, stream, downstream, Sniffed::Tls).await,
                None => {}
            }
        }
        Some((sniffed, stream)) => plaintext(worker, stream, downstream, sniffed).await,
        None => {}
    }
}

/// Plaintext in permissive mode: to the only port, and never with an identity.
async fn plaintext(
    worker: &Rc<Worker>,
    stream: Prefixed<TcpStream>,
    mut downstream: Downstream,
    sniffed: Sniffed,
) {
    let Some(app) = worker.app(None).cloned() else {
        return;
    };
    let protocol = app.port.protocol;
    downstream.side = Side::Inbound {
        app,
        caller: worker.caller(None),
    };
    match (protocol, sniffed) {
        (Protocol::Tcp, _) => admitted(worker, stream, downstream).await,
        (_, Sniffed::Http1) => http(worker, stream, downstream, Spoken::Http1).await,
        (_, Sniffed::Http2) => http(worker, stream, downstream, Spoken::Http2).await,
        (Protocol::Detect, _) => admitted(worker, stream, downstream).await,
        // What is declared HTTP and is none: hyper's parser says what is wrong.
        _ => http(worker, stream, downstream, Spoken::Http1).await,
    }
}

/// Mutual TLS from another sidecar.
async fn mesh(worker: &Rc<Worker>, stream: Prefixed<TcpStream>, mut downstream: Downstream) {
    let shared = &worker.shared;
    let limit = shared.settings.handshake_timeout;
    let begun = tokio::time::Instant::now();
    let Ok(Ok(place)) = tokio::time::timeout(limit, shared.handshakes.acquire()).await else {
        tracing::debug!(remote = %downstream.remote, "limits.handshakes is reached");
        return;
    };
    let Some(current) = shared.identity.current() else {
        return;
    };
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
            tracing::debug!(remote = %downstream.remote, %error, "inbound handshake refused");
            return;
        }
    };
    drop(place);
    let Some(app) = worker.app(service_port).cloned() else {
        tracing::debug!(remote = %downstream.remote, "no SNI, and more than one port");
        return;
    };
    let declared = app.port.protocol;
    downstream.tls = if resumed { Tls::Resumed } else { Tls::Full };
    downstream.side = Side::Inbound {
        app,
        caller: worker.caller(Some(&peer.id)),
    };
    let certificate = format!("By={};URI={}", current.id, peer.id);
    if let Ok(certificate) = ::http::HeaderValue::try_from(certificate) {
        // Set here alone, once.
        let _ = downstream.certificate.set(certificate);
    }
    downstream.peer = Some(peer);
    match inside {
        Inside::Http2 => {
            let limit = shared.settings.header_timeout;
            if let Some(stream) = Prefixed::speaking(stream, limit).await {
                http(worker, stream, downstream, Spoken::Http2).await;
            }
        }
        Inside::Http1 => http(worker, stream, downstream, Spoken::Http1).await,
        Inside::Tcp if matches!(declared, Protocol::Tcp | Protocol::Detect) => {
            admitted(worker, stream, downstream).await;
        }
        Inside::Tcp => {
            tracing::debug!(remote = %downstream.remote, "opaque bytes toward a port declared HTTP");
        }
    }
}

/// Opaque bytes toward the application, if its policy lets the caller in.
async fn admitted<S>(worker: &Rc<Worker>, stream: S, downstream: Downstream)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + crate::forward::Abort + Unpin,
{
    let Ok(view) = worker.view() else { return };
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
        Box::pin(opaque(worker, stream, downstream)).await;
    } else {
        worker.count_decision(Decision::Deny, verdict.policy);
        let policy = policy_name(verdict.policy);
        tracing::debug!(remote = %downstream.remote, policy, "connection denied");
        if let Side::Inbound { caller, .. } = &downstream.side {
            caller.tcp.open(worker.index).set_flag(Flag::Denied);
        }
        stream.abort();
    }
}

/// Reads until it is clear what is spoken. Silence for `limit` is `Opaque`:
/// the server may have to speak first. `None` where the caller has gone.
async fn detect(mut stream: TcpStream, limit: Duration) -> Option<(Sniffed, Prefixed<TcpStream>)> {
    let mut bytes = Vec::with_capacity(SNIFF_BYTES);
    let reading = async {
        loop {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
            match sniff(&bytes) {
                Sniffed::NeedMore => {}
                decided => return Some(decided),
            }
        }
    };
    let sniffed = match tokio::time::timeout(limit, reading).await {
        Ok(None) if bytes.is_empty() => return None,
        // It closed its side, or stopped, in the middle of something.
        Ok(None) | Err(_) => Sniffed::Opaque,
        Ok(Some(sniffed)) => sniffed,
    };
    Some((sniffed, Prefixed::new(bytes.into(), stream)))
}
