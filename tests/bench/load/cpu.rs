//! CPU time of processes and of the machine, from /proc.

use std::fs;

use serde_json::{Value, json};

/// The unit of the times in /proc/PID/stat, fixed by the kernel's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU seconds of some processes up to one moment.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Reading {
    user: f64,
    kernel: f64,
    /// The scheduler's own count, in nanoseconds; the two above are it in ticks of 10 ms.
    runtime: f64,
    /// Of the whole machine: time that the hypervisor gave to somebody else.
    stolen: f64,
}

impl Reading {
    /// Of all threads of `pids`. A process that is gone counts nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut sum = Self {
            stolen: stolen(),
            ..Self::default()
        };
        for pid in pids {
            let (user, kernel) = ticks(*pid).unwrap_or_default();
            sum.user += user;
            sum.kernel += kernel;
            sum.runtime += runtime(*pid).unwrap_or(user + kernel);
        }
        sum
    }

    /// What was spent since `earlier`, in seconds.
    pub(crate) fn since(self, earlier: Self) -> Value {
        json!({
            "total": self.runtime - earlier.runtime,
            "user": self.user - earlier.user,
            "kernel": self.kernel - earlier.kernel,
            "stolen": self.stolen - earlier.stolen,
        })
    }
}

/// User and kernel seconds: fields 14 and 15, counted behind the name, which may hold spaces.
fn ticks(pid: u32) -> Option<(f64, f64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<f64>().ok();
    Some((next()? / TICKS_PER_SECOND, next()? / TICKS_PER_SECOND))
}

fn runtime(pid: u32) -> Option<f64> {
    let mut seconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        seconds += text.split_ascii_whitespace().next()?.parse::<f64>().ok()? / 1e9;
    }
    Some(seconds)
}

fn stolen() -> f64 {
    let read = || {
        let text = fs::read_to_string("/proc/stat").ok()?;
        text.lines()
            .next()?
            .split_ascii_whitespace()
            .nth(8)?
            .parse::<f64>()
            .ok()
    };
    read().unwrap_or_default() / TICKS_PER_SECOND
}
