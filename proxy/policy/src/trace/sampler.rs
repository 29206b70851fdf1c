//! Whether a trace is recorded: the samplers that OpenTelemetry names.

use super::{Parent, TraceId};

/// `OTEL_TRACES_SAMPLER`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sampler {
    /// By its own lights, whatever the caller decided.
    Always(Root),
    /// As the caller decided; by its own lights where nobody did.
    ParentBased(Root),
}

/// A decision without a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Root {
    /// Every trace.
    On,
    /// None.
    Off,
    /// A share of them.
    Ratio(Ratio),
}

/// A share of all traces, the same wherever it is asked about one trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ratio {
    /// Traces are recorded of which the lower 63 bits are below.
    below: u64,
}

const RANGE: u64 = 1 << 63;

impl Ratio {
    /// A share from 0 to 1; `None` where it is neither of them nor between.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self {
            // Both bounds are exact, and the product is within them.
            below: (share * RANGE as f64) as u64,
        })
    }

    /// The rule of OpenTelemetry's other implementations, so that a trace is in for all or for none.
    const fn samples(self, trace: TraceId) -> bool {
        trace.low() >> 1 < self.below
    }
}

impl Sampler {
    /// Whether the request's span is recorded.
    pub(super) fn samples(self, parent: &Parent, trace: TraceId) -> bool {
        match self {
            Self::ParentBased(root) => parent.sampled.unwrap_or_else(|| root.samples(trace)),
            Self::Always(root) => root.samples(trace),
        }
    }
}

impl Root {
    const fn samples(self, trace: TraceId) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Ratio(ratio) => ratio.samples(trace),
        }
    }
}
