//! What crosses the application beside us: of a request that comes in, its
//! trace is kept with when its caller stops waiting; a call that the
//! application makes for it is found by that trace, and hears of it.
//!
//! Nothing of it is believed but from an authenticated peer, and nothing of it
//! is told to anybody else. What is kept, and how, is policy's
//! ([`selvage_policy::traces`]).

use std::time::Instant;

use http::HeaderMap;
use selvage_policy::said;
use selvage_policy::trace::TraceId;
use selvage_policy::traces::TraceInFlight;

use super::downstream::{Downstream, Side};
use crate::worker::Worker;

/// The place of a request among those of its trace.
#[derive(Debug, Default)]
pub(super) enum Crossing {
    /// It has none: no trace, nobody whose word counts, or no room.
    #[default]
    None,
    /// It came from an authenticated peer; calls made for it are known by its trace.
    Arrives(TraceInFlight),
    /// It is a call made for one that came.
    Leaves(TraceId),
}

impl Crossing {
    /// The place of a request of `trace`, and the moment nobody waits for its
    /// answer any more: `asked`, or earlier where its trace is known.
    pub(super) fn of(
        worker: &Worker,
        downstream: &Downstream,
        trace: TraceId,
        asked: Option<Instant>,
        now: Instant,
    ) -> (Self, Option<Instant>) {
        let traces = &worker.shared.traces;
        match downstream.side {
            Side::Inbound { .. } if downstream.peer.is_none() => (Self::None, asked),
            Side::Inbound { .. } => match traces.enter(trace, asked, now) {
                Some(kept) => (Self::Arrives(kept), asked),
                None => {
                    worker.shared.metrics.trace_not_kept(worker.index);
                    (Self::None, asked)
                }
            },
            // A client outside the mesh is no application beside us.
            Side::Gateway { .. } => (Self::None, asked),
            Side::Outbound { .. } => match traces.find(trace, now) {
                Some(found) => {
                    let both = [asked, found.deadline].into_iter().flatten();
                    (Self::Leaves(trace), both.min())
                }
                None => (Self::None, asked),
            },
        }
    }

    /// Its answer came back exhausted: whoever it was called for is to know.
    pub(super) fn exhausts(&self, worker: &Worker) {
        if let Self::Leaves(trace) = self {
            worker.shared.traces.exhaust(*trace);
        }
    }

    /// Says to the peer, on our answer, that retries were in vain below.
    pub(super) fn marks(&self, headers: &mut HeaderMap) {
        if let Self::Arrives(kept) = self
            && kept.is_exhausted()
        {
            said::say_exhausted(headers);
        }
    }

    /// The request is over; `abandoned`: for all we know not for its application.
    pub(super) fn ends(&mut self, abandoned: bool) {
        if let Self::Arrives(kept) = std::mem::take(self)
            && abandoned
        {
            kept.abandon();
        }
    }
}
