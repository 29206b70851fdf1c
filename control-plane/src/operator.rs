//! The port for operators: resources, what is connected and registered,
//! tokens, and what Prometheus reads. Loopback only; every request is checked
//! for where it was sent before anything is looked at. Knows HTTP, and leaves
//! every decision to the mesh.

mod guard;
mod resources;
mod status;
mod targets;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use crate::ca::Authority;
use crate::files;
use crate::journal::Journal;
use crate::mesh::Mesh;
use crate::metrics::Metrics;
use crate::proxies::Proxies;
use crate::store::Store;

/// Bytes of a request's body: the largest set of documents.
pub(crate) const MAX_BODY_BYTES: usize = 10 * 1024 * 1024;
/// Requests at a time.
pub(crate) const MAX_REQUESTS: usize = 64;
/// A request is answered by then.
pub(crate) const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// What the handlers use.
pub(crate) struct Operator {
    pub(crate) mesh: Arc<Mesh>,
    pub(crate) store: Store,
    pub(crate) authority: Arc<Authority>,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) token: String,
    pub(crate) stop: CancellationToken,
}

/// All routes, guarded.
pub(crate) fn router(operator: Arc<Operator>) -> Router {
    let api = Router::new()
        .route("/apply", post(resources::apply))
        .route("/proxies", get(status::proxies))
        .route("/services", get(status::services))
        .route("/events", get(status::events))
        .route("/changes", get(status::changes))
        .route("/ca", get(status::ca))
        .route("/tokens", post(status::create_token))
        .route("/{kind}", get(resources::list))
        .route(
            "/{kind}/{namespace}/{name}",
            get(resources::one)
                .put(resources::put)
                .delete(resources::delete),
        )
        .fallback(guard::not_found)
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&operator),
            guard::bearer,
        ));
    Router::new()
        .nest("/api/v1", api)
        .route("/metrics", get(status::metrics))
        .route("/sd/prometheus", get(targets::prometheus))
        .route("/live", get(|| async { "live\n" }))
        .route("/ready", get(status::ready))
        .fallback(guard::not_found)
        .layer(from_fn(guard::local))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(TimeoutLayer::with_status_code(
            http::StatusCode::REQUEST_TIMEOUT,
            REQUEST_TIMEOUT,
        ))
        .layer(GlobalConcurrencyLimitLayer::new(MAX_REQUESTS))
        .with_state(operator)
}

/// Serves until told to stop.
///
/// # Errors
/// The listener fails.
pub(crate) async fn serve(listener: TcpListener, operator: Arc<Operator>) -> std::io::Result<()> {
    let stop = operator.stop.clone();
    axum::serve(listener, router(operator))
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
}

/// The operator's token from the data folder; made at the first start.
///
/// # Errors
/// The file cannot be read or written, or holds no token.
pub(crate) fn token(data_dir: &Path) -> anyhow::Result<String> {
    let path = data_dir.join("operator.token");
    if let Some(text) = files::read_if_there(&path)? {
        let token = text.trim().to_owned();
        anyhow::ensure!(
            !token.is_empty(),
            "{} is empty: delete it to have a new one made",
            path.display()
        );
        return Ok(token);
    }
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| anyhow::anyhow!("no random numbers"))?;
    let token = hex(&secret);
    files::write_private(&path, format!("{token}\n").as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(token)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes everything");
        text
    })
}
