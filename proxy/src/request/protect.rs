//! What a request, or a connection of opaque bytes, must get past before the
//! application is asked, where a ServerPolicy protects its port: performs what
//! `selvage_policy::server` decides, and waits where that says so.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use http::HeaderMap;
use selvage_policy::classify::{Class, Outcome, TransportFailure, classify};
use selvage_policy::failures::Failures;
use selvage_policy::forwarded;
use selvage_policy::said::Ignored;
use selvage_policy::server::{Admission, Admitted, Asking, Criticality, Refused, Waits, Whose};
use tokio::time::Instant;

use super::downstream::{Downstream, Side};
use super::outgoing::Outgoing;
use super::send::Tried;
use crate::clock;
use crate::discovery::View;
use crate::error::ProxyError;
use crate::upstream::Destination;
use crate::worker::{Ruled, Worker};

/// What its head says of how much a request matters, as far as that is
/// believed: of the application beside us and of an authenticated peer, not of
/// a client outside the mesh.
pub(super) fn criticality(
    worker: &Worker,
    downstream: &Downstream,
    said: Option<Result<Criticality, selvage_policy::server::UnknownCriticality>>,
) -> Option<Criticality> {
    let trusted = match downstream.side {
        Side::Outbound { .. } => true,
        Side::Inbound { .. } => downstream.peer.is_some(),
        Side::Gateway { .. } => false,
    };
    match said? {
        Ok(criticality) => trusted.then_some(criticality),
        Err(_) => {
            worker.ignores(Ignored::Criticality);
            None
        }
    }
}

/// Asks for a place at the application. Nothing where no policy protects the
/// port; no headers for opaque bytes.
pub(super) fn admit(
    worker: &Worker,
    view: &View,
    downstream: &Downstream,
    app: &Destination,
    headers: Option<&HeaderMap>,
    criticality: Criticality,
) -> Result<Option<Admission>, ProxyError> {
    let port = app.port.port;
    let Some(policy) = view.snapshot.inbound.server.of(port) else {
        return Ok(None);
    };
    let Some(server) = worker.shared.server(port) else {
        return Ok(None);
    };
    let identity = downstream.peer.as_ref().map(|peer| &peer.id);
    let load = || downstream.load.get_or_init(|| server.caller(identity));
    let asking = Asking {
        caller: &|| load().clone(),
        identity,
        source: Some(downstream.remote.ip()),
        headers,
        criticality,
    };
    let now = clock::recent().into_std();
    server
        .admit(policy, &asking, now)
        .map(Some)
        .map_err(refusal)
}

/// Lets a request of a gateway's rule pass at the rate the rule sets. Where
/// proxies stand before the gateway, the client is the one they tell of.
pub(super) fn within_rate(
    ruled: &Ruled,
    headers: &HeaderMap,
    remote: IpAddr,
) -> Result<(), ProxyError> {
    let (Some(limit), Some(rates)) = (&ruled.rule.rate_limit, &ruled.rates) else {
        return Ok(());
    };
    let whose = Whose {
        identity: None,
        headers: Some(headers),
        source: Some(forwarded::client(headers).unwrap_or(remote)),
    };
    rates
        .take(limit, &whose, clock::recent().into_std())
        .map_err(refusal)
}

/// Waits for a place.
pub(super) async fn wait(mut waits: Waits) -> Result<Admitted, ProxyError> {
    let until = Instant::from_std(waits.until());
    let mut timeout = pin!(tokio::time::sleep_until(until));
    let waited = poll_fn(|cx| {
        let now = clock::now().into_std();
        if let Poll::Ready(decided) = waits.poll(cx, now) {
            return Poll::Ready(decided);
        }
        ready!(timeout.as_mut().poll(cx));
        Poll::Ready(waits.give_up(now))
    });
    waited.await.map_err(refusal)
}

/// A place for a connection of opaque bytes from another sidecar, for as long
/// as it lasts.
pub(crate) async fn connection(
    worker: &Rc<Worker>,
    downstream: &Downstream,
) -> Result<Option<Admitted>, ProxyError> {
    let Side::Inbound { app, .. } = &downstream.side else {
        return Ok(None);
    };
    let view = worker.view()?;
    let _ = clock::now();
    let admission = admit(worker, &view, downstream, app, None, Criticality::Default)?;
    match admission {
        None => Ok(None),
        Some(Admission::Admitted(admitted)) => Ok(Some(admitted)),
        Some(Admission::Waits(waits)) => wait(waits).await.map(Some),
    }
}

/// Tells the limit what a try took in the application: from the moment it had
/// all of the request to the head of its answer. An answer that comes before
/// the request has ended is a stream's, and says nothing; nor does a failure,
/// which is fast for reasons of its own.
pub(super) fn learn(
    admitted: &mut Admitted,
    failures: &Failures,
    tried: &Tried,
    outgoing: &Outgoing,
) {
    let now = clock::recent();
    let latency = tried.in_flight.latency();
    match (&tried.outcome, latency) {
        (Outcome::Response { .. }, Some(latency))
            if classify(failures, &tried.outcome) == Class::Success
                && outgoing.body.is_complete() =>
        {
            let since_upload = now.saturating_duration_since(outgoing.activity.last());
            admitted.answered(latency.min(since_upload), now.into_std());
        }
        (Outcome::Transport(TransportFailure::Timeout), _) => admitted.given_up(now.into_std()),
        _ => admitted.says_nothing(),
    }
}

fn refusal(refused: Refused) -> ProxyError {
    let mut error = ProxyError::new(refused.why.flag(), refused.why.as_str());
    error.retry_after = refused.retry_after;
    error
}
