//! Steady load from several callers at once, which counts every answer and
//! never retries: what is lost is seen here.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::Method;
use tokio::task::JoinSet;

use crate::body;
use crate::client::{Http1, Http2, request, request2};
use crate::wait;

/// Failures that are kept in words; the rest is only counted.
const KEPT: usize = 20;

/// Load under way; [`stop`](Load::stop) ends it.
pub struct Load {
    shared: Arc<Shared>,
    callers: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    sent: AtomicUsize,
    failed: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

/// What came of it.
#[derive(Debug)]
pub struct Tally {
    /// Requests made.
    pub sent: usize,
    /// Of those, anything but a whole 2xx.
    pub failed: usize,
    /// The first failures, in words.
    pub failures: Vec<String>,
}

impl Load {
    /// `callers` callers of `authority`, each one request at a time with `pause` between:
    /// half of them HTTP/1.1 with GET, half HTTP/2 with POST.
    #[must_use]
    pub fn start(
        address: SocketAddr,
        authority: &'static str,
        callers: usize,
        pause: Duration,
    ) -> Self {
        let shared = Arc::new(Shared::default());
        let mut set = JoinSet::new();
        for number in 0..callers {
            set.spawn(caller(
                Arc::clone(&shared),
                address,
                authority,
                pause,
                number % 2 == 1,
            ));
        }
        Self {
            shared,
            callers: set,
        }
    }

    /// Requests made so far.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.shared.sent.load(Ordering::Relaxed)
    }

    /// Waits until `more` requests have been made from now on.
    pub async fn passes(&self, more: usize) {
        let goal = self.sent() + more;
        wait::until("more load", 12 * wait::PATIENCE, async || {
            self.sent() >= goal
        })
        .await;
    }

    /// Ends it, and says what came of it.
    pub async fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        wait::within("the last answers", 2 * wait::PATIENCE, async {
            while self.callers.join_next().await.is_some() {}
        })
        .await;
        Tally {
            sent: self.sent(),
            failed: self.shared.failed.load(Ordering::Relaxed),
            failures: self
                .shared
                .failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
        }
    }
}

async fn caller(
    shared: Arc<Shared>,
    address: SocketAddr,
    authority: &'static str,
    pause: Duration,
    http2: bool,
) {
    let mut one = None;
    let mut two = None;
    while !shared.stop.load(Ordering::Relaxed) {
        let answer = if http2 {
            if two.is_none() {
                two = Some(Http2::connect(address).await);
            }
            let connection = two.as_ref().expect("it was just made");
            connection
                .call(request2(
                    Method::POST,
                    authority,
                    "/load",
                    body::full("load"),
                ))
                .await
        } else {
            if one.is_none() {
                one = Some(Http1::connect(address).await);
            }
            let connection = one.as_mut().expect("it was just made");
            connection
                .call(request(Method::GET, authority, "/load", body::empty()))
                .await
        };
        shared.sent.fetch_add(1, Ordering::Relaxed);
        let failure = match answer {
            Ok(answer) if answer.status.is_success() => {
                // A connection that is told to close is closed politely, and the next one is new.
                if answer.header("connection").eq_ignore_ascii_case("close") {
                    one = None;
                }
                None
            }
            Ok(answer) => Some(format!("{} {}", answer.status, answer.flag())),
            Err(error) => {
                (one, two) = (None, None);
                Some(format!("{error:?}"))
            }
        };
        if let Some(failure) = failure {
            shared.failed.fetch_add(1, Ordering::Relaxed);
            let mut failures = shared
                .failures
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if failures.len() < KEPT {
                failures.push(failure);
            }
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}
