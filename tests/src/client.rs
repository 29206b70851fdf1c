//! Callers that speak HTTP properly, over plaintext: HTTP/1.1 and HTTP/2 with
//! prior knowledge. For callers that do not, see [`crate::wire`].

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::body::{self, Body, BoxError};
use crate::wait;

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its version on this connection.
    pub version: Version,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Its trailers, if there were any.
    pub trailers: Option<HeaderMap>,
}

impl Answer {
    /// Reads a response to its end.
    ///
    /// # Errors
    /// When the body breaks off.
    pub async fn read(response: Response<Incoming>) -> Result<Self, hyper::Error> {
        let (head, body) = response.into_parts();
        let collected = wait::soon("the body of a response", body.collect()).await?;
        let trailers = collected.trailers().cloned();
        let body = collected.to_bytes();
        Ok(Self {
            status: head.status,
            version: head.version,
            headers: head.headers,
            body,
            trailers,
        })
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A header as text; empty when absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The `x-selvage-flag` of a response that Selvage made itself; empty otherwise.
    #[must_use]
    pub fn flag(&self) -> &str {
        self.header("x-selvage-flag")
    }
}

/// One HTTP/1.1 connection.
pub struct Http1 {
    sender: http1::SendRequest<Body>,
    connection: AbortHandle,
}

impl Http1 {
    /// Connects.
    ///
    /// # Panics
    /// When nobody accepts.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address)
            .await
            .unwrap_or_else(|error| panic!("{address} does not accept: {error}"))
    }

    /// Connects, or says why not.
    ///
    /// # Errors
    /// As the socket says.
    pub async fn try_connect(address: SocketAddr) -> Result<Self, BoxError> {
        let stream = wait::soon("a connection", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream).await?)
    }

    /// On a stream that is there already, such as TLS.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn over<S>(stream: S) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection.with_upgrades()).abort_handle();
        Ok(Self { sender, connection })
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// # Errors
    /// When the connection ends first.
    pub async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, hyper::Error> {
        wait::soon("the head of a response", async {
            self.sender.ready().await?;
            self.sender.send_request(request).await
        })
        .await
    }

    /// Sends a request and reads its response to the end.
    ///
    /// # Errors
    /// When the connection ends first, or the body breaks off.
    pub async fn call(&mut self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        Answer::read(self.send(request).await?).await
    }

    /// Whether the connection can take another request.
    pub async fn is_open(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

impl Drop for Http1 {
    fn drop(&mut self) {
        // Also where a body is still being sent: the test lets go of the connection, so it ends.
        self.connection.abort();
    }
}

/// One HTTP/2 connection.
pub struct Http2 {
    sender: http2::SendRequest<Body>,
    connection: AbortHandle,
}

impl Http2 {
    /// Connects with prior knowledge.
    ///
    /// # Panics
    /// When nobody accepts.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = wait::soon("a connection", TcpStream::connect(address))
            .await
            .expect("a listener accepts");
        stream
            .set_nodelay(true)
            .expect("a connected socket takes options");
        let connecting = Self::over(stream).await;
        connecting.expect("a new connection takes a preface")
    }

    /// On a stream that is there already, such as TLS.
    ///
    /// # Errors
    /// When it has ended.
    pub async fn over<S>(stream: S) -> Result<Self, hyper::Error>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake?;
        let connection = tokio::spawn(connection).abort_handle();
        Ok(Self { sender, connection })
    }

    /// Sends a request and waits for the head of its response; several may be under way.
    ///
    /// # Errors
    /// When the stream or the connection ends first.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, hyper::Error> {
        let mut sender = self.sender.clone();
        wait::soon("the head of a response", async {
            sender.ready().await?;
            sender.send_request(request).await
        })
        .await
    }

    /// Sends a request and reads its response to the end.
    ///
    /// # Errors
    /// When the stream or the connection ends first, or the body breaks off.
    pub async fn call(&self, request: Request<Body>) -> Result<Answer, hyper::Error> {
        Answer::read(self.send(request).await?).await
    }
}

impl Drop for Http2 {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// An HTTP/1.1 request in origin form.
///
/// # Panics
/// When a part is malformed.
#[must_use]
pub fn request(method: Method, authority: &str, path: &str, body: Body) -> Request<Body> {
    let builder = Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, authority);
    builder
        .body(body)
        .expect("the parts of a test's request are well formed")
}

/// An HTTP/2 request.
///
/// # Panics
/// When a part is malformed.
#[must_use]
pub fn request2(method: Method, authority: &str, path: &str, body: Body) -> Request<Body> {
    let builder = Request::builder()
        .method(method)
        .uri(format!("http://{authority}{path}"));
    builder
        .body(body)
        .expect("the parts of a test's request are well formed")
}

/// GET over a new HTTP/1.1 connection.
///
/// # Panics
/// When there is no whole response.
pub async fn get(address: SocketAddr, authority: &str, path: &str) -> Answer {
    try_get(address, authority, path)
        .await
        .unwrap_or_else(|error| panic!("GET {authority}{path}: {error}"))
}

/// POST over a new HTTP/1.1 connection.
///
/// # Panics
/// When there is no whole response.
pub async fn post(
    address: SocketAddr,
    authority: &str,
    path: &str,
    bytes: impl Into<Bytes>,
) -> Answer {
    let request = request(Method::POST, authority, path, body::full(bytes));
    let answer = Http1::connect(address).await.call(request).await;
    answer.unwrap_or_else(|error| panic!("POST {authority}{path}: {error}"))
}

/// GET over a new HTTP/1.1 connection, or why there is no whole response.
///
/// # Errors
/// When nobody accepts, the connection ends, or the body breaks off.
pub async fn try_get(address: SocketAddr, authority: &str, path: &str) -> Result<Answer, BoxError> {
    let mut connection = Http1::try_connect(address).await?;
    Ok(connection
        .call(request(Method::GET, authority, path, body::empty()))
        .await?)
}

/// The status of a GET of `orders.shop`, for tests that spawn it.
///
/// # Errors
/// When there is no whole response, in words.
pub async fn try_get_owned(address: SocketAddr) -> Result<u16, String> {
    let answer = try_get(address, crate::sidecar::ORDERS, "/")
        .await
        .map_err(|error| error.to_string())?;
    Ok(answer.status.as_u16())
}
