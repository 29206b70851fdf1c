//! An HTTP application: HTTP/1 and HTTP/2 by prior knowledge, whatever comes.
//! It keeps what it saw, so that a test can say what reached it.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::{AbortHandle, JoinSet};

use crate::body::{self, Body};

/// One request as the application received it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Its method.
    pub method: Method,
    /// Its target.
    pub uri: Uri,
    /// Its version.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Which connection it came on, from 0.
    pub connection: usize,
}

impl Seen {
    /// A header as text; empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// A running HTTP application; dropped, it is gone with all its connections.
pub struct App {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: AbortHandle,
}

/// 200 with a body whose length is known.
pub fn ok(bytes: impl Into<Bytes>) -> Response<Body> {
    Response::new(body::full(bytes))
}

/// A status, and nothing else.
#[must_use]
pub fn status(code: u16) -> Response<Body> {
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::from_u16(code).expect("a test's status is a status");
    response
}

impl App {
    /// Starts on a port of its own.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), handler).await
    }

    /// Starts on a port of its own, and lets each HTTP/2 connection have only `streams` at once.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn with_streams<F, R>(streams: u32, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(streams);
        Self::launch(SocketAddr::from(([127, 0, 0, 1], 0)), builder, handler).await
    }

    /// An application that answers with the request's own body and trailers as they come.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn echo() -> Self {
        Self::start(|request| async {
            let declared = request.headers().get("trailer").cloned();
            let mut response =
                Response::new(request.into_body().map_err(Into::into).boxed_unsync());
            if let Some(declared) = declared {
                response.headers_mut().insert("trailer", declared);
            }
            response
        })
        .await
    }

    /// Starts on a given port, such as the one that another has left.
    ///
    /// # Panics
    /// When the port is taken.
    pub async fn start_at<F, R>(address: SocketAddr, handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        // Its library would end a connection on which many requests were taken back: a defence
        // of its own, which hides what its sidecar does.
        builder
            .http2()
            .max_pending_accept_reset_streams(usize::MAX)
            .max_local_error_reset_streams(None);
        Self::launch(address, builder, handler).await
    }

    async fn launch<F, R>(
        address: SocketAddr,
        builder: auto::Builder<TokioExecutor>,
        handler: F,
    ) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("the port is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let seen = Arc::new(Mutex::new(Vec::new()));
        let serving = serve(listener, builder, Arc::clone(&seen), Arc::new(handler));
        let task = tokio::spawn(serving).abort_handle();
        Self {
            address,
            seen,
            task,
        }
    }

    /// What it received so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// How many requests it received so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// The last request it received.
    ///
    /// # Panics
    /// When there was none.
    #[must_use]
    pub fn last(&self) -> Seen {
        self.seen()
            .pop()
            .expect("the application received a request")
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve<F, R>(
    listener: TcpListener,
    builder: auto::Builder<TokioExecutor>,
    seen: Arc<Mutex<Vec<Seen>>>,
    handler: Arc<F>,
) where
    F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let mut connections = JoinSet::new(); // dropped with this task, and every connection with it
    let mut number = 0;
    while let Ok((stream, _)) = listener.accept().await {
        let (seen, handler, connection) = (Arc::clone(&seen), Arc::clone(&handler), number);
        let builder = builder.clone();
        number += 1;
        connections.spawn(async move {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request: Request<Incoming>| {
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(Seen {
                        method: request.method().clone(),
                        uri: request.uri().clone(),
                        version: request.version(),
                        headers: request.headers().clone(),
                        connection,
                    });
                let response = handler(request);
                async move { Ok::<_, Infallible>(response.await) }
            });
            // A caller that goes away ends its connection with an error, which is its own affair.
            let _ = builder
                .serve_connection_with_upgrades(TokioIo::new(stream), service)
                .await;
        });
        while connections.try_join_next().is_some() {}
    }
}
