//! The control plane: it keeps resources and registrations, decides with
//! `selvage-core` what each proxy is to know, hands out certificates, and
//! answers to operators. `README.md` tells how a change travels through it.

// Settings: file, environment, flags.
mod config;

// Private files and folders.
mod files;

// What happened lately.
mod journal;

// What is counted.
mod metrics;

// What the service manager hears.
mod notify;

// What is kept.
mod store;

// Who signs.
mod ca;

// What is live and what is published.
mod mesh;

// Which proxies are connected.
mod proxies;

// The port for proxies.
mod grpc;

// Who calls.
mod peer;

// Certificates for workloads.
mod identity;

// Workloads come and go.
mod registry;

// What proxies are told.
mod discovery;

// The port for operators.
mod operator;

/// The services as tonic generates them, client and server, over the messages
/// of `selvage-api`. Public for tests and tools that speak to a control plane.
pub mod rpc {
    #![allow(
        missing_docs,
        reason = "generated; the proto files carry the documentation"
    )]
    #![allow(clippy::all, reason = "generated")]
    #![allow(unreachable_pub, reason = "generated")]
    tonic::include_proto!("selvage.v1");
}

use std::future::Future;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use config::{CaConfig, ControlPlaneArgs, ControlPlaneConfig, LogFormat, MIN_LEAF_TTL};

use ca::Authority;
use discovery::{DiscoveryService, Shared};
use identity::IdentityService;
use journal::Journal;
use mesh::Mesh;
use metrics::Metrics;
use operator::Operator;
use proxies::Proxies;
use registry::RegistryService;
use rpc::discovery_server::DiscoveryServer;
use rpc::identity_server::IdentityServer;
use rpc::registry_server::RegistryServer;
use store::{Db, Store, StoreError};

/// How often leases are looked at.
const LEASES_EVERY: Duration = Duration::from_secs(1);
/// Calls that are still running after this long are cut when it stops.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a control plane listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// For proxies: gRPC over TLS.
    pub grpc: SocketAddr,
    /// For operators: HTTP.
    pub http: SocketAddr,
}

/// The whole of `selvage control-plane`: settings, log, signals, [`run`]. The
/// first SIGTERM or SIGINT stops it cleanly, the second at once (exit code 1).
///
/// # Errors
/// One that a person can act on: it is to be printed, with exit code 1.
pub async fn main(args: ControlPlaneArgs) -> anyhow::Result<()> {
    start_log(args.log_format);
    let config = ControlPlaneConfig::load(&args)?;
    let stop = CancellationToken::new();
    let signals = tokio::spawn(follow_signals(stop.clone()));
    let ended = run(config, stop.cancelled_owned()).await;
    signals.abort();
    ended
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        // A line that cannot be written would be told to stderr, which panics where that is closed.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // Whoever embeds the control plane may have set up its own.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}

async fn follow_signals(stop: CancellationToken) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::warn!("signals cannot be followed");
        return;
    };
    for count in 1.. {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        if count > 1 {
            std::process::exit(1);
        }
        tracing::info!("stopping");
        notify::stopping();
        stop.cancel();
    }
}

/// Runs a control plane until `shutdown` is ready, then stops cleanly. The
/// bound addresses are printed on stdout, one JSON line each.
///
/// # Errors
/// The data folder, the store, the authority or a port cannot be had.
pub async fn run(
    config: ControlPlaneConfig,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let server = ControlPlane::start(config).await?;
    let Addresses { grpc, http } = server.addresses();
    announce("grpc", grpc)?;
    announce("http", http)?;
    notify::ready();
    server.run(shutdown).await
}

/// One line of stdout.
#[derive(serde::Serialize)]
struct Listening<'a> {
    event: &'a str,
    name: &'a str,
    address: SocketAddr,
}

fn announce(name: &str, address: SocketAddr) -> anyhow::Result<()> {
    let line = serde_json::to_string(&Listening {
        event: "listening",
        name,
        address,
    })?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    Ok(())
}

/// A control plane whose ports are bound and whose state is loaded.
pub struct ControlPlane {
    addresses: Addresses,
    tasks: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl ControlPlane {
    /// Loads the state, binds the ports and begins to serve.
    ///
    /// # Errors
    /// As for [`run`].
    pub async fn start(config: ControlPlaneConfig) -> anyhow::Result<Self> {
        let parts = Parts::load(&config).await?;
        let grpc = bind("grpc.address", config.grpc_address).await?;
        let http = bind("http.address", config.http_address).await?;
        let addresses = Addresses {
            grpc: grpc.local_addr()?,
            http: http.local_addr()?,
        };
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let operator = Arc::new(parts.operator(stop.clone()));
        let serving = grpc::serve(
            grpc,
            Arc::clone(&parts.authority),
            parts.routes(&stop),
            stop.clone(),
        );
        tasks.spawn(async move { serving.await.context("the gRPC port fails") });
        tasks.spawn(async move {
            operator::serve(http, operator)
                .await
                .context("the HTTP port fails")
        });
        parts.keep_up(config.resources, &stop, &mut tasks);
        Ok(Self {
            addresses,
            tasks,
            stop,
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Serves until `shutdown` is ready, then stops: streams are ended, calls
    /// may finish within [`STOP_TIMEOUT`].
    ///
    /// # Errors
    /// A part of it failed by itself.
    pub async fn run(mut self, shutdown: impl Future<Output = ()> + Send) -> anyhow::Result<()> {
        let failed = tokio::select! {
            () = shutdown => Ok(()),
            Some(ended) = self.tasks.join_next() => match ended {
                Ok(result) => result.and(Err(anyhow::anyhow!("a part of the control plane ended by itself"))),
                Err(error) => Err(error.into()),
            },
        };
        self.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, all).await.is_err() {
            tracing::warn!("calls were still running and are cut");
        }
        failed
    }
}

/// What the ports and the upkeep share.
struct Parts {
    store: Store,
    metrics: Arc<Metrics>,
    journal: Arc<Journal>,
    authority: Arc<Authority>,
    mesh: Arc<Mesh>,
    proxies: Arc<Proxies>,
    token: String,
}

impl Parts {
    async fn load(config: &ControlPlaneConfig) -> anyhow::Result<Self> {
        let data_dir = &config.data_dir;
        files::private_folder(data_dir)
            .with_context(|| format!("cannot use the data folder {}", data_dir.display()))?;
        let store = open_store(data_dir)?;
        let metrics = Arc::new(Metrics::try_new()?);
        let journal = Arc::new(Journal::default());
        let (ca, counted) = (config.ca.clone(), Arc::clone(&metrics));
        let authority =
            Authority::open(data_dir, &config.trust_domain, ca, store.clone(), counted).await?;
        let mesh = Mesh::load(
            store.clone(),
            config.trust_domain.clone(),
            config.lease_ttl,
            authority.bundle_message(),
            Arc::clone(&journal),
        );
        Ok(Self {
            mesh: Arc::new(mesh.await?),
            authority: Arc::new(authority),
            proxies: Arc::new(Proxies::new(Arc::clone(&metrics))),
            token: operator::token(data_dir)?,
            store,
            metrics,
            journal,
        })
    }

    fn operator(&self, stop: CancellationToken) -> Operator {
        Operator {
            mesh: Arc::clone(&self.mesh),
            store: self.store.clone(),
            authority: Arc::clone(&self.authority),
            proxies: Arc::clone(&self.proxies),
            journal: Arc::clone(&self.journal),
            metrics: Arc::clone(&self.metrics),
            token: self.token.clone(),
            stop,
        }
    }

    /// The gRPC services.
    fn routes(&self, stop: &CancellationToken) -> Routes {
        let identity = IdentityService::new(
            Arc::clone(&self.authority),
            self.store.clone(),
            Arc::clone(&self.journal),
        );
        let registry = RegistryService::new(Arc::clone(&self.mesh), self.store.clone());
        let discovery = DiscoveryService::new(Shared {
            mesh: Arc::clone(&self.mesh),
            store: self.store.clone(),
            proxies: Arc::clone(&self.proxies),
            metrics: Arc::clone(&self.metrics),
            journal: Arc::clone(&self.journal),
            stop: stop.clone(),
        });
        let identity =
            IdentityServer::new(identity).max_decoding_message_size(identity::MAX_MESSAGE_BYTES);
        let registry =
            RegistryServer::new(registry).max_decoding_message_size(registry::MAX_MESSAGE_BYTES);
        let discovery =
            DiscoveryServer::new(discovery).max_decoding_message_size(discovery::MAX_MESSAGE_BYTES);
        Routes::new(identity)
            .add_service(registry)
            .add_service(discovery)
    }

    /// What goes on beside the ports, until told to stop: publishing, leases,
    /// own certificates, the watched folder.
    fn keep_up(
        self,
        folder: Option<std::path::PathBuf>,
        stop: &CancellationToken,
        tasks: &mut JoinSet<anyhow::Result<()>>,
    ) {
        let Self {
            mesh, authority, ..
        } = self;
        let (publishing, until) = (Arc::clone(&mesh), stop.clone());
        tasks.spawn(async move {
            publishing.publish(until).await;
            Ok(())
        });
        if let Some(folder) = folder {
            let (following, until) = (Arc::clone(&mesh), stop.clone());
            tasks.spawn(async move {
                following.follow_folder(folder, until).await;
                Ok(())
            });
        }
        let until = stop.clone();
        tasks.spawn(async move {
            authority.maintain(until).await;
            Ok(())
        });
        tasks.spawn(expire_leases(mesh, stop.clone()));
    }
}

fn open_store(data_dir: &std::path::Path) -> anyhow::Result<Store> {
    let path = data_dir.join("store.redb");
    let db = Db::open(&path).map_err(|error| match error {
        StoreError::InUse => anyhow::anyhow!(
            "{} is in use: another control plane runs on this data folder (use another dataDir, or stop it)",
            path.display()
        ),
        other => anyhow::Error::from(other).context(format!("cannot open {}", path.display())),
    })?;
    Ok(Store::try_new(db)?)
}

async fn bind(key: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{key}: cannot listen on {address}"))
}

async fn expire_leases(mesh: Arc<Mesh>, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LEASES_EVERY) => {}
            () = stop.cancelled() => return Ok(()),
        }
        if let Err(error) = mesh.expire(Instant::now()).await {
            tracing::error!(%error, "leases cannot be ended in the store");
        }
    }
}
