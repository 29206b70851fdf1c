//! HTTP/2 as it stands on the wire, for peers that say exactly what they mean:
//! frames in and out, and header compression of its own. It shares nothing with
//! the proxy's HTTP/2, so that each can be judged by the other.

pub mod frame; // one frame, and its names
pub mod hpack; // header blocks
mod huffman; // their strings
mod peer; // one side of a connection

pub use frame::Frame;
pub use peer::{Closed, Exchange, Heard, Peer, Waited};
