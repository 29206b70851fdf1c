//! Load at a rate that nothing slows down: the moments to send at are fixed,
//! latency counts from them, and every answer is kept. It never retries, and
//! asks for as many connections as there are requests under way.
//!
//! A closed loop would send less to whoever answers late, and so hide what a
//! failing service does to its callers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use crate::wait;

/// A head that is longer is none.
const LONGEST_HEAD: usize = 16 * 1024;

/// Whom to ask, and for how long to wait.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The proxy.
    pub address: SocketAddr,
    /// The authority, such as `orders.shop`.
    pub authority: &'static str,
    /// An answer that takes longer is a failure.
    pub patience: Duration,
}

/// One request, and what became of it.
#[derive(Debug, Clone)]
pub struct Shot {
    /// When it was to be sent.
    pub due: Instant,
    /// From then to the last byte of its answer, or to its failure.
    pub took: Duration,
    /// What of it passed before this side came to sending it.
    pub late: Duration,
    /// The answer's status; 0 where none came whole.
    pub status: u16,
    /// The answer's `x-selvage-flag`, or why none came whole.
    pub said: Option<String>,
}

impl Shot {
    /// Whether a whole 2xx came.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

/// Load under way; [`stop`](OpenLoop::stop) ends it.
pub struct OpenLoop {
    shared: Arc<Shared>,
    driver: AbortHandle,
}

struct Shared {
    target: Target,
    request: Vec<u8>,
    rate: AtomicU32,
    idle: Mutex<Vec<TcpStream>>,
    shots: Mutex<Vec<Shot>>,
    under_way: AtomicU32,
}

impl OpenLoop {
    /// GET at `rate` requests per second, until stopped.
    #[must_use]
    pub fn start(target: Target, rate: u32) -> Self {
        let request = format!("GET /load HTTP/1.1\r\nhost: {}\r\n\r\n", target.authority);
        let shared = Arc::new(Shared {
            target,
            request: request.into_bytes(),
            rate: AtomicU32::new(rate),
            idle: Mutex::default(),
            shots: Mutex::default(),
            under_way: AtomicU32::new(0),
        });
        let driver = tokio::spawn(drive(Arc::clone(&shared))).abort_handle();
        Self { shared, driver }
    }

    /// Goes on at another rate.
    pub fn set_rate(&self, rate: u32) {
        self.shared.rate.store(rate, Ordering::Relaxed);
    }

    /// Waits until `more` answers have come from now on: a second at the rate of a second.
    pub async fn passes(&self, more: usize) {
        let goal = self.count() + more;
        wait::until("more answers", 12 * wait::PATIENCE, async || {
            self.count() >= goal
        })
        .await;
    }

    /// How many answers came so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.shared.shots).len()
    }

    /// The answers so far, in the order in which they came.
    #[must_use]
    pub fn so_far(&self) -> Shots {
        Shots(lock(&self.shared.shots).clone())
    }

    /// Sends no more, waits for what is under way, and returns everything.
    pub async fn stop(self) -> Shots {
        self.driver.abort();
        let limit = self.shared.target.patience + wait::PATIENCE;
        wait::until("the last answers", limit, async || {
            self.shared.under_way.load(Ordering::SeqCst) == 0
        })
        .await;
        self.so_far()
    }
}

impl Drop for OpenLoop {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A poisoned lock means that a test is failing already.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends at every moment. What is under way when this ends goes on to its own end.
async fn drive(shared: Arc<Shared>) {
    let mut due = Instant::now();
    loop {
        due += Duration::from_secs(1) / shared.rate.load(Ordering::Relaxed).max(1);
        tokio::time::sleep_until(due.into()).await;
        shared.under_way.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(shoot(Arc::clone(&shared), due));
    }
}

async fn shoot(shared: Arc<Shared>, due: Instant) {
    let patience = shared.target.patience;
    let late = due.elapsed();
    let answer = match tokio::time::timeout(patience, ask(&shared)).await {
        Ok(answer) => answer,
        Err(_) => Err("no answer in time".to_owned()),
    };
    let took = due.elapsed();
    let (status, said) = match answer {
        Ok((status, flag)) => (status, flag),
        Err(reason) => (0, Some(reason)),
    };
    lock(&shared.shots).push(Shot {
        due,
        took,
        late,
        status,
        said,
    });
    shared.under_way.fetch_sub(1, Ordering::SeqCst);
}

async fn ask(shared: &Shared) -> Result<(u16, Option<String>), String> {
    let mut stream = match waiting(&shared.idle) {
        Some(stream) => stream,
        None => connect(shared.target.address).await.map_err(said)?,
    };
    stream.write_all(&shared.request).await.map_err(said)?;
    let answer = read(&mut stream).await?;
    if answer.keeps {
        lock(&shared.idle).push(stream);
    }
    Ok((answer.status, answer.flag))
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what map_err hands over"
)]
fn said(error: std::io::Error) -> String {
    error.to_string()
}

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A connection that rests and was not closed meanwhile.
fn waiting(idle: &Mutex<Vec<TcpStream>>) -> Option<TcpStream> {
    let mut idle = lock(idle);
    while let Some(stream) = idle.pop() {
        let quiet = stream.try_read(&mut [0; 1]);
        if quiet.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
            return Some(stream);
        }
    }
    None
}

/// What matters of an answer.
struct Answer {
    status: u16,
    flag: Option<String>,
    keeps: bool,
}

/// Reads one answer to its last byte; its length must be told.
async fn read(stream: &mut TcpStream) -> Result<Answer, String> {
    let mut buffer = Vec::with_capacity(1024);
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if buffer.len() > LONGEST_HEAD || more(stream, &mut buffer).await? == 0 {
            return Err(format!("closed after {} bytes of a head", buffer.len()));
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let field = |name: &str| {
        let lines = head.lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        values.next().map(|(_, value)| value.trim().to_owned())
    };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| format!("no status in {head:?}"))?;
    let length: Option<usize> = field("content-length").and_then(|length| length.parse().ok());
    let whole = end + length.ok_or_else(|| format!("no length in {head:?}"))?;
    while buffer.len() < whole {
        if more(stream, &mut buffer).await? == 0 {
            return Err("the body broke off".to_owned());
        }
    }
    Ok(Answer {
        status,
        flag: field("x-selvage-flag"),
        keeps: field("connection").is_none_or(|value| !value.eq_ignore_ascii_case("close")),
    })
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<usize, String> {
    stream.read_buf(buffer).await.map_err(said)
}

/// Answers, to be counted.
#[derive(Debug, Clone, Default)]
pub struct Shots(pub Vec<Shot>);

impl Shots {
    /// Those that were due in `[from, to)`.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Self {
        let within = |shot: &&Shot| from <= shot.due && shot.due < to;
        Self(self.0.iter().filter(within).cloned().collect())
    }

    /// Those that `wanted` accepts.
    #[must_use]
    pub fn filter(&self, wanted: impl Fn(&Shot) -> bool) -> Self {
        Self(self.0.iter().filter(|shot| wanted(shot)).cloned().collect())
    }

    /// Those that are no whole 2xx.
    #[must_use]
    pub fn failed(&self) -> Self {
        self.filter(|shot| !shot.is_good())
    }

    /// The same without what this side was late by itself: where milliseconds are promised on a
    /// machine on which others work.
    #[must_use]
    pub fn since_sent(&self) -> Self {
        let sent = |shot: &Shot| Shot {
            took: shot.took - shot.late,
            late: Duration::ZERO,
            ..shot.clone()
        };
        Self(self.0.iter().map(sent).collect())
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The latency that `share` of them (0 to 1) do not exceed; zero of none.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among at most some hundred thousand"
    )]
    pub fn latency(&self, share: f64) -> Duration {
        let mut took: Vec<Duration> = self.0.iter().map(|shot| shot.took).collect();
        took.sort_unstable();
        let rank = (took.len() as f64 * share).ceil() as usize;
        took.get(rank.saturating_sub(1))
            .copied()
            .unwrap_or_default()
    }

    /// How often each status and flag came, the most frequent first, for messages.
    #[must_use]
    pub fn kinds(&self) -> Vec<(usize, String)> {
        let mut counts = std::collections::BTreeMap::new();
        for shot in &self.0 {
            let said = shot.said.as_deref().unwrap_or("-");
            *counts.entry(format!("{} {said}", shot.status)).or_insert(0) += 1;
        }
        let mut kinds: Vec<_> = counts
            .into_iter()
            .map(|(kind, count)| (count, kind))
            .collect();
        kinds.sort_unstable_by(|a, b| b.cmp(a));
        kinds
    }
}
