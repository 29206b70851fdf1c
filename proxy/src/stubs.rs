//! The gRPC client stubs of package `selvage.v1`, and of `grpc.health.v1`. The messages are those of
//! `selvage-api`; what is generated here only calls.

#![allow(
    missing_docs,
    reason = "generated; the proto files carry the documentation"
)]
#![allow(clippy::all, unreachable_pub, reason = "generated")]

/// gRPC's health checking.
pub(crate) mod health {
    include!(concat!(env!("OUT_DIR"), "/grpc.health.v1.rs"));
}

include!(concat!(env!("OUT_DIR"), "/selvage.v1.rs"));
