//! Who may ask: requests sent to a loopback name by no web page, and below
//! `/api` those that carry the operator's token.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use selvage_certs::secrets_equal;
use serde_json::json;

use super::Operator;

/// An error as JSON: `{"error": …}`.
pub(super) fn refuse(status: StatusCode, error: impl Into<String>) -> Response {
    (status, Json(json!({ "error": error.into() }))).into_response()
}

pub(super) async fn not_found() -> Response {
    refuse(StatusCode::NOT_FOUND, "there is nothing here")
}

/// Refuses what a web page could send: a name that was rebound to loopback,
/// and any request with an `Origin`.
pub(super) async fn local(request: Request, next: Next) -> Response {
    if request.headers().contains_key(header::ORIGIN) {
        return refuse(
            StatusCode::FORBIDDEN,
            "requests of web pages are refused (Origin)",
        );
    }
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok()),
    };
    if !host.is_some_and(is_loopback) {
        return refuse(
            StatusCode::FORBIDDEN,
            "this port answers to loopback names only (Host)",
        );
    }
    next.run(request).await
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    };
    if let Some(inner) = name
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        return inner
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    }
    name.eq_ignore_ascii_case("localhost")
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Demands `Authorization: Bearer` with the operator's token.
pub(super) async fn bearer(
    State(operator): State<Arc<Operator>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    if given.is_some_and(|given| secrets_equal(given.as_bytes(), operator.token.as_bytes())) {
        return next.run(request).await;
    }
    let mut refusal = refuse(
        StatusCode::UNAUTHORIZED,
        "the operator's token is needed: Authorization: Bearer, from operator.token in the data folder",
    );
    refusal.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        header::HeaderValue::from_static("Bearer"),
    );
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_answered() {
        for good in [
            "localhost",
            "LOCALHOST:15014",
            "127.0.0.1",
            "127.9.9.9:1",
            "[::1]",
            "[::1]:15014",
        ] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in [
            "",
            "evil.test",
            "evil.test:15014",
            "10.0.0.1",
            "localhost.evil.test",
            "[::2]:1",
            "127.0.0.1.nip.io",
            "::1",
        ] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }
}
