//! Who answers: applications that say who they are and what they saw, as
//! JSON. Each speaks HTTP/1.1, HTTP/2, gRPC and WebSocket on one port; some
//! speak TLS, some only bytes. A request can ask for a delay, for failures
//! before success, and for headers in the answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::body::{self, Body};
use crate::grpc;

/// The header that tells one request of the runner from another.
pub const ID: &str = "x-conformance-id";

/// Asks for headers in the answer: `name: value`, several joined by `;`.
pub const ANSWER_WITH: &str = "x-answer-with";

/// The accept value of [RFC 6455, 1.3] for its sample key.
///
/// [RFC 6455, 1.3]: https://www.rfc-editor.org/rfc/rfc6455#section-1.3
pub const WEBSOCKET_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// One request that came to a backend.
#[derive(Debug, Clone)]
pub struct Arrival {
    /// `namespace/name`.
    pub backend: String,
    /// Its [`ID`]; empty without.
    pub id: String,
    /// Its path and query.
    pub path: String,
}

/// What all backends have received so far, in order.
#[derive(Clone, Default)]
pub struct Arrivals(Arc<Mutex<Vec<Arrival>>>);

/// A running backend; dropped, it is gone with its connections.
pub struct Backend {
    /// Where it listens.
    pub address: SocketAddr,
    task: AbortHandle,
}

/// What a backend speaks.
#[derive(Clone)]
pub enum Manner {
    /// HTTP of all kinds.
    Http,
    /// The same within TLS.
    Tls(TlsAcceptor),
    /// Its name in a line, then every byte back.
    Bytes,
}

/// Who a backend is.
#[derive(Clone)]
struct Who {
    name: String,
    replica: usize,
    arrivals: Arrivals,
}

impl Arrivals {
    /// The requests whose id begins so.
    #[must_use]
    pub fn of(&self, beginning: &str) -> Vec<Arrival> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let these = all.iter().filter(|one| one.id.starts_with(beginning));
        these.cloned().collect()
    }

    /// How many requests of this id came before.
    fn note(&self, backend: &str, id: &str, path: &str) -> usize {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.iter().filter(|one| one.id == id).count();
        all.push(Arrival {
            backend: backend.to_owned(),
            id: id.to_owned(),
            path: path.to_owned(),
        });
        before
    }
}

impl Backend {
    /// Starts one on a port of its own.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(name: &str, replica: usize, manner: Manner, arrivals: &Arrivals) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener
            .local_addr()
            .expect("a bound socket has an address");
        let who = Who {
            name: name.to_owned(),
            replica,
            arrivals: arrivals.clone(),
        };
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new(); // dropped with this task, and every connection with it
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                connections.spawn(serve(stream, manner.clone(), who.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(stream: TcpStream, manner: Manner, who: Who) {
    match manner {
        Manner::Http => serve_http(stream, who).await,
        // A caller that does not finish its handshake is not answered.
        Manner::Tls(acceptor) => {
            if let Ok(stream) = acceptor.accept(stream).await {
                serve_http(stream, who).await;
            }
        }
        Manner::Bytes => serve_bytes(stream, who).await,
    }
}

async fn serve_bytes(mut stream: TcpStream, who: Who) {
    let greeting = format!("{}\n", who.name);
    let mut bytes = [0; 1024];
    // A caller that goes away ends its connection, which is its own affair.
    if stream.write_all(greeting.as_bytes()).await.is_err() {
        return;
    }
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        if stream.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

async fn serve_http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, who: Who) {
    let service = service_fn(move |request: Request<Incoming>| {
        let who = who.clone();
        async move { Ok::<_, Infallible>(respond(request, &who).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    // As above.
    let _ = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await;
}

async fn respond(request: Request<Incoming>, who: &Who) -> Response<Body> {
    let id = text(request.headers(), ID);
    let path = request
        .uri()
        .path_and_query()
        .map_or("", |path| path.as_str());
    let before = who.arrivals.note(&who.name, &id, path);
    let asked = Asked::of(request.uri().query().unwrap_or_default());
    if !asked.delay.is_zero() {
        tokio::time::sleep(asked.delay).await;
    }
    let account = account(&request, who);
    let wanted = text(request.headers(), ANSWER_WITH);
    let mut response = if text(request.headers(), "upgrade").eq_ignore_ascii_case("websocket") {
        upgrade(request)
    } else if text(request.headers(), "content-type").starts_with("application/grpc") {
        call(request, account.clone()).await
    } else {
        Response::new(body::full(account.clone()))
    };
    if before < asked.failures {
        *response.status_mut() = asked.status;
    }
    response.headers_mut().insert("x-backend", value(&who.name));
    for pair in wanted.split(';').filter_map(|one| one.split_once(':')) {
        let name: HeaderName = pair.0.trim().parse().expect("a test's header is one");
        response.headers_mut().append(name, value(pair.1.trim()));
    }
    response
}

/// What this backend saw.
fn account(request: &Request<Incoming>, who: &Who) -> String {
    let mut headers = serde_json::Map::new();
    for name in request.headers().keys() {
        headers.insert(name.to_string(), json!(text(request.headers(), name)));
    }
    let host = request
        .uri()
        .authority()
        .map_or_else(|| text(request.headers(), "host"), ToString::to_string);
    let account = json!({
        "backend": who.name,
        "replica": who.replica,
        "method": request.method().as_str(),
        "path": request.uri().path_and_query().map_or("", |path| path.as_str()),
        "host": host,
        "version": format!("{:?}", request.version()),
        "headers": headers,
    });
    account.to_string()
}

/// Takes the connection over and sends back every byte.
fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgraded.await {
            let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
            // The caller ends it when it has what it wants.
            let _ = tokio::io::copy(&mut from, &mut to).await;
        }
    });
    let mut response = Response::new(body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert(
        "sec-websocket-accept",
        HeaderValue::from_static(WEBSOCKET_ACCEPT),
    );
    response
}

/// Answers a unary call with the account as its message.
async fn call(request: Request<Incoming>, account: String) -> Response<Body> {
    // Of a request that breaks off nothing is read, and its answer goes nowhere.
    let _ = request.into_body().collect().await;
    let message = grpc::frame(account.as_bytes());
    let mut response = Response::new(body::with_trailers(message, grpc::trailers(0, "")));
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", kind);
    response
}

/// What a request's query asks of the backend: `delay` in milliseconds, and
/// `status` for the first `fail` tries of a request.
struct Asked {
    delay: Duration,
    status: StatusCode,
    failures: usize,
}

impl Asked {
    fn of(query: &str) -> Self {
        let mut asked = Self {
            delay: Duration::ZERO,
            status: StatusCode::INTERNAL_SERVER_ERROR,
            failures: 0,
        };
        for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let Ok(number) = value.parse::<u16>() else {
                continue;
            };
            match name {
                "delay" => asked.delay = Duration::from_millis(number.into()),
                "fail" => asked.failures = number.into(),
                "status" => {
                    asked.status = StatusCode::from_u16(number).expect("a test's status is one");
                }
                _ => {}
            }
        }
        asked
    }
}

/// All fields of a name, joined.
pub(super) fn text(headers: &HeaderMap, name: impl http::header::AsHeaderName) -> String {
    let all = headers.get_all(name);
    let texts: Vec<_> = all
        .iter()
        .map(|value| String::from_utf8_lossy(value.as_bytes()))
        .collect();
    texts.join(",")
}

fn value(text: &str) -> HeaderValue {
    text.parse().expect("a test's value is one")
}
