//! The proxy put together: configuration read, sources begun, listeners bound,
//! workers started; then signals, until the drain is over.

mod control;
mod workers;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, anyhow, bail};
use selvage_certs::JoinToken;
use selvage_policy::snapshot::{MutualTls, ServiceName, WorkloadName};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::accept::{Dispatcher, Listener, Purpose};
use crate::config::{self, Config, Health, InboundTls, ProxyArgs, Source, Token};
use crate::discovery::health::{self, Check, Probed};
use crate::discovery::registration::{self, Registration, source_address};
use crate::discovery::stream::Stream;
use crate::discovery::{Discovery, files};
use crate::http::head::HeadLimits;
use crate::identity::Identity;
use crate::identity::attest::{AttestError, Attestor, ControlPlane};
use crate::journal::Journal;
use crate::lifecycle::{Condition, Lifecycle};
use crate::state::StateDir;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::worker::{AppPort, Settings, Shared, application};

/// Runs a sidecar until it is told to end. Blocks; brings its own runtimes.
///
/// # Errors
/// What keeps it from starting, in one line that says what to do.
pub fn run(args: &ProxyArgs) -> anyhow::Result<ExitCode> {
    let config = config::load(args, |name| std::env::var(name).ok())?;
    let log = control::start_log(config.log_format);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let ended = runtime.block_on(control_thread(config, log));
    // What still runs on blocking threads (a scrape, a name lookup) is not waited for.
    runtime.shutdown_background();
    ended
}

/// What may be asked of a running proxy beside signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    /// Drain, and stay.
    Drain,
    /// Drain, and end.
    Quit,
}

/// How a sidecar's sources are begun.
struct Sources {
    discovery: Arc<Discovery>,
    /// Keeps the identity; ends only with an error that waiting does not mend.
    attesting: Option<JoinHandle<AttestError>>,
    control_plane: Option<ControlPlane>,
}

async fn control_thread(config: Config, log: control::LogHandle) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new()?;
    let lifecycle = Lifecycle::new();
    let identity = Arc::new(Identity::default());
    let metrics = Metrics::new(config.workers);
    let workload = WorkloadName {
        namespace: config.workload.namespace.as_str().into(),
        name: config.workload.name.as_str().into(),
        service: config.workload.service.as_str().into(),
    };
    let mut sources = begin(&config, &workload, &identity, &lifecycle).await?;
    let shared = Arc::new(shared(
        &config, workload, &identity, &sources, &lifecycle, &metrics,
    )?);
    let listeners = bind(&config)?;
    let bound = listeners.iter().map(|listener| listener.address).collect();
    // Set once: this is the only place.
    let _ = shared.own.set(bound);
    let inbound = address_of(&listeners, &Purpose::Inbound);
    let (dispatcher, receivers) =
        Dispatcher::new(config.workers, config.limits.connections, &lifecycle);
    for listener in &listeners {
        announce(&listener.name, listener.address)?;
    }
    workers::start(&shared, listeners, &dispatcher, receivers)?;
    let (commands, mut asked) = mpsc::channel(8);
    let servers = control::Servers::bind(&config).await?;
    announce("admin", servers.admin_address)?;
    announce("telemetry", servers.telemetry_address)?;
    let telemetry = servers.telemetry_address;
    servers.serve(&shared, log, commands);
    control::housekeeping(&shared, config.workers);
    lifecycle.hold(Condition::Listeners);
    let registered = register(&config, &shared, &sources, inbound, telemetry)?;
    loop {
        tokio::select! {
            error = no_identity(&mut sources.attesting) => return Err(error),
            () = signals.next() => break,
            Some(command) = asked.recv() => {
                if command == Command::Quit {
                    break;
                }
                lifecycle.leave();
                let (lifecycle, drain) = (lifecycle.clone(), config.drain);
                tokio::spawn(async move { lifecycle.drain(drain.delay, drain.timeout).await });
            }
        }
    }
    tracing::info!("draining");
    lifecycle.leave();
    let drained = async {
        lifecycle
            .drain(config.drain.delay, config.drain.timeout)
            .await;
        // The registry has heard by now, or never will.
        if let Some(registered) = registered {
            let _ = registered.await;
        }
    };
    tokio::select! {
        () = drained => tracing::info!("drained"),
        () = signals.next() => tracing::warn!("told twice; ending at once"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Why there will be no identity; waits for ever while there may be one.
async fn no_identity(attesting: &mut Option<JoinHandle<AttestError>>) -> anyhow::Error {
    match attesting {
        None => std::future::pending().await,
        Some(attesting) => match attesting.await {
            Ok(error) => anyhow!(error).context("no identity"),
            Err(error) => anyhow!(error).context("the identity's task ended"),
        },
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// One line on stdout for each bound address: with port 0 nobody else knows it.
fn announce(name: &str, address: SocketAddr) -> anyhow::Result<()> {
    let line = serde_json::json!({"event": "listening", "name": name, "address": address});
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

async fn begin(
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
    files: Option<&config::IdentityFiles>,
) -> anyhow::Result<Sources> {
    let trust_domain = config.trust_domain.clone();
    let discovery = Discovery::of_files();
    let sources = files::read(resources)?;
    let snapshot = files::load(&sources, workload, &trust_domain, 1)?;
    discovery.swap(snapshot, Default::default());
    lifecycle.hold(Condition::Snapshot);
    let watched = files::watch(
        resources.to_owned(),
        workload.clone(),
        trust_domain,
        discovery.clone(),
        sources,
    );
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
        address,
        trust_domain: config.trust_domain.clone(),
    };
    let state = StateDir::open(Some(&config.state_dir)).unwrap_or_else(|error| {
        tracing::warn!(path = %config.state_dir.display(), %error,
            "stateDir cannot be used: a restart will need the control plane");
        StateDir::default()
    });
    let (discovery, wants) = Discovery::on_demand();
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
        discovery: discovery.clone(),
        identity: identity.clone(),
        lifecycle: lifecycle.clone(),
        state,
        wants,
        beforehand: beforehand.collect(),
    };
    tokio::spawn(stream.run());
    Ok(Sources {
        discovery,
        attesting: Some(attesting),
        control_plane: Some(control_plane),
    })
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

fn shared(
    config: &Config,
    workload: WorkloadName,
    identity: &Arc<Identity>,
    sources: &Sources,
    lifecycle: &Arc<Lifecycle>,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Shared> {
    let limits = &config.limits;
    let ports: Vec<AppPort> = config
        .inbound
        .ports
        .iter()
        .map(|port| AppPort {
            service_port: port.service_port,
            address: SocketAddr::from(([127, 0, 0, 1], port.port)),
            protocol: port.protocol,
        })
        .collect();
    let apps = ports
        .iter()
        .map(|port| application(&workload, port))
        .collect();
    Ok(Shared {
        settings: Settings {
            head: HeadLimits {
                uri: limits.uri_bytes,
                count: limits.header_count,
            },
            header_bytes: limits.header_bytes,
            header_timeout: limits.header_timeout,
            handshake_timeout: limits.handshake_timeout,
            handshakes: limits.handshakes,
            streams: u32::try_from(limits.streams).unwrap_or(u32::MAX),
            replay_bytes: limits.replay_bytes,
            mutual_tls: config.inbound.tls.map(|tls| match tls {
                InboundTls::Strict => MutualTls::Strict,
                InboundTls::Permissive => MutualTls::Permissive,
            }),
            ports,
        },
        workload,
        identity: identity.clone(),
        discovery: sources.discovery.clone(),
        lifecycle: lifecycle.clone(),
        metrics: metrics.clone(),
        access_log: AccessLog::new(config.access_log, metrics)
            .context("cannot start the access log")?,
        journal: Journal::default(),
        handshakes: tokio::sync::Semaphore::new(limits.handshakes),
        own: OnceLock::new(),
        apps,
    })
}

fn bind(config: &Config) -> anyhow::Result<Vec<Listener>> {
    let mut wanted = vec![(
        "outbound".to_owned(),
        Purpose::Outbound,
        config.outbound.address,
    )];
    if !config.inbound.ports.is_empty() {
        wanted.push((
            "inbound".to_owned(),
            Purpose::Inbound,
            config.inbound.address,
        ));
    }
    for listener in &config.outbound.listeners {
        let ServiceName { namespace, name } = &listener.service;
        let port = listener
            .port
            .map_or_else(|| "any".to_owned(), |port| port.to_string());
        let purpose = Purpose::Upstream {
            service: listener.service.clone(),
            port: listener.port,
        };
        wanted.push((
            format!("listener:{name}.{namespace}:{port}"),
            purpose,
            listener.address,
        ));
    }
    wanted
        .into_iter()
        .map(|(name, purpose, address)| {
            Listener::bind(name.clone(), purpose, address).map_err(|error| {
                anyhow!(
                    "cannot listen on {address} ({name}): {error}; is another process using it?"
                )
            })
        })
        .collect()
}

fn address_of(listeners: &[Listener], purpose: &Purpose) -> Option<SocketAddr> {
    listeners
        .iter()
        .find(|listener| *listener.purpose == *purpose)
        .map(|found| found.address)
}

/// Registers the workload, if there is a control plane and anything to call.
fn register(
    config: &Config,
    shared: &Arc<Shared>,
    sources: &Sources,
    inbound: Option<SocketAddr>,
    telemetry: SocketAddr,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let (Some(control_plane), Some(inbound)) = (&sources.control_plane, inbound) else {
        return Ok(None);
    };
    let reachable = |bound: SocketAddr| -> anyhow::Result<SocketAddr> {
        if !bound.ip().is_unspecified() {
            return Ok(bound);
        }
        let ip = source_address(&control_plane.address).with_context(|| {
            format!(
                "no route to {}: set inbound.advertise",
                control_plane.address
            )
        })?;
        Ok(SocketAddr::new(ip, bound.port()))
    };
    let address = match config.inbound.advertise {
        // Port 0: the one that was bound.
        Some(advertised) if advertised.port() == 0 => {
            SocketAddr::new(advertised.ip(), inbound.port())
        }
        Some(advertised) => advertised,
        None => reachable(inbound)?,
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
        telemetry: Some(reachable(telemetry)?),
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
