//! Telling the registry of this workload: where it is reached, what it serves,
//! how its health is probed. How the word gets there is `registration`'s.

use std::net::SocketAddr;
use std::sync::Arc;

use selvage_policy::snapshot::{EndpointKey, Protocol, ServiceName};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::begin::Sources;
use super::control;
use crate::config::Config;
use crate::discovery::health::{Application, Probed};
use crate::discovery::registration::{self, Reached, Registration};
use crate::journal::Change;
use crate::worker::Shared;

/// Registers the workload, if there is a control plane and anything to call.
pub(super) fn register(
    config: &Config,
    shared: &Arc<Shared>,
    sources: &Sources,
    inbound: Option<SocketAddr>,
    telemetry: SocketAddr,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let (Some(control_plane), Some(inbound)) = (&sources.control_plane, inbound) else {
        return Ok(None);
    };
    let address = match config.inbound.advertise {
        // Port 0: the one that was bound.
        Some(advertised) if advertised.port() == 0 => {
            Reached::At(SocketAddr::new(advertised.ip(), inbound.port()))
        }
        Some(advertised) => Reached::At(advertised),
        None => reached(inbound),
    };
    let mut probed = Vec::new();
    let mut ports = Vec::new();
    for port in &config.inbound.ports {
        probed.push(Probed {
            service_port: port.service_port,
            address: SocketAddr::from(([127, 0, 0, 1], port.port)),
            check: port.health.clone(),
            http2: matches!(port.protocol, Protocol::Http2 | Protocol::Grpc),
        });
        ports.push((port.service_port, control::protocol(port.protocol)));
    }
    let registration = Registration {
        workload: shared.workload.clone(),
        address,
        ports,
        labels: config.workload.labels.clone(),
        telemetry: Some(reached(telemetry)),
    };
    let (control_plane, identity) = (control_plane.clone(), shared.identity.clone());
    let lifecycle = shared.lifecycle.clone();
    let noting = shared.clone();
    let note = move |port: &Probed, change| {
        let endpoint = EndpointKey {
            service: ServiceName::new(&noting.workload.namespace, &noting.workload.service),
            port: port.service_port,
            address: port.address,
            identity: None,
        };
        noting.journal.keep(&endpoint, Change::Application(change));
    };
    Ok(Some(tokio::spawn(async move {
        // The first word on health goes with the registration itself.
        let application = Application::meet(probed, note).await;
        let (sender, healths) = watch::channel(application.healths());
        tokio::spawn(application.watch(sender));
        registration::run(registration, control_plane, identity, lifecycle, healths).await;
    })))
}

fn reached(bound: SocketAddr) -> Reached {
    if bound.ip().is_unspecified() {
        Reached::OnRoute(bound.port())
    } else {
        Reached::At(bound)
    }
}
