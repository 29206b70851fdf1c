//! B3, as Zipkin and what grew around it speak it: the single `b3` field, and
//! the several `X-B3-*`. Read where there is no W3C context; rewritten in the
//! form they came in, so that an application that knows only B3 stays in the
//! trace.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Parent, SpanContext, SpanId, TraceId};

const SINGLE: HeaderName = HeaderName::from_static("b3");
const TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// The parent that `b3` names, else the one of `X-B3-*`.
pub(super) fn read(headers: &HeaderMap) -> Option<Parent> {
    match one(headers, &SINGLE) {
        Some(value) => single(value.as_bytes()),
        None => multiple(headers),
    }
}

/// A field that is there once.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// `<trace>-<span>[-<state>[-<parent>]]`, or the state alone.
fn single(text: &[u8]) -> Option<Parent> {
    if let Some(sampled) = state(text) {
        return Some(Parent {
            context: None,
            sampled: Some(sampled),
        });
    }
    let mut parts = text.split(|byte| *byte == b'-');
    let context = SpanContext {
        trace: TraceId::parse_b3(parts.next()?)?,
        span: SpanId::parse(parts.next()?)?,
    };
    let sampled = match parts.next() {
        None => None,
        Some(part) => Some(state(part)?),
    };
    if let Some(parent) = parts.next() {
        SpanId::parse(parent)?;
    }
    parts.next().is_none().then_some(Parent {
        context: Some(context),
        sampled,
    })
}

/// `d` is a trace that is recorded for debugging.
const fn state(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"d" => Some(true),
        b"0" => Some(false),
        _ => None,
    }
}

fn multiple(headers: &HeaderMap) -> Option<Parent> {
    let debug = one(headers, &FLAGS).is_some_and(|value| value == "1");
    let sampled = match one(headers, &SAMPLED).map(HeaderValue::as_bytes) {
        _ if debug => Some(true),
        None => None,
        Some(b"1" | b"true") => Some(true),
        Some(b"0" | b"false") => Some(false),
        Some(_) => return None,
    };
    let context = match (one(headers, &TRACE), one(headers, &SPAN)) {
        (None, None) => None,
        (trace, span) => Some(SpanContext {
            trace: TraceId::parse_b3(trace?.as_bytes())?,
            span: SpanId::parse(span?.as_bytes())?,
        }),
    };
    (context.is_some() || sampled.is_some()).then_some(Parent { context, sampled })
}

/// Has the forms that are there name `context`. A trace for debugging stays one.
pub(super) fn rewrite(headers: &mut HeaderMap, context: &SpanContext, sampled: bool) {
    // One pass: most requests have none of them.
    let (mut is_single, mut is_multiple) = (false, false);
    for name in headers.keys() {
        is_single |= *name == SINGLE;
        is_multiple |= [TRACE, SPAN, PARENT, SAMPLED, FLAGS].contains(name);
    }
    if is_single {
        rewrite_single(headers, context, sampled);
    }
    if is_multiple {
        rewrite_multiple(headers, context, sampled);
    }
}

fn rewrite_single(headers: &mut HeaderMap, context: &SpanContext, sampled: bool) {
    let debug = |text: &[u8]| text == b"d" || text.split(|byte| *byte == b'-').nth(2) == Some(b"d");
    let state = match one(headers, &SINGLE) {
        Some(value) if sampled && debug(value.as_bytes()) => "d",
        _ if sampled => "1",
        _ => "0",
    };
    let (trace, span) = (trace_of(context), context.span);
    headers.insert(SINGLE, value(format!("{trace}-{span}-{state}")));
}

fn rewrite_multiple(headers: &mut HeaderMap, context: &SpanContext, sampled: bool) {
    let debug = sampled && one(headers, &FLAGS).is_some_and(|value| value == "1");
    headers.remove(PARENT);
    headers.remove(SAMPLED);
    headers.insert(TRACE, value(trace_of(context)));
    headers.insert(SPAN, value(context.span.to_string()));
    if debug {
        // It says `sampled` too.
        headers.insert(FLAGS, HeaderValue::from_static("1"));
    } else {
        headers.remove(FLAGS);
        headers.insert(
            SAMPLED,
            HeaderValue::from_static(if sampled { "1" } else { "0" }),
        );
    }
}

/// As long as it came.
fn trace_of(context: &SpanContext) -> String {
    let mut text = context.trace.to_string();
    if context.trace.is_short() {
        text.drain(..16);
    }
    text
}

fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("digits and dashes are a header value")
}
