//! What runs on the control thread beside discovery and identity: the log, the
//! telemetry and admin ports, and the chores of a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use selvage_api::v1;
use selvage_policy::snapshot::Protocol;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use super::{Command, shown};
use crate::admin::{self, AdminState, clusters, dump};
use crate::config::{Config, LogFormat};
use crate::journal::Change;
use crate::telemetry::log_lines::LogLines;
use crate::telemetry::server::{self, TelemetryState};
use crate::upstream::checks::Checks;
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
            .on_scrape(move |gauges| shown::fill(&of_metrics, gauges));
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

fn admin_state(
    shared: &Arc<Shared>,
    log: LogHandle,
    commands: mpsc::Sender<Command>,
) -> AdminState {
    let of = || shared.clone();
    let (config, endpoints, certs, events) = (of(), of(), of(), of());
    let (drain, quit) = (commands.clone(), commands);
    AdminState {
        config_dump: Box::new(move || {
            config
                .discovery
                .view()
                .map_or(Value::Null, |view| dump::snapshot(&view.snapshot))
        }),
        clusters: Box::new(move || {
            let mut all = clusters::clusters(shown::endpoints(&endpoints));
            let own = endpoints.servers.iter();
            all["ports"] = dump::ports(own.map(|(port, state)| (*port, state.load())));
            if let Some(gateway) = &endpoints.gateway {
                all["gateway"] = shown::gateway(gateway);
            }
            all
        }),
        certs: Box::new(move || shown::certificates(&certs)),
        events: Box::new(move |filter| shown::events(&events, filter)),
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

/// Once a second: endpoints that cannot be connected to are tried, so that
/// a healed partition is used within seconds. At each swap: what the mesh says
/// of us. All the time: endpoints whose policy says so are asked for their health.
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
    let noting = shared.clone();
    let checks = Checks::new(
        shared.discovery.clone(),
        shared.identity.clone(),
        shared.metrics.clone(),
        cell,
        Box::new(move |endpoint, change| noting.journal.keep(endpoint, Change::Health(change))),
    );
    tokio::spawn(checks.run());
    let swapping = shared.clone();
    tokio::spawn(async move {
        let mut changed = swapping.discovery.watch();
        loop {
            if let Some(view) = swapping.discovery.view() {
                swapping
                    .metrics
                    .set_series_limit(view.snapshot.mesh.series_limit);
                swapping.protect(&view.snapshot);
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    });
}
