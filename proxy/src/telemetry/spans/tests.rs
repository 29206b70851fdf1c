//! Which attributes a span has and what counts as an error; that the queue is bounded.

use std::collections::BTreeMap;
use std::time::SystemTime;

use http::{HeaderMap, Method, Uri};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use selvage_policy::flag::Flag;
use selvage_policy::trace::Root;

use super::*;
use crate::config::OtlpProtocol;
use crate::lifecycle::Direction;
use crate::telemetry::told::{Retried, Spanned, Spoken, Told};

fn told(direction: Direction) -> Told {
    let on = Sampler::ParentBased(Root::On);
    let trace = Trace::begin(&Parent::default(), on, &mut fastrand::Rng::with_seed(7));
    Told {
        spoken: Spoken::Http,
        method: Some(Method::GET),
        path: Some("/a".to_owned()),
        authority: Some("orders.shop:80".to_owned()),
        status: Some(200),
        tries: 1,
        first_byte: Some(Duration::from_millis(1)),
        span: Some(Box::new(Spanned::new(trace))),
        ..Told::new(direction, SystemTime::UNIX_EPOCH + Duration::from_secs(1))
    }
}

fn attributes(span: &otlp::Span) -> BTreeMap<&str, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    let pairs = span.attributes.iter().map(|pair| {
        let value = pair.value.as_ref().and_then(|value| value.value.as_ref());
        (pair.key.as_str(), text(value.expect("a value")))
    });
    pairs.collect()
}

#[test]
fn errors_are_those_of_the_conventions() {
    use Direction::{Inbound, Outbound};
    let http = |status| (Some(status), None, None);
    let grpc = |code| (Some(200), Some(code), None);
    let table = [
        (Inbound, http(200), None),
        (Inbound, http(404), None),
        (Inbound, http(500), Some("500")),
        (Outbound, http(302), None),
        (Outbound, http(404), Some("404")),
        (Outbound, http(503), Some("503")),
        (Inbound, (Some(403), None, Some(Flag::Denied)), None),
        (
            Outbound,
            (Some(403), None, Some(Flag::Denied)),
            Some("denied"),
        ),
        (
            Outbound,
            (Some(503), None, Some(Flag::Overflow)),
            Some("overflow"),
        ),
        // Cut in the middle of the body.
        (Inbound, (Some(200), None, Some(Flag::Reset)), Some("reset")),
        (Inbound, grpc(0), None),
        (Outbound, grpc(0), None),
        (Inbound, grpc(5), None),
        (Outbound, grpc(5), Some("5")),
        (Inbound, grpc(13), Some("13")),
        (Inbound, (Some(200), Some(7), Some(Flag::Denied)), None),
        (
            Outbound,
            (Some(200), Some(14), Some(Flag::ConnectFailure)),
            Some("connect-failure"),
        ),
    ];
    for (direction, (status, grpc_status, flag), expected) in table {
        let told = Told {
            status,
            grpc_status,
            flag,
            ..told(direction)
        };
        let span = otlp::span(&told).expect("it is recorded");
        let error = attributes(&span).get("error.type").cloned();
        assert_eq!(
            error.as_deref(),
            expected,
            "{direction:?} {status:?} {grpc_status:?} {flag:?}"
        );
        assert_eq!(span.status.is_some(), expected.is_some());
    }
    let mut gone = told(Inbound);
    gone.status = Some(499);
    gone.first_byte = None;
    gone.span.as_mut().expect("it is there").abandoned = true;
    let span = otlp::span(&gone).expect("it is recorded");
    assert_eq!(attributes(&span)["error.type"], "cancelled");
    assert!(!attributes(&span).contains_key("http.response.status_code"));
}

#[test]
fn a_span_says_what_was_called_and_how_often() {
    let mut call = told(Direction::Outbound);
    call.spoken = Spoken::Grpc;
    call.path = Some("/shop.v1.Orders/List".to_owned());
    call.grpc_status = Some(0);
    call.tries = 3;
    call.duration = Duration::from_millis(5);
    call.endpoint_address = Some("10.0.0.7:15008".parse().expect("an address"));
    call.span.as_mut().expect("it is there").retries(Retried {
        after: Duration::from_millis(2),
        reason: "reset",
        endpoint_address: None,
    });
    let span = otlp::span(&call).expect("it is recorded");
    assert_eq!(span.name, "shop.v1.Orders/List");
    assert_eq!(span.kind(), SpanKind::Client);
    assert_eq!(span.start_time_unix_nano, 1_000_000_000);
    assert_eq!(span.end_time_unix_nano, 1_005_000_000);
    assert_eq!(span.events[0].time_unix_nano, 1_002_000_000);
    let attributes = attributes(&span);
    for (key, value) in [
        ("rpc.system", "grpc"),
        ("rpc.service", "shop.v1.Orders"),
        ("rpc.method", "List"),
        ("rpc.grpc.status_code", "0"),
        ("http.request.resend_count", "2"),
        ("server.address", "orders.shop"),
        ("server.port", "80"),
        ("network.peer.address", "10.0.0.7"),
        ("network.peer.port", "15008"),
    ] {
        assert_eq!(attributes[key], value, "{key}");
    }
    let mut strange = told(Direction::Inbound);
    strange.method = Method::from_bytes(b"FROBNICATE").ok();
    let span = otlp::span(&strange).expect("it is recorded");
    assert_eq!(
        (span.name.as_str(), span.kind()),
        ("HTTP", SpanKind::Server)
    );
}

#[tokio::test]
async fn what_finds_the_queue_full_is_dropped_and_counted() {
    let metrics = Metrics::new(1);
    let tracing = Tracing {
        sampler: Sampler::ParentBased(Root::On),
        // Nobody listens on the port that is reserved for nobody.
        endpoint: Uri::from_static("http://127.0.0.1:1/v1/traces"),
        protocol: OtlpProtocol::HttpProtobuf,
        headers: HeaderMap::new(),
        timeout: Duration::from_secs(1),
        resource: Vec::new(),
        batch: Batch {
            delay: Duration::from_secs(5),
            queue: 4,
            size: 4,
            timeout: Duration::from_secs(2),
        },
    };
    let (spans, exporting) = begin(&tracing, &metrics).expect("a URL");
    for _ in 0..7 {
        spans.record(Box::new(told(Direction::Inbound)));
    }
    let counts = metrics.spans();
    assert_eq!(counts.dropped.load(Relaxed), 3);
    exporting.finish().await;
    assert_eq!(counts.failed.load(Relaxed), 4, "nobody took them");
    assert_eq!(counts.exported.load(Relaxed), 0);
}
