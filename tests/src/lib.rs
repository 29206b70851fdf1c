//! The harness of the promises: it mints identities, starts the real binaries
//! as processes, and plays the applications, the callers and the attackers
//! around them. It stands outside the mesh and knows none of its crates: what
//! it relies on is what any user may rely on (files, ports, events, headers).
//!
//! Everything here panics with a sentence when the world is not as promised,
//! because that is what a test wants.

pub mod app; // the applications beside the sidecars
pub mod body; // of requests and responses
pub mod callgrind; // what is executed, counted
pub mod client; // the callers
pub mod collector; // what takes their spans
pub mod conformance; // of routing, with Gateway API
pub mod control_plane; // what hands out identity and policy
pub mod envoy; // a foreign proxy, as peer
pub mod gateway; // a proxy for callers outside the mesh
pub mod grpc; // calls of all four kinds, both sides
pub mod h2frames; // HTTP/2, frame by frame
pub mod load; // many of them, counted
pub mod mesh; // two sidecars and mutual TLS between them
pub mod metrics; // what a proxy says it did
pub mod open_loop; // load that nothing slows down
pub mod pki; // identities, good and malformed
pub mod process; // a binary under test
pub mod replica; // of a service, to be broken and mended
pub mod sidecar; // its configuration
pub mod wait; // no wait without a bound
pub mod wire; // bytes on a socket

/// Whether the heavy runs are wanted: `tests/run --long` sets `SELVAGE_LONG`.
#[must_use]
pub fn is_long() -> bool {
    std::env::var_os("SELVAGE_LONG").is_some()
}
