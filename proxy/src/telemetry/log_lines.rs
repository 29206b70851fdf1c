//! Lines of the log on stderr, for as long as somebody reads them.
//!
//! Workers log too, and whoever writes to a pipe that nobody empties waits. So
//! a line is written only where stderr takes it at once; otherwise it is
//! dropped and counted. (A queue with a thread of its own would only put that
//! off, and every sidecar would pay for the thread.)

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tracing_subscriber::fmt::MakeWriter;

/// What a pipe that can be written to takes without waiting: PIPE_BUF of pipe(7).
const AT_ONCE: usize = 4096;

static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Lines that this process could not write.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Relaxed)
}

/// Stderr, never waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogLines;

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Lines<io::StderrLock<'static>>;

    fn make_writer(&'a self) -> Self::Writer {
        Lines {
            sink: io::stderr().lock(),
            dropped: &DROPPED,
        }
    }
}

/// One writer at a time: see [`LogLines`].
#[derive(Debug)]
pub struct Lines<S> {
    sink: S,
    dropped: &'static AtomicU64,
}

impl<S: Write + AsFd> Write for Lines<S> {
    /// Takes a whole line, written or dropped.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        for part in line.chunks(AT_ONCE) {
            // Who reads the log may be gone; the proxy goes on without it.
            if !takes_more(&self.sink) || self.sink.write_all(part).is_err() {
                self.dropped.fetch_add(1, Relaxed);
                break;
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn takes_more(sink: &impl AsFd) -> bool {
    let mut wanted = [PollFd::new(sink, PollFlags::OUT)];
    let polled = poll(&mut wanted, Some(&Timespec::default()));
    // A closed pipe says so at once when it is written to.
    polled.is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    fn lines(counted: &'static AtomicU64) -> (Lines<File>, File) {
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        let sink = File::from(write);
        let lines = Lines {
            sink,
            dropped: counted,
        };
        (lines, File::from(read))
    }

    #[test]
    fn a_reader_that_stalls_costs_lines_and_no_time() {
        static COUNTED: AtomicU64 = AtomicU64::new(0);
        let (mut lines, mut reader) = lines(&COUNTED);
        let line = [b'x'; 1000];
        let mut written = 0;
        while COUNTED.load(Relaxed) == 0 {
            lines.write_all(&line).expect("never refused");
            written += 1;
            assert!(written < 10_000, "a pipe holds less");
        }
        let mut taken = vec![0; (written - 1) * line.len()];
        reader
            .read_exact(&mut taken)
            .expect("all but the dropped one");
        lines.write_all(b"again\n").expect("never refused");
        let mut again = [0; 6];
        reader.read_exact(&mut again).expect("there is room again");
        assert_eq!((&again, COUNTED.load(Relaxed)), (b"again\n", 1));
    }

    #[test]
    fn a_reader_that_has_gone_costs_lines_alone() {
        static COUNTED: AtomicU64 = AtomicU64::new(0);
        let (mut lines, reader) = lines(&COUNTED);
        drop(reader);
        lines.write_all(b"lost\n").expect("never refused");
        assert_eq!(COUNTED.load(Relaxed), 1);
    }
}
