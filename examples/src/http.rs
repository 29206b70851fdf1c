//! A small HTTP client over loopback: one request, one whole answer, within a time and a size.
//!
//! It stands below the operator's calls, the scraping of `/metrics`, the sample services and the
//! load. It never retries, and it refuses to know what the answers mean.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// The largest answer that is read.
const ANSWER_LIMIT: usize = 8 * 1024 * 1024;

/// An answer that was read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status line's code.
    pub(crate) status: StatusCode,
    /// Head and trailers together.
    pub(crate) headers: HeaderMap,
    /// The whole body.
    pub(crate) body: Bytes,
}

/// Why there is no whole answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// Nobody there, or the connection broke before the head was whole.
    #[error("{}", innermost(.0))]
    Exchange(#[from] hyper_util::client::legacy::Error),
    /// The body ended early or is too large.
    #[error("the body was cut short: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// Out of time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// The cause at the bottom of a chain: what a person can act on.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A pool of connections of one HTTP version.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
}

impl Http {
    /// HTTP/1.1; `timeout` bounds each exchange to its last byte.
    pub(crate) fn http1(timeout: Duration) -> Self {
        Self::new(timeout, false)
    }

    /// HTTP/2 with prior knowledge, for gRPC.
    pub(crate) fn http2(timeout: Duration) -> Self {
        Self::new(timeout, true)
    }

    fn new(timeout: Duration, http2: bool) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .http2_only(http2)
            // A request is sent once. Whoever wants it again asks again.
            .retry_canceled_requests(false)
            .build(connector);
        Self { client, timeout }
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(NoAnswer::Timeout(self.timeout)),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, NoAnswer> {
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT)
            .collect()
            .await
            .map_err(NoAnswer::Body)?;
        let mut headers = head.headers;
        if let Some(trailers) = body.trailers() {
            headers.extend(trailers.clone());
        }
        Ok(Answer {
            status: head.status,
            headers,
            body: body.to_bytes(),
        })
    }

    /// GET of a URL that the program made itself.
    pub(crate) async fn get(&self, url: &str) -> Result<Answer, NoAnswer> {
        let request = Request::get(url)
            .body(Full::default())
            .expect("the program's own URLs are valid");
        self.send(request).await
    }
}
