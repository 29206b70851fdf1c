//! The demo as an operator: applies resources and creates join tokens over the operator API.
//!
//! It refuses to know how the control plane was started and what the answers lead to.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use crate::http::Http;
use crate::topology::NAMESPACE;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How often one join token may be used: a sidecar that lost its state attests again.
const TOKEN_USES: u32 = 10;

/// A client of the operator API.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    http: Http,
    base: String,
    token: String,
}

impl Operator {
    /// Of the control plane at `address`, with the token of its data folder.
    pub(crate) fn new(address: SocketAddr, token: &str) -> Self {
        Self {
            http: Http::http1(TIMEOUT),
            base: format!("http://{address}"),
            token: token.trim().to_owned(),
        }
    }

    /// The URL that people open.
    pub(crate) fn url(&self) -> &str {
        &self.base
    }

    /// The bearer token.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// Applies documents, all or none.
    pub(crate) async fn apply(&self, documents: &str) -> anyhow::Result<()> {
        self.call(
            Method::POST,
            "/api/v1/apply",
            "application/yaml",
            documents.to_owned(),
        )
        .await?;
        Ok(())
    }

    /// A join token for a service account of the demo, bound to the service of the same name.
    pub(crate) async fn join_token(&self, account: &str) -> anyhow::Result<String> {
        let body = json!({ "workload": format!("{NAMESPACE}/{account}"), "ttl": "1h", "uses": TOKEN_USES });
        let answer = self
            .call(
                Method::POST,
                "/api/v1/tokens",
                "application/json",
                body.to_string(),
            )
            .await?;
        let token = answer["token"]
            .as_str()
            .context("the operator API answered without a token")?;
        Ok(token.to_owned())
    }

    /// What `/api/v1/services` says.
    pub(crate) async fn services(&self) -> anyhow::Result<Value> {
        self.call(
            Method::GET,
            "/api/v1/services",
            "application/json",
            String::new(),
        )
        .await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content: &str,
        body: String,
    ) -> anyhow::Result<Value> {
        let what = format!("{method} {path}");
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base))
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, content)
            .body(Full::new(Bytes::from(body)))?;
        let answer = self
            .http
            .send(request)
            .await
            .with_context(|| what.clone())?;
        let text = String::from_utf8_lossy(&answer.body);
        ensure!(
            answer.status.is_success(),
            "{what} answered {}: {text}",
            answer.status.as_u16()
        );
        serde_json::from_str(&text).with_context(|| format!("{what} answered no JSON"))
    }
}
