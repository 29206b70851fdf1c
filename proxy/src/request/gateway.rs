//! A request at a gateway, before it is routed: what is told of its client,
//! and the listener whose routes it meets.

use std::sync::Arc;

use http::Request;
use http::uri::{Authority, Scheme};
use selvage_policy::flag::Flag;
use selvage_policy::forwarded::{Came, forwarded};
use selvage_policy::route::{Astray, Gateway, Listener};

use super::downstream::{Downstream, Side};
use super::outgoing::Outgoing;
use super::record::Record;
use super::route::{self, Door, Led};
use crate::accept::Gate;
use crate::error::ProxyError;
use crate::http::head::Asked;
use crate::http::received::Received;
use crate::telemetry::told::Tls;
use crate::worker::Worker;

/// The scheme a client asked with: HTTPS where its TLS ends here.
fn scheme(downstream: &Downstream) -> Scheme {
    match downstream.tls {
        Tls::None => Scheme::HTTP,
        Tls::Full | Tls::Resumed => Scheme::HTTPS,
    }
}

/// Tells the backend who asks, and takes away what the client said of it.
pub(super) fn tells(
    worker: &Worker,
    downstream: &Downstream,
    request: &mut Request<Received>,
    asked: &Asked,
) {
    let trusted = worker.shared.gateway.as_ref();
    let came = Came {
        from: downstream.remote.ip(),
        scheme: &scheme(downstream),
        host: asked.authority.as_ref().map(Authority::as_str),
        trusted: trusted.map_or(0, |gateway| gateway.trusted_hops()),
    };
    forwarded(request.headers_mut(), &came);
}

/// Where the routes of the listener lead that a request meets.
///
/// # Errors
/// `no-route` where no listener is for its host, or none of its routes matches;
/// `misdirected` where another listener is meant than its connection's.
pub(super) fn lead(
    worker: &Worker,
    downstream: &Downstream,
    gate: &Gate,
    outgoing: &mut Outgoing,
    record: &mut Record,
) -> Result<Led, ProxyError> {
    let view = worker.view()?;
    let gateway = view.snapshot.gateway.as_ref().ok_or_else(nobody)?;
    let listener = listener(gateway, downstream, gate, &outgoing.asked)?;
    let door = Door {
        scheme: scheme(downstream),
        port: gate.port,
        label: &gateway.name,
    };
    route::lead(worker, &listener.routes, &door, outgoing, record)
}

fn nobody() -> ProxyError {
    ProxyError::new(Flag::NoRoute, "no listener is for this host")
}

fn listener<'g>(
    gateway: &'g Gateway,
    downstream: &Downstream,
    gate: &Gate,
    asked: &Asked,
) -> Result<&'g Arc<Listener>, ProxyError> {
    let host = asked.authority.as_ref().map(Authority::host);
    let host = host.map(|host| host.strip_suffix('.').unwrap_or(host));
    let found = match &downstream.side {
        Side::Gateway { server_name, .. } if downstream.tls != Tls::None => {
            gateway.within_tls(gate.port, server_name.as_deref(), host)
        }
        _ => gateway.by_host(gate.port, host),
    };
    found.map_err(|astray| match astray {
        Astray::NoListener => nobody(),
        Astray::Misdirected => ProxyError::new(
            Flag::Misdirected,
            "the host is another listener's than the server name",
        ),
    })
}
