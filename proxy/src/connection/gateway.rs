//! A connection of a client outside the mesh, at a gateway: the listener it
//! asks for, TLS ended here or passed on unopened, and then HTTP or opaque
//! bytes. Nothing it says is believed but what it asks for.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use selvage_certs::HandshakeOutcome;
use selvage_policy::flag::Flag;
use selvage_policy::route::{Listener, ListenerProtocol, StreamRoute, stream};
use selvage_policy::sniff::Sniffed;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::log::ConnectionLog;
use super::prefixed::Prefixed;
use super::serve::{Spoken, http, opaque_by};
use super::{Ends, Rest, detect};
use crate::accept::Gate;
use crate::forward::Abort;
use crate::lifecycle::Direction;
use crate::request::{Downstream, Side};
use crate::telemetry::metrics;
use crate::telemetry::told::Tls;
use crate::tls::{self, Terminated, TlsError};
use crate::worker::Worker;

/// Serves one accepted connection of a port of the gateway.
pub(super) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    ends: Ends,
    gate: Gate,
) -> Option<Rest> {
    let view = worker.view().ok()?;
    let protocol = view.snapshot.gateway.as_ref()?.speaks(gate.port)?;
    let stream = Prefixed::bare(stream);
    match protocol {
        ListenerProtocol::Http => Box::pin(plaintext(worker, stream, ends, gate)).await,
        ListenerProtocol::Tcp => carried(worker, stream, ends, gate),
        ListenerProtocol::Https | ListenerProtocol::Tls | ListenerProtocol::Passthrough => {
            Box::pin(encrypted(worker, stream, ends, gate)).await
        }
    }
}

/// HTTP/1, or HTTP/2 by prior knowledge.
async fn plaintext(
    worker: Rc<Worker>,
    stream: Prefixed<TcpStream>,
    ends: Ends,
    gate: Gate,
) -> Option<Rest> {
    let (sniffed, stream) = detect(stream, worker.shared.settings.header_timeout).await?;
    let downstream = client(ends, gate, None);
    let spoken = match sniffed {
        Sniffed::Http2 => Spoken::Http2,
        // Whatever else it is: hyper's parser says what is wrong with it.
        _ => Spoken::Http1,
    };
    Some(http(worker, stream, downstream, spoken))
}

/// Opaque bytes, by the port alone.
fn carried(
    worker: Rc<Worker>,
    stream: Prefixed<TcpStream>,
    ends: Ends,
    gate: Gate,
) -> Option<Rest> {
    let view = worker.view().ok()?;
    let gateway = view.snapshot.gateway.as_ref()?;
    let listener = gateway.by_server_name(gate.port, None)?;
    let route = stream_of(listener, None).cloned();
    let downstream = client(ends, gate, None);
    let Some(route) = route else {
        turned_away(&worker, &downstream, "no TCPRoute is attached");
        stream.abort();
        return None;
    };
    Some(opaque_by(worker, stream, downstream, route))
}

/// A new listener's certificates are waited for so long: a little more than
/// it takes until they are looked at again.
const KEEPING_UP: Duration = Duration::from_secs(1);

/// TLS: by its server name passed on, or ended here with the certificate of
/// the listener that is meant.
async fn encrypted(
    worker: Rc<Worker>,
    stream: Prefixed<TcpStream>,
    ends: Ends,
    gate: Gate,
) -> Option<Rest> {
    let limit = worker.shared.settings.handshake_timeout;
    let begun = Instant::now();
    let left = || limit.saturating_sub(begun.elapsed());
    let Some((hello, stream)) = stream.hello(left()).await else {
        handshake(&worker, HandshakeOutcome::Other);
        return None;
    };
    let name = hello.server_name;
    let mut met = meet(&worker, &gate, name.as_deref());
    if let (Met::Soon, Some(gateway)) = (&met, &worker.shared.gateway) {
        let soon = left().min(KEEPING_UP);
        let _ = tokio::time::timeout(soon, gateway.keeps_up()).await;
        met = meet(&worker, &gate, name.as_deref());
    }
    let mut downstream = client(ends, gate, name);
    let (config, within) = match met {
        Met::Passed(route) => return Some(opaque_by(worker.clone(), stream, downstream, route)),
        Met::Ended { config, within } => (config, within),
        Met::Soon | Met::Nobody(_) => {
            let why = match met {
                Met::Nobody(why) => why,
                _ => "the listener has no usable certificate",
            };
            handshake(&worker, HandshakeOutcome::Other);
            turned_away(&worker, &downstream, why);
            tokio::time::timeout(limit, tls::refuse_name(stream))
                .await
                .ok();
            return None;
        }
    };
    // Only now: a silent stranger, and what is passed on, takes nobody's place.
    let place = tokio::time::timeout(left(), worker.shared.handshakes.acquire()).await;
    let Ok(Ok(place)) = place else {
        tracing::debug!(remote = %ends.remote, "limits.handshakes is reached");
        return None;
    };
    let accepted = tls::terminate(stream, config, left()).await;
    let outcome = accepted
        .as_ref()
        .map_or_else(TlsError::outcome, |_| HandshakeOutcome::Ok);
    handshake(&worker, outcome);
    let Terminated {
        stream,
        http2,
        resumed,
    } = match accepted {
        Ok(accepted) => accepted,
        Err(error) => {
            tracing::debug!(remote = %ends.remote, %error, "a client's handshake failed");
            return None;
        }
    };
    drop(place);
    downstream.tls = if resumed { Tls::Resumed } else { Tls::Full };
    let worker = worker.clone();
    match within {
        Within::Stream(route) => Some(opaque_by(worker, stream, downstream, route)),
        Within::Http if http2 => {
            let limit = worker.shared.settings.header_timeout;
            let stream = Prefixed::speaking(stream, limit).await?;
            Some(http(worker, stream, downstream, Spoken::Http2))
        }
        // Boxed: it goes in and out of hyper.
        Within::Http => {
            let stream = Prefixed::bare(Box::new(stream));
            Some(http(worker, stream, downstream, Spoken::Http1))
        }
    }
}

/// What a TLS client meets.
enum Met {
    /// Its bytes go on as they are.
    Passed(Arc<StreamRoute>),
    /// Its TLS ends here.
    Ended {
        config: Arc<rustls::ServerConfig>,
        within: Within,
    },
    /// The certificates of its listener are not there, or not yet.
    Soon,
    /// Nobody has the name it asks for: why.
    Nobody(&'static str),
}

/// What is within the TLS that ends here.
enum Within {
    Http,
    Stream(Arc<StreamRoute>),
}

fn meet(worker: &Worker, gate: &Gate, name: Option<&str>) -> Met {
    let view = worker.view();
    let gateway = view.as_ref().ok();
    let gateway = gateway.and_then(|view| view.snapshot.gateway.as_ref());
    let listener = gateway.and_then(|gateway| gateway.by_server_name(gate.port, name));
    let Some(listener) = listener else {
        return Met::Nobody("no listener has this server name");
    };
    let route = stream_of(listener, name).cloned();
    let within = match (listener.protocol, route) {
        (ListenerProtocol::Https, _) => Within::Http,
        (ListenerProtocol::Passthrough, Some(route)) => return Met::Passed(route),
        (ListenerProtocol::Tls, Some(route)) => Within::Stream(route),
        _ => return Met::Nobody("no route has this server name"),
    };
    let gateway = worker.shared.gateway.as_ref();
    match gateway.and_then(|gateway| gateway.tls(listener)) {
        Some(config) => Met::Ended { config, within },
        None => Met::Soon,
    }
}

fn stream_of<'l>(listener: &'l Listener, name: Option<&str>) -> Option<&'l Arc<StreamRoute>> {
    stream(&listener.streams, name)
}

fn client(ends: Ends, gate: Gate, server_name: Option<Box<str>>) -> Downstream {
    ends.downstream(Side::Gateway { gate, server_name })
}

fn handshake(worker: &Worker, outcome: HandshakeOutcome) {
    let metrics = &worker.shared.metrics;
    metrics.handshake(worker.index, metrics::Side::Server, outcome);
}

/// Counts and logs a connection that no route takes.
fn turned_away(worker: &Rc<Worker>, downstream: &Downstream, why: &'static str) {
    let Side::Gateway { gate, server_name } = &downstream.side else {
        return;
    };
    tracing::debug!(remote = %downstream.remote, port = gate.port, ?server_name, why, "connection turned away");
    let metrics = &worker.shared.metrics;
    let series = metrics.tcp(Direction::Outbound, worker.own_label(), "-");
    series.open(worker.index).set_flag(Flag::NoRoute);
    ConnectionLog::begin(worker, downstream).ends(Some(Flag::NoRoute));
}
