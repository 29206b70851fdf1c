//! What is there and what happened: proxies, services, events, changes, the
//! authority, metrics; and the making of join tokens.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use jiff::Timestamp;
use selvage_certs::{JoinToken, SpiffeId};
use selvage_core::resource::{ServiceName, is_dns_label};
use selvage_core::scalar;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Operator;
use super::guard::refuse;
use crate::ca::seconds;
use crate::store::{Changes, Token};

/// The longest life of a join token.
pub(crate) const MAX_TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3600);
/// Life of a token where none is given.
const DEFAULT_TOKEN_TTL: Duration = Duration::from_secs(3600);
/// Uses of one token at most.
pub(crate) const MAX_TOKEN_USES: u32 = 10_000;
/// Services bound by one token at most.
pub(crate) const MAX_TOKEN_SERVICES: usize = 64;
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

type App = State<Arc<Operator>>;

pub(super) async fn proxies(State(operator): App) -> Json<Value> {
    Json(json!({ "items": operator.proxies.list() }))
}

/// Every service with a document or a workload, and its workloads.
pub(super) async fn services(State(operator): App) -> Json<Value> {
    operator.mesh.read(|live| {
        let documented = live.world.services();
        let mut all = documented.clone();
        all.extend(live.registry.services());
        let items: Vec<_> = all
            .iter()
            .map(|service| {
                json!({
                    "namespace": service.namespace,
                    "name": service.name,
                    "documented": documented.contains(service),
                    "workloads": workloads(live, service),
                })
            })
            .collect();
        let alarm = live
            .alarm
            .map(|alarm| json!({ "silent": alarm.silent, "of": alarm.of }));
        Json(json!({ "items": items, "revision": live.revision, "expiryFrozen": alarm }))
    })
}

fn workloads(live: &crate::mesh::Live, service: &ServiceName) -> Vec<Value> {
    live.registry
        .of_service(service)
        .map(|entry| {
            let registration = entry.registration();
            let healthy = !entry.is_lapsed() && registration.ports.iter().all(|port| port.healthy);
            json!({
                "namespace": registration.namespace,
                "service": registration.service,
                "workload": registration.workload,
                "weight": registration.weight,
                "identity": registration.identity.as_str(),
                "address": registration.address,
                "telemetry": registration.telemetry,
                "labels": registration.labels,
                "ports": registration.ports,
                "healthy": healthy,
                "lapsed": entry.is_lapsed(),
            })
        })
        .collect()
}

/// `?since=N`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Since {
    since: u64,
}

pub(super) async fn events(State(operator): App, Query(query): Query<Since>) -> Json<Value> {
    Json(json!({ "items": operator.journal.since(query.since) }))
}

/// The changes after a revision: waits a while for the first one.
pub(super) async fn changes(State(operator): App, Query(query): Query<Since>) -> Response {
    const LONGEST_WAIT: Duration = Duration::from_secs(20);
    let mut watch = operator.store.watch(query.since);
    let next = tokio::select! {
        next = tokio::time::timeout(LONGEST_WAIT, watch.next()) => next,
        () = operator.stop.cancelled() => return refuse(StatusCode::SERVICE_UNAVAILABLE, "stopping"),
    };
    match next {
        Err(_) => Json(json!({ "items": [] })).into_response(),
        Ok(Ok(Changes::List(items))) => Json(json!({ "items": items })).into_response(),
        Ok(Ok(Changes::Reset { revision })) => {
            let error = "changes so far back are not kept: read everything anew";
            (
                StatusCode::GONE,
                Json(json!({ "error": error, "revision": revision })),
            )
                .into_response()
        }
        Ok(Err(error)) => refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
    }
}

pub(super) async fn ca(State(operator): App) -> Json<Value> {
    let bundle = operator.authority.bundle();
    let (root, intermediate) = operator.authority.ends();
    let recorded = operator
        .store
        .call(|db| db.certificates())
        .await
        .unwrap_or(0);
    Json(json!({
        "trustDomain": bundle.trust_domain().as_str(),
        "epoch": bundle.epoch(),
        "roots": bundle.fingerprints(),
        "bundle": bundle.to_pem(),
        "rootNotAfter": rfc3339(root),
        "intermediateNotAfter": rfc3339(intermediate),
        "certificatesRecorded": recorded,
    }))
}

fn rfc3339(time: SystemTime) -> Option<String> {
    Timestamp::try_from(time).ok().map(|time| time.to_string())
}

/// `{"workload": "NS/NAME", "services": ["NAME"], "ttl": "1h", "uses": 1}`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CreateToken {
    /// `namespace/serviceAccount`.
    workload: String,
    services: Option<Vec<String>>,
    ttl: Option<scalar::Duration>,
    uses: Option<u32>,
}

pub(super) async fn create_token(State(operator): App, body: String) -> Response {
    match make_token(&operator, &body).await {
        Ok(made) => (StatusCode::CREATED, Json(made)).into_response(),
        Err((status, message)) => refuse(status, message),
    }
}

async fn make_token(operator: &Operator, body: &str) -> Result<Value, (StatusCode, String)> {
    let bad = |message: String| (StatusCode::UNPROCESSABLE_ENTITY, message);
    let CreateToken {
        workload,
        services,
        ttl,
        uses,
    } = serde_json::from_str(body).map_err(|error| bad(error.to_string()))?;
    let account = ServiceName::parse(&workload).ok_or_else(|| {
        bad(format!(
            "workload: expected NAMESPACE/SERVICEACCOUNT, found {workload:?}"
        ))
    })?;
    let domain = operator.authority.bundle().trust_domain();
    let id = SpiffeId::of_service_account(domain, &account.namespace, &account.name)
        .map_err(|error| bad(error.to_string()))?;
    if id.is_control_plane() {
        return Err(bad(
            "the control plane's identity is never issued to a workload".to_owned(),
        ));
    }
    let services = services.unwrap_or_else(|| vec![account.name.clone()]);
    if services.len() > MAX_TOKEN_SERVICES || !services.iter().all(|name| is_dns_label(name)) {
        return Err(bad(format!(
            "services: expected at most {MAX_TOKEN_SERVICES} names of services in {}",
            account.namespace
        )));
    }
    let ttl = ttl.map_or(DEFAULT_TOKEN_TTL, Duration::from);
    if ttl.is_zero() || ttl > MAX_TOKEN_TTL {
        return Err(bad("ttl: expected more than 0s and at most 30d".to_owned()));
    }
    let uses = uses.unwrap_or(1);
    if uses == 0 || uses > MAX_TOKEN_USES {
        return Err(bad(format!("uses: expected 1 to {MAX_TOKEN_USES}")));
    }
    let failed = |error: String| (StatusCode::SERVICE_UNAVAILABLE, error);
    let token = JoinToken::generate(operator.authority.fingerprint())
        .map_err(|error| failed(error.to_string()))?;
    let now = SystemTime::now();
    let record = Token {
        identity: id.as_str().to_owned(),
        services: services.clone(),
        expires_at: seconds(now + ttl),
        uses_left: uses,
    };
    let hash = token.secret_hash();
    let kept = operator
        .store
        .call(move |db| db.put_token(hash, &record, seconds(now)))
        .await;
    kept.map_err(|error| failed(error.to_string()))?;
    operator.journal.record(
        "token",
        id.as_str(),
        format!("join token for {uses} uses created"),
    );
    Ok(json!({
        "token": token.to_string(),
        "identity": id.as_str(),
        "services": services,
        "uses": uses,
        "expiresAt": rfc3339(now + ttl),
    }))
}

pub(super) async fn metrics(State(operator): App) -> Response {
    let (endpoints, frozen) = operator
        .mesh
        .read(|live| (live.endpoints_by_service(), live.alarm.is_some()));
    match operator.metrics.render(&endpoints, frozen) {
        Ok(text) => ([(header::CONTENT_TYPE, EXPOSITION)], text).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Ready when the state is loaded and both ports are bound: that is before
/// this port answers at all, so only a stop makes it unready.
pub(super) async fn ready(State(operator): App) -> Response {
    if operator.stop.is_cancelled() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "stopping");
    }
    "ready\n".into_response()
}
