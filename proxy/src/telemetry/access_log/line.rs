//! A record as one line, ended by a newline: JSON or text.
//!
//! Both forms tell the same fields in the same order. JSON leaves out what is not there, but for
//! the flag, which is `-` then; text shows `-` for each. Writing is all that happens here.

use std::fmt::{Display, Write};
use std::time::Duration;

use jiff::Timestamp;
use selvage_certs::SpiffeId;

use crate::telemetry::escape;
use crate::telemetry::told::{Spoken, Tls, Told, version_name};

/// How one field is written; `None` is absent.
enum Field<'a> {
    /// Text that may come from a peer.
    Text(Option<&'a str>),
    /// A number, or a word of ours.
    Number(Option<&'a dyn Display>),
    /// A word of ours, which needs no escape.
    Word(Option<&'a str>),
}

/// `{"event":"access","time":"…",…}`.
pub(super) fn json(told: &Told, line: &mut String) {
    line.push_str("{\"event\":\"access\"");
    fields(told, |name, field| {
        let start = line.len();
        let _ = write!(line, ",\"{name}\":");
        match field {
            Field::Text(Some(text)) | Field::Word(Some(text)) => escape::quoted(text, line),
            Field::Number(Some(number)) => {
                let _ = write!(line, "{number}");
            }
            Field::Text(None) | Field::Number(None) | Field::Word(None) => line.truncate(start),
        }
    });
    line.push_str("}\n");
}

/// `access time=… direction=… …`.
pub(super) fn text(told: &Told, line: &mut String) {
    line.push_str("access");
    fields(told, |name, field| {
        let _ = write!(line, " {name}=");
        match field {
            Field::Text(Some(text)) => escape::word(text, line),
            Field::Word(Some(word)) => line.push_str(word),
            Field::Number(Some(number)) => {
                let _ = write!(line, "{number}");
            }
            Field::Text(None) | Field::Number(None) | Field::Word(None) => line.push('-'),
        }
    });
    line.push('\n');
}

/// A value seen through a reference, so that fields of several types make one list.
fn number<T: Display>(value: &Option<T>) -> Field<'_> {
    Field::Number(value.as_ref().map(|value| value as &dyn Display))
}

fn fields(told: &Told, mut write: impl FnMut(&'static str, Field<'_>)) {
    let time = Timestamp::try_from(told.time)
        .ok()
        .map(|time| format!("{time:.3}"));
    let peer = told.peer.map(|peer| peer.to_string());
    let endpoint_address = told.endpoint_address.map(|address| address.to_string());
    let trace = told.trace_id.map(|id| id.to_string());
    let [duration, first_byte, upstream] =
        [Some(told.duration), told.first_byte, told.upstream].map(milliseconds);
    let method = told.method.as_ref().map(http::Method::as_str);
    let identity = |id: &Option<SpiffeId>| id.as_ref().map(ToString::to_string);
    let [caller, called] = [&told.source_identity, &told.destination_identity].map(identity);

    write("time", Field::Word(time.as_deref()));
    write("direction", Field::Word(Some(told.direction.as_str())));
    write("peer", Field::Word(peer.as_deref()));
    write("source", Field::Text(told.source.as_deref()));
    write("source_identity", Field::Text(caller.as_deref()));
    write("destination", Field::Text(told.destination.as_deref()));
    write("destination_identity", Field::Text(called.as_deref()));
    write("route", Field::Text(told.route.as_deref()));
    write("endpoint", Field::Text(told.endpoint.as_deref()));
    write("endpoint_address", Field::Word(endpoint_address.as_deref()));
    write("protocol", Field::Word(Some(spoken(told.spoken))));
    write("version", Field::Word(told.version.map(version_name)));
    write("method", Field::Text(method));
    write("authority", Field::Text(told.authority.as_deref()));
    write("path", Field::Text(told.path.as_deref()));
    write("status", number(&told.status));
    write("grpc_status", number(&told.grpc_status));
    write(
        "flag",
        Field::Word(Some(told.flag.map_or("-", |flag| flag.as_str()))),
    );
    write("bytes_received", number(&Some(told.bytes_received)));
    write("bytes_sent", number(&Some(told.bytes_sent)));
    write("duration_ms", number(&duration));
    write("first_byte_ms", number(&first_byte));
    write("upstream_ms", number(&upstream));
    write("tries", number(&Some(told.tries)));
    write("retry_reason", Field::Word(told.retry_reason));
    write("retry_refused", Field::Word(told.retry_refused));
    write("attempt", number(&told.attempt));
    write("denied_by", Field::Text(told.denied_by.as_deref()));
    write("trace_id", Field::Word(trace.as_deref()));
    write("request_id", Field::Text(told.request_id.as_deref()));
    write("user_agent", Field::Text(told.user_agent.as_deref()));
    write("tls", Field::Word(Some(tls(told.tls))));
}

/// Microseconds are what a reader can use.
fn milliseconds(duration: Option<Duration>) -> Option<String> {
    duration.map(|duration| format!("{:.3}", duration.as_secs_f64() * 1e3))
}

const fn spoken(spoken: Spoken) -> &'static str {
    match spoken {
        Spoken::Http => "http",
        Spoken::Grpc => "grpc",
        Spoken::Tcp => "tcp",
    }
}

fn tls(tls: Tls) -> &'static str {
    match tls {
        Tls::None => "no",
        Tls::Full => "yes",
        Tls::Resumed => "resumed",
    }
}
