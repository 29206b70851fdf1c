//! The names of what went wrong: one table from flag to everything a caller,
//! a log or a metric is told of it.
//!
//! Stands at the edge of a request's life. It knows neither requests nor
//! responses; the proxy writes what this table says.

use http::StatusCode;

/// Who failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Party {
    /// The caller.
    Downstream,
    /// The service that was called.
    Upstream,
    /// This proxy, or what it was told to do.
    Us,
}

/// A gRPC status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the names are those of the gRPC specification")]
pub enum Grpc {
    Ok,
    Cancelled,
    Unknown,
    InvalidArgument,
    DeadlineExceeded,
    NotFound,
    AlreadyExists,
    PermissionDenied,
    ResourceExhausted,
    FailedPrecondition,
    Aborted,
    OutOfRange,
    Unimplemented,
    Internal,
    Unavailable,
    DataLoss,
    Unauthenticated,
}

impl Grpc {
    /// Every code, by number.
    pub const ALL: [(Self, &'static str); 17] = [
        (Self::Ok, "OK"),
        (Self::Cancelled, "CANCELLED"),
        (Self::Unknown, "UNKNOWN"),
        (Self::InvalidArgument, "INVALID_ARGUMENT"),
        (Self::DeadlineExceeded, "DEADLINE_EXCEEDED"),
        (Self::NotFound, "NOT_FOUND"),
        (Self::AlreadyExists, "ALREADY_EXISTS"),
        (Self::PermissionDenied, "PERMISSION_DENIED"),
        (Self::ResourceExhausted, "RESOURCE_EXHAUSTED"),
        (Self::FailedPrecondition, "FAILED_PRECONDITION"),
        (Self::Aborted, "ABORTED"),
        (Self::OutOfRange, "OUT_OF_RANGE"),
        (Self::Unimplemented, "UNIMPLEMENTED"),
        (Self::Internal, "INTERNAL"),
        (Self::Unavailable, "UNAVAILABLE"),
        (Self::DataLoss, "DATA_LOSS"),
        (Self::Unauthenticated, "UNAUTHENTICATED"),
    ];

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The name in upper snake case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The code of a number, if it is one.
    #[must_use]
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .get(usize::try_from(number).ok()?)
            .map(|(code, _)| *code)
    }

    /// The code of a name in upper snake case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, own)| *own == name)
            .map(|(code, _)| *code)
    }
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flag {
    /// Nothing matches.
    NoRoute,
    /// The authority names no known service.
    NoService,
    /// The route names a backend that cannot be used.
    InvalidBackend,
    /// Discovery of a service on first use took too long.
    NotReady,
    /// All endpoints are open, unhealthy or absent.
    NoHealthyEndpoint,
    /// A limit of this proxy.
    Overflow,
    /// Over a rate limit.
    RateLimited,
    /// Shed by a concurrency limit or for memory.
    Overloaded,
    /// Refused by authorization.
    Denied,
    /// The upstream could not be reached.
    ConnectFailure,
    /// No TLS session with the upstream.
    TlsFailure,
    /// The upstream went away.
    Reset,
    /// The upstream does not speak the protocol.
    BadResponse,
    /// A connect, per-try or request timeout.
    Timeout,
    /// The caller's fault.
    BadRequest,
    /// Headers over a named limit.
    HeadersTooLarge,
    /// The target over a named limit.
    UriTooLong,
    /// The body over a named limit.
    BodyTooLarge,
    /// The request came too slowly.
    SlowRequest,
    /// An `Expect` that is not known.
    ExpectationFailed,
    /// SNI and authority select different listeners.
    Misdirected,
    /// The request came back to the same proxy.
    Loop,
    /// Injected on purpose.
    Fault,
}

/// One row: name, HTTP status, gRPC status, error type of RFC 9209 §2.3, who failed.
struct Row(&'static str, StatusCode, Grpc, &'static str, Party);

impl Flag {
    /// Every flag, in the order of the table.
    pub const ALL: [Self; 23] = [
        Self::NoRoute,
        Self::NoService,
        Self::InvalidBackend,
        Self::NotReady,
        Self::NoHealthyEndpoint,
        Self::Overflow,
        Self::RateLimited,
        Self::Overloaded,
        Self::Denied,
        Self::ConnectFailure,
        Self::TlsFailure,
        Self::Reset,
        Self::BadResponse,
        Self::Timeout,
        Self::BadRequest,
        Self::HeadersTooLarge,
        Self::UriTooLong,
        Self::BodyTooLarge,
        Self::SlowRequest,
        Self::ExpectationFailed,
        Self::Misdirected,
        Self::Loop,
        Self::Fault,
    ];

    #[rustfmt::skip]
    const fn row(self) -> Row {
        use Grpc::{DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, PermissionDenied, ResourceExhausted, Unavailable, Unimplemented};
        use Party::{Downstream, Upstream, Us};
        use StatusCode as S;
        match self {
            Self::NoRoute => Row("no-route", S::NOT_FOUND, Unimplemented, "destination_not_found", Downstream),
            Self::NoService => Row("no-service", S::NOT_FOUND, Unimplemented, "destination_not_found", Downstream),
            Self::InvalidBackend => Row("invalid-backend", S::INTERNAL_SERVER_ERROR, Internal, "proxy_configuration_error", Us),
            Self::NotReady => Row("not-ready", S::SERVICE_UNAVAILABLE, Unavailable, "destination_unavailable", Us),
            Self::NoHealthyEndpoint => Row("no-healthy-endpoint", S::SERVICE_UNAVAILABLE, Unavailable, "destination_unavailable", Upstream),
            Self::Overflow => Row("overflow", S::SERVICE_UNAVAILABLE, ResourceExhausted, "connection_limit_reached", Us),
            Self::RateLimited => Row("rate-limited", S::TOO_MANY_REQUESTS, ResourceExhausted, "http_request_denied", Us),
            Self::Overloaded => Row("overloaded", S::SERVICE_UNAVAILABLE, ResourceExhausted, "proxy_internal_response", Us),
            Self::Denied => Row("denied", S::FORBIDDEN, PermissionDenied, "http_request_denied", Downstream),
            Self::ConnectFailure => Row("connect-failure", S::SERVICE_UNAVAILABLE, Unavailable, "destination_unavailable", Upstream),
            Self::TlsFailure => Row("tls-failure", S::SERVICE_UNAVAILABLE, Unavailable, "tls_protocol_error", Upstream),
            Self::Reset => Row("reset", S::SERVICE_UNAVAILABLE, Unavailable, "connection_terminated", Upstream),
            Self::BadResponse => Row("bad-response", S::BAD_GATEWAY, Unavailable, "http_protocol_error", Upstream),
            Self::Timeout => Row("timeout", S::GATEWAY_TIMEOUT, DeadlineExceeded, "http_response_timeout", Upstream),
            Self::BadRequest => Row("bad-request", S::BAD_REQUEST, InvalidArgument, "http_request_error", Downstream),
            Self::HeadersTooLarge => Row("headers-too-large", S::REQUEST_HEADER_FIELDS_TOO_LARGE, ResourceExhausted, "http_request_error", Downstream),
            Self::UriTooLong => Row("uri-too-long", S::URI_TOO_LONG, ResourceExhausted, "http_request_error", Downstream),
            Self::BodyTooLarge => Row("body-too-large", S::PAYLOAD_TOO_LARGE, ResourceExhausted, "http_request_error", Downstream),
            Self::SlowRequest => Row("slow-request", S::REQUEST_TIMEOUT, Unavailable, "http_request_error", Downstream),
            Self::ExpectationFailed => Row("expectation-failed", S::EXPECTATION_FAILED, Unavailable, "http_request_error", Downstream),
            Self::Misdirected => Row("misdirected", S::MISDIRECTED_REQUEST, Unavailable, "http_request_error", Downstream),
            Self::Loop => Row("loop", S::LOOP_DETECTED, FailedPrecondition, "proxy_loop_detected", Us),
            Self::Fault => Row("fault", S::SERVICE_UNAVAILABLE, Unavailable, "proxy_internal_response", Us),
        }
    }

    /// The name in `x-selvage-flag`, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The flag of a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|flag| flag.as_str() == name)
    }

    /// The HTTP status. An injected [`Flag::Fault`] carries its own; this one stands in where it has none.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        self.row().1
    }

    /// The gRPC status, as its number. See [`Flag::status`] on [`Flag::Fault`].
    #[must_use]
    pub const fn grpc_status(self) -> u32 {
        self.row().2.number()
    }

    /// The error type of `Proxy-Status` (RFC 9209 §2.3).
    #[must_use]
    pub const fn proxy_error_type(self) -> &'static str {
        self.row().3
    }

    /// Who failed.
    #[must_use]
    pub const fn who(self) -> Party {
        self.row().4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_has_one_name() {
        for flag in Flag::ALL {
            assert_eq!(Flag::parse(flag.as_str()), Some(flag));
            assert!(flag.status().is_client_error() || flag.status().is_server_error());
            assert_ne!(flag.grpc_status(), 0);
        }
        assert_eq!(Flag::parse("-"), None);
        assert_eq!(Flag::parse("Overflow"), None);
    }

    #[test]
    fn the_table_says_what_callers_are_told() {
        let table = [
            (Flag::NoService, 404, "UNIMPLEMENTED"),
            (Flag::InvalidBackend, 500, "INTERNAL"),
            (Flag::Overflow, 503, "RESOURCE_EXHAUSTED"),
            (Flag::RateLimited, 429, "RESOURCE_EXHAUSTED"),
            (Flag::Denied, 403, "PERMISSION_DENIED"),
            (Flag::ConnectFailure, 503, "UNAVAILABLE"),
            (Flag::BadResponse, 502, "UNAVAILABLE"),
            (Flag::Timeout, 504, "DEADLINE_EXCEEDED"),
            (Flag::BadRequest, 400, "INVALID_ARGUMENT"),
            (Flag::HeadersTooLarge, 431, "RESOURCE_EXHAUSTED"),
            (Flag::UriTooLong, 414, "RESOURCE_EXHAUSTED"),
            (Flag::BodyTooLarge, 413, "RESOURCE_EXHAUSTED"),
            (Flag::SlowRequest, 408, "UNAVAILABLE"),
            (Flag::ExpectationFailed, 417, "UNAVAILABLE"),
            (Flag::Misdirected, 421, "UNAVAILABLE"),
            (Flag::Loop, 508, "FAILED_PRECONDITION"),
        ];
        for (flag, status, grpc) in table {
            assert_eq!(flag.status().as_u16(), status, "{flag:?}");
            assert_eq!(
                Grpc::from_number(flag.grpc_status()).map(Grpc::name),
                Some(grpc),
                "{flag:?}"
            );
        }
    }

    #[test]
    fn grpc_names_and_numbers_agree() {
        for (at, (code, name)) in (0..).zip(Grpc::ALL) {
            assert_eq!(code.number(), at);
            assert_eq!(code.name(), name);
            assert_eq!(Grpc::parse(name), Some(code));
            assert_eq!(Grpc::from_number(at), Some(code));
        }
        assert_eq!(Grpc::from_number(17), None);
        assert_eq!(Grpc::parse("unavailable"), None);
    }
}
