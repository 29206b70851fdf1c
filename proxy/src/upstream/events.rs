//! What a policy does to requests beside sending them, counted toward one
//! destination. There is a counter only where there is a policy.

use std::sync::Arc;

use selvage_policy::hedge::HedgeOutcome;
use selvage_policy::mirror::MirrorOutcome;
use selvage_policy::snapshot::TrafficPolicy;

use crate::telemetry::metrics::{Counter, Event, Metrics};

/// The label `kind` of `selvage_faults_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A request waited.
    Delay,
    /// It was answered with a status.
    Abort,
    /// It was not answered.
    Reset,
}

impl FaultKind {
    const ALL: [Self; 3] = [Self::Delay, Self::Abort, Self::Reset];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Delay => "delay",
            Self::Abort => "abort",
            Self::Reset => "reset",
        }
    }
}

type Counters<const N: usize> = Option<Box<[Arc<Counter>; N]>>;

/// The counters of one destination, each in the order of its outcomes or kinds.
#[derive(Debug, Default)]
pub struct Events {
    hedges: Counters<{ HedgeOutcome::ALL.len() }>,
    fallbacks: Option<Arc<Counter>>,
    faults: Counters<{ FaultKind::ALL.len() }>,
    mirrors: Counters<{ MirrorOutcome::ALL.len() }>,
}

impl Events {
    /// Those a policy may need, and those of copies where they are `copied`. Takes a lock.
    #[must_use]
    pub fn of(policy: &TrafficPolicy, copied: bool, metrics: &Metrics, destination: &str) -> Self {
        let counter = |event, label: &str| metrics.event(event, destination, label);
        let hedge = |outcome: HedgeOutcome| counter(Event::Hedge, outcome.as_str());
        let fault = |kind: FaultKind| counter(Event::Fault, kind.as_str());
        let mirror = |outcome: MirrorOutcome| counter(Event::Mirror, outcome.as_str());
        let TrafficPolicy {
            hedge: hedges,
            fallback,
            fault: faults,
            mirror: mirrors,
            ..
        } = policy;
        Self {
            hedges: hedges
                .as_ref()
                .map(|_| Box::new(HedgeOutcome::ALL.map(hedge))),
            fallbacks: fallback
                .as_ref()
                .map(|fallback| counter(Event::Fallback, &fallback.name)),
            faults: faults.as_ref().map(|_| Box::new(FaultKind::ALL.map(fault))),
            mirrors: (copied || mirrors.is_some())
                .then(|| Box::new(MirrorOutcome::ALL.map(mirror))),
        }
    }

    /// Counts a hedge by what became of it.
    pub fn hedge(&self, worker: usize, outcome: HedgeOutcome) {
        if let Some(hedges) = &self.hedges {
            hedges[outcome as usize].inc(worker);
        }
    }

    /// Counts a request for which something stood in.
    pub fn fallback(&self, worker: usize) {
        if let Some(fallbacks) = &self.fallbacks {
            fallbacks.inc(worker);
        }
    }

    /// Counts a fault.
    pub fn fault(&self, worker: usize, kind: FaultKind) {
        if let Some(faults) = &self.faults {
            faults[kind as usize].inc(worker);
        }
    }

    /// Counts a copy by what became of it.
    pub fn mirror(&self, worker: usize, outcome: MirrorOutcome) {
        if let Some(mirrors) = &self.mirrors {
            mirrors[outcome as usize].inc(worker);
        }
    }
}
