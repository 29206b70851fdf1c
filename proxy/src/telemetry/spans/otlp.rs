//! What is told of a request, as a span of OTLP: its place in the trace, its name, its time, how
//! it ended. What it says beside stands in `attributes`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

pub(super) use opentelemetry_proto::tonic::trace::v1::Span;

use super::attributes::{self, text};
use crate::lifecycle::Direction;
use crate::telemetry::told::{Retried, Told};

/// Bits of `Span.flags` beyond the flags of W3C: whether the parent is of another process, and
/// that this is known.
const REMOTE: u32 = 0x300;
const SAMPLED: u32 = 1;

/// The span of a request; `None` where none is recorded.
pub(super) fn span(told: &Told) -> Option<Span> {
    let spanned = told.span.as_ref()?;
    let begun = nanoseconds(told.time);
    let error = attributes::error_type(told);
    Some(Span {
        trace_id: spanned.trace.context.trace.to_bytes().into(),
        span_id: spanned.trace.context.span.to_bytes().into(),
        trace_state: spanned.state.clone(),
        parent_span_id: match spanned.trace.parent {
            Some(parent) => parent.to_bytes().into(),
            None => Vec::new(),
        },
        flags: SAMPLED | REMOTE,
        name: name(told),
        kind: match told.direction {
            Direction::Inbound => SpanKind::Server,
            Direction::Outbound => SpanKind::Client,
        }
        .into(),
        start_time_unix_nano: begun,
        end_time_unix_nano: begun.saturating_add(whole(told.duration)),
        attributes: attributes::of(told, error.as_deref()),
        events: spanned
            .retries
            .iter()
            .map(|retried| event(retried, begun))
            .collect(),
        status: error.map(|_| Status {
            code: StatusCode::Error.into(),
            ..Status::default()
        }),
        ..Span::default()
    })
}

/// Of low cardinality: a gRPC method, or what a route makes of the path; without a route that
/// says so, no path.
fn name(told: &Told) -> String {
    if let Some((service, method)) = attributes::rpc(told) {
        return format!("{service}/{method}");
    }
    match told.method.as_ref().and_then(attributes::known_method) {
        Some(method) => method.to_owned(),
        None => "HTTP".to_owned(),
    }
}

fn event(retried: &Retried, begun: u64) -> Event {
    let address = retried.endpoint_address.map(|address| address.to_string());
    let mut attributes = vec![text("selvage.retry.reason", retried.reason)];
    attributes.extend(address.map(|address| text("selvage.endpoint.address", &address)));
    Event {
        time_unix_nano: begun.saturating_add(whole(retried.after)),
        name: "selvage.retry".to_owned(),
        attributes,
        ..Event::default()
    }
}

fn nanoseconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, whole)
}

fn whole(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
