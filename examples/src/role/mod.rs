//! What the demo's processes are when they are not the demo itself: one hidden subcommand each.
//!
//! A role reads its orders line by line from stdin and ends when stdin ends, so that no process
//! outlives the demo, however the demo ends. A role refuses to know that there are others.

pub(crate) mod load;
pub(crate) mod service;

use std::io::{BufRead as _, Write as _};
use std::net::SocketAddr;

use serde::Serialize;
use tokio::sync::mpsc;

/// Orders that were read and not yet followed.
const ORDERS: usize = 64;

/// The lines of stdin. Their end ends the process at once: the parent is gone.
pub(crate) fn orders() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(ORDERS);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
        std::process::exit(0);
    });
    receiver
}

/// For roles that take no orders: only the end of stdin counts.
pub(crate) fn end_with_parent() {
    std::thread::spawn(|| {
        for _ in std::io::stdin().lock().lines().map_while(Result::ok) {}
        std::process::exit(0);
    });
}

/// Writes one event as a JSON line on stdout, where the demo reads it.
pub(crate) fn tell(event: &impl Serialize) {
    let line = serde_json::to_string(event).expect("events are plain data");
    // A parent that no longer reads is a parent that is gone: stdin says so.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// The event of a bound address, as every Selvage process writes it.
pub(crate) fn tell_listening(name: &str, address: SocketAddr) {
    tell(
        &serde_json::json!({ "event": "listening", "name": name, "address": address.to_string() }),
    );
}
