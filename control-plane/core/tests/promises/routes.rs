//! Routes: what is refused, what they are attached to, what is sent of them.

mod attachment;
mod policies;
mod refusals;
mod sent;
