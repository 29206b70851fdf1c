//! What an error of HTTP/1 (ours, or hyper's) or of HTTP/2 means for the request: whether the upstream
//! can have seen it, broke off, or talks nonsense.

use std::error::Error;

use selvage_http2::Reason;
use selvage_policy::classify::TransportFailure;

/// Sorts the failure of a request that was handed to a connection.
///
/// `reused`: the connection had served a request before, so that the peer may
/// have closed it while ours was on the way.
#[must_use]
pub fn sort(error: &hyper::Error, reused: bool) -> TransportFailure {
    if error.is_parse() || error.is_parse_status() {
        return TransportFailure::BadResponse;
    }
    if error.is_canceled() || (error.is_user() && error.source().is_none()) {
        // It never left our queue.
        return TransportFailure::Unprocessed;
    }
    let closed = error.is_incomplete_message() || error.is_closed() || is_broken_pipe(error);
    if closed && reused {
        return TransportFailure::ReusedClosed;
    }
    TransportFailure::Reset
}

/// Sorts the failure of an exchange on an HTTP/1 connection; `reused` as in [`sort`].
#[must_use]
pub fn sort_http1(error: &selvage_http1::Error, reused: bool) -> TransportFailure {
    use selvage_http1::Error as Http1;
    use std::io::ErrorKind;
    match error {
        Http1::Unsent(_) => TransportFailure::Unprocessed,
        Http1::Malformed(_) => TransportFailure::BadResponse,
        Http1::Closed | Http1::Io(ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) if reused => {
            TransportFailure::ReusedClosed
        }
        Http1::Closed | Http1::Io(_) | Http1::Incomplete | Http1::Request => {
            TransportFailure::Reset
        }
    }
}

/// Sorts the failure of a stream.
#[must_use]
pub fn sort_stream(error: &selvage_http2::Error) -> TransportFailure {
    match error.reason() {
        _ if *error == selvage_http2::Error::Unprocessed => TransportFailure::Unprocessed,
        Some(Reason::REFUSED_STREAM) => TransportFailure::Unprocessed,
        Some(
            Reason::PROTOCOL_ERROR
            | Reason::FRAME_SIZE_ERROR
            | Reason::FLOW_CONTROL_ERROR
            | Reason::COMPRESSION_ERROR,
        ) => TransportFailure::BadResponse,
        _ => TransportFailure::Reset,
    }
}

fn is_broken_pipe(error: &hyper::Error) -> bool {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                error.kind(),
                std::io::ErrorKind::BrokenPipe | std::io::ErrorKind::ConnectionReset
            );
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use selvage_http1::Error;

    use super::*;

    #[test]
    fn an_exchange_over_http1_tells_what_the_peer_can_have_seen() {
        let table = [
            (
                Error::Unsent(ErrorKind::BrokenPipe),
                false,
                TransportFailure::Unprocessed,
            ),
            (
                Error::Unsent(ErrorKind::BrokenPipe),
                true,
                TransportFailure::Unprocessed,
            ),
            (Error::Closed, true, TransportFailure::ReusedClosed),
            (Error::Closed, false, TransportFailure::Reset),
            (
                Error::Io(ErrorKind::ConnectionReset),
                true,
                TransportFailure::ReusedClosed,
            ),
            (
                Error::Io(ErrorKind::ConnectionReset),
                false,
                TransportFailure::Reset,
            ),
            (
                Error::Io(ErrorKind::TimedOut),
                true,
                TransportFailure::Reset,
            ),
            (Error::Incomplete, true, TransportFailure::Reset),
            (Error::Request, true, TransportFailure::Reset),
            (Error::Malformed("x"), true, TransportFailure::BadResponse),
        ];
        for (error, reused, expected) in table {
            assert_eq!(sort_http1(&error, reused), expected, "{error:?} {reused}");
        }
    }
}
