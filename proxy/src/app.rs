//! The proxy put together: configuration read, sources begun, listeners bound,
//! workers started; then signals, until the drain is over.

mod begin;
mod control;
mod register;
mod workers;

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, anyhow};
use selvage_policy::snapshot::{MutualTls, ServiceName, WorkloadName};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::begin::{Sources, begin};
use self::register::register;
use crate::accept::{Dispatcher, Listener, Purpose};
use crate::config::{self, Config, InboundTls, ProxyArgs};
use crate::http::head::HeadLimits;
use crate::identity::Identity;
use crate::identity::attest::AttestError;
use crate::journal::Journal;
use crate::lifecycle::{Condition, Direction, Lifecycle};
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
    // Whatever is sent there comes back; toward inbound it goes to the application.
    let outbound = listeners
        .iter()
        .filter(|listener| listener.purpose.direction() == Direction::Outbound);
    // Set once: this is the only place.
    let _ = shared
        .own
        .set(outbound.map(|listener| listener.address).collect());
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
