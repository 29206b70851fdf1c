//! Virtual time, and the tasks that live in it.
//!
//! A task is polled when a moment it waits for has come, and time jumps from
//! one such moment to the next: a minute of traffic takes as long as its
//! decisions do. What falls on one moment runs in the order it was asked for,
//! so that a run is the same each time. One thread, no wakers: whoever waits
//! is named by the task that is polled just then.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A handle on the time of one run.
#[derive(Clone)]
pub(crate) struct Clock(Rc<Inner>);

/// A task; its slot is used again under another turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskId {
    slot: usize,
    turn: u32,
}

/// A moment that a task waits for.
struct Timer {
    /// Nanoseconds since the start (upper half), and the order in which it was
    /// asked for: one number, since nothing is compared as often.
    key: u128,
    task: TaskId,
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Timer {}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timer {
    /// The soonest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key)
    }
}

/// The moment came before the future was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Late;

struct Inner {
    start: Instant,
    now: Cell<Instant>,
    current: Cell<TaskId>,
    asked: Cell<u64>,
    queue: RefCell<BinaryHeap<Timer>>,
    tasks: RefCell<Vec<Slot>>,
    vacant: RefCell<Vec<usize>>,
}

#[derive(Default)]
struct Slot {
    turn: u32,
    task: Option<Task>,
}

impl Clock {
    /// A clock that stands at `start`.
    pub(crate) fn new(start: Instant) -> Self {
        Self(Rc::new(Inner {
            start,
            now: Cell::new(start),
            current: Cell::new(TaskId { slot: 0, turn: 0 }),
            asked: Cell::new(0),
            queue: RefCell::default(),
            tasks: RefCell::default(),
            vacant: RefCell::default(),
        }))
    }

    pub(crate) fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// Since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.now() - self.0.start
    }

    /// The moment so long after the start.
    pub(crate) fn at(&self, since_start: Duration) -> Instant {
        self.0.start + since_start
    }

    /// The task that is polled just now.
    pub(crate) fn current(&self) -> TaskId {
        self.0.current.get()
    }

    /// Polls a task at this moment, after what was asked for before.
    pub(crate) fn wake(&self, task: TaskId) {
        self.poll_at(self.now(), task);
    }

    /// Begins a task at this moment.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.0.tasks.borrow_mut();
        let slot = self.0.vacant.borrow_mut().pop().unwrap_or_else(|| {
            tasks.push(Slot::default());
            tasks.len() - 1
        });
        tasks[slot].task = Some(Box::pin(future));
        let turn = tasks[slot].turn;
        drop(tasks);
        self.wake(TaskId { slot, turn });
    }

    pub(crate) async fn sleep(&self, span: Duration) {
        self.sleep_until(self.now() + span).await;
    }

    pub(crate) async fn sleep_until(&self, at: Instant) {
        let mut asked = false;
        poll_fn(|_| {
            if self.now() >= at {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut asked, true) {
                self.poll_at(at, self.current());
            }
            Poll::Pending
        })
        .await;
    }

    /// Waits for a future, until a moment if there is one.
    pub(crate) async fn within<T>(
        &self,
        until: Option<Instant>,
        mut future: Pin<&mut impl Future<Output = T>>,
    ) -> Result<T, Late> {
        let Some(until) = until else {
            return Ok(future.await);
        };
        let mut sleep = pin!(self.sleep_until(until));
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Ok(done)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| Err(Late)),
        })
        .await
    }

    /// Lets time pass until `end`, and ends what is unfinished then.
    pub(crate) fn run(&self, end: Instant) {
        while let Some((at, task)) = self.next(end) {
            self.0.now.set(at);
            self.poll(task);
        }
        self.0.now.set(end);
        let unfinished = std::mem::take(&mut *self.0.tasks.borrow_mut());
        drop(unfinished);
    }

    fn next(&self, end: Instant) -> Option<(Instant, TaskId)> {
        let mut queue = self.0.queue.borrow_mut();
        let is_due = |timer: &Timer| (timer.key >> 64) as u64 <= self.nanos(end);
        let soonest = queue.peek().is_some_and(is_due).then(|| queue.pop())??;
        let at = Duration::from_nanos((soonest.key >> 64) as u64);
        Some((self.at(at), soonest.task))
    }

    fn poll_at(&self, at: Instant, task: TaskId) {
        let order = self.0.asked.replace(self.0.asked.get() + 1);
        let key = u128::from(self.nanos(at)) << 64 | u128::from(order);
        self.0.queue.borrow_mut().push(Timer { key, task });
    }

    fn nanos(&self, at: Instant) -> u64 {
        (at - self.0.start).as_nanos() as u64
    }

    fn poll(&self, id: TaskId) {
        let taken = {
            let mut tasks = self.0.tasks.borrow_mut();
            let slot = &mut tasks[id.slot];
            (slot.turn == id.turn).then(|| slot.task.take()).flatten()
        };
        // Ended meanwhile: it waited for several things, and another came first.
        let Some(mut task) = taken else { return };
        self.0.current.set(id);
        let polled = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        let mut tasks = self.0.tasks.borrow_mut();
        let slot = &mut tasks[id.slot];
        match polled {
            Poll::Pending => slot.task = Some(task),
            Poll::Ready(()) => {
                slot.turn += 1;
                self.0.vacant.borrow_mut().push(id.slot);
            }
        }
    }
}
