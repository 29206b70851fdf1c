//! The applications beside the sidecars: an HTTP server of handlers, and a raw
//! one that plays a script on each connection.

mod http;
mod raw;

pub use http::{App, Seen, ok, status};
pub use raw::{ClosedPort, RawApp};
