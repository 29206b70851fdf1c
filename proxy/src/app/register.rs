//! Telling the registry of this workload: where it is reached, what it serves,
//! how its health is probed. How the word gets there is `registration`'s.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::bail;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::begin::Sources;
use super::control;
use crate::config::{Config, Health};
use crate::discovery::health::{self, Check, Probed};
use crate::discovery::registration::{self, Reached, Registration};
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
        let check = match &port.health {
            Health::Off => Check::Off,
            Health::Tcp => Check::Tcp,
            Health::Http { path } => Check::Http { path: path.clone() },
            Health::Grpc => {
                bail!("inbound.ports: health: grpc is not supported yet; use tcp, http or off")
            }
        };
        probed.push(Probed {
            address: SocketAddr::from(([127, 0, 0, 1], port.port)),
            check,
            interval: port.health_interval,
        });
        ports.push((port.service_port, control::protocol(port.protocol)));
    }
    let (sender, healths) = watch::channel(vec![false; ports.len()]);
    let registration = Registration {
        workload: shared.workload.clone(),
        address,
        ports,
        labels: config.workload.labels.clone(),
        telemetry: Some(reached(telemetry)),
    };
    let (control_plane, identity) = (control_plane.clone(), shared.identity.clone());
    let lifecycle = shared.lifecycle.clone();
    Ok(Some(tokio::spawn(async move {
        // The first word on health goes with the registration itself.
        let mut first = vec![false; probed.len()];
        for (port, healthy) in probed.iter().zip(&mut first) {
            *healthy = health::probe(port).await;
        }
        // There is a receiver: it is kept below.
        let _ = sender.send(first);
        tokio::spawn(health::run(probed, sender));
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
