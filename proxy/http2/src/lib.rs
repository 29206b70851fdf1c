//! HTTP/2 (RFC 9113) as a proxy needs it: for one thread, from stream to stream.
//!
//! The state of a connection is shared by reference counts, without a lock; a
//! head or a piece of a body is written where the driver will find it at once,
//! without a queue in between; what one wake-up of the thread brings leaves in
//! one write. Server push, priorities and extended CONNECT are not offered.

pub mod client;
mod connection;
mod core;
mod error;
mod floods;
mod frame;
mod handles;
mod head;
mod hpack;
mod messages;
mod output;
mod pieces;
mod receive;
mod send;
pub mod server;
mod settings;
mod streams;

pub use error::{By, Error, Reason};
pub use handles::{RecvStream, SendStream};
pub use settings::Config;
