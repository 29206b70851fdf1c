//! Timers that are moved late, and lent out. Most waits end long before their
//! limit; taking a timer that is already set, and moving it only when it fires
//! too early, spares an insertion into the runtime's wheel and a removal per
//! request.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::time::{Instant, Sleep};

/// Timers kept while nobody needs them.
const KEPT: usize = 256;

/// A timer that is told with each poll which moment is meant. It may be set for
/// an earlier one, and is moved when it fires then.
#[derive(Debug)]
pub struct Alarm(Pin<Box<Sleep>>);

impl Alarm {
    /// Set, to be polled with the moment that is meant.
    #[must_use]
    pub fn at(until: Instant) -> Self {
        Self(Box::pin(tokio::time::sleep_until(until)))
    }

    /// Ready at `until`, or later.
    pub fn poll(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let sleep = &mut self.0;
        if sleep.deadline() > until {
            sleep.as_mut().reset(until);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(until);
        }
    }

    /// Forgets the task it last woke, which it would keep in memory; `false`
    /// where it has fired and is of no more use as it is.
    fn forget(&mut self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        self.0.as_mut().poll(&mut nobody).is_pending()
    }
}

/// The timers of one worker.
#[derive(Default)]
pub struct Timers(RefCell<Vec<Alarm>>);

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Timers")
            .field(&self.0.borrow().len())
            .finish()
    }
}

impl Timers {
    /// Lends a timer, to be polled with the moment that is meant.
    #[must_use]
    pub fn lend(&self, until: Instant) -> Timer<'_> {
        let kept = self.0.borrow_mut().pop();
        Timer {
            alarm: Some(kept.unwrap_or_else(|| Alarm::at(until))),
            home: self,
        }
    }
}

/// A timer that goes back when it is dropped.
#[derive(Debug)]
pub struct Timer<'t> {
    alarm: Option<Alarm>,
    home: &'t Timers,
}

impl Timer<'_> {
    /// Ready at `until`, or later.
    pub fn poll(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.alarm {
            Some(alarm) => alarm.poll(until, cx),
            None => Poll::Pending,
        }
    }
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let mut kept = self.home.0.borrow_mut();
        if let Some(mut alarm) = self.alarm.take().filter(|_| kept.len() < KEPT)
            && alarm.forget()
        {
            kept.push(alarm);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_lent_timer_fires_when_it_is_meant_to_whatever_it_was_set_to() {
        let timers = Timers::default();
        for (set, wanted) in [(10_000, 20), (1, 20), (20, 20)] {
            let begun = Instant::now();
            // Sets it, polls it once and gives it back.
            let first = begun + Duration::from_millis(set);
            let mut timer = timers.lend(first);
            poll_fn(|cx| Poll::Ready(timer.poll(first, cx).is_ready())).await;
            drop(timer);
            let until = begun + Duration::from_millis(wanted);
            let mut timer = timers.lend(until);
            poll_fn(|cx| timer.poll(until, cx)).await;
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(wanted), "{set}: {took:?}");
            assert!(took < Duration::from_millis(5_000), "{set}: {took:?}");
        }
    }
}
