//! What workers share, in every order in which two of them may take their
//! steps, and in very many of three, as far as loom's model of memory goes:
//! a relaxed load may see any value that was not yet written over for it.
//! Each model is a few steps long.
//!
//! Only with the feature `loom`, which puts loom's atomics and locks in place
//! of the real ones: `cargo test --workspace --features selvage-policy/loom
//! --test loom`.

mod counters; // rings, budgets, permits, averages
mod endpoint; // one breaker between workers
mod health; // checks beside breakers
mod rates; // rates and compartments of a port
mod roll; // a crowd's list of its breakers
mod server; // places of a port, and who waits
mod traces; // traces in flight

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Of three threads, each is stopped where it could go on at most so often.
const PREEMPTIONS: usize = 2;

/// Runs `model` in every order of two threads.
fn every_order(model: impl Fn() + Sync + Send + 'static) {
    check(None, model);
}

/// Runs `model` in the orders of three threads with few preemptions.
fn most_orders(model: impl Fn() + Sync + Send + 'static) {
    check(Some(PREEMPTIONS), model);
}

fn check(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    let orders = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&orders);
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let orders = orders.load(Ordering::Relaxed);
    println!("{orders} orders");
    assert!(orders > 1, "nothing was shared");
}

/// Runs `one` and `other` at once, to their ends.
fn at_once<A: 'static, B>(one: impl FnOnce() -> A + 'static, other: impl FnOnce() -> B) -> (A, B) {
    let one = loom::thread::spawn(one);
    let other = other();
    (one.join().expect("the thread ended"), other)
}

/// Runs three at once, to their ends.
fn all_at_once<A: 'static, B: 'static, C>(
    one: impl FnOnce() -> A + 'static,
    two: impl FnOnce() -> B + 'static,
    three: impl FnOnce() -> C,
) -> (A, B, C) {
    let one = loom::thread::spawn(one);
    let (two, three) = at_once(two, three);
    (one.join().expect("the thread ended"), two, three)
}

/// The moment every model begins at.
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
