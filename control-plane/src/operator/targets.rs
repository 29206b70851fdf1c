//! The list of what Prometheus scrapes, in the form of its `http_sd_configs`: every workload that said
//! where, in its registration or, if it has nothing to be called at, in its hello.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use selvage_api::name;
use selvage_core::registry::{Registration, WorkloadKey};
use serde_json::{Map, Value, json};

use super::Operator;
use crate::proxies::ProxyStatus;

/// What is registered is listed until it says goodbye or the registry gives it up; what is merely
/// connected, for as long as it is.
pub(super) async fn prometheus(State(operator): State<Arc<Operator>>) -> Json<Value> {
    let connected = operator.proxies.list();
    operator.mesh.read(|live| {
        let mut targets: BTreeMap<WorkloadKey, Value> = connected
            .iter()
            .filter_map(of_connected)
            .filter(|(workload, _)| live.registry.entry(workload).is_none())
            .collect();
        let registered = live.registry.entries().map(|entry| entry.registration());
        targets.extend(registered.filter_map(of_registered));
        Json(targets.into_values().collect())
    })
}

fn of_registered(registration: &Registration) -> Option<(WorkloadKey, Value)> {
    let address = registration.telemetry?;
    let workload = registration.key();
    let target = target(
        address,
        &workload,
        &registration.service,
        &registration.labels,
    );
    Some((workload, target))
}

fn of_connected(proxy: &ProxyStatus) -> Option<(WorkloadKey, Value)> {
    let scraped = proxy.scraped.as_ref()?;
    let (namespace, workload) = name::split(&proxy.workload)?;
    let (_, service) = name::split(&proxy.service)?;
    let workload = WorkloadKey::new(namespace, workload);
    let target = target(scraped.address, &workload, service, &scraped.labels);
    Some((workload, target))
}

/// One target. The workload's own labels are for relabelling rules alone: Prometheus drops what begins
/// with `__meta_`, so that no workload chooses the names of labels that are kept.
fn target(
    address: SocketAddr,
    workload: &WorkloadKey,
    service: &str,
    labels: &BTreeMap<String, String>,
) -> Value {
    let name = |name| format!("__meta_selvage_label_{}", plain(name));
    let mut all: Map<String, Value> = labels
        .iter()
        .map(|(label, value)| (name(label), json!(value)))
        .collect();
    all.insert("namespace".to_owned(), json!(workload.namespace));
    all.insert("service".to_owned(), json!(service));
    all.insert("workload".to_owned(), json!(workload.workload));
    json!({ "targets": [address.to_string()], "labels": all })
}

/// A name of Prometheus: what it does not allow becomes `_`.
fn plain(name: &str) -> String {
    let allowed = |character: char| character.is_ascii_alphanumeric() || character == '_';
    name.chars()
        .map(|character| if allowed(character) { character } else { '_' })
        .collect()
}
