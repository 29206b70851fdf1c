//! What runs on the control thread beside discovery and identity: the log, the
//! telemetry and admin ports, and the chores of a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use selvage_api::v1;
use selvage_policy::breaker::BreakerState;
use selvage_policy::crowd::Spill;
use selvage_policy::endpoint::EndpointState;
use selvage_policy::snapshot::{Protocol, ZONE_LABEL};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::Command;
use crate::admin::{self, AdminState, dump};
use crate::config::{Config, LogFormat};
use crate::telemetry::log_lines::LogLines;
use crate::telemetry::metrics::{CertificateKind, EndpointCondition, Gauges};
use crate::telemetry::server::{self, TelemetryState};
use crate::worker::Shared;

/// How often endpoints that could not be connected to are tried.
const CHORES: Duration = Duration::from_secs(1);

/// Changes what is logged while the proxy runs.
pub(super) type LogHandle = reload::Handle<EnvFilter, Registry>;

/// Logs to stderr, from `level` on; stdout carries events.
pub(super) fn start_log(format: LogFormat, level: &str) -> LogHandle {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(level));
    // A line that cannot be written would be told to stderr, which panics where that is closed.
    let layer = fmt::layer()
        .with_writer(LogLines)
        .log_internal_errors(false);
    let written = match format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            layer.with_ansi(ansi).boxed()
        }
        LogFormat::Json => layer.json().boxed(),
    };
    // A second proxy in one process (a test) keeps the first one's log.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(written)
        .try_init();
    handle
}

/// As the wire names it.
pub(super) const fn protocol(protocol: Protocol) -> v1::Protocol {
    match protocol {
        Protocol::Detect => v1::Protocol::Detect,
        Protocol::Http => v1::Protocol::Http,
        Protocol::Http2 => v1::Protocol::Http2,
        Protocol::Grpc => v1::Protocol::Grpc,
        Protocol::Tcp => v1::Protocol::Tcp,
    }
}

/// The admin and telemetry ports, bound.
pub(super) struct Servers {
    admin: TcpListener,
    telemetry: TcpListener,
    pub(super) admin_address: SocketAddr,
    pub(super) telemetry_address: SocketAddr,
}

impl Servers {
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let bind = async |name: &str, address: SocketAddr| {
            TcpListener::bind(address).await.map_err(|error| {
                anyhow!(
                    "cannot listen on {address} ({name}): {error}; is another process using it?"
                )
            })
        };
        let admin = bind("admin", config.admin).await?;
        let telemetry = bind("telemetry", config.telemetry).await?;
        Ok(Self {
            admin_address: admin.local_addr()?,
            telemetry_address: telemetry.local_addr()?,
            admin,
            telemetry,
        })
    }

    pub(super) fn serve(
        self,
        shared: &Arc<Shared>,
        log: LogHandle,
        commands: mpsc::Sender<Command>,
    ) {
        let of_metrics = shared.clone();
        shared
            .metrics
            .on_scrape(move |gauges| fill(&of_metrics, gauges));
        let lifecycle = shared.lifecycle.clone();
        let telemetry = server::router(TelemetryState {
            metrics: shared.metrics.clone(),
            readiness: Arc::new(move || lifecycle.missing()),
        });
        let admin = admin::router(admin_state(shared, log, commands));
        for (listener, router) in [(self.telemetry, telemetry), (self.admin, admin)] {
            tokio::spawn(async move {
                if let Err(error) = axum::serve(listener, router).await {
                    tracing::error!(%error, "control port lost");
                }
            });
        }
    }
}

fn fill(shared: &Shared, gauges: &mut Gauges) {
    if let Some(connected) = shared.discovery.is_connected() {
        gauges.discovery_connected(connected);
    }
    if let Some(current) = shared.identity.current() {
        for (kind, expiry) in current.expiries() {
            let kind = match kind {
                "leaf" => CertificateKind::Leaf,
                "issuer" => CertificateKind::Issuer,
                _ => CertificateKind::Root,
            };
            if let Some(expiry) = expiry {
                gauges.certificate_expiry(kind, expiry);
            }
        }
    }
    let Some(view) = shared.discovery.view() else {
        return;
    };
    gauges.snapshot_version(view.snapshot.revision);
    let now = Instant::now();
    for live in view.live.services() {
        let label = live.service.name.to_string();
        for port in &live.ports {
            for (endpoint, state) in port.port.endpoints.iter().zip(&port.states) {
                let condition = match state.state(now) {
                    _ if !endpoint.healthy => EndpointCondition::Unhealthy,
                    BreakerState::Closed => EndpointCondition::Closed,
                    BreakerState::Open => EndpointCondition::Open,
                    BreakerState::HalfOpen => EndpointCondition::HalfOpen,
                };
                gauges.endpoints(&label, condition, 1);
            }
            for why in Spill::ALL {
                gauges.spills(&label, why, port.rotation.spilled(why));
            }
        }
    }
}

fn admin_state(
    shared: &Arc<Shared>,
    log: LogHandle,
    commands: mpsc::Sender<Command>,
) -> AdminState {
    let of = || shared.clone();
    let (config, clusters, certs, events) = (of(), of(), of(), of());
    let (drain, quit) = (commands.clone(), commands);
    AdminState {
        config_dump: Box::new(move || {
            config
                .discovery
                .view()
                .map_or(Value::Null, |view| dump::snapshot(&view.snapshot))
        }),
        clusters: Box::new(move || dump::clusters(endpoints(&clusters))),
        certs: Box::new(move || show_certs(&certs)),
        events: Box::new(move || show_events(&events)),
        set_log_level: Box::new(move |level| {
            let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
            log.reload(filter).map_err(|error| error.to_string())
        }),
        drain: Box::new(move || ask(&drain, Command::Drain)),
        quit: Box::new(move || ask(&quit, Command::Quit)),
    }
}

fn ask(commands: &mpsc::Sender<Command>, command: Command) {
    if commands.try_send(command).is_err() {
        tracing::warn!(
            ?command,
            "not taken: the proxy is ending, or was asked before"
        );
    }
}

fn endpoints(shared: &Shared) -> Vec<dump::EndpointState> {
    let Some(view) = shared.discovery.view() else {
        return Vec::new();
    };
    let now = Instant::now();
    let mut all = Vec::new();
    for live in view.live.services() {
        for port in &live.ports {
            for (endpoint, state) in port.port.endpoints.iter().zip(&port.states) {
                all.push(dump::EndpointState {
                    service: live.service.name.clone(),
                    port: port.port.port,
                    id: endpoint.id.to_string(),
                    address: endpoint.key.address,
                    identity: endpoint.key.identity.as_ref().map(ToString::to_string),
                    breaker: state.state(now).as_str(),
                    healthy: endpoint.healthy,
                    weight: endpoint.weight,
                    pending: state.pending(),
                    latency: latency(state, now),
                    zone: endpoint.labels.get(ZONE_LABEL).cloned(),
                    share: port.rotation.share_of(state, now),
                });
            }
        }
    }
    all
}

/// What one request to an idle endpoint is thought to take, penalties included.
fn latency(state: &EndpointState, now: Instant) -> Duration {
    let cost = state.cost(1.0, now) / (f64::from(state.pending()) + 1.0);
    Duration::try_from_secs_f64(cost).unwrap_or(Duration::MAX)
}

fn show_certs(shared: &Shared) -> Value {
    let Some(current) = shared.identity.current() else {
        return Value::Null;
    };
    let seconds = |time: Option<std::time::SystemTime>| {
        let since = time?.duration_since(std::time::UNIX_EPOCH).ok()?;
        jiff::Timestamp::from_second(i64::try_from(since.as_secs()).ok()?).ok()
    };
    let [(_, leaf), (_, issuer), (_, root)] = current.expiries();
    let shown = |time| seconds(time).map(|time| time.to_string());
    json!({
        "identity": current.id.to_string(),
        "trustDomain": current.bundle.trust_domain().as_str(),
        "expires": {"leaf": shown(leaf), "issuer": shown(issuer), "root": shown(root)},
        "trustBundle": {"epoch": current.bundle.epoch(), "sha256": current.bundle.fingerprints()},
    })
}

fn show_events(shared: &Shared) -> Value {
    let events = shared.journal.events();
    Value::Array(
        events
            .iter()
            .map(|event| {
                let time = jiff::Timestamp::try_from(event.time).map(|time| time.to_string());
                json!({
                    "time": time.ok(),
                    "service": event.endpoint.service.to_string(),
                    "port": event.endpoint.port,
                    "endpoint": event.endpoint.address,
                    "from": event.transition.from.as_str(),
                    "to": event.transition.to.as_str(),
                    "reason": event.transition.reason.to_string(),
                    "openForMs": event.transition.open_for.map(|open| open.as_millis() as u64),
                })
            })
            .collect(),
    )
}

/// Once a second: endpoints that cannot be connected to are tried, so that
/// a healed partition is used within seconds. At each swap: what the mesh says
/// of us.
pub(super) fn housekeeping(shared: &Arc<Shared>, cell: usize) {
    let probing = shared.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(CHORES).await;
            for state in probing.discovery.live().connect_probes(Instant::now()) {
                let shared = probing.clone();
                tokio::spawn(async move {
                    let connecting = TcpStream::connect(state.key().address);
                    let Ok(Ok(_)) = tokio::time::timeout(CHORES, connecting).await else {
                        state.connect_probe_failed();
                        return;
                    };
                    if let Some(transition) = state.connect_probe_succeeded(Instant::now()) {
                        let label = state.key().service.to_string();
                        shared
                            .metrics
                            .destination(&label)
                            .transition(cell, transition.to);
                        shared.journal.note(state.key(), transition);
                    }
                });
            }
        }
    });
    let swapping = shared.clone();
    tokio::spawn(async move {
        let mut changed = swapping.discovery.watch();
        loop {
            if let Some(view) = swapping.discovery.view() {
                swapping
                    .metrics
                    .set_series_limit(view.snapshot.mesh.series_limit);
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    });
}
