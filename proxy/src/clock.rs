//! The time, looked at once per wake-up: a request would otherwise ask the
//! system for it a dozen times within the same microseconds.

use std::cell::Cell;

use tokio::time::Instant;

thread_local! {
    static SEEN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Looks at the clock.
#[must_use]
pub fn now() -> Instant {
    let now = Instant::now();
    SEEN.set(Some(now));
    now
}

/// The time when this thread last looked. Right only where [`now`] was called
/// since the task was last woken.
#[must_use]
pub fn recent() -> Instant {
    SEEN.get().unwrap_or_else(now)
}
