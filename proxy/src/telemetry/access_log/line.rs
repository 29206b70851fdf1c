//! A record as one line, ended by a newline: JSON or text.
//!
//! Both forms tell the same fields in the same order. JSON leaves out what is not there, but for
//! the flag, which is `-` then; text shows `-` for each. Writing is all that happens here.

use std::fmt::{Display, Write};

use http::Version;
use jiff::Timestamp;

use super::{AccessRecord, Tls, escape};

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
pub(super) fn json(record: &AccessRecord, line: &mut String) {
    line.push_str("{\"event\":\"access\"");
    fields(record, |name, field| {
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
pub(super) fn text(record: &AccessRecord, line: &mut String) {
    line.push_str("access");
    fields(record, |name, field| {
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

fn fields(record: &AccessRecord, mut write: impl FnMut(&'static str, Field<'_>)) {
    let time = Timestamp::try_from(record.time)
        .ok()
        .map(|time| format!("{time:.3}"));
    let peer = record.peer.map(|peer| peer.to_string());
    let trace = record
        .trace_id
        .map(|id| format!("{:032x}", u128::from_be_bytes(id)));
    // Microseconds are what a reader can use.
    let duration = format!("{:.3}", record.duration.as_secs_f64() * 1e3);
    let method = record.method.as_ref().map(http::Method::as_str);

    write("time", Field::Word(time.as_deref()));
    write("direction", Field::Word(Some(record.direction.as_str())));
    write("peer", Field::Word(peer.as_deref()));
    write("source", Field::Text(record.source.as_deref()));
    write("destination", Field::Text(record.destination.as_deref()));
    write("route", Field::Text(record.route.as_deref()));
    write("endpoint", Field::Text(record.endpoint.as_deref()));
    write("method", Field::Text(method));
    write("path", Field::Text(record.path.as_deref()));
    write("authority", Field::Text(record.authority.as_deref()));
    write("version", Field::Word(record.version.map(version)));
    write("status", number(&record.status));
    write("grpc_status", number(&record.grpc_status));
    write(
        "flag",
        Field::Word(Some(record.flag.map_or("-", |flag| flag.as_str()))),
    );
    write("bytes_received", number(&Some(record.bytes_received)));
    write("bytes_sent", number(&Some(record.bytes_sent)));
    write("duration_ms", number(&Some(duration)));
    write("tries", number(&Some(record.tries)));
    write("retry_reason", Field::Word(record.retry_reason));
    write("denied_by", Field::Text(record.denied_by.as_deref()));
    write("trace_id", Field::Word(trace.as_deref()));
    write("tls", Field::Word(Some(tls(record.tls))));
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "0.9",
        Version::HTTP_10 => "1.0",
        Version::HTTP_11 => "1.1",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "other",
    }
}

fn tls(tls: Tls) -> &'static str {
    match tls {
        Tls::None => "no",
        Tls::Full => "yes",
        Tls::Resumed => "resumed",
    }
}
