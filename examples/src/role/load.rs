//! The load: an open loop of GET, POST and gRPC against the gateway, which never retries.
//!
//! A request is due at its own time whether earlier ones have been answered or not, so that a slow
//! mesh shows as latency. Orders on stdin: `phase MODE` (what requests that are under way from now on
//! are counted under), `finish`. It refuses to know why a request failed.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request};
use http_body_util::Full;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::service::{check_answer, check_request};
use crate::grpc::CheckRequest;
use crate::http::Http;
use crate::schedule::Mode;

/// The load's command line.
#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// The sidecar's listener for the gateway's HTTP
    #[arg(long)]
    http: SocketAddr,
    /// The sidecar's listener for the gateway's gRPC
    #[arg(long)]
    grpc: SocketAddr,
    /// Requests a second
    #[arg(long)]
    rate: u32,
    /// Of the random choice of requests
    #[arg(long)]
    seed: u64,
}

/// The kinds of request. Their shares make 35 % of the load POST or gRPC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Idempotent, JSON.
    Get,
    /// Not idempotent, JSON.
    Post,
    /// A unary call.
    Grpc,
}

/// How many were sent and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    /// Answered or given up.
    pub(crate) requests: u64,
    /// Any answer but 2xx (gRPC: status 0), or a body cut short.
    pub(crate) failures: u64,
}

impl Counts {
    fn add(&mut self, failed: bool) {
        self.requests += 1;
        self.failures += u64::from(failed);
    }
}

/// What the load saw: of one second, or of its whole life.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seen {
    /// All together.
    #[serde(flatten)]
    pub(crate) all: Counts,
    /// Milliseconds that half of the answers took at most.
    pub(crate) p50_ms: f64,
    /// Milliseconds that 99 of 100 answers took at most.
    pub(crate) p99_ms: f64,
    /// Apart by kind.
    pub(crate) by_kind: BTreeMap<Kind, Counts>,
    /// Apart by what the broken replica did while the request was under way.
    pub(crate) by_phase: BTreeMap<Mode, Counts>,
}

/// The longest an answer may take; later it is a failure.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Requests under way at a time; what is due beyond them is a failure unsent.
const IN_FLIGHT: usize = 1024;
/// Failures that are told one by one; all are counted.
const TOLD_FAILURES: usize = 200;
/// A timer may be this late without the lateness being counted as latency.
const TIMER_SLOP: Duration = Duration::from_millis(2);
/// The histograms' unit is 1 µs, their end a minute.
const HIGHEST_MICROS: u64 = 60_000_000;

struct Record {
    all: Counts,
    by_kind: BTreeMap<Kind, Counts>,
    by_phase: BTreeMap<Mode, Counts>,
    latency: Histogram<u64>,
}

impl Record {
    fn new() -> Self {
        let latency =
            Histogram::new_with_bounds(1, HIGHEST_MICROS, 3).expect("constant bounds are valid");
        Self {
            all: Counts::default(),
            by_kind: BTreeMap::new(),
            by_phase: BTreeMap::new(),
            latency,
        }
    }

    fn add(&mut self, kind: Kind, phase: Mode, failed: bool, took: Duration) {
        self.all.add(failed);
        self.by_kind.entry(kind).or_default().add(failed);
        self.by_phase.entry(phase).or_default().add(failed);
        self.latency
            .saturating_record(u64::try_from(took.as_micros()).unwrap_or(HIGHEST_MICROS));
    }

    fn seen(&self) -> Seen {
        let milliseconds = |q| self.latency.value_at_quantile(q) as f64 / 1000.0;
        Seen {
            all: self.all,
            p50_ms: milliseconds(0.5),
            p99_ms: milliseconds(0.99),
            by_kind: self.by_kind.clone(),
            by_phase: self.by_phase.clone(),
        }
    }
}

struct Load {
    http: Http,
    grpc: Http,
    http_address: SocketAddr,
    grpc_address: SocketAddr,
    /// Of this second and of the whole run.
    records: Mutex<(Record, Record)>,
    /// What the broken replica does now.
    phase: Mutex<Mode>,
    told: Semaphore,
}

/// Sends until `finish` or the end of stdin.
pub(crate) async fn run(args: LoadArgs) -> anyhow::Result<()> {
    anyhow::ensure!(args.rate > 0, "--rate must be at least 1");
    let mut orders = super::orders();
    let load = Arc::new(Load {
        http: Http::http1(TIMEOUT),
        grpc: Http::http2(TIMEOUT),
        http_address: args.http,
        grpc_address: args.grpc,
        records: Mutex::new((Record::new(), Record::new())),
        phase: Mutex::new(Mode::Healthy),
        told: Semaphore::new(TOLD_FAILURES),
    });
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut random = fastrand::Rng::with_seed(args.seed);
    let start = Instant::now();
    let mut seconds =
        tokio::time::interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
    let mut sent = 0u64;
    loop {
        let due =
            start + Duration::from_nanos(sent.saturating_mul(1_000_000_000) / u64::from(args.rate));
        tokio::select! {
            biased;
            order = orders.recv() => match order.as_deref().map(str::split_whitespace).map(Vec::from_iter).as_deref() {
                Some(["phase", name]) => {
                    let phase = Mode::ALL.into_iter().find(|mode| mode.as_str() == *name);
                    let phase = phase.ok_or_else(|| anyhow::anyhow!("no phase is called {name}"))?;
                    load.set_phase(phase);
                    super::tell(&json!({ "event": "phase", "phase": phase }));
                }
                Some(["finish"]) | None => break,
                Some(_) => anyhow::bail!("not an order"),
            },
            _ = seconds.tick() => load.tell_second(),
            () = tokio::time::sleep_until(due) => {
                sent += 1;
                let one = One::choose(&mut random, load.phase(), due);
                match in_flight.clone().try_acquire_owned() {
                    Ok(permit) => {
                        let load = load.clone();
                        tokio::spawn(async move {
                            load.send(one).await;
                            drop(permit);
                        });
                    }
                    Err(_) => load.record(&one, Err("not sent: too many under way".to_owned())),
                }
            }
        }
    }
    // Each ends within its timeout; to hold all permits is to know that all have ended.
    let _all = in_flight.acquire_many(IN_FLIGHT as u32).await;
    let (_, whole) = &*load.records.lock().expect("no holder of the lock panics");
    super::tell(&json!({ "event": "loadFinished", "seen": whole.seen() }));
    Ok(())
}

/// One request that is due.
struct One {
    kind: Kind,
    path: &'static str,
    id: u32,
    trace: u128,
    span: u64,
    phase: Mode,
    from: Instant,
}

impl One {
    fn choose(random: &mut fastrand::Rng, phase: Mode, due: Instant) -> Self {
        let (kind, path) = match random.u32(..100) {
            ..35 => (Kind::Get, "/orders/"),
            35..65 => (Kind::Get, "/stock/"),
            65..75 => (Kind::Post, "/orders"),
            75..83 => (Kind::Post, "/quotes"),
            _ => (Kind::Grpc, ""),
        };
        let now = Instant::now();
        let from = if now.duration_since(due) > TIMER_SLOP {
            due
        } else {
            now
        };
        Self {
            kind,
            path,
            id: random.u32(..1000),
            trace: random.u128(1..),
            span: random.u64(1..),
            phase,
            from,
        }
    }
}

impl Load {
    async fn send(&self, one: One) {
        let result = match one.kind {
            Kind::Grpc => self.grpc(&one).await,
            Kind::Get | Kind::Post => self.json(&one).await,
        };
        self.record(&one, result);
    }

    async fn grpc(&self, one: &One) -> Result<(), String> {
        let message = CheckRequest {
            sku: format!("sku-{}", one.id),
        };
        let mut request = check_request(self.grpc_address, &message);
        trace(one, &mut request);
        let answer = self
            .grpc
            .send(request)
            .await
            .map_err(|error| error.to_string())?;
        check_answer(&answer).map(drop)
    }

    async fn json(&self, one: &One) -> Result<(), String> {
        let uri = format!("http://{}{}", self.http_address, one.path);
        let mut request = match one.kind {
            Kind::Post => Request::post(uri).body(Full::from(
                json!({ "sku": one.id, "pieces": 1 }).to_string(),
            )),
            _ => Request::get(format!("{uri}{}", one.id)).body(Full::default()),
        }
        .expect("a socket address and a constant path make a URL");
        request
            .headers_mut()
            .insert(HOST, HeaderValue::from_static("gateway"));
        request
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        trace(one, &mut request);
        let answer = self
            .http
            .send(request)
            .await
            .map_err(|error| error.to_string())?;
        if answer.status.is_success() {
            return Ok(());
        }
        let flag = answer
            .headers
            .get("x-selvage-flag")
            .and_then(|flag| flag.to_str().ok())
            .unwrap_or("-");
        Err(format!(
            "{} flag {flag}: {}",
            answer.status.as_u16(),
            String::from_utf8_lossy(&answer.body)
        ))
    }

    fn phase(&self) -> Mode {
        *self.phase.lock().expect("no holder of the lock panics")
    }

    fn set_phase(&self, phase: Mode) {
        *self.phase.lock().expect("no holder of the lock panics") = phase;
    }

    fn record(&self, one: &One, result: Result<(), String>) {
        let took = one.from.elapsed();
        // What was sent to a healthy replica may still be under way when it breaks.
        let phase = if one.phase == Mode::Healthy {
            self.phase()
        } else {
            one.phase
        };
        {
            let mut records = self.records.lock().expect("no holder of the lock panics");
            records.0.add(one.kind, phase, result.is_err(), took);
            records.1.add(one.kind, phase, result.is_err(), took);
        }
        let Err(why) = result else { return };
        if let Ok(permit) = self.told.try_acquire() {
            permit.forget();
            let took = took.as_millis() as u64;
            super::tell(
                &json!({ "event": "failure", "kind": one.kind, "path": one.path, "phase": phase, "afterMs": took, "why": why }),
            );
        }
    }

    fn tell_second(&self) {
        let second = {
            let mut records = self.records.lock().expect("no holder of the lock panics");
            let seen = records.0.seen();
            records.0 = Record::new();
            seen
        };
        super::tell(&json!({ "event": "second", "seen": second }));
    }
}

fn trace(one: &One, request: &mut Request<Full<Bytes>>) {
    let value = format!("00-{:032x}-{:016x}-01", one.trace, one.span);
    let value = HeaderValue::from_str(&value).expect("hexadecimal digits are a header value");
    request.headers_mut().insert("traceparent", value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn at_least_three_of_ten_requests_are_post_or_grpc() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut counts = BTreeMap::new();
        for _ in 0..10_000 {
            *counts
                .entry(One::choose(&mut random, Mode::Healthy, Instant::now()).kind)
                .or_insert(0) += 1;
        }
        assert!(
            counts[&Kind::Post] + counts[&Kind::Grpc] >= 3_000,
            "{counts:?}"
        );
        assert!(
            counts[&Kind::Post] >= 1_000 && counts[&Kind::Grpc] >= 1_000,
            "{counts:?}"
        );
    }

    #[test]
    fn failures_are_counted_by_kind_and_by_phase() {
        let mut record = Record::new();
        record.add(Kind::Get, Mode::Healthy, false, Duration::from_millis(2));
        record.add(Kind::Post, Mode::Hang, true, Duration::from_millis(500));
        let seen = record.seen();
        assert_eq!(
            seen.all,
            Counts {
                requests: 2,
                failures: 1
            }
        );
        assert_eq!(seen.by_kind[&Kind::Post].failures, 1);
        assert_eq!(seen.by_phase[&Mode::Healthy].failures, 0);
        assert!(
            (seen.p50_ms - 2.0).abs() < 0.1 && (seen.p99_ms - 500.0).abs() < 1.0,
            "{seen:?}"
        );
        let back: Seen = serde_json::from_value(serde_json::to_value(&seen).expect("serializes"))
            .expect("parses");
        assert_eq!(back.all, seen.all);
    }
}
