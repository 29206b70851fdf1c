//! The end of a peer's certificate, as a connection that is lent out sees it:
//! cheap to ask with a monotonic `now`, and looked at again by the wall clock
//! now and then, because that one jumps.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Further away than any certificate of the mesh lasts.
const FAR: Duration = Duration::from_secs(400 * 24 * 3600);

/// See the module.
#[derive(Debug, Clone)]
pub struct Expiry {
    wall: Option<SystemTime>,
    monotonic: Cell<Option<Instant>>,
}

impl Expiry {
    /// `None`: never.
    #[must_use]
    pub fn of(wall: Option<SystemTime>) -> Self {
        let expiry = Self {
            wall,
            monotonic: Cell::new(None),
        };
        expiry.look_again(Instant::now());
        expiry
    }

    /// Asks the wall clock.
    pub fn look_again(&self, now: Instant) {
        self.monotonic.set(self.wall.map(|wall| {
            let left = wall.duration_since(SystemTime::now()).unwrap_or_default();
            now + left.min(FAR)
        }));
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.monotonic.get().is_some_and(|end| end <= now)
    }
}
