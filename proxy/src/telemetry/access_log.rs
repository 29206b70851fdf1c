//! The access log: one line per request or connection, written apart from the workers.
//!
//! A worker hands over a finished record and goes on; one thread formats and writes. The queue
//! between them is bounded: what finds it full is dropped and counted, for a request never waits
//! for its log. Whatever a peer sent is escaped, so that a line is one line and holds no control
//! character. Knows nothing of how a request went but what its record says.

mod escape; // text that peers sent, made harmless
mod line; // a record as JSON or as text

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, Version};
use selvage_policy::flag::Flag;

use super::metrics::{Direction, Metrics};

pub use crate::config::AccessLogFormat;

/// Records that wait for the writer; more are dropped and counted.
pub const ACCESS_LOG_QUEUE: usize = 8192;
/// Longest text of one field in bytes; the rest is cut off, and the cut is marked with `…`.
pub const ACCESS_LOG_FIELD_BYTES: usize = 1024;
/// How long the end of the log waits for the writer to finish what is queued.
pub const ACCESS_LOG_FLUSH: Duration = Duration::from_secs(1);
/// Bytes written at once when records come faster than they are written.
const BATCH_BYTES: usize = 64 * 1024;

/// Whether a connection from the peer was encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tls {
    /// Plaintext.
    #[default]
    None,
    /// A full handshake.
    Full,
    /// A resumed session.
    Resumed,
}

/// What is told of one request, or of one opaque connection (which has no method).
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// When its last byte passed.
    pub time: SystemTime,
    /// Which way it went.
    pub direction: Direction,
    /// Where the connection came from.
    pub peer: Option<SocketAddr>,
    /// The caller's authenticated identity.
    pub source: Option<Arc<str>>,
    /// `namespace/service` that was called.
    pub destination: Option<Arc<str>>,
    /// `namespace/name/rule`, or `default`.
    pub route: Option<Arc<str>>,
    /// The endpoint of the last try.
    pub endpoint: Option<Arc<str>>,
    /// The method.
    pub method: Option<Method>,
    /// The path; a query, which may carry secrets, is left out.
    pub path: Option<String>,
    /// Which host the caller asked for.
    pub authority: Option<String>,
    /// What the caller spoke.
    pub version: Option<Version>,
    /// The status that was sent, if any.
    pub status: Option<u16>,
    /// The gRPC status that was sent.
    pub grpc_status: Option<u32>,
    /// What went wrong.
    pub flag: Option<Flag>,
    /// Bytes of body received from the caller.
    pub bytes_received: u64,
    /// Bytes of body sent to the caller.
    pub bytes_sent: u64,
    /// From the head of the request to the last byte.
    pub duration: Duration,
    /// How often it was sent upstream.
    pub tries: u32,
    /// Why it was sent again, the last time.
    pub retry_reason: Option<&'static str>,
    /// `namespace/name` of the policy that denied it.
    pub denied_by: Option<Arc<str>>,
    /// The trace it belongs to; see [`trace_id`].
    pub trace_id: Option<[u8; 16]>,
    /// How the caller's connection was encrypted.
    pub tls: Tls,
}

impl AccessRecord {
    /// A record that says only which way and when.
    #[must_use]
    pub fn new(direction: Direction, time: SystemTime) -> Self {
        Self {
            time,
            direction,
            peer: None,
            source: None,
            destination: None,
            route: None,
            endpoint: None,
            method: None,
            path: None,
            authority: None,
            version: None,
            status: None,
            grpc_status: None,
            flag: None,
            bytes_received: 0,
            bytes_sent: 0,
            duration: Duration::ZERO,
            tries: 0,
            retry_reason: None,
            denied_by: None,
            trace_id: None,
            tls: Tls::None,
        }
    }

    /// Lets go of what a line would not show, so that the queue is bounded in bytes too.
    fn shorten(&mut self) {
        if let Some(path) = &mut self.path {
            let end = path.find(['?', '#']).unwrap_or(path.len());
            path.truncate(end);
            escape::cut(path);
        }
        if let Some(authority) = &mut self.authority {
            escape::cut(authority);
        }
        let long = |method: &Method| method.as_str().len() > ACCESS_LOG_FIELD_BYTES;
        if let Some(method) = self.method.take_if(|method| long(method)) {
            // Bytes of a token, cut anywhere, are a token.
            let start = &method.as_str().as_bytes()[..ACCESS_LOG_FIELD_BYTES];
            self.method = Method::from_bytes(start).ok();
        }
    }
}

/// The trace id of a `traceparent` (W3C Trace Context, level 1); `None` if it is malformed or
/// all zero.
#[must_use]
pub fn trace_id(traceparent: &HeaderValue) -> Option<[u8; 16]> {
    let mut parts = traceparent.as_bytes().split(|byte| *byte == b'-');
    let (version, trace) = (parts.next()?, parts.next()?);
    if version.len() != 2 || version == b"ff" || trace.len() != 32 {
        return None;
    }
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10), // upper case is malformed
        _ => None,
    };
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(trace.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    (id != [0; 16]).then_some(id)
}

/// Takes records; shared by all workers. Dropping it writes out what is queued, for at most
/// [`ACCESS_LOG_FLUSH`].
#[derive(Debug)]
pub struct AccessLog {
    dropped: Arc<AtomicU64>,
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    queue: Option<SyncSender<Box<AccessRecord>>>,
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

    /// Hands a record over. `make` is called only when the log is on. Never waits.
    pub fn record(&self, make: impl FnOnce() -> AccessRecord) {
        let Some(queue) = self
            .writer
            .as_ref()
            .and_then(|writer| writer.queue.as_ref())
        else {
            return;
        };
        let mut record = Box::new(make());
        record.shorten();
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = queue.try_send(record) {
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
    records: &Receiver<Box<AccessRecord>>,
    render: fn(&AccessRecord, &mut String),
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
