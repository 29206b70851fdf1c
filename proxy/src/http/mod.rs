//! HTTP as this proxy handles it, apart from any decision: heads made safe to
//! forward, bodies that can be replayed or that carry their record to the end,
//! and the door that answers for HTTP/1 what hyper would answer nakedly.

pub mod body;
pub mod door;
pub mod head;
pub mod replay;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName};

/// The version an HTTP/1.x request had before it crossed on HTTP/2; between sidecars only.
pub const VERSION: HeaderName = HeaderName::from_static("x-selvage-version");
/// The caller's identity, for the application.
pub const CLIENT_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// Whether a message is gRPC, by its content type.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The `grpc-status` in headers or trailers.
#[must_use]
pub fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
