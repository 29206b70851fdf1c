//! What a span says of its request, by OpenTelemetry's semantic conventions for HTTP and RPC;
//! what they have no name for begins with `selvage.`.

use http::Method;
use http::uri::Authority;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

use crate::lifecycle::Direction;
use crate::telemetry::told::{Spoken, Told, version_name};

/// Methods that are named; others are `_OTHER`, so that their number is bounded.
const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];
/// Codes of gRPC that are the server's fault: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
/// UNAVAILABLE, DATA_LOSS.
const SERVER_FAULTS: [u32; 6] = [2, 4, 12, 13, 14, 15];

/// One attribute of text.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn number(key: &str, value: impl TryInto<i64>) -> KeyValue {
    attribute(key, Value::IntValue(value.try_into().unwrap_or(i64::MAX)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// Everything a span says; `error` is its `error.type`.
pub(super) fn of(told: &Told, error: Option<&str>) -> Vec<KeyValue> {
    let mut all = Vec::with_capacity(24);
    request(told, &mut all);
    network(told, &mut all);
    if let Some(status) = status(told) {
        all.push(number("http.response.status_code", status));
    }
    all.push(number("http.request.body.size", told.bytes_received));
    all.push(number("http.response.body.size", told.bytes_sent));
    if told.tries > 1 {
        all.push(number("http.request.resend_count", told.tries - 1));
    }
    all.extend(error.map(|error| text("error.type", error)));
    mesh(told, &mut all);
    all
}

fn request(told: &Told, all: &mut Vec<KeyValue>) {
    if let Some(method) = &told.method {
        match known_method(method) {
            Some(known) => all.push(text("http.request.method", known)),
            None => {
                all.push(text("http.request.method", "_OTHER"));
                all.push(text("http.request.method_original", method.as_str()));
            }
        }
    }
    // What is spoken with the application beside us, whatever protects it on its way.
    all.push(text("url.scheme", "http"));
    let given = [
        ("url.path", &told.path),
        ("user_agent.original", &told.user_agent),
    ];
    for (key, value) in given {
        all.extend(value.as_ref().map(|value| text(key, value)));
    }
    if let Some((service, method)) = rpc(told) {
        all.push(text("rpc.system", "grpc"));
        all.push(text("rpc.service", service));
        all.push(text("rpc.method", method));
        all.extend(
            told.grpc_status
                .map(|status| number("rpc.grpc.status_code", status)),
        );
    }
}

fn network(told: &Told, all: &mut Vec<KeyValue>) {
    if let Some(authority) = told
        .authority
        .as_ref()
        .and_then(|text| text.parse::<Authority>().ok())
    {
        all.push(text("server.address", authority.host()));
        all.extend(authority.port_u16().map(|port| number("server.port", port)));
    }
    if let Some(version) = told.version {
        all.push(text("network.protocol.version", version_name(version)));
    }
    let other_end = match told.direction {
        Direction::Inbound => told.peer,
        Direction::Outbound => told.endpoint_address,
    };
    if let Some(address) = other_end {
        all.push(text("network.peer.address", &address.ip().to_string()));
        all.push(number("network.peer.port", address.port()));
    }
}

fn mesh(told: &Told, all: &mut Vec<KeyValue>) {
    let identity = match told.direction {
        Direction::Inbound => &told.source_identity,
        Direction::Outbound => &told.destination_identity,
    };
    let identity = identity.as_ref().map(ToString::to_string);
    let given = [
        ("selvage.source", told.source.as_deref()),
        ("selvage.destination", told.destination.as_deref()),
        ("selvage.route", told.route.as_deref()),
        ("selvage.endpoint", told.endpoint.as_deref()),
        ("selvage.peer.identity", identity.as_deref()),
        ("selvage.flag", told.flag.map(|flag| flag.as_str())),
        ("selvage.denied_by", told.denied_by.as_deref()),
    ];
    for (key, value) in given {
        all.extend(value.map(|value| text(key, value)));
    }
}

/// The method, if it is one of those that are named.
pub(super) fn known_method(method: &Method) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method.as_str())
}

/// Service and method of a gRPC call.
pub(super) fn rpc(told: &Told) -> Option<(&str, &str)> {
    let path = told
        .path
        .as_deref()
        .filter(|_| told.spoken == Spoken::Grpc)?;
    path.strip_prefix('/')?.rsplit_once('/')
}

/// The status the caller got; none where it was gone before there was one.
fn status(told: &Told) -> Option<u16> {
    let gone = told.span.as_ref().is_some_and(|span| span.abandoned) && told.first_byte.is_none();
    told.status.filter(|_| !gone)
}

/// What went wrong, in a word; `None` where nothing did by the conventions: for a server 4xx is its
/// caller's affair, and so are most codes of gRPC.
pub(super) fn error_type(told: &Told) -> Option<String> {
    let ours = |code: u32| told.direction == Direction::Outbound || SERVER_FAULTS.contains(&code);
    let from = match told.direction {
        Direction::Inbound => 500,
        Direction::Outbound => 400,
    };
    let Some(status) = status(told) else {
        return Some("cancelled".to_owned());
    };
    let grpc = told.grpc_status.filter(|code| *code != 0 && ours(*code));
    let http = Some(status).filter(|status| *status >= from);
    // Where a sidecar says what it was, that says more than a number.
    let failed = grpc.is_some() || http.is_some();
    let cut = told
        .flag
        .filter(|_| status < 400 && told.grpc_status.is_none());
    match told.flag.filter(|_| failed).or(cut) {
        Some(flag) => Some(flag.as_str().to_owned()),
        None => grpc
            .map(|code| code.to_string())
            .or_else(|| http.map(|status| status.to_string())),
    }
}
