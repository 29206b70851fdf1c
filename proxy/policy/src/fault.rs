//! Faults injected on purpose, to see how callers bear them.
//!
//! Met by a request once its service is known, before any endpoint is: what is
//! injected here says nothing of an endpoint, and reaches neither breaker nor
//! balancer. It does not wait and does not answer. Delay and abort are drawn
//! one by one, so that both can strike one request: first it waits, then it fails.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::flag::{Flag, Grpc};
use crate::share::Share;

/// What is injected, and into which requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultPolicy {
    /// How long, and into how many.
    pub delay: Option<(Share, Duration)>,
    /// How it fails, and how many do.
    pub abort: Option<(Share, Abort)>,
    /// Only requests with all of these headers; empty: all requests.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abort {
    /// With an HTTP status.
    Status(StatusCode),
    /// With a gRPC status.
    Grpc(Grpc),
    /// Without an answer: its stream is reset, or its connection ends.
    Reset,
}

/// What is injected into one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Injected {
    /// Waits so long.
    pub delay: Option<Duration>,
    /// Then fails so.
    pub abort: Option<Abort>,
}

impl FaultPolicy {
    /// Draws for one request.
    pub fn draw(&self, headers: &HeaderMap, rng: &mut fastrand::Rng) -> Injected {
        let is_there = |(name, value): &(HeaderName, HeaderValue)| {
            headers.get_all(name).iter().any(|there| there == value)
        };
        if !self.headers.iter().all(is_there) {
            return Injected::default();
        }
        let delay = self.delay.filter(|(share, _)| share.draw(rng));
        let abort = self.abort.filter(|(share, _)| share.draw(rng));
        Injected {
            delay: delay.map(|(_, delay)| delay),
            abort: abort.map(|(_, abort)| abort),
        }
    }
}

impl Abort {
    /// The HTTP status of the answer to a plain request, and the gRPC status of
    /// the answer to a gRPC call; `None` where there is no answer.
    #[must_use]
    pub const fn statuses(self) -> Option<(StatusCode, u32)> {
        match self {
            Self::Status(status) => Some((status, grpc_of(status).number())),
            Self::Grpc(grpc) => Some((Flag::Fault.status(), grpc.number())),
            Self::Reset => None,
        }
    }
}

/// What a gRPC client makes of an HTTP status (gRPC, `http-grpc-status-mapping.md`).
#[must_use]
pub const fn grpc_of(status: StatusCode) -> Grpc {
    match status.as_u16() {
        400 => Grpc::Internal,
        401 => Grpc::Unauthenticated,
        403 => Grpc::PermissionDenied,
        404 => Grpc::Unimplemented,
        429 | 502 | 503 | 504 => Grpc::Unavailable,
        _ => Grpc::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{millis, seeded};

    fn share(parts: u32) -> Share {
        Share::of_million(parts).expect("at most all")
    }

    #[test]
    fn only_requests_with_all_headers_are_struck() {
        let header = |name, value| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let policy = FaultPolicy {
            delay: Some((share(1_000_000), millis(5))),
            abort: Some((share(1_000_000), Abort::Reset)),
            headers: vec![header("x-chaos", "on"), header("x-user", "me")],
        };
        let both = Injected {
            delay: Some(millis(5)),
            abort: Some(Abort::Reset),
        };
        let table = [
            (vec![], Injected::default()),
            (vec![header("x-chaos", "on")], Injected::default()),
            (
                vec![header("x-chaos", "on"), header("x-user", "you")],
                Injected::default(),
            ),
            (vec![header("x-chaos", "on"), header("x-user", "me")], both),
        ];
        for (headers, expected) in table {
            let headers = headers.into_iter().collect();
            assert_eq!(
                policy.draw(&headers, &mut seeded()),
                expected,
                "{headers:?}"
            );
        }
    }

    #[test]
    fn delay_and_abort_are_drawn_one_by_one() {
        let policy = FaultPolicy {
            delay: Some((share(500_000), millis(5))),
            abort: Some((share(100_000), Abort::Status(StatusCode::BAD_GATEWAY))),
            headers: Vec::new(),
        };
        let mut rng = seeded();
        let drawn: Vec<_> = (0..100_000)
            .map(|_| policy.draw(&HeaderMap::new(), &mut rng))
            .collect();
        let count = |wanted: fn(&Injected) -> bool| drawn.iter().filter(|one| wanted(one)).count();
        assert!((49_000..51_000).contains(&count(|one| one.delay.is_some())));
        assert!((9_500..10_500).contains(&count(|one| one.abort.is_some())));
        let both = count(|one| one.delay.is_some() && one.abort.is_some());
        assert!((4_700..5_300).contains(&both), "{both}");
    }

    #[test]
    fn an_abort_has_a_status_for_either_kind_of_caller() {
        let status = |code| Abort::Status(StatusCode::from_u16(code).expect("a status"));
        let table = [
            (status(503), Some((503, 14))),
            (status(404), Some((404, 12))),
            (status(500), Some((500, 2))),
            (Abort::Grpc(Grpc::DataLoss), Some((503, 15))),
            (Abort::Reset, None),
        ];
        for (abort, expected) in table {
            let statuses = abort.statuses().map(|(http, grpc)| (http.as_u16(), grpc));
            assert_eq!(statuses, expected, "{abort:?}");
        }
    }
}
