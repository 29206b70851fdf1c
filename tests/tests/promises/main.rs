//! The promises of the mesh, each module named by what it promises.
#![allow(
    clippy::unwrap_used,
    reason = "a test ends where the world is not as promised"
)]

mod access_log; // one line for each request and connection
mod authorize; // who may call what
mod beside; // a command and its sidecar in one line
mod config; // bad input is refused with its place
mod containers; // the same in pods, with compose, under systemd
mod control; // identity and policy from a control plane
mod cost; // what a request and a connection take
mod demo; // what the mesh is for
mod detect; // what a port speaks
mod drain; // what was begun is finished
mod envoy; // a foreign proxy as peer
mod flags; // one word for each error
mod grpc; // all four kinds of call
mod harness; // nothing in between
mod http; // as if nothing were in between
mod http2; // frame by frame, both sides
mod identity; // no identity, no service
mod isolation; // a failing service stays alone
mod limits; // each with its flag and status
mod malformed; // rejected at the door
mod metrics; // equal to what the caller counted
mod prometheus; // found, recorded, alerted, shown
mod resilience; // when an endpoint fails, the cloth holds
mod restarts; // again and again
mod routing; // as Gateway API says
mod shop; // real services that know nothing of it
mod structure; // how the source is laid out
mod tcp; // opaque bytes
mod tracing; // one trace through the whole mesh
