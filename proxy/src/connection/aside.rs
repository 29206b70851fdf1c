//! A future that stands aside while another does the work: it is polled only
//! when it was woken itself. A poll of what tells all connections of a proxy to
//! end takes a lock that its threads share; a connection wakes twice a request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// Notes that it was called, and passes the call on to the task.
struct Call {
    heard: AtomicBool,
    task: Waker,
}

impl Wake for Call {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.heard.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

/// See the module. It stands for one future, given with each poll.
#[derive(Default)]
pub(super) struct Aside(Option<Arc<Call>>);

impl Aside {
    /// Polls `future` the first time, and then where it was woken.
    pub(super) fn poll<F: Future>(
        &mut self,
        future: Pin<&mut F>,
        cx: &mut Context<'_>,
    ) -> Poll<F::Output> {
        let call = match self.0.take() {
            Some(call) if call.task.will_wake(cx.waker()) => {
                if !call.heard.load(Ordering::Acquire) {
                    self.0 = Some(call);
                    return Poll::Pending;
                }
                // Taken back before the poll: a call that comes during it is another.
                call.heard.store(false, Ordering::Release);
                call
            }
            _ => Arc::new(Call {
                heard: AtomicBool::new(false),
                task: cx.waker().clone(),
            }),
        };
        let waker = Waker::from(call.clone());
        self.0 = Some(call);
        future.poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::pin::pin;

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_is_polled_when_it_was_woken_and_not_before() {
        let (notify, polls) = (Notify::new(), Cell::new(0));
        let mut notified = pin!(notify.notified());
        let mut watched = pin!(poll_fn(|cx| {
            polls.set(polls.get() + 1);
            notified.as_mut().poll(cx)
        }));
        let mut aside = Aside::default();
        for _ in 0..5 {
            let polled =
                poll_fn(|cx| Poll::Ready(aside.poll(watched.as_mut(), cx).is_ready())).await;
            assert!(!polled);
        }
        assert_eq!(polls.get(), 1);
        let told = async {
            tokio::task::yield_now().await;
            notify.notify_waiters();
        };
        tokio::join!(poll_fn(|cx| aside.poll(watched.as_mut(), cx)), told);
        assert_eq!(polls.get(), 2);
    }

    #[tokio::test]
    async fn another_task_that_polls_it_is_the_one_that_is_woken() {
        let notify = Notify::new();
        let mut notified = pin!(notify.notified());
        let mut aside = Aside::default();
        let mut nobody = Context::from_waker(Waker::noop());
        assert!(aside.poll(notified.as_mut(), &mut nobody).is_pending());
        let told = async {
            tokio::task::yield_now().await;
            notify.notify_waiters();
        };
        tokio::join!(poll_fn(|cx| aside.poll(notified.as_mut(), cx)), told);
    }
}
