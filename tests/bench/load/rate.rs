//! An open loop: the moments to send at are fixed before the run, and latency
//! counts from them, whether or not the request could be sent in time.
//!
//! Each connection is a thread with blocking calls: a thread that sleeps wakes
//! within microseconds of its moment, a timer of the runtime within a
//! millisecond. How late requests were sent by the generator's own fault is
//! measured and printed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde_json::json;

use crate::Failure;
use crate::cpu::Reading;
use crate::http1::Target;
use crate::response;
use crate::tally::{self, Timing, histogram, nanoseconds, percentiles};

/// Time for the threads to start and connect.
const HEAD_START: Duration = Duration::from_millis(200);
/// An answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    target: Target,
    /// Requests per second over all connections.
    #[arg(long)]
    rps: u32,
    /// Connections, which take turns.
    #[arg(long, default_value_t = 16)]
    connections: u32,
}

/// The fixed moments.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    start: Instant,
    begin: Instant,
    end: Instant,
    rps: u32,
    connections: u32,
}

impl Schedule {
    fn moment(&self, connection: u32, turn: u32) -> Instant {
        let number = u64::from(turn) * u64::from(self.connections) + u64::from(connection);
        self.start + Duration::from_nanos(number * 1_000_000_000 / u64::from(self.rps))
    }
}

/// What one thread saw.
struct Seen {
    latency: Histogram<u64>,
    lag: Histogram<u64>,
    /// Moments that passed while an earlier request was still under way at the end.
    unsent: u64,
    errors: u64,
    first_error: Option<String>,
}

/// Runs the schedule and prints what it measured.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    // Sleeping threads wake as near to their moment as the kernel can; inherited by threads.
    std::fs::write("/proc/self/timerslack_ns", "1")?;
    let timing = &options.timing;
    let start = Instant::now() + HEAD_START;
    let begin = start + Duration::from_secs_f64(timing.warmup);
    let schedule = Schedule {
        start,
        begin,
        end: begin + Duration::from_secs_f64(timing.seconds),
        rps: options.rps,
        connections: options.connections,
    };
    let request: Arc<[u8]> = options.target.requests(false).concat().into();
    let target = options.target.target;
    let threads: Vec<_> = (0..options.connections)
        .map(|number| {
            let request = request.clone();
            std::thread::spawn(move || keep(schedule, number, target, &request))
        })
        .collect();
    sleep_until(schedule.begin);
    let before = Reading::of(&timing.pids);
    sleep_until(schedule.end);
    let spent = Reading::of(&timing.pids).since(before);
    let mut all = Seen::new();
    for thread in threads {
        all.add(thread.join().map_err(|_| "a thread broke")?)?;
    }
    tally::print(&json!({
        "seconds": timing.seconds,
        "requests": all.latency.len(),
        "errors": all.errors,
        "firstError": all.first_error,
        "unsent": all.unsent,
        "latency": percentiles(&all.latency),
        "lag": percentiles(&all.lag),
        "cpu": spent,
    }))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a thread for one connection has no other task, and wakes nearer to its moment"
)]
fn sleep_until(moment: Instant) {
    let left = moment.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        std::thread::sleep(left);
    }
}

impl Seen {
    fn new() -> Self {
        Self {
            latency: histogram(),
            lag: histogram(),
            unsent: 0,
            errors: 0,
            first_error: None,
        }
    }

    fn add(&mut self, other: Self) -> Result<(), Failure> {
        self.latency.add(other.latency)?;
        self.lag.add(other.lag)?;
        self.unsent += other.unsent;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(())
    }
}

/// Sends at every moment of one connection.
fn keep(schedule: Schedule, connection: u32, target: SocketAddr, request: &[u8]) -> Seen {
    let mut seen = Seen::new();
    let mut open = None;
    let mut free = Instant::now();
    for turn in 0.. {
        let moment = schedule.moment(connection, turn);
        if moment >= schedule.end {
            break;
        }
        sleep_until(moment);
        let sent = Instant::now();
        if sent >= schedule.end {
            seen.unsent += 1;
            continue;
        }
        let result = call(&mut open, target, request);
        let done = Instant::now();
        match result {
            Ok(()) if moment >= schedule.begin => {
                let latency = nanoseconds(done - moment).max(1);
                seen.latency.saturating_record(latency);
                // Waiting for the connection's last answer is not the generator's fault.
                let lag = sent.saturating_duration_since(moment.max(free));
                seen.lag.saturating_record(nanoseconds(lag).max(1));
            }
            Ok(()) => {}
            Err(error) => {
                seen.errors += 1;
                seen.first_error.get_or_insert_with(|| error.to_string());
                open = None;
            }
        }
        free = done;
    }
    seen
}

fn call(open: &mut Option<TcpStream>, target: SocketAddr, request: &[u8]) -> io::Result<()> {
    let stream = match open {
        Some(stream) => stream,
        None => open.insert(connect(target)?),
    };
    stream.write_all(request)?;
    let mut buffer = [0; 4096];
    let mut filled = 0;
    loop {
        match stream.read(&mut buffer[filled..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            bytes => filled += bytes,
        }
        let head = response::head(&buffer[..filled]).map_err(io::Error::other)?;
        let Some(head) = head else { continue };
        if head.status != 200 {
            return Err(io::Error::other(format!("status {}", head.status)));
        }
        if filled >= head.end + head.length {
            return Ok(());
        }
    }
}

fn connect(target: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(target)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}
