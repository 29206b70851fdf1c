//! What became of a try that got no answer, and whether its endpoint is to
//! blame. It decides nothing of what follows.

use selvage_policy::blame::RanOut;
use selvage_policy::classify::{Outcome, TransportFailure};
use selvage_policy::deadline::DeadlineOwner;
use selvage_policy::endpoint::InFlight;
use selvage_policy::flag::Flag;
use selvage_policy::retry::Pushback;
use tokio::time::Instant;

use super::limits::{Expired, Limits};
use super::outgoing::Outgoing;
use super::send::Tried;
use crate::clock;
use crate::error::ProxyError;

/// It ended so; what it says of the endpoint stands.
pub(super) fn failed(outcome: Outcome, in_flight: InFlight, error: ProxyError) -> Tried {
    Tried {
        outcome,
        answered: None,
        in_flight,
        error,
        excused: false,
        pushback: Pushback::None,
    }
}

/// There was no connection in time, because this proxy did not get to run.
pub(super) fn starved(in_flight: InFlight, reason: String) -> Tried {
    let failure = TransportFailure::Connect;
    let error = ProxyError::new(failure.flag(), reason);
    Tried {
        excused: true,
        ..failed(Outcome::Transport(failure), in_flight, error)
    }
}

/// A limit ran out.
pub(super) fn timed_out(
    expired: Expired,
    in_flight: InFlight,
    outgoing: &Outgoing,
    limits: &Limits<'_>,
) -> Tried {
    let began = in_flight.started();
    let ran_out = RanOut {
        began,
        due: limits.due(expired).map_or(began, Instant::into_std),
        noticed: clock::recent().into_std(),
        of_request: (expired == Expired::Deadline).then_some(outgoing.allowed),
    };
    let timeout = Outcome::Transport(TransportFailure::Timeout);
    let (outcome, detail) = match (expired, outgoing.deadline.1) {
        (Expired::Deadline, DeadlineOwner::Caller) => {
            (Outcome::CallerDeadline, "the caller's deadline passed")
        }
        (Expired::Deadline, DeadlineOwner::Route) => (timeout, "timeouts.request ran out"),
        (Expired::Try, _) => (timeout, "timeouts.backendRequest ran out"),
        (Expired::Idle, _) => (timeout, "timeouts.idle ran out"),
    };
    let error = ProxyError::new(Flag::Timeout, detail);
    Tried {
        excused: !ran_out.blames_endpoint(),
        ..failed(outcome, in_flight, error)
    }
}
