//! The access log: one line per request or connection, written apart from the workers.
//!
//! A worker hands over a finished record and goes on; one thread formats and writes. The queue
//! between them is bounded: what finds it full is dropped and counted, for a request never waits
//! for its log. Whatever a peer sent is escaped, so that a line is one line and holds no control
//! character. Knows nothing of how a request went but what its record says.

mod line; // a record as JSON or as text

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::metrics::Metrics;
use super::told::Told;

pub use crate::config::AccessLogFormat;

/// Records that wait for the writer; more are dropped and counted.
pub const ACCESS_LOG_QUEUE: usize = 8192;
/// How long the end of the log waits for the writer to finish what is queued.
pub const ACCESS_LOG_FLUSH: Duration = Duration::from_secs(1);
/// Bytes written at once when records come faster than they are written.
const BATCH_BYTES: usize = 64 * 1024;

/// Takes records; shared by all workers. Dropping it writes out what is queued, for at most
/// [`ACCESS_LOG_FLUSH`].
#[derive(Debug)]
pub struct AccessLog {
    dropped: Arc<AtomicU64>,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    queue: Option<SyncSender<Box<Told>>>,
    /// Disconnected when the writing thread ends.
    ended: parking_lot::Mutex<Receiver<()>>,
}

impl AccessLog {
    /// Opens the log, and counts what it drops in `metrics`.
    ///
    /// # Errors
    /// The thread that writes cannot be started.
    pub fn new(format: AccessLogFormat, metrics: &Metrics) -> io::Result<Self> {
        let sink: Box<dyn Write + Send> = match format {
            AccessLogFormat::Text => Box::new(io::stderr()),
            AccessLogFormat::Off | AccessLogFormat::Json => Box::new(io::stdout()),
        };
        Self::to(format, metrics, sink)
    }

    fn to(
        format: AccessLogFormat,
        metrics: &Metrics,
        sink: Box<dyn Write + Send>,
    ) -> io::Result<Self> {
        let dropped = metrics.access_log_dropped();
        let render = match format {
            AccessLogFormat::Off => {
                return Ok(Self {
                    dropped,
                    writer: None,
                });
            }
            AccessLogFormat::Text => line::text,
            AccessLogFormat::Json => line::json,
        };
        let (queue, records) = sync_channel(ACCESS_LOG_QUEUE);
        let (end, ended) = sync_channel(0);
        let lost = Arc::clone(&dropped);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                write_all(&records, render, sink, &lost);
                drop(end);
            })?;
        let ended = parking_lot::Mutex::new(ended);
        Ok(Self {
            dropped,
            writer: Some(Writer {
                queue: Some(queue),
                ended,
            }),
        })
    }

    /// Whether records are wanted at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Hands a record over, if the log is on. Never waits.
    pub fn record(&self, told: Box<Told>) {
        let Some(queue) = self
            .writer
            .as_ref()
            .and_then(|writer| writer.queue.as_ref())
        else {
            return;
        };
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(told) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        let Some(writer) = &mut self.writer else {
            return;
        };
        drop(writer.queue.take());
        match writer.ended.lock().recv_timeout(ACCESS_LOG_FLUSH) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => {}
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!("the access log could not be written out in time");
            }
        }
    }
}

/// Writes records until all senders are gone and the queue is empty.
fn write_all(
    records: &Receiver<Box<Told>>,
    render: fn(&Told, &mut String),
    mut sink: Box<dyn Write + Send>,
    lost: &AtomicU64,
) {
    let mut batch = String::new();
    while let Ok(first) = records.recv() {
        batch.clear();
        render(&first, &mut batch);
        let mut count = 1;
        while batch.len() < BATCH_BYTES {
            let Ok(next) = records.try_recv() else { break };
            render(&next, &mut batch);
            count += 1;
        }
        // Whoever reads the log may be gone; the proxy goes on without it.
        if sink
            .write_all(batch.as_bytes())
            .and_then(|()| sink.flush())
            .is_err()
        {
            lost.fetch_add(count, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
