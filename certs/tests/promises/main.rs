//! What the crate promises, over real certificates and real handshakes in memory.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on may panic")]

mod between_sidecars;
mod control_plane;
mod issuing;
mod renewing;
mod trust_bundles;

mod mint;
mod pump;
mod strangers;
