//! The proxy put together: configuration read, sources begun, listeners bound,
//! workers started; then signals, until the drain is over.

mod begin;
mod beside;
mod control;
mod edge;
mod notify;
mod register;
mod shown;
mod workers;

use std::io::Write;
use std::net::SocketAddr;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use arc_swap::ArcSwap;
use rustix::process::Signal;
use selvage_policy::server::ServerState;
use selvage_policy::snapshot::{MutualTls, ServiceName, WorkloadName};
use selvage_policy::traces::TracesInFlight;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::begin::{Sources, begin};
use self::beside::{Running, code_of};
use self::edge::around;
use self::register::register;
use crate::accept::{Dispatcher, Listener, Purpose};
use crate::config::{self, Config, InboundTls, ProxyArgs};
use crate::gateway::Gateway;
use crate::http::head::HeadLimits;
use crate::identity::Identity;
use crate::identity::attest::AttestError;
use crate::journal::Journal;
use crate::lifecycle::{Condition, Direction, Lifecycle};
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::spans::{self, Spans};
use crate::worker::{AppPort, Settings, Shared, application};

pub use self::beside::{Beside, Failed, NO_SIDECAR, OUTBOUND};
pub use self::edge::Role;

/// Runs a sidecar or a gateway until it is told to end. Blocks; brings its own runtimes.
///
/// # Errors
/// What keeps it from starting, in one line that says what to do.
pub fn run(args: &ProxyArgs, role: Role) -> anyhow::Result<ExitCode> {
    start(args, role, None).map_err(|failed| failed.error)
}

/// Runs a sidecar, and a command beside it once it is ready; drains when the command ends. The exit code is
/// the command's, or 128 and the number of the signal that ended it.
///
/// # Errors
/// Where the command was not started, or lost its sidecar.
pub fn run_beside(args: &ProxyArgs, beside: &Beside) -> Result<ExitCode, Failed> {
    start(args, Role::Sidecar, Some(beside))
}

fn start(args: &ProxyArgs, role: Role, beside: Option<&Beside>) -> Result<ExitCode, Failed> {
    let config =
        config::load(args, |name| std::env::var(name).ok()).map_err(anyhow::Error::from)?;
    role.check(&config)?;
    // What a command says is what matters then.
    let level = if beside.is_some() { "warn" } else { "info" };
    let log = control::start_log(config.log_format, level);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control runtime")?;
    let ended = runtime.block_on(control_thread(config, log, beside));
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

async fn control_thread(
    config: Config,
    log: control::LogHandle,
    beside: Option<&Beside>,
) -> Result<ExitCode, Failed> {
    let mut signals = Signals::new(beside.is_some())?;
    let lifecycle = Lifecycle::new();
    let identity = Arc::new(Identity::default());
    let metrics = Metrics::new(config.workers);
    let workload = WorkloadName {
        namespace: config.workload.namespace.as_str().into(),
        name: config.workload.name.as_str().into(),
        service: config.workload.service.as_str().into(),
    };
    let mut sources = begin(&config, &workload, &identity, &lifecycle).await?;
    let (spans, exporting) = match &config.tracing {
        None => (None, None),
        Some(tracing) => {
            let (spans, exporting) = spans::begin(tracing, &metrics)?;
            (Some(spans), Some(exporting))
        }
    };
    let access_log = AccessLog::new(config.access_log, &metrics, beside.is_none())
        .context("cannot start the access log")?;
    let told = Told {
        metrics: metrics.clone(),
        access_log,
        spans,
    };
    let shared = shared(&config, workload, &identity, &sources, &lifecycle, told);
    let shared = Arc::new(shared);
    let listeners = bind(&config)?;
    // Whatever is sent there comes back; toward inbound it goes to the application.
    let outbound = listeners
        .iter()
        .filter(|listener| listener.purpose.direction() == Direction::Outbound);
    let own = outbound.map(|listener| listener.address).collect();
    shared.own.store(Arc::new(own));
    let inbound = address_of(&listeners, &Purpose::Inbound);
    let toward_services = address_of(&listeners, &Purpose::Outbound);
    // Stdout is the command's, where there is one.
    let announce: fn(&str, SocketAddr) -> anyhow::Result<()> =
        if beside.is_some() { note } else { announce };
    let (dispatcher, receivers) =
        Dispatcher::new(config.workers, config.limits.connections, &lifecycle);
    for listener in &listeners {
        announce(&listener.name, listener.address)?;
    }
    let workers = workers::start(&shared, listeners, &dispatcher, receivers)?;
    let (commands, mut asked) = mpsc::channel(8);
    let servers = control::Servers::bind(&config).await?;
    announce("admin", servers.admin_address)?;
    announce("telemetry", servers.telemetry_address)?;
    let telemetry = servers.telemetry_address;
    sources.follow(inbound, telemetry);
    servers.serve(&shared, log, commands);
    control::housekeeping(&shared, config.workers);
    match &shared.gateway {
        None => lifecycle.hold(Condition::Listeners),
        // What it is bound to, the Snapshot says.
        Some(gateway) => {
            let around = around(&shared, workers, announce);
            tokio::spawn(gateway.clone().run(around));
        }
    }
    notify::begin(&lifecycle);
    let registered = register(&config, &shared, &sources, inbound, telemetry)?;
    let mut running = match beside {
        None => None,
        Some(beside) => {
            tokio::select! {
                error = no_identity(&mut sources.attesting) => return Err(error.into()),
                signal = signals.next() => {
                    let told = anyhow!("told to end ({signal:?}) before the sidecar was ready");
                    return Err(told.into());
                }
                ready = ready(&lifecycle, beside) => ready?,
            }
            Some(Running::start(beside, toward_services)?)
        }
    };
    let mut code = 0;
    loop {
        tokio::select! {
            error = no_identity(&mut sources.attesting) => {
                if let Some(running) = running {
                    running.stop(config.drain.timeout).await;
                }
                return Err(error.into());
            }
            signal = signals.next() => match &running {
                None => break,
                Some(running) => running.tell(signal),
            },
            ended = ended(&mut running) => {
                code = code_of(ended.context("cannot wait for the command")?);
                break;
            }
            Some(command) = asked.recv() => {
                match (&running, command) {
                    (None, Command::Quit) => break,
                    (Some(running), Command::Quit) => {
                        running.tell(Signal::TERM);
                        continue;
                    }
                    (_, Command::Drain) => {}
                }
                lifecycle.leave();
                let (lifecycle, drain) = (lifecycle.clone(), config.drain);
                tokio::spawn(async move { lifecycle.drain(drain.delay, drain.timeout).await });
            }
        }
    }
    tracing::info!("draining");
    notify::stopping();
    lifecycle.leave();
    // The delay lets callers hear of it while the application still answers; this one does not.
    let delay = if beside.is_some() {
        Duration::ZERO
    } else {
        config.drain.delay
    };
    let drained = async {
        lifecycle.drain(delay, config.drain.timeout).await;
        // The registry has heard by now, or never will.
        if let Some(registered) = registered {
            let _ = registered.await;
        }
        if let Some(exporting) = exporting {
            exporting.finish().await;
        }
        shared.access_log.finish().await;
    };
    tokio::select! {
        () = drained => tracing::info!("drained"),
        _ = signals.next() => tracing::warn!("told twice; ending at once"),
    }
    Ok(ExitCode::from(code))
}

/// Waits until the sidecar is ready for the command's first request.
async fn ready(lifecycle: &Lifecycle, beside: &Beside) -> anyhow::Result<()> {
    let limit = beside.ready_within;
    let waited = tokio::time::timeout(limit, lifecycle.ready()).await;
    waited.map_err(|_| {
        let missing = lifecycle.missing().join(", ");
        anyhow!(
            "the sidecar was not ready within {limit:?}: {missing} (its warnings say why; \
             --ready-within allows it more time)"
        )
    })
}

/// Waits for the end of the command; for ever where there is none.
async fn ended(running: &mut Option<Running>) -> std::io::Result<ExitStatus> {
    match running {
        None => std::future::pending().await,
        Some(running) => running.ended().await,
    }
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

/// The signals that are listened to.
struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// SIGTERM and SIGINT; and what else a command may want to hear of.
    fn new(for_command: bool) -> anyhow::Result<Self> {
        let own = [Signal::TERM, Signal::INT];
        let more = [Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2];
        let more = if for_command { &more[..] } else { &[] };
        let listening = own.iter().chain(more).map(|&kind| {
            let heard = signal(SignalKind::from_raw(kind.as_raw()));
            Ok((kind, heard.context("cannot listen for signals")?))
        });
        listening.collect::<anyhow::Result<_>>().map(Self)
    }

    async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            let heard = self.0.iter_mut().find_map(|(kind, signal)| {
                matches!(signal.poll_recv(cx), Poll::Ready(Some(()))).then_some(*kind)
            });
            heard.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The same in the log, where stdout is another's.
fn note(name: &str, address: SocketAddr) -> anyhow::Result<()> {
    tracing::info!(name, %address, "listening");
    Ok(())
}

/// One line on stdout for each bound address: with port 0 nobody else knows it.
fn announce(name: &str, address: SocketAddr) -> anyhow::Result<()> {
    let line = serde_json::json!({"event": "listening", "name": name, "address": address});
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot write to stdout")
}

/// Where what is told of requests goes.
struct Told {
    metrics: Arc<Metrics>,
    access_log: AccessLog,
    spans: Option<Spans>,
}

fn shared(
    config: &Config,
    workload: WorkloadName,
    identity: &Arc<Identity>,
    sources: &Sources,
    lifecycle: &Arc<Lifecycle>,
    told: Told,
) -> Shared {
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
    let now = std::time::Instant::now();
    let mut seeds = fastrand::Rng::new();
    let servers = ports
        .iter()
        .map(|port| {
            let state = ServerState::new(now, seeds.u64(..));
            (port.service_port, Arc::new(state))
        })
        .collect();
    Shared {
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
        metrics: told.metrics,
        access_log: told.access_log,
        spans: told.spans,
        traces: TracesInFlight::new(fastrand::u64(..), Instant::now()),
        journal: Journal::default(),
        handshakes: tokio::sync::Semaphore::new(limits.handshakes),
        own: ArcSwap::default(),
        gateway: config.gateway.clone().map(Gateway::new),
        apps,
        servers,
        rates: Default::default(),
    }
}

/// The listeners of a sidecar; a gateway has its own.
fn bind(config: &Config) -> anyhow::Result<Vec<Listener>> {
    if config.gateway.is_some() {
        return Ok(Vec::new());
    }
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
