//! The time one try may take, and which limit ran out.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use selvage_policy::snapshot::Timeouts;
use tokio::time::Instant;

use super::outgoing::Outgoing;
use crate::http::replay::Activity;
use crate::timers::Timers;

/// Which limit ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expired {
    /// `backendRequest`.
    Try,
    /// `request`, or the caller's own.
    Deadline,
    /// `idle`.
    Idle,
}

/// The limits of one try.
pub(super) struct Limits<'t> {
    this_try: Option<Instant>,
    deadline: Option<Instant>,
    idle: Option<Duration>,
    activity: Rc<Activity>,
    timers: &'t Timers,
}

impl<'t> Limits<'t> {
    pub(super) fn of(
        timeouts: &Timeouts,
        outgoing: &Outgoing,
        timers: &'t Timers,
        now: Instant,
    ) -> Self {
        Self {
            this_try: timeouts.backend_request.map(|limit| now + limit),
            deadline: outgoing.deadline.0.map(Instant::from_std),
            idle: timeouts.idle,
            activity: outgoing.activity.clone(),
            timers,
        }
    }

    fn next(&self) -> Option<Instant> {
        let idle = self.idle.map(|limit| self.activity.last() + limit);
        [self.this_try, self.deadline, idle]
            .into_iter()
            .flatten()
            .min()
    }

    fn expired(&self, now: Instant) -> Option<Expired> {
        let past = |limit: Option<Instant>| limit.is_some_and(|limit| limit <= now);
        if past(self.deadline) {
            Some(Expired::Deadline)
        } else if past(self.this_try) {
            Some(Expired::Try)
        } else if past(self.idle.map(|limit| self.activity.last() + limit)) {
            Some(Expired::Idle)
        } else {
            None
        }
    }

    /// When the limit that ran out did so.
    pub(super) fn due(&self, expired: Expired) -> Option<Instant> {
        match expired {
            Expired::Try => self.this_try,
            Expired::Deadline => self.deadline,
            Expired::Idle => self.idle.map(|limit| self.activity.last() + limit),
        }
    }

    /// Waits for something, within the limits. By reference: what is moved into
    /// a future is kept there twice.
    pub(super) async fn within<T>(
        &self,
        mut waited: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Expired> {
        let mut timer = None;
        poll_fn(|cx| {
            if let Poll::Ready(done) = waited.as_mut().poll(cx) {
                return Poll::Ready(Ok(done));
            }
            loop {
                let Some(next) = self.next() else {
                    return Poll::Pending;
                };
                let timer = timer.get_or_insert_with(|| self.timers.lend(next));
                ready!(timer.poll(next, cx));
                if let Some(expired) = self.expired(Instant::now()) {
                    return Poll::Ready(Err(expired));
                }
            }
        })
        .await
    }
}
