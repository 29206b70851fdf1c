//! The wire between a proxy and the control plane: its messages, and both
//! halves of the delta protocol as pure state machines. This package performs
//! no IO and knows neither side; the gRPC stubs are generated where they are
//! used.

/// The messages of package `selvage.v1`, as prost generates them.
pub mod v1 {
    #![allow(
        missing_docs,
        reason = "generated; the proto files carry the documentation"
    )]
    #![allow(clippy::all, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/selvage.v1.rs"));
}

/// Shows nothing of the key.
impl std::fmt::Debug for v1::KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").finish_non_exhaustive()
    }
}

// Names of resources: how they are made, and which are refused.
pub mod name;

// What a reader must understand before it may use a resource.
pub mod feature;

// The control plane's half of a stream: what to push, and what was answered.
pub mod server;

// The proxy's half: what is subscribed, what is held, what is answered.
pub mod client;

// Regular expressions of routes, compiled alike on both sides.
pub mod pattern;
