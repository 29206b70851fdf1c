//! Which trace a request belongs to, and whether it is recorded.
//!
//! Met before a request is routed. A parent is read from W3C Trace Context
//! (`w3c`), else from B3 (`b3`); the sampler decides; what is decided is
//! written back for the next hop. What is malformed is as if it were not there:
//! a request is never refused for its trace. It knows no spans and nobody they
//! are sent to.

mod b3;
mod id;
mod sampler;
mod w3c;

use http::{HeaderMap, HeaderName};

pub use id::{SpanId, TraceId};
pub use sampler::{Ratio, Root, Sampler};
pub use w3c::{TRACEPARENT, TRACESTATE};

/// One span, as its context travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace: TraceId,
    /// The span.
    pub span: SpanId,
}

/// What a request says of its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Parent {
    /// The caller's span; absent where there was none, or a malformed one.
    pub context: Option<SpanContext>,
    /// Whether the caller records the trace; absent where it left that open.
    pub sampled: Option<bool>,
}

impl Parent {
    /// Reads `traceparent`; where that is absent or malformed, `b3`, then `X-B3-*`.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        w3c::read(headers)
            .or_else(|| b3::read(headers))
            .unwrap_or_default()
    }
}

/// The trace of one request here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// What the next hop is told: our span, or the caller's where we record none.
    pub context: SpanContext,
    /// The caller's span.
    pub parent: Option<SpanId>,
    /// Whether our span is recorded.
    pub sampled: bool,
}

impl Trace {
    /// Continues `parent`, or begins a trace where there is none.
    ///
    /// Where neither the caller nor we record, the caller's context goes on as it is: a span that
    /// nobody hears of is nobody's parent.
    #[must_use]
    pub fn begin(parent: &Parent, sampler: Sampler, rng: &mut fastrand::Rng) -> Self {
        let trace = match parent.context {
            Some(context) => context.trace,
            None => TraceId::random(rng),
        };
        let sampled = sampler.samples(parent, trace);
        if let Some(context) = parent.context
            && !sampled
            && parent.sampled == Some(false)
        {
            return Self {
                context,
                parent: None,
                sampled,
            };
        }
        Self {
            context: SpanContext {
                trace,
                span: SpanId::random(rng),
            },
            parent: parent.context.map(|context| context.span),
            sampled,
        }
    }

    /// Says it to the next hop: in `traceparent`, and in each form of B3 that the request has, so
    /// that all of them name one span. A `tracestate` stays where it is well formed and belongs to
    /// the trace that is continued.
    pub fn write(&self, headers: &mut HeaderMap) {
        let keeps_state = w3c::read(headers).is_some() && w3c::state_is_valid(headers);
        if !keeps_state {
            headers.remove(TRACESTATE);
        }
        headers.insert(TRACEPARENT, w3c::encode(&self.context, self.sampled));
        b3::rewrite(headers, &self.context, self.sampled);
    }
}

/// Whether a field may name a trace.
#[must_use]
pub fn names_a_trace(name: &HeaderName) -> bool {
    let name = name.as_str();
    match name.len() {
        2 => name == "b3",
        11 => name == "traceparent",
        12 => name == "x-b3-traceid",
        _ => false,
    }
}

/// The trace a request says it belongs to, where no span is recorded.
#[must_use]
pub fn trace_id(headers: &HeaderMap) -> Option<TraceId> {
    Parent::read(headers).context.map(|context| context.trace)
}

#[cfg(test)]
mod tests;
