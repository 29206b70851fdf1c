//! The decisions of the control plane: what resources mean, and what each
//! workload is to know of them. Values in, values out.
//!
//! It reads no file, opens no store and no socket, spawns nothing and never
//! asks the time: `now` is an argument. It depends on `selvage-certs` for ids
//! and on `selvage-api` because a view *is* the messages that are sent: static
//! mode and the control plane share this one encoder.

pub mod config;
mod decode;
pub mod diagnostic;
pub mod nearest;
pub mod scalar;
mod yaml;
