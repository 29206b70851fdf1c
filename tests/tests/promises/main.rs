//! The promises of the mesh, each module named by what it promises.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where the world is not as promised"
)]

mod harness; // nothing in between
mod structure; // how the source is laid out
