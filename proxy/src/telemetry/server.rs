//! The telemetry port: `/metrics`, `/live`, `/ready`, and nothing else.
//!
//! Served to anybody who can reach it, so that it tells nothing secret and changes nothing. It
//! does not know what makes a proxy ready: it asks for the reasons why it is not.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Semaphore;

use super::metrics::Metrics;

/// Scrapes encoded at a time; more are told to come again.
pub const CONCURRENT_SCRAPES: usize = 4;

/// Why the proxy is not ready, one reason each; none means that it is.
pub type Readiness = dyn Fn() -> Vec<&'static str> + Send + Sync;

/// What the telemetry port tells of.
#[derive(Clone)]
pub struct TelemetryState {
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/ready` asks.
    pub readiness: Arc<Readiness>,
}

impl std::fmt::Debug for TelemetryState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TelemetryState").finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Shared {
    state: TelemetryState,
    scrapes: Arc<Semaphore>,
}

/// The routes of the telemetry port. They want a tokio runtime with a pool of blocking threads.
pub fn router(state: TelemetryState) -> Router {
    routes(Shared {
        state,
        scrapes: Arc::new(Semaphore::new(CONCURRENT_SCRAPES)),
    })
}

fn routes(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .with_state(shared)
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let Ok(permit) = Arc::clone(&shared.scrapes).try_acquire_owned() else {
        let reason = "too many scrapes at a time\n";
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
            reason,
        )
            .into_response();
    };
    let encode = move || {
        let text = shared.state.metrics.encode();
        drop(permit); // a scrape that was given up counts until its encoding ends
        text
    };
    match tokio::task::spawn_blocking(encode).await {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "text/plain; version=0.0.4; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(shared): State<Shared>) -> Response {
    let reasons = (shared.state.readiness)();
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    let text = reasons
        .iter()
        .map(|reason| format!("not ready: {reason}\n"))
        .collect::<String>();
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    fn state(reasons: &[&'static str]) -> TelemetryState {
        let reasons = reasons.to_vec();
        TelemetryState {
            metrics: Metrics::new(1),
            readiness: Arc::new(move || reasons.clone()),
        }
    }

    async fn send(router: Router, method: &str, path: &str) -> (StatusCode, String, String) {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty());
        let response = router
            .oneshot(request.expect("a request"))
            .await
            .expect("infallible");
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind
            .map_or("", |kind| kind.to_str().expect("ASCII"))
            .to_owned();
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (
            status,
            kind,
            String::from_utf8(body.to_vec()).expect("UTF-8"),
        )
    }

    #[tokio::test]
    async fn metrics_are_served_as_the_text_format() {
        let (status, kind, text) = send(router(state(&[])), "GET", "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        assert!(text.contains("# TYPE selvage_build_info gauge\n"));
    }

    #[tokio::test]
    async fn ready_names_what_is_missing() {
        let (status, _, text) = send(
            router(state(&["no identity", "no Snapshot"])),
            "GET",
            "/ready",
        )
        .await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "not ready: no identity\nnot ready: no Snapshot\n");
        let (status, _, text) = send(router(state(&[])), "GET", "/ready").await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, "ready\n"));
    }

    #[tokio::test]
    async fn live_does_not_wait_for_ready() {
        let (status, ..) = send(router(state(&["no identity"])), "GET", "/live").await;
        assert_eq!(status, StatusCode::OK);
    }

    #[tokio::test]
    async fn nothing_else_is_there() {
        for (method, path, expected) in [
            ("GET", "/", StatusCode::NOT_FOUND),
            ("GET", "/config_dump", StatusCode::NOT_FOUND),
            ("GET", "/metrics/", StatusCode::NOT_FOUND),
            ("POST", "/quitquitquit", StatusCode::NOT_FOUND),
            ("POST", "/metrics", StatusCode::METHOD_NOT_ALLOWED),
            ("HEAD", "/live", StatusCode::OK),
        ] {
            let (status, ..) = send(router(state(&[])), method, path).await;
            assert_eq!(status, expected, "{method} {path}");
        }
    }

    #[tokio::test]
    async fn scrapes_beyond_the_bound_are_told_to_come_again() {
        let scrapes = Arc::new(Semaphore::new(1));
        let router = routes(Shared {
            state: state(&[]),
            scrapes: Arc::clone(&scrapes),
        });
        for _ in 0..2 {
            let (status, ..) = send(router.clone(), "GET", "/metrics").await;
            assert_eq!(status, StatusCode::OK, "a finished scrape makes room");
        }
        let held = scrapes.acquire().await.expect("it is open");
        let (status, ..) = send(router.clone(), "GET", "/metrics").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        drop(held);
        let (status, ..) = send(router, "GET", "/metrics").await;
        assert_eq!(status, StatusCode::OK);
    }
}
