//! Faults injected on purpose, before any endpoint is asked: a wait within the
//! request's own time, an answer, or none.

use selvage_policy::fault::{Abort, FaultPolicy};
use selvage_policy::flag::Flag;
use tokio::time::Instant;

use super::outgoing::Outgoing;
use super::record::Record;
use crate::clock;
use crate::error::ProxyError;
use crate::upstream::Destination;
use crate::upstream::events::FaultKind;
use crate::worker::Worker;

/// Injects what chance has it, if anything.
pub(super) async fn inject(
    worker: &Worker,
    destination: &Destination,
    policy: &FaultPolicy,
    outgoing: &Outgoing,
    record: &mut Record,
) -> Result<(), ProxyError> {
    let injected = worker.with_rng(|rng| policy.draw(outgoing.headers(), rng));
    if let Some(delay) = injected.delay {
        destination.events.fault(worker.index, FaultKind::Delay);
        record.keeps(Flag::Fault);
        let over = clock::recent() + delay;
        let (deadline, _) = outgoing.limit(&destination.policy().timeouts);
        let deadline = deadline.map(Instant::from_std);
        tokio::time::sleep_until(deadline.map_or(over, |deadline| over.min(deadline))).await;
        let now = clock::now();
        if deadline.is_some_and(|deadline| deadline <= now) {
            let detail = "the deadline passed during an injected delay";
            return Err(ProxyError::new(Flag::Timeout, detail));
        }
    }
    let Some(abort) = injected.abort else {
        return Ok(());
    };
    let kind = match abort {
        Abort::Status(_) | Abort::Grpc(_) => FaultKind::Abort,
        Abort::Reset => FaultKind::Reset,
    };
    destination.events.fault(worker.index, kind);
    Err(ProxyError::injected(abort))
}
