//! HTTP as this proxy handles it, apart from any decision: heads made safe to
//! forward, bodies that can be replayed or that carry their record to the end,
//! and the door that answers for HTTP/1 what hyper would answer nakedly.

pub mod body;
pub mod door;
pub mod head;
pub mod received;
pub mod replay;
pub mod stream;

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE,
    COOKIE, HOST, MAX_FORWARDS, SET_COOKIE, TRAILER,
};
use http::{HeaderMap, HeaderName};
use http_body::Frame;
use selvage_policy::headers::{strip_hop_by_hop, strip_untrusted};

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

/// What a trailer may not say (RFC 9110 §6.5.1): how the message is framed,
/// where it goes, what its content is, who sends it.
const NO_TRAILERS: [HeaderName; 11] = [
    AUTHORIZATION,
    CACHE_CONTROL,
    CONTENT_ENCODING,
    CONTENT_LENGTH,
    CONTENT_RANGE,
    CONTENT_TYPE,
    COOKIE,
    HOST,
    MAX_FORWARDS,
    SET_COOKIE,
    TRAILER,
];

/// A frame that may travel on: data as it is, trailers without what they may not say.
fn clean(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            strip_hop_by_hop(&mut trailers);
            strip_untrusted(&mut trailers);
            for name in &NO_TRAILERS {
                trailers.remove(name);
            }
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}
