//! The admin port: what a proxy knows and holds, and the few levers it has.
//!
//! Loopback only, and no page in a browser may reach it: a request is answered only if its `Host`
//! is a loopback name and it carries no `Origin`. What it shows comes from closures the
//! application wires; it does not know where they look, and no private key passes here.

pub mod clusters; // endpoints with their live state as JSON
pub mod dump; // a Snapshot as JSON

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

/// Tells something as JSON.
pub type Show = Box<dyn Fn() -> Value + Send + Sync>;
/// Tells some of the journal as JSON.
pub type ShowEvents = Box<dyn Fn(&EventFilter) -> Value + Send + Sync>;
/// Does something at once, or sets it going.
pub type Act = Box<dyn Fn() + Send + Sync>;
/// Sets the log's level (a directive of `tracing`, such as `debug`); an error says what is wrong.
pub type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// What the admin port shows and does.
pub struct AdminState {
    /// `GET /config_dump`: the Snapshot in use; see [`dump::snapshot`].
    pub config_dump: Show,
    /// `GET /clusters`: endpoints with their live state; see [`clusters::clusters`].
    pub clusters: Show,
    /// `GET /certs`: certificates and bundles, never keys.
    pub certs: Show,
    /// `GET /events?service=&endpoint=`: the journal of breakers and of health, the newest last.
    pub events: ShowEvents,
    /// `POST /logging?level=`.
    pub set_log_level: SetLevel,
    /// `POST /drain`: as SIGTERM, but the process stays.
    pub drain: Act,
    /// `POST /quitquitquit`: as SIGTERM.
    pub quit: Act,
}

impl std::fmt::Debug for AdminState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminState").finish_non_exhaustive()
    }
}

type Shared = State<Arc<AdminState>>;

/// The routes of the admin port, behind its guard.
pub fn router(state: AdminState) -> Router {
    Router::new()
        .route(
            "/config_dump",
            get(async |State(s): Shared| Json((s.config_dump)())),
        )
        .route(
            "/clusters",
            get(async |State(s): Shared| Json((s.clusters)())),
        )
        .route("/certs", get(async |State(s): Shared| Json((s.certs)())))
        .route("/events", get(events))
        .route("/logging", post(set_log_level))
        .route("/drain", post(drain))
        .route("/quitquitquit", post(quit))
        .with_state(Arc::new(state))
        .layer(from_fn(guard))
}

/// Which events are wanted; without a word all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EventFilter {
    /// Only of this service, `namespace/name`.
    pub service: Option<String>,
    /// Only of this endpoint, by its address.
    pub endpoint: Option<String>,
}

async fn events(
    State(state): Shared,
    filter: Result<Query<EventFilter>, QueryRejection>,
) -> Response {
    match filter {
        Ok(Query(filter)) => Json((state.events)(&filter)).into_response(),
        Err(_) => refused(
            StatusCode::BAD_REQUEST,
            "events are asked for by service and endpoint, as in /events?service=shop/ratings&endpoint=10.0.0.7:15008",
        ),
    }
}

#[derive(Deserialize)]
struct Logging {
    level: Option<String>,
}

async fn set_log_level(State(state): Shared, Query(logging): Query<Logging>) -> Response {
    let Some(level) = logging.level else {
        return refused(
            StatusCode::BAD_REQUEST,
            "say which level, as in /logging?level=debug",
        );
    };
    match (state.set_log_level)(&level) {
        Ok(()) => Json(json!({ "level": level })).into_response(),
        Err(reason) => refused(StatusCode::BAD_REQUEST, &reason),
    }
}

async fn drain(State(state): Shared) -> Json<Value> {
    (state.drain)();
    Json(json!({ "draining": true }))
}

async fn quit(State(state): Shared) -> Json<Value> {
    (state.quit)();
    Json(json!({ "quitting": true }))
}

/// Keeps web pages out: a page names its own host, or, when that resolves to loopback, its origin.
async fn guard(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return refused(
            StatusCode::FORBIDDEN,
            "the admin port does not answer to web pages",
        );
    }
    if !names_loopback(request.uri(), request.headers()) {
        let reason = "the admin port answers to the hosts localhost, 127.0.0.1 and [::1] only";
        return refused(StatusCode::FORBIDDEN, reason);
    }
    next.run(request).await
}

/// Whether every host the request names is loopback, and it names one.
fn names_loopback(uri: &Uri, headers: &HeaderMap) -> bool {
    let of_header = |value: &header::HeaderValue| {
        value
            .to_str()
            .ok()
            .and_then(|text| text.parse::<Authority>().ok())
    };
    let mut authorities: Vec<Option<Authority>> = headers
        .get_all(header::HOST)
        .iter()
        .map(of_header)
        .collect();
    authorities.extend(uri.authority().cloned().map(Some));
    let loopback = |authority: &Option<Authority>| {
        authority.as_ref().is_some_and(|authority| {
            !authority.as_str().contains('@') && is_loopback(authority.host())
        })
    };
    !authorities.is_empty() && authorities.iter().all(loopback)
}

fn is_loopback(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn refused(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    /// The router, and what was done through it.
    fn admin() -> (Router, Arc<Mutex<Vec<String>>>) {
        let done = Arc::new(Mutex::new(Vec::new()));
        let note = |what: &'static str| {
            let done = Arc::clone(&done);
            move || done.lock().expect("no panic").push(what.to_owned())
        };
        let levels = Arc::clone(&done);
        let state = AdminState {
            config_dump: Box::new(|| json!("config")),
            clusters: Box::new(|| json!("clusters")),
            certs: Box::new(|| json!("certs")),
            events: Box::new(|filter| match &filter.service {
                None => json!("events"),
                Some(service) => json!(service),
            }),
            set_log_level: Box::new(move |level| {
                if level == "loud" {
                    return Err("no such level".to_owned());
                }
                levels.lock().expect("no panic").push(level.to_owned());
                Ok(())
            }),
            drain: Box::new(note("drain")),
            quit: Box::new(note("quit")),
        };
        (router(state), done)
    }

    async fn send(router: &Router, request: http::request::Builder) -> (StatusCode, Value) {
        let request = request.body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    fn local(method: &str, path: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", "127.0.0.1:15000")
    }

    #[tokio::test]
    async fn what_is_read_is_shown() {
        let (router, _) = admin();
        for name in ["config_dump", "clusters", "certs", "events"] {
            let (status, body) = send(&router, local("GET", &format!("/{name}"))).await;
            assert_eq!(status, StatusCode::OK);
            assert_eq!(body, json!(name.trim_end_matches("_dump")));
        }
    }

    #[tokio::test]
    async fn events_are_filtered_by_what_there_is() {
        let (router, _) = admin();
        let (_, body) = send(&router, local("GET", "/events?service=shop/ratings")).await;
        assert_eq!(body, json!("shop/ratings"));
        let (status, _) = send(&router, local("GET", "/events?servce=shop/ratings")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn levers_are_pulled_by_post_only() {
        let (router, done) = admin();
        for path in ["/drain", "/quitquitquit", "/logging?level=debug"] {
            let (status, _) = send(&router, local("GET", path)).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert!(done.lock().expect("no panic").is_empty());
        }
        for (path, what) in [
            ("/drain", "drain"),
            ("/quitquitquit", "quit"),
            ("/logging?level=debug", "debug"),
        ] {
            let (status, _) = send(&router, local("POST", path)).await;
            assert_eq!(status, StatusCode::OK, "{path}");
            assert_eq!(done.lock().expect("no panic").pop().as_deref(), Some(what));
        }
        let (status, _) = send(&router, local("POST", "/config_dump")).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        let (status, _) = send(&router, local("GET", "/metrics")).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_wrong_level_is_refused_with_the_reason() {
        let (router, done) = admin();
        let (status, body) = send(&router, local("POST", "/logging?level=loud")).await;
        assert_eq!(
            (status, body),
            (StatusCode::BAD_REQUEST, json!({"error": "no such level"}))
        );
        let (status, _) = send(&router, local("POST", "/logging")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(done.lock().expect("no panic").is_empty());
    }

    #[tokio::test]
    async fn only_a_loopback_host_is_answered() {
        let (router, _) = admin();
        for (hosts, expected) in [
            (&["localhost"][..], StatusCode::OK),
            (&["LOCALHOST:15000"], StatusCode::OK),
            (&["127.0.0.1:1"], StatusCode::OK),
            (&["127.8.9.1"], StatusCode::OK),
            (&["[::1]:15000"], StatusCode::OK),
            (&[], StatusCode::FORBIDDEN),
            (&[""], StatusCode::FORBIDDEN),
            (&["evil.example"], StatusCode::FORBIDDEN),
            (&["127.0.0.1.evil.example"], StatusCode::FORBIDDEN),
            (&["localhost.evil.example"], StatusCode::FORBIDDEN),
            (&["evil.example@localhost"], StatusCode::FORBIDDEN),
            (&["0.0.0.0"], StatusCode::FORBIDDEN),
            (&["10.0.0.1"], StatusCode::FORBIDDEN),
            (&["localhost", "evil.example"], StatusCode::FORBIDDEN),
        ] {
            let mut request = Request::builder().uri("/clusters");
            for host in hosts {
                request = request.header("host", *host);
            }
            let (status, _) = send(&router, request).await;
            assert_eq!(status, expected, "{hosts:?}");
        }
        let absolute = Request::builder()
            .uri("http://evil.example/clusters")
            .header("host", "localhost");
        assert_eq!(send(&router, absolute).await.0, StatusCode::FORBIDDEN);
        let absolute = Request::builder().uri("http://localhost:15000/clusters");
        assert_eq!(send(&router, absolute).await.0, StatusCode::OK);
    }

    #[tokio::test]
    async fn a_web_page_is_refused_whatever_it_says() {
        let (router, done) = admin();
        for origin in ["http://evil.example", "http://127.0.0.1:15000", "null"] {
            let (status, _) = send(
                &router,
                local("POST", "/quitquitquit").header("origin", origin),
            )
            .await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{origin}");
        }
        assert!(done.lock().expect("no panic").is_empty());
    }
}
