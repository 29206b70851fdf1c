//! Waiting, always on an event and never without a bound.

use std::future::Future;
use std::time::{Duration, Instant};

/// How long a test waits for something that should be there at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How often a condition is looked at that sends no event.
const POLL: Duration = Duration::from_millis(10);

/// Awaits `future`, and panics naming `what` when it takes longer than `limit`.
pub async fn within<T>(what: &str, limit: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {limit:?}"),
    }
}

/// Awaits `future` for at most [`PATIENCE`].
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(what, PATIENCE, future).await
}

/// Looks at `condition` until it holds, for at most `limit`; returns how long that took.
pub async fn until(
    what: &str,
    limit: Duration,
    mut condition: impl AsyncFnMut() -> bool,
) -> Duration {
    let start = Instant::now();
    within(what, limit, async {
        while !condition().await {
            tokio::time::sleep(POLL).await;
        }
    })
    .await;
    start.elapsed()
}
