//! The words labels may have where the set of words is closed.
//!
//! Each is an index into cells on the way in, and a word on the way out; nothing a peer sends
//! can add one.

use selvage_certs::HandshakeOutcome;
use selvage_policy::breaker::BreakerState;
use selvage_policy::flag::Flag;
use selvage_policy::retry::RetryOutcome;

pub use crate::lifecycle::Direction;

/// Both, in the order of their numbers.
pub(super) const DIRECTIONS: [Direction; 2] = [Direction::Inbound, Direction::Outbound];

/// Which side of a TLS handshake this proxy was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It connected.
    Client,
    /// It accepted.
    Server,
}

impl Side {
    pub(super) const ALL: [Self; 2] = [Self::Client, Self::Server];

    /// The word of labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
        }
    }
}

/// What authorization decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Decision {
    /// Permitted.
    Allow,
    /// Refused.
    Deny,
    /// Permitted, but a policy in audit mode would have refused.
    AuditDeny,
}

impl Decision {
    pub(super) const ALL: [Self; 3] = [Self::Allow, Self::Deny, Self::AuditDeny];

    /// The word of labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::AuditDeny => "audit-deny",
        }
    }
}

/// How an endpoint stands, for the gauge `selvage_endpoints`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointCondition {
    /// Its breaker is closed: it takes traffic.
    Closed,
    /// Its breaker is open.
    Open,
    /// Its breaker admits one request.
    HalfOpen,
    /// The registry says that the application does not answer, or our own checks do.
    Unhealthy,
    /// It left the Snapshot and finishes what it has.
    Draining,
}

impl EndpointCondition {
    pub(super) const ALL: [Self; 5] = [
        Self::Closed,
        Self::Open,
        Self::HalfOpen,
        Self::Unhealthy,
        Self::Draining,
    ];

    /// The word of labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

/// Which certificate expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CertificateKind {
    /// The workload's own.
    Leaf,
    /// The one that signed it.
    Issuer,
    /// The root of the trust domain.
    Root,
}

impl CertificateKind {
    /// The word of labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Issuer => "issuer",
            Self::Root => "root",
        }
    }
}

/// What a policy had done to a request besides sending it: a family each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// A try was hedged, or was to be.
    Hedge,
    /// Something stood in for the service.
    Fallback,
    /// A fault was injected.
    Fault,
    /// A copy was made for a mirror, or was to be.
    Mirror,
}

impl Event {
    pub(super) const ALL: [Self; 4] = [Self::Hedge, Self::Fallback, Self::Fault, Self::Mirror];

    /// The label beside `destination`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Hedge | Self::Mirror => "outcome",
            Self::Fallback => "name",
            Self::Fault => "kind",
        }
    }
}

pub(super) const HANDSHAKE_OUTCOMES: [HandshakeOutcome; 6] = HandshakeOutcome::ALL;

/// The cell of a handshake's side and outcome.
pub(super) fn handshake_cell(side: Side, outcome: HandshakeOutcome) -> usize {
    side as usize * HANDSHAKE_OUTCOMES.len() + handshake_index(outcome)
}

fn handshake_index(outcome: HandshakeOutcome) -> usize {
    match outcome {
        HandshakeOutcome::Ok => 0,
        HandshakeOutcome::NoCertificate => 1,
        HandshakeOutcome::Expired => 2,
        HandshakeOutcome::Untrusted => 3,
        HandshakeOutcome::WrongIdentity => 4,
        HandshakeOutcome::Other => 5,
    }
}

pub(super) const RETRY_OUTCOMES: [RetryOutcome; 6] = [
    RetryOutcome::Success,
    RetryOutcome::Failure,
    RetryOutcome::Budget,
    RetryOutcome::Limit,
    RetryOutcome::Deadline,
    RetryOutcome::ExhaustedBelow,
];

pub(super) fn retry_index(outcome: RetryOutcome) -> usize {
    match outcome {
        RetryOutcome::Success => 0,
        RetryOutcome::Failure => 1,
        RetryOutcome::Budget => 2,
        RetryOutcome::Limit => 3,
        RetryOutcome::Deadline => 4,
        RetryOutcome::ExhaustedBelow => 5,
    }
}

pub(super) const BREAKER_STATES: [&str; 3] = ["open", "half_open", "closed"];

pub(super) fn breaker_index(state: BreakerState) -> usize {
    match state {
        BreakerState::Open => 0,
        BreakerState::HalfOpen => 1,
        BreakerState::Closed => 2,
    }
}

/// What a request ended as, packed into one word that is never 0: a mark, the HTTP status
/// (0 where there was none), the gRPC status plus 1, the flag plus 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OutcomeKey(pub(super) u32);

const MARK: u32 = 1 << 31;
/// gRPC statuses end at 16 (UNAUTHENTICATED); what is above is one label.
const GRPC_STATUS_MAX: u32 = 16;
const GRPC_OTHER: u32 = GRPC_STATUS_MAX + 1;

impl OutcomeKey {
    pub(super) fn http(status: u16, grpc_status: Option<u32>, flag: Option<Flag>) -> Self {
        let status = if (100..=999).contains(&status) {
            u32::from(status)
        } else {
            0
        };
        let grpc = grpc_status.map_or(0, |code| code.min(GRPC_OTHER) + 1);
        Self(MARK | status << 16 | grpc << 8 | flag_number(flag))
    }

    pub(super) fn tcp(flag: Option<Flag>) -> Self {
        Self(MARK | flag_number(flag))
    }

    /// `code`: three digits, or `-`.
    pub(super) fn code(self) -> String {
        match self.0 >> 16 & 0x3ff {
            0 => "-".to_owned(),
            status => status.to_string(),
        }
    }

    /// `grpc_status`: 0 to 16, `other`, or `-`.
    pub(super) fn grpc_status(self) -> String {
        match self.0 >> 8 & 0xff {
            0 => "-".to_owned(),
            number if number - 1 == GRPC_OTHER => "other".to_owned(),
            number => (number - 1).to_string(),
        }
    }

    /// `flag`: its word, or `-`.
    pub(super) fn flag(self) -> &'static str {
        let number = self.0 & 0xff;
        Flag::ALL
            .iter()
            .find(|flag| flag_number(Some(**flag)) == number)
            .map_or("-", |f| f.as_str())
    }
}

fn flag_number(flag: Option<Flag>) -> u32 {
    flag.map_or(0, |flag| flag as u32 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_packing() {
        let table = [
            (200, None, None, ["200", "-", "-"]),
            (200, Some(0), None, ["200", "0", "-"]),
            (200, Some(16), None, ["200", "16", "-"]),
            (200, Some(17), None, ["200", "other", "-"]),
            (200, Some(u32::MAX), None, ["200", "other", "-"]),
            (999, None, Some(Flag::NoRoute), ["999", "-", "no-route"]),
            (0, None, None, ["-", "-", "-"]),
            (60000, None, Some(Flag::Timeout), ["-", "-", "timeout"]),
        ];
        for (status, grpc, flag, expected) in table {
            let key = OutcomeKey::http(status, grpc, flag);
            assert_ne!(key.0, 0);
            assert_eq!(
                [key.code().as_str(), key.grpc_status().as_str(), key.flag()],
                expected
            );
        }
    }

    #[test]
    fn every_flag_has_its_own_number() {
        for flag in Flag::ALL {
            assert_eq!(OutcomeKey::tcp(Some(flag)).flag(), flag.as_str());
        }
    }

    #[test]
    fn indexes_follow_their_tables() {
        for (index, outcome) in HANDSHAKE_OUTCOMES.into_iter().enumerate() {
            assert_eq!(handshake_index(outcome), index);
        }
        for (index, outcome) in RETRY_OUTCOMES.into_iter().enumerate() {
            assert_eq!(retry_index(outcome), index);
        }
    }
}
