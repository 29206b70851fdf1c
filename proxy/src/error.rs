//! The one error at the journey's edge, and the answer a caller gets for it:
//! status, gRPC status, `Proxy-Status` and `x-selvage-flag`, all from the
//! table of flags in `selvage_policy::flag`.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Response, StatusCode};
use selvage_policy::fault::Abort;
use selvage_policy::flag::Flag;

/// RFC 9209.
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// The flag of an answer that Selvage made, for people and for the other sidecar.
pub const FLAG: HeaderName = HeaderName::from_static("x-selvage-flag");

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request was not answered by the application.
#[derive(Debug, Clone)]
pub struct ProxyError {
    /// Where it stands in the table.
    pub flag: Flag,
    /// For the log and the journal. Never sent to the caller.
    pub detail: Cow<'static, str>,
    /// Sent as `Retry-After`, in whole seconds, rounded up.
    pub retry_after: Option<Duration>,
    /// How it fails on purpose, where the flag is [`Flag::Fault`].
    pub abort: Option<Abort>,
}

/// Marks a response that is not to be sent: its stream is reset instead, or its connection ends.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("a fault was injected")]
pub struct Reset;

impl ProxyError {
    /// An error of this flag, with what the operator should read about it.
    pub fn new(flag: Flag, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            flag,
            detail: detail.into(),
            retry_after: None,
            abort: None,
        }
    }

    /// A failure injected on purpose.
    pub fn injected(abort: Abort) -> Self {
        Self {
            abort: Some(abort),
            ..Self::new(Flag::Fault, "injected")
        }
    }

    /// The HTTP status of the answer to a plain request.
    pub fn status(&self) -> StatusCode {
        let injected = self.abort.and_then(Abort::statuses);
        injected.map_or(self.flag.status(), |(status, _)| status)
    }

    /// The gRPC status of the answer to a gRPC call.
    pub fn grpc_status(&self) -> u32 {
        let injected = self.abort.and_then(Abort::statuses);
        injected.map_or(self.flag.grpc_status(), |(_, grpc)| grpc)
    }

    /// Whether there is to be no answer at all.
    pub fn is_reset(&self) -> bool {
        self.abort == Some(Abort::Reset)
    }

    /// The answer's head. Its body is empty: what there is to say stands in the headers.
    pub fn response_head(&self, grpc: bool) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = if grpc { StatusCode::OK } else { self.status() };
        self.write_headers(response.headers_mut(), grpc);
        response
    }

    fn write_headers(&self, headers: &mut HeaderMap, grpc: bool) {
        let status = format!(
            "selvage; error={}; details=\"{}\"",
            self.flag.proxy_error_type(),
            self.flag.as_str()
        );
        if let Ok(value) = HeaderValue::try_from(status) {
            headers.insert(PROXY_STATUS, value);
        }
        headers.insert(FLAG, HeaderValue::from_static(self.flag.as_str()));
        if let Some(wait) = self.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(GRPC_STATUS, HeaderValue::from(self.grpc_status()));
            headers.insert(GRPC_MESSAGE, HeaderValue::from_static(self.flag.as_str()));
        } else {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
    }

    /// The whole answer as HTTP/1.1 bytes that close the connection, for the
    /// places where no HTTP machinery is there (yet) to write it.
    pub fn http1_bytes(&self) -> Vec<u8> {
        let head = self.response_head(false);
        let status = head.status();
        let mut text = format!(
            "HTTP/1.1 {} {}\r\n",
            status.as_str(),
            status.canonical_reason().unwrap_or("Error")
        )
        .into_bytes();
        for (name, value) in head.headers() {
            text.extend_from_slice(name.as_str().as_bytes());
            text.extend_from_slice(b": ");
            text.extend_from_slice(value.as_bytes());
            text.extend_from_slice(b"\r\n");
        }
        text.extend_from_slice(b"connection: close\r\n\r\n");
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_caller_gets_the_flags_status_and_headers() {
        let head = ProxyError::new(Flag::NoRoute, "nothing matched").response_head(false);
        assert_eq!(head.status(), 404);
        assert_eq!(head.headers()[FLAG], "no-route");
        let status = head.headers()[PROXY_STATUS].to_str().expect("ascii");
        assert!(status.starts_with("selvage; error="), "{status}");
        assert!(status.ends_with("; details=\"no-route\""), "{status}");
    }

    #[test]
    fn a_grpc_caller_gets_200_with_a_grpc_status() {
        let head = ProxyError::new(Flag::Denied, "policy x").response_head(true);
        assert_eq!(head.status(), 200);
        assert_eq!(head.headers()["grpc-status"], "7");
        assert_eq!(head.headers()["grpc-message"], "denied");
    }

    #[test]
    fn retry_after_is_rounded_up_to_whole_seconds() {
        let mut error = ProxyError::new(Flag::RateLimited, "");
        error.retry_after = Some(Duration::from_millis(1200));
        assert_eq!(error.response_head(false).headers()[RETRY_AFTER], "2");
    }
}
