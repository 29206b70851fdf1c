//! The wire between a proxy and the control plane: its messages, and both
//! halves of the delta protocol as pure state machines. This package performs
//! no IO and knows neither side; the gRPC stubs are generated where they are
//! used.

/// The messages of package `selvage.v1`, as prost generates them.
pub mod v1 {
    #![allow(missing_docs, reason = "generated; the proto files carry the documentation")]
    #![allow(clippy::all, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/selvage.v1.rs"));
}
