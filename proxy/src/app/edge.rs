//! What makes a proxy a gateway: the command and its configuration agree, and
//! its listeners are kept up with the Snapshot. Which those are is not known here.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::bail;
use tokio::sync::mpsc;

use crate::accept::Listener;
use crate::config::Config;
use crate::gateway::Around;
use crate::worker::Shared;

/// Which configurations a command takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Those of a sidecar.
    Sidecar,
    /// Those with a section `gateway`.
    Gateway,
    /// Both.
    Either,
}

impl Role {
    pub(super) fn check(self, config: &Config) -> anyhow::Result<()> {
        match (self, &config.gateway) {
            (Self::Sidecar, Some(_)) => {
                bail!("this is the configuration of a gateway: run it with `selvage gateway`")
            }
            (Self::Gateway, None) => bail!(
                "this is the configuration of a sidecar, without a section `gateway`: \
                 run it with `selvage proxy`"
            ),
            _ => Ok(()),
        }
    }
}

/// What a gateway is kept up with. Each socket it binds is announced, and one of our own.
pub(super) fn around(
    shared: &Arc<Shared>,
    workers: Vec<mpsc::Sender<Listener>>,
    announce: fn(&str, SocketAddr) -> anyhow::Result<()>,
) -> Around {
    let owner = shared.clone();
    Around {
        discovery: shared.discovery.clone(),
        identity: shared.identity.clone(),
        lifecycle: shared.lifecycle.clone(),
        workers,
        bound: Box::new(move |name, address| {
            if let Some(gateway) = &owner.gateway {
                owner.own.store(Arc::new(gateway.addresses()));
            }
            if let Err(error) = announce(name, address) {
                tracing::warn!(name, %address, %error, "a listener was not announced");
            }
        }),
    }
}
