//! The sample service: `gateway`, `orders` or `inventory`, by name. HTTP/1.1 with JSON on one port,
//! gRPC over h2c on another, and a mode in which it fails.
//!
//! It talks to addresses on localhost and knows nothing of a mesh. Orders on stdin:
//! `upstream NAME:PORT ADDRESS`, `mode healthy|status503|hang|refuse`.

mod routes;
mod server;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, Limited, combinators::BoxBody};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::watch;

use self::routes::Plan;
use crate::grpc;
use crate::http::{Answer, Http};
use crate::schedule::Mode;

/// What answers are made of.
type Body = BoxBody<Bytes, Infallible>;

/// The largest request body that is read.
const REQUEST_LIMIT: usize = 64 * 1024;
/// How long a service waits for one it depends on, the sidecar's retries included.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(10);
/// How long `inventory` works on a request, drawn evenly: what a quick look into a database takes.
const WORK: std::ops::Range<u64> = 8..24;
/// Carried from request to request, so that a sidecar can tell what belongs together.
const TRACE: &str = "traceparent";

/// The sample service's command line.
#[derive(Debug, clap::Args)]
pub(crate) struct ServiceArgs {
    /// gateway, orders or inventory
    #[arg(long)]
    name: String,
    /// The replica's name, named in its answers
    #[arg(long)]
    workload: String,
    /// Where HTTP/1.1 is served
    #[arg(long, default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Where gRPC is served
    #[arg(long)]
    grpc: Option<SocketAddr>,
}

/// One replica of a sample service.
struct Shop {
    name: String,
    workload: String,
    mode: watch::Receiver<Mode>,
    /// `name:port` → the sidecar's listener for it. A handful, given by the parent.
    upstreams: RwLock<BTreeMap<String, SocketAddr>>,
    http: Http,
    grpc: Http,
}

/// Serves until stdin ends.
pub(crate) async fn run(args: ServiceArgs) -> anyhow::Result<()> {
    let mut orders = super::orders();
    let (set_mode, mode) = watch::channel(Mode::Healthy);
    let shop = Arc::new(Shop {
        name: args.name,
        workload: args.workload,
        mode,
        upstreams: RwLock::default(),
        http: Http::http1(UPSTREAM_TIMEOUT),
        grpc: Http::http2(UPSTREAM_TIMEOUT),
    });
    server::start(&shop, "http", args.http, server::Protocol::Http1)?;
    if let Some(address) = args.grpc {
        server::start(&shop, "grpc", address, server::Protocol::Http2)?;
    }
    while let Some(order) = orders.recv().await {
        follow(&order, &shop, &set_mode)?;
    }
    Ok(())
}

fn follow(order: &str, shop: &Shop, set_mode: &watch::Sender<Mode>) -> anyhow::Result<()> {
    let words: Vec<&str> = order.split_whitespace().collect();
    match words[..] {
        ["mode", name] => {
            let mode = Mode::ALL.into_iter().find(|mode| mode.as_str() == name);
            let mode = mode.ok_or_else(|| anyhow::anyhow!("no mode is called {name}"))?;
            set_mode.send_replace(mode);
            super::tell(&json!({ "event": "mode", "mode": mode }));
        }
        ["upstream", name, address] => {
            let address = address.parse()?;
            shop.upstreams
                .write()
                .expect("no holder of the lock panics")
                .insert(name.to_owned(), address);
            super::tell(&json!({ "event": "upstream", "name": name }));
        }
        _ => anyhow::bail!("not an order: {order}"),
    }
    Ok(())
}

/// One request's life in the sample service.
async fn handle(shop: Arc<Shop>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let is_grpc = request
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|v| v.as_bytes().starts_with(b"application/grpc"));
    let version = request.version();
    let mut mode = shop.mode.clone();
    let now = *mode.borrow();
    let mut response = match now {
        Mode::Status503 => unavailable(is_grpc),
        Mode::Hang => {
            // The sender lives as long as the process; whoever waited here has long given up.
            let _ = mode.wait_for(|mode| *mode != Mode::Hang).await;
            unavailable(is_grpc)
        }
        Mode::Healthy | Mode::Refuse if is_grpc => shop.check(request).await,
        Mode::Healthy | Mode::Refuse => shop.answer(request).await,
    };
    if now == Mode::Refuse && version == Version::HTTP_11 {
        // What is connected is served a last time: a server that closes an idle connection without
        // a word races with the request that is just being written to it.
        response
            .headers_mut()
            .insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response)
}

impl Shop {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, REQUEST_LIMIT).collect().await else {
            return json(
                StatusCode::BAD_REQUEST,
                &json!({ "error": "the body is too large or cut short" }),
            );
        };
        match routes::plan(&self.name, &head.method, head.uri.path()) {
            None => json(
                StatusCode::NOT_FOUND,
                &json!({ "error": "no such resource" }),
            ),
            Some(Plan::Answer { status, mut answer }) => {
                work().await;
                answer["replica"] = Value::from(self.workload.as_str());
                json(status, &answer)
            }
            Some(Plan::Ask {
                upstream,
                method,
                path,
            }) => {
                let asked = self
                    .ask(upstream, method, &path, &head.headers, body.to_bytes())
                    .await;
                match asked {
                    Ok((status, from)) => {
                        json(status, &json!({ "replica": self.workload, "from": from }))
                    }
                    Err(why) => json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": why })),
                }
            }
        }
    }

    /// Asks another service over JSON. What fails there is an error here, told as 500: the request
    /// is bad luck, this replica is not (502 to 504 would count against it as hard failures).
    async fn ask(
        &self,
        upstream: &str,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<(StatusCode, Value), String> {
        let address = self.address(upstream)?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = format!("http://{address}{path}")
            .parse()
            .map_err(|_| format!("{path} is no path"))?;
        let host = upstream
            .split(':')
            .next()
            .and_then(|name| HeaderValue::from_str(name).ok());
        request.headers_mut().extend(host.map(|host| (HOST, host)));
        copy(
            headers,
            request.headers_mut(),
            &[TRACE, CONTENT_TYPE.as_str()],
        );
        let answer = self
            .http
            .send(request)
            .await
            .map_err(|error| format!("{upstream}: {error}"))?;
        if !answer.status.is_success() {
            return Err(format!(
                "{upstream} answered {}: {}",
                answer.status.as_u16(),
                excerpt(&answer)
            ));
        }
        let value = serde_json::from_slice(&answer.body)
            .map_err(|_| format!("{upstream} answered no JSON"))?;
        Ok((answer.status, value))
    }

    /// The gRPC method, answered here or asked of inventory.
    async fn check(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        if head.uri.path() != grpc::CHECK {
            return status(12, "no such method");
        }
        let Ok(body) = Limited::new(body, REQUEST_LIMIT).collect().await else {
            return status(grpc::INTERNAL, "the message is too large or cut short");
        };
        let Ok(message) = grpc::CheckRequest::decode(&body.to_bytes()) else {
            return status(grpc::INTERNAL, "not a CheckRequest");
        };
        if self.name == "inventory" {
            work().await;
            return reply(&grpc::CheckReply {
                available: routes::stock(&message.sku),
                replica: self.workload.clone(),
            });
        }
        match self.ask_check(&message, &head.headers).await {
            Ok(answer) => reply(&answer),
            Err(why) => status(grpc::INTERNAL, &why),
        }
    }

    async fn ask_check(
        &self,
        message: &grpc::CheckRequest,
        headers: &HeaderMap,
    ) -> Result<grpc::CheckReply, String> {
        let upstream = "inventory:9090";
        let mut request = check_request(self.address(upstream)?, message);
        copy(headers, request.headers_mut(), &[TRACE]);
        let answer = self
            .grpc
            .send(request)
            .await
            .map_err(|error| format!("{upstream}: {error}"))?;
        check_answer(&answer).map_err(|why| format!("{upstream} answered {why}"))
    }

    fn address(&self, upstream: &str) -> Result<SocketAddr, String> {
        let upstreams = self.upstreams.read().expect("no holder of the lock panics");
        upstreams
            .get(upstream)
            .copied()
            .ok_or_else(|| format!("nobody said where {upstream} is"))
    }
}

async fn work() {
    tokio::time::sleep(Duration::from_millis(fastrand::u64(WORK))).await;
}

/// A call of the gRPC method.
pub(crate) fn check_request(
    address: SocketAddr,
    message: &grpc::CheckRequest,
) -> Request<Full<Bytes>> {
    Request::post(format!("http://{address}{}", grpc::CHECK))
        .header(CONTENT_TYPE, "application/grpc")
        .header("te", "trailers")
        .body(Full::new(message.encode()))
        .expect("a socket address and a constant path make a URL")
}

/// The reply, or the status that came in its place.
pub(crate) fn check_answer(answer: &Answer) -> Result<grpc::CheckReply, String> {
    let header = |name| {
        answer
            .headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    match header("grpc-status") {
        Some("0") if answer.status.is_success() => {
            grpc::CheckReply::decode(&answer.body).map_err(|error| error.to_string())
        }
        code => Err(format!(
            "{} with grpc-status {}: {}",
            answer.status.as_u16(),
            code.unwrap_or("absent"),
            header("grpc-message").unwrap_or("no message"),
        )),
    }
}

fn copy(from: &HeaderMap, to: &mut HeaderMap, names: &[&'static str]) {
    for &name in names {
        if let Some(value) = from.get(name) {
            to.insert(name, value.clone());
        }
    }
}

/// Characters of a failed answer that are worth passing on.
const EXCERPT: usize = 160;

fn excerpt(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body)
        .chars()
        .take(EXCERPT)
        .collect()
}

fn json(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Full::from(value.to_string()).boxed());
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn unavailable(is_grpc: bool) -> Response<Body> {
    if is_grpc {
        status(grpc::UNAVAILABLE, "out of order")
    } else {
        json(
            StatusCode::SERVICE_UNAVAILABLE,
            &json!({ "error": "out of order" }),
        )
    }
}

/// A gRPC answer that is only a status: in the head, as the protocol wants it without a message.
fn status(code: u32, message: &str) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
        .headers_mut()
        .insert("grpc-status", HeaderValue::from(code));
    let message: String = message
        .chars()
        .map(|c| {
            if c.is_ascii_graphic() && c != '%' {
                c
            } else {
                ' '
            }
        })
        .collect();
    if let Ok(message) = HeaderValue::from_str(&message) {
        response.headers_mut().insert("grpc-message", message);
    }
    response
}

fn reply(message: &grpc::CheckReply) -> Response<Body> {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from(grpc::OK),
    )]);
    let body = Full::new(message.encode()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
