//! Promises of the control plane, kept by a real one: real TLS, real gRPC,
//! real HTTP, real files, ports of the system's choice.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a failing test may panic"
)]

mod distribution;
mod enrolment;
mod gateways;
mod operator;
mod registration;
mod restart;
mod routes;
mod support;
