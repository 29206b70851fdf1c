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
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::metrics::Metrics;
use super::told::Told;

pub use crate::config::AccessLogFormat;

/// Records that wait for the writer; more are dropped and counted.
pub const ACCESS_LOG_QUEUE: usize = 8192;
/// How long the end of the log waits for the writer to finish what is queued.
pub const ACCESS_LOG_FLUSH: Duration = Duration::from_secs(1);
/// Between two looks whether a full queue has room.
const ROOM: Duration = Duration::from_millis(10);
/// Bytes written at once when records come faster than they are written.
const BATCH_BYTES: usize = 64 * 1024;

/// Takes records; shared by all workers, which outlive the proxy's end: what is queued then is
/// written out by [`AccessLog::finish`].
#[derive(Debug)]
pub struct AccessLog {
    dropped: Arc<AtomicU64>,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    queue: SyncSender<Entry>,
}

/// What the writing thread is handed.
#[derive(Debug)]
enum Entry {
    /// A record to be written.
    Told(Box<Told>),
    /// Somebody waits until what came before is written: dropped then.
    Mark(oneshot::Sender<()>),
}

impl AccessLog {
    /// Opens the log, and counts what it drops in `metrics`. Where stdout is another program's
    /// (`stdout_is_ours` is false), JSON goes to stderr too.
    ///
    /// # Errors
    /// The thread that writes cannot be started.
    pub fn new(
        format: AccessLogFormat,
        metrics: &Metrics,
        stdout_is_ours: bool,
    ) -> io::Result<Self> {
        let sink: Box<dyn Write + Send> = match format {
            AccessLogFormat::Json if stdout_is_ours => Box::new(io::stdout()),
            _ => Box::new(io::stderr()),
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
        let lost = Arc::clone(&dropped);
        thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&records, render, sink, &lost))?;
        Ok(Self {
            dropped,
            writer: Some(Writer { queue }),
        })
    }

    /// Whether records are wanted at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.writer.is_some()
    }

    /// Hands a record over, if the log is on. Never waits.
    pub fn record(&self, told: Box<Told>) {
        let Some(writer) = &self.writer else {
            return;
        };
        if writer.queue.try_send(Entry::Told(told)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Waits until what was handed over is written, for at most [`ACCESS_LOG_FLUSH`].
    pub async fn finish(&self) {
        let Some(writer) = &self.writer else {
            return;
        };
        let written = async {
            let (mark, written) = oneshot::channel();
            let mut entry = Entry::Mark(mark);
            // A full queue: the writer makes room, or its reader has stalled.
            while let Err(TrySendError::Full(unsent)) = writer.queue.try_send(entry) {
                entry = unsent;
                tokio::time::sleep(ROOM).await;
            }
            // Dropped by then, and never sent.
            let _ = written.await;
        };
        if tokio::time::timeout(ACCESS_LOG_FLUSH, written)
            .await
            .is_err()
        {
            tracing::warn!("the access log could not be written out in time");
        }
    }
}

/// Writes records until all senders are gone and the queue is empty.
fn write_all(
    records: &Receiver<Entry>,
    render: fn(&Told, &mut String),
    mut sink: Box<dyn Write + Send>,
    lost: &AtomicU64,
) {
    let mut batch = String::new();
    while let Ok(first) = records.recv() {
        let mut next = Some(first);
        let mut marks = Vec::new();
        let mut count = 0;
        batch.clear();
        while let Some(entry) = next {
            match entry {
                Entry::Told(told) => {
                    render(&told, &mut batch);
                    count += 1;
                }
                Entry::Mark(mark) => marks.push(mark),
            }
            next = (batch.len() < BATCH_BYTES)
                .then(|| records.try_recv().ok())
                .flatten();
        }
        // Whoever reads the log may be gone; the proxy goes on without it.
        if sink
            .write_all(batch.as_bytes())
            .and_then(|()| sink.flush())
            .is_err()
        {
            lost.fetch_add(count, Relaxed);
        }
        drop(marks);
    }
}

#[cfg(test)]
mod tests;
