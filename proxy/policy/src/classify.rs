//! What the outcome of one try says of its endpoint.
//!
//! Stands between a try and what learns from it: breaker and balancer. It
//! knows no bodies and no connections; the proxy tells it how a try ended.
//! What this proxy did to a request itself is no outcome of a try and never
//! comes here.

use http::StatusCode;

use crate::failures::Failures;
use crate::flag::{Flag, Grpc};

/// How one try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response came.
    Response {
        /// Its HTTP status.
        status: StatusCode,
        /// Its gRPC status, from headers or trailers; `None` where it is no gRPC.
        grpc_status: Option<u32>,
        /// The flag the other sidecar set, an authenticated peer. Never an application's.
        flag: Option<Flag>,
    },
    /// None came.
    Transport(TransportFailure),
    /// The caller went away.
    Cancelled,
    /// The caller's own deadline passed, shorter than the route's.
    CallerDeadline,
}

/// Why no response came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportFailure {
    /// Refused, unreachable, or not connected in time.
    Connect,
    /// The TLS handshake failed, before any byte of a request.
    Tls,
    /// Closed or reset once the request may have been processed.
    Reset,
    /// A reused HTTP/1 connection closed after the request was written and
    /// before a byte of the response: most likely it was closing already.
    ReusedClosed,
    /// Surely not processed: REFUSED_STREAM, a stream above GOAWAY's last, or an
    /// idle connection that closed before anything was written.
    Unprocessed,
    /// What came is not the protocol.
    BadResponse,
    /// The try took too long.
    Timeout,
}

impl TransportFailure {
    /// What the caller is told where this is the end of it.
    #[must_use]
    pub const fn flag(self) -> Flag {
        match self {
            Self::Connect => Flag::ConnectFailure,
            Self::Tls => Flag::TlsFailure,
            Self::Reset | Self::ReusedClosed | Self::Unprocessed => Flag::Reset,
            Self::BadResponse => Flag::BadResponse,
            Self::Timeout => Flag::Timeout,
        }
    }
}

/// What an outcome says of the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// It works.
    Success,
    /// It failed this request; the request may be to blame.
    Failure,
    /// It failed, and the request is not to blame. Counts as a [`Class::Failure`] too.
    HardFailure,
    /// It has too much to do: no failure, but the balancer looks elsewhere.
    Throttled,
    /// Nothing.
    Neutral,
}

impl Class {
    /// Whether this counts as a failure, hard or not.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        matches!(self, Self::Failure | Self::HardFailure)
    }
}

/// Classifies how a try ended, by what its service counts as failures.
///
/// A try that was surely not processed is neutral: a draining endpoint says
/// GOAWAY to many at once, and is not broken.
#[must_use]
pub fn classify(failures: &Failures, outcome: &Outcome) -> Class {
    match *outcome {
        Outcome::Response {
            status,
            grpc_status,
            flag,
        } => flag
            .and_then(classify_flag)
            .unwrap_or_else(|| classify_response(failures, status, grpc_status)),
        Outcome::Transport(TransportFailure::Unprocessed)
        | Outcome::Cancelled
        | Outcome::CallerDeadline => Class::Neutral,
        Outcome::Transport(_) => Class::HardFailure,
    }
}

/// A peer's flag, where it says more than the status beside it.
fn classify_flag(flag: Flag) -> Option<Class> {
    match flag {
        Flag::Overflow | Flag::Overloaded | Flag::RateLimited => Some(Class::Throttled),
        Flag::ConnectFailure
        | Flag::TlsFailure
        | Flag::Reset
        | Flag::BadResponse
        | Flag::Timeout => Some(Class::HardFailure),
        Flag::Denied
        | Flag::Fault
        | Flag::NoRoute
        | Flag::NoService
        | Flag::InvalidBackend
        | Flag::BadRequest
        | Flag::HeadersTooLarge
        | Flag::UriTooLong
        | Flag::BodyTooLarge
        | Flag::SlowRequest
        | Flag::ExpectationFailed
        | Flag::Misdirected
        | Flag::Loop => Some(Class::Neutral),
        Flag::NotReady | Flag::NoHealthyEndpoint => None,
    }
}

fn classify_response(failures: &Failures, status: StatusCode, grpc_status: Option<u32>) -> Class {
    if failures.hard_statuses.has(status.as_u16()) {
        Class::HardFailure
    } else if failures.statuses.has(status.as_u16()) {
        Class::Failure
    } else if status == StatusCode::TOO_MANY_REQUESTS {
        Class::Throttled
    } else {
        grpc_status.map_or(Class::Success, |number| classify_grpc(failures, number))
    }
}

fn classify_grpc(failures: &Failures, number: u32) -> Class {
    if failures.hard_grpc.has(number) {
        return Class::HardFailure;
    }
    if failures.grpc.has(number) {
        return Class::Failure;
    }
    match Grpc::from_number(number) {
        Some(Grpc::ResourceExhausted) => Class::Throttled,
        // Somebody gave up: that is no news of the endpoint.
        Some(Grpc::Cancelled) => Class::Neutral,
        _ => Class::Success,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failures::{GrpcSet, StatusSet};

    fn usually(outcome: &Outcome) -> Class {
        classify(&Failures::USUAL, outcome)
    }

    fn response(status: u16, grpc_status: Option<u32>, flag: Option<Flag>) -> Outcome {
        let status = StatusCode::from_u16(status).expect("a status");
        Outcome::Response {
            status,
            grpc_status,
            flag,
        }
    }

    #[test]
    fn responses() {
        use Class::{Failure, HardFailure, Neutral, Success, Throttled};
        let table = [
            (200, None, None, Success),
            (101, None, None, Success),
            (404, None, None, Success),
            (429, None, None, Throttled),
            (500, None, None, Failure),
            (501, None, None, Failure),
            (502, None, None, HardFailure),
            (503, None, None, HardFailure),
            (504, None, None, HardFailure),
            (200, Some(0), None, Success),
            (200, Some(1), None, Neutral),
            (200, Some(2), None, Failure),
            (200, Some(4), None, Failure),
            (200, Some(5), None, Success),
            (200, Some(8), None, Throttled),
            (200, Some(13), None, Failure),
            (200, Some(14), None, HardFailure),
            (200, Some(15), None, Failure),
            (200, Some(16), None, Success),
            (200, Some(99), None, Failure),
            (503, Some(0), None, HardFailure),
            (503, None, Some(Flag::Overflow), Throttled),
            (503, None, Some(Flag::Overloaded), Throttled),
            (429, None, Some(Flag::RateLimited), Throttled),
            (200, Some(14), Some(Flag::Overloaded), Throttled),
            (403, None, Some(Flag::Denied), Neutral),
            (503, None, Some(Flag::Fault), Neutral),
            (404, None, Some(Flag::NoRoute), Neutral),
            (503, None, Some(Flag::ConnectFailure), HardFailure),
            (200, Some(14), Some(Flag::ConnectFailure), HardFailure),
            (503, None, Some(Flag::Reset), HardFailure),
            (503, None, Some(Flag::NotReady), HardFailure),
            // Every gRPC status that is no failure, and what comes beside another HTTP status.
            (200, Some(3), None, Success),
            (200, Some(6), None, Success),
            (200, Some(7), None, Success),
            (200, Some(9), None, Success),
            (200, Some(10), None, Success),
            (200, Some(11), None, Success),
            (200, Some(12), None, Success),
            (200, Some(u32::MAX), None, Failure),
            (404, Some(14), None, HardFailure),
            (429, Some(14), None, Throttled),
            (500, Some(0), None, Failure),
            (505, None, None, Failure),
            (599, None, None, Failure),
            (304, None, None, Success),
            (499, None, None, Success),
            // What the other sidecar did itself, or was asked to do.
            (429, None, Some(Flag::Overloaded), Throttled),
            (503, None, Some(Flag::InvalidBackend), Neutral),
            (431, None, Some(Flag::HeadersTooLarge), Neutral),
            (508, None, Some(Flag::Loop), Neutral),
            (503, None, Some(Flag::NoHealthyEndpoint), HardFailure),
            (504, None, Some(Flag::Timeout), HardFailure),
            (502, None, Some(Flag::BadResponse), HardFailure),
            (503, None, Some(Flag::TlsFailure), HardFailure),
        ];
        for (status, grpc, flag, expected) in table {
            assert_eq!(
                usually(&response(status, grpc, flag)),
                expected,
                "{status} {grpc:?} {flag:?}"
            );
        }
    }

    #[test]
    fn transport_failures_are_hard_unless_nothing_was_processed() {
        use TransportFailure::{
            BadResponse, Connect, Reset, ReusedClosed, Timeout, Tls, Unprocessed,
        };
        for failure in [Connect, Tls, Reset, ReusedClosed, BadResponse, Timeout] {
            assert_eq!(
                usually(&Outcome::Transport(failure)),
                Class::HardFailure,
                "{failure:?}"
            );
        }
        assert_eq!(usually(&Outcome::Transport(Unprocessed)), Class::Neutral);
    }

    #[test]
    fn a_service_widens_and_narrows_what_counts() {
        use Class::{Failure, HardFailure, Neutral, Success, Throttled};
        let wide = Failures {
            statuses: StatusSet::EMPTY.with(400, 599),
            grpc: GrpcSet::EMPTY.with(1).with(8),
            ..Failures::USUAL
        };
        let narrow = Failures {
            statuses: StatusSet::EMPTY,
            hard_statuses: StatusSet::EMPTY.with(503, 503),
            grpc: GrpcSet::EMPTY,
            hard_grpc: GrpcSet::EMPTY,
        };
        let hard = Failures {
            hard_statuses: StatusSet::EMPTY.with(404, 404).with(500, 500),
            hard_grpc: GrpcSet::EMPTY.with(2),
            ..Failures::USUAL
        };
        let table = [
            (wide, 404, None, None, Failure),
            (wide, 429, None, None, Failure),
            (wide, 503, None, None, HardFailure),
            (wide, 200, Some(8), None, Failure),
            (wide, 200, Some(1), None, Failure),
            (wide, 200, Some(2), None, Success),
            (wide, 429, None, Some(Flag::RateLimited), Throttled),
            (wide, 403, None, Some(Flag::Denied), Neutral),
            (narrow, 500, None, None, Success),
            (narrow, 502, None, None, Success),
            (narrow, 503, None, None, HardFailure),
            (narrow, 429, None, None, Throttled),
            (narrow, 200, Some(14), None, Success),
            (narrow, 200, Some(8), None, Throttled),
            (narrow, 503, None, Some(Flag::ConnectFailure), HardFailure),
            (hard, 404, None, None, HardFailure),
            (hard, 500, None, None, HardFailure),
            (hard, 502, None, None, Failure),
            (hard, 200, Some(99), None, HardFailure),
            (hard, 200, Some(14), None, Failure),
        ];
        for (failures, status, grpc, flag, expected) in table {
            let outcome = response(status, grpc, flag);
            assert_eq!(classify(&failures, &outcome), expected, "{outcome:?}");
        }
        let reset = Outcome::Transport(TransportFailure::Reset);
        assert_eq!(classify(&narrow, &reset), HardFailure);
    }

    #[test]
    fn callers_that_give_up_say_nothing() {
        assert_eq!(usually(&Outcome::Cancelled), Class::Neutral);
        assert_eq!(usually(&Outcome::CallerDeadline), Class::Neutral);
    }
}
