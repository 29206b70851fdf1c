//! The Selvage data plane: a sidecar that performs what policy decides.

pub mod admin;
pub mod config;
pub mod telemetry;
