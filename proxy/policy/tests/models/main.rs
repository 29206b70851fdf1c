//! The state machines of policy against reference models: for each a second
//! one that is plain and slow, with lists of moments where the machine has
//! rings, counters and packed words. Both hear the same events, and must
//! answer alike.
//!
//! Each model hears `SEQUENCES` sequences of events, or as many as
//! `PROPTEST_CASES` says.

mod attempts; // whether a try is repeated
mod breaker; // one breaker
mod budget; // the retry budget
mod chance; // sequences of events
mod crowd; // endpoints, rotations and picks
mod deadline; // deadlines as they travel
mod limits; // permits of a service
mod reference; // the plain breaker and the plain budget
mod threads; // the shared forms under real threads

use std::time::{Duration, Instant};

/// The moment every sequence begins at.
#[allow(
    clippy::disallowed_methods,
    reason = "the only way to make a first Instant"
)]
fn start() -> Instant {
    Instant::now()
}

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}
