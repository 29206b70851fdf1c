//! What requests mean: JSON in, JSON out, one line of log for each.
//!
//! It refuses to know how stock is kept.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::stock::{Reserved, Stock};

/// The largest request body that is read, in bytes.
const BODY_LIMIT: usize = 4096;
/// The longest order number, in bytes: it becomes a key.
const ORDER_LIMIT: usize = 64;

/// A replica of the inventory.
pub(crate) struct Inventory {
    stock: Stock,
    /// Whether it answers 503 to everything.
    pub(crate) broken: AtomicBool,
}

impl Inventory {
    pub(crate) fn new(stock: Stock) -> Self {
        let broken = AtomicBool::new(false);
        Self { stock, broken }
    }
}

/// What an order wants.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    sku: String,
    quantity: u32,
}

/// Why there is no good answer: a status, and what to tell the caller.
struct Refusal(StatusCode, String);

impl From<redis::RedisError> for Refusal {
    fn from(error: redis::RedisError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, format!("Redis: {error}"))
    }
}

type Answer = Result<(StatusCode, Value), Refusal>;

/// Answers a request, and says so in the log.
pub(crate) async fn handle(
    inventory: &Inventory,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let answer = if inventory.broken.load(Relaxed) {
        Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "broken on purpose"))
    } else {
        answer(inventory, request).await
    };
    let (status, body) =
        answer.unwrap_or_else(|Refusal(status, reason)| (status, json!({ "error": reason })));
    println!("request {method} {path} {}", status.as_u16());
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, json);
    response
}

async fn answer(inventory: &Inventory, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    if path == "/stock" {
        return match *request.method() {
            Method::GET => Ok((StatusCode::OK, json!(inventory.stock.left().await?))),
            _ => Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "GET alone")),
        };
    }
    let Some(order) = path.strip_prefix("/reservations/") else {
        return Err(refuse(
            StatusCode::NOT_FOUND,
            "/stock or /reservations/ORDER",
        ));
    };
    if order.is_empty() || order.len() > ORDER_LIMIT {
        return Err(refuse(StatusCode::BAD_REQUEST, "no such order number"));
    }
    match *request.method() {
        Method::PUT => reserve(&inventory.stock, order, request.into_body()).await,
        Method::DELETE => {
            inventory.stock.release(order).await?;
            Ok((StatusCode::OK, json!({ "order": order })))
        }
        _ => Err(refuse(StatusCode::METHOD_NOT_ALLOWED, "PUT or DELETE")),
    }
}

/// Takes stock for an order. Idempotent: who sends it twice for one order takes it once.
async fn reserve(stock: &Stock, order: &str, body: Incoming) -> Answer {
    let body = Limited::new(body, BODY_LIMIT).collect().await;
    let body = body.map_err(|error| refuse(StatusCode::BAD_REQUEST, &error.to_string()))?;
    let wanted: Wanted = serde_json::from_slice(&body.to_bytes())
        .map_err(|error| refuse(StatusCode::BAD_REQUEST, &error.to_string()))?;
    let done = |status| Ok((status, json!({ "order": order })));
    match stock.reserve(order, &wanted.sku, wanted.quantity).await? {
        Reserved::Now => done(StatusCode::CREATED),
        Reserved::Before => done(StatusCode::OK),
        Reserved::Short => Err(refuse(StatusCode::CONFLICT, "not enough in stock")),
        Reserved::Unknown => Err(refuse(StatusCode::NOT_FOUND, "no such product")),
    }
}

fn refuse(status: StatusCode, reason: &str) -> Refusal {
    Refusal(status, reason.to_owned())
}
