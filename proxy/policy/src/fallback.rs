//! What stands in for a service that fails: another one, or an answer known
//! beforehand.
//!
//! Asked once, after the last try of a request, about what its caller would
//! get. It does not ask the other service and writes no answer. What stands in
//! is not stood in for: there is no second question, so no chain and no circle.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::flag::Flag;
use crate::snapshot::Backend;

/// When something stands in, and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackPolicy {
    /// Its name, for callers and metrics.
    pub name: Arc<str>,
    /// For which outcomes.
    pub on: FallbackOn,
    /// What stands in.
    pub to: FallbackTo,
}

/// Outcomes: any that is listed is meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FallbackOn {
    /// Flags, of this proxy or of the other sidecar.
    pub flags: Vec<Flag>,
    /// HTTP status codes.
    pub statuses: Vec<StatusCode>,
    /// gRPC status codes.
    pub grpc_statuses: Vec<u32>,
}

/// What stands in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FallbackTo {
    /// Another service, under its own policy.
    Service(Backend),
    /// Always the same answer; not for gRPC calls.
    Response(Arc<StaticResponse>),
}

/// An answer known beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticResponse {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without a length.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

/// What the caller would get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WouldGet {
    /// The HTTP status.
    pub status: StatusCode,
    /// The gRPC status, where it is gRPC and that is known.
    pub grpc_status: Option<u32>,
    /// The flag, if there is one.
    pub flag: Option<Flag>,
}

impl FallbackPolicy {
    /// Whether something stands in. `replayable`: the request can be sent again whole.
    #[must_use]
    pub fn takes(&self, would_get: &WouldGet, is_grpc: bool, replayable: bool) -> bool {
        let can = match self.to {
            FallbackTo::Service(_) => replayable,
            FallbackTo::Response(_) => !is_grpc,
        };
        can && self.on.lists(would_get)
    }
}

impl FallbackOn {
    fn lists(&self, would_get: &WouldGet) -> bool {
        let WouldGet {
            status,
            grpc_status,
            flag,
        } = would_get;
        flag.is_some_and(|flag| self.flags.contains(&flag))
            || self.statuses.contains(status)
            || grpc_status.is_some_and(|number| self.grpc_statuses.contains(&number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::ServiceName;

    fn policy(to: FallbackTo) -> FallbackPolicy {
        FallbackPolicy {
            name: "cached".into(),
            on: FallbackOn {
                flags: vec![Flag::NoHealthyEndpoint],
                statuses: vec![StatusCode::BAD_GATEWAY],
                grpc_statuses: vec![14],
            },
            to,
        }
    }

    fn would_get(status: u16, grpc_status: Option<u32>, flag: Option<Flag>) -> WouldGet {
        WouldGet {
            status: StatusCode::from_u16(status).expect("a status"),
            grpc_status,
            flag,
        }
    }

    #[test]
    fn only_listed_outcomes_are_stood_in_for() {
        let service = policy(FallbackTo::Service(Backend {
            service: ServiceName::new("shop", "cache"),
            port: None,
        }));
        let response = policy(FallbackTo::Response(Arc::new(StaticResponse {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: Vec::new(),
        })));
        let table = [
            (would_get(503, None, Some(Flag::NoHealthyEndpoint)), true),
            (would_get(502, None, None), true),
            (would_get(502, None, Some(Flag::BadResponse)), true),
            (would_get(200, Some(14), None), true),
            (would_get(503, None, Some(Flag::Overflow)), false),
            (would_get(503, None, None), false),
            (would_get(200, Some(0), None), false),
            (would_get(200, None, None), false),
        ];
        for (outcome, expected) in table {
            assert_eq!(
                service.takes(&outcome, false, true),
                expected,
                "{outcome:?}"
            );
            assert_eq!(service.takes(&outcome, true, true), expected, "{outcome:?}");
            assert!(
                !service.takes(&outcome, false, false),
                "half a body is not sent on"
            );
            assert_eq!(
                response.takes(&outcome, false, false),
                expected,
                "{outcome:?}"
            );
            assert!(
                !response.takes(&outcome, true, true),
                "gRPC has no static answer"
            );
        }
    }
}
