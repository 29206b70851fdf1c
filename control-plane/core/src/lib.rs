//! The decisions of the control plane: what resources mean, and what each
//! workload is to know of them. Values in, values out.
//!
//! It reads no file, opens no store and no socket, spawns nothing and never
//! asks the time: `now` is an argument. It depends on `selvage-certs` for ids
//! and on `selvage-api` because a view *is* the messages that are sent: static
//! mode and the control plane share this one encoder.

// Names that were likely meant.
pub mod nearest;

// Findings: where, what, what to do.
pub mod diagnostic;

// Text to nodes with places.
mod yaml;

// Nodes to types.
mod decode;

// Durations, sizes, per cents.
pub mod scalar;

// Configuration files.
pub mod config;

// The kinds of resources.
pub mod resource;

// Texts to resources.
pub mod parse;

// The set of all resources.
pub mod world;

// Which policy is whose, and what wins.
pub mod attach;

// The workloads that are there.
pub mod registry;

// What a workload is told.
pub mod view;
