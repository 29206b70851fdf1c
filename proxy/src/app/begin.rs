//! Where the mesh and the identity come from, begun: watched files, or the
//! control plane's attestation, and its stream once it is followed. Binds and serves nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use selvage_certs::JoinToken;
use selvage_policy::snapshot::{ServiceName, WorkloadName, ZONE_LABEL};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::config::{self, Config, IdentityFiles, InboundTls, Source, Token};
use crate::discovery::files::Learner;
use crate::discovery::stream::Stream;
use crate::discovery::{Discovery, files};
use crate::identity::Identity;
use crate::identity::attest::{AttestError, Attestor, ControlPlane};
use crate::identity::place::Place;
use crate::lifecycle::{Condition, Lifecycle};
use crate::state::StateDir;

/// How a sidecar's sources are begun.
pub(super) struct Sources {
    pub(super) discovery: Arc<Discovery>,
    /// Keeps the identity; ends only with an error that waiting does not mend.
    pub(super) attesting: Option<JoinHandle<AttestError>>,
    pub(super) control_plane: Option<ControlPlane>,
    /// Not yet open: it says what is only known when ports are bound.
    stream: Option<Stream>,
}

impl Sources {
    /// Opens the control plane's stream, if there is one. Who has nothing to be called at registers
    /// nowhere, and says here where it is scraped.
    pub(super) fn follow(&mut self, inbound: Option<SocketAddr>, telemetry: SocketAddr) {
        if let Some(mut stream) = self.stream.take() {
            stream.telemetry = inbound.is_none().then_some(telemetry);
            tokio::spawn(stream.run());
        }
    }
}

pub(super) async fn begin(
    config: &Config,
    workload: &WorkloadName,
    identity: &Arc<Identity>,
    lifecycle: &Arc<Lifecycle>,
) -> anyhow::Result<Sources> {
    match &config.source {
        Source::Static {
            resources,
            identity: files,
        } => {
            begin_static(
                config,
                workload,
                identity,
                lifecycle,
                resources,
                files.as_ref(),
            )
            .await
        }
        Source::ControlPlane { address, token } => begin_dynamic(
            config,
            workload,
            identity,
            lifecycle,
            address.to_string(),
            token.as_ref(),
        ),
    }
}

async fn begin_static(
    config: &Config,
    workload: &WorkloadName,
    identity: &Arc<Identity>,
    lifecycle: &Arc<Lifecycle>,
    resources: &std::path::Path,
    files: Option<&IdentityFiles>,
) -> anyhow::Result<Sources> {
    let discovery = Discovery::of_files(zone(config));
    let sources = files::read(resources)?;
    let learner = Learner {
        workload: workload.clone(),
        trust_domain: config.trust_domain.clone(),
        gateway: config.gateway.as_ref().map(gateway_name),
    };
    let snapshot = files::load(&sources, &learner, 1)?;
    discovery.swap(snapshot, Default::default());
    lifecycle.hold(Condition::Snapshot);
    let watched = files::watch(resources.to_owned(), learner, discovery.clone(), sources);
    tokio::spawn(watched);
    if let Some(files) = files {
        let (loaded, first) = oneshot::channel();
        tokio::spawn(crate::identity::files::run(
            files.clone(),
            config.trust_domain.clone(),
            Some(config.identity().to_string()),
            identity.clone(),
            loaded,
        ));
        first.await.context("the identity's task ended")??;
    } else if !config.inbound.ports.is_empty() && config.inbound.tls != Some(InboundTls::Permissive)
    {
        bail!(
            "static.identity is missing: inbound.ports need a certificate to accept callers \
             (or inbound.tls: permissive)"
        );
    }
    lifecycle.hold(Condition::Identity);
    Ok(Sources {
        discovery,
        attesting: None,
        control_plane: None,
        stream: None,
    })
}

fn begin_dynamic(
    config: &Config,
    workload: &WorkloadName,
    identity: &Arc<Identity>,
    lifecycle: &Arc<Lifecycle>,
    address: String,
    token: Option<&Token>,
) -> anyhow::Result<Sources> {
    let control_plane = ControlPlane {
        place: Place::new(&address),
        address,
        trust_domain: config.trust_domain.clone(),
    };
    let state = StateDir::open(Some(&config.state_dir)).unwrap_or_else(|error| {
        tracing::warn!(path = %config.state_dir.display(), %error,
            "stateDir cannot be used: a restart will need the control plane");
        StateDir::default()
    });
    let (discovery, wants) = Discovery::on_demand(zone(config));
    let attestor = Attestor {
        control_plane: control_plane.clone(),
        token: token.map(read_token).transpose()?,
        expected: config.identity(),
        state: state.clone(),
    };
    let (attested, ready) = (identity.clone(), lifecycle.clone());
    tokio::spawn(async move {
        if attested.watch().wait_for(|swaps| *swaps > 0).await.is_ok() {
            ready.hold(Condition::Identity);
        }
    });
    let attesting = tokio::spawn(attestor.run(identity.clone()));
    let beforehand = config
        .outbound
        .listeners
        .iter()
        .map(|listener| listener.service.clone());
    let stream = Stream {
        control_plane: control_plane.clone(),
        workload: workload.clone(),
        labels: config.workload.labels.clone(),
        gateway: config.gateway.as_ref().map(gateway_name),
        telemetry: None,
        discovery: discovery.clone(),
        identity: identity.clone(),
        lifecycle: lifecycle.clone(),
        state,
        wants,
        beforehand: beforehand.collect(),
    };
    Ok(Sources {
        discovery,
        attesting: Some(attesting),
        control_plane: Some(control_plane),
        stream: Some(stream),
    })
}

fn gateway_name(gateway: &config::Gateway) -> ServiceName {
    ServiceName::new(&gateway.namespace, &gateway.name)
}

/// Where we stand, if the workload's labels say it.
fn zone(config: &Config) -> Option<Arc<str>> {
    let labels = &config.workload.labels;
    labels.get(ZONE_LABEL).map(|zone| zone.as_str().into())
}

fn read_token(token: &Token) -> anyhow::Result<JoinToken> {
    let text = match token {
        Token::Literal(text) => text.clone(),
        Token::File(path) => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the join token {}", path.display()))?,
    };
    JoinToken::parse(&text)
        .context("controlPlane.token is no join token; make one with `selvage token create`")
}
