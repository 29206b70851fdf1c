//! A slow answer is not waited for where another endpoint can be asked: the
//! slowest hundredth gets faster, the load hardly grows, and nothing is done twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Method, Response};
use selvage_tests::app::{App, ok, status};
use selvage_tests::body::{self, Body};
use selvage_tests::client::{self, Http2, request2};
use selvage_tests::mesh::{plaintext_caller, service, traffic_policy};
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait;
use tokio::task::JoinSet;

const HEDGES: &str = "selvage_hedges_total";

/// `count` applications that share one count of what they were asked, and answer by it.
async fn applications<F, R>(count: usize, answer: F) -> (Vec<App>, Arc<AtomicUsize>)
where
    F: Fn(usize) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let asked = Arc::new(AtomicUsize::new(0));
    let mut applications = Vec::new();
    for _ in 0..count {
        let (asked, answer) = (Arc::clone(&asked), answer.clone());
        let handler = move |_| answer(asked.fetch_add(1, Ordering::SeqCst));
        applications.push(App::start(handler).await);
    }
    (applications, asked)
}

fn addresses(applications: &[App]) -> Vec<std::net::SocketAddr> {
    applications.iter().map(|app| app.address).collect()
}

/// One in fifty, by no pattern.
fn is_unlucky(asked: usize) -> bool {
    let mixed = (asked as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 31)).is_multiple_of(50)
}

/// Open loop: `count` requests, one every `every`, never retried. All must be 200.
async fn latencies(sidecar: &Sidecar, count: usize, every: Duration) -> Vec<Duration> {
    let caller = Arc::new(Http2::connect(sidecar.outbound()).await);
    let mut ticks = tokio::time::interval(every);
    let mut answers = JoinSet::new();
    for _ in 0..count {
        ticks.tick().await;
        let caller = Arc::clone(&caller);
        answers.spawn(async move {
            let begun = Instant::now();
            let answer = caller
                .call(request2(Method::GET, ORDERS, "/", body::empty()))
                .await;
            assert_eq!(answer.expect("an answer").status, 200);
            begun.elapsed()
        });
    }
    let mut latencies = answers.join_all().await;
    latencies.sort_unstable();
    latencies
}

#[tokio::test]
async fn one_slow_answer_in_fifty_is_hedged_at_the_p95() {
    const REQUESTS: usize = 1000;
    const EVERY: Duration = Duration::from_millis(4);
    let (applications, asked) = applications(3, |asked| async move {
        let slow = if is_unlucky(asked) { 500 } else { 3 };
        tokio::time::sleep(Duration::from_millis(slow)).await;
        ok("answered")
    })
    .await;
    let p99 = |latencies: &[Duration]| latencies[REQUESTS * 99 / 100 - 1];
    let (_pki, plain) = plaintext_caller("http", &addresses(&applications), "").await;
    let without = p99(&latencies(&plain, REQUESTS, EVERY).await);
    assert_eq!(asked.swap(0, Ordering::SeqCst), REQUESTS);

    let policy = traffic_policy("  hedge: { delay: p95 }\n");
    let (_pki, hedging) = plaintext_caller("http", &addresses(&applications), &policy).await;
    let with = p99(&latencies(&hedging, REQUESTS, EVERY).await);
    let extra = asked.load(Ordering::SeqCst) - REQUESTS;
    println!(
        "p99 {without:?} without hedging, {with:?} with it, {extra} requests more of {REQUESTS}"
    );
    assert!(
        with * 3 <= without,
        "{with:?} is not a third of {without:?}"
    );
    assert!(extra <= REQUESTS / 20, "{extra} more than {REQUESTS}");
    let metrics = hedging.metrics().await;
    let count = |outcome| metrics.count(HEDGES, &[("outcome", outcome)]) as usize;
    // Of those that lost, some are taken back before an application heard of them.
    let sent = count("won")..=count("won") + count("lost");
    assert!(sent.contains(&extra), "{}", metrics.lines(HEDGES));
    assert!(count("won") > 0);
    assert_eq!(
        metrics.count("selvage_http_retries_total", &[]),
        0,
        "a hedge is no retry"
    );
    assert_eq!(metrics.count("selvage_breaker_transitions_total", &[]), 0);
}

/// Two sidecars before two applications that count by one, and a caller with this policy.
async fn two_in_the_mesh(applications: &[App], policy: &str) -> (Vec<Sidecar>, Sidecar) {
    let pki = Pki::new();
    let mut servers = Vec::new();
    for app in applications {
        let server = Sidecar::builder("orders").application(80, app.address, "http");
        servers.push(server.start(&pki).await);
    }
    let identity = Some(spiffe_id("shop", "orders"));
    let endpoints: Vec<_> = servers
        .iter()
        .map(|server| (server.inbound(), identity.clone()))
        .collect();
    let client = Sidecar::builder("client")
        .listener(ORDERS, 80)
        .resources(&service("orders", "http", &endpoints))
        .resources(&traffic_policy(policy));
    let client = client.start(&pki).await;
    (servers, client)
}

/// Counts what is dropped before it was finished.
struct Unfinished(Arc<AtomicUsize>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn the_loser_is_taken_back_at_the_application_and_is_no_failure() {
    let given_up = Arc::new(AtomicUsize::new(0));
    let unfinished = Arc::clone(&given_up);
    // The first try hangs, its hedge answers.
    let (applications, asked) = applications(2, move |asked| {
        let unfinished = Unfinished(Arc::clone(&unfinished));
        async move {
            if asked % 2 == 0 {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            std::mem::forget(unfinished);
            ok("answered")
        }
    })
    .await;
    let policy = "  hedge: { delay: 50ms, maxPercent: 100 }\n  retry: { attempts: 0, budget: { percent: 100 } }\n";
    let (_servers, client) = two_in_the_mesh(&applications, policy).await;
    for _ in 0..10 {
        assert_eq!(
            client::get(client.outbound(), ORDERS, "/").await.status,
            200
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 20);
    wait::until("ten tries are taken back", wait::PATIENCE, async || {
        given_up.load(Ordering::SeqCst) == 10
    })
    .await;
    let metrics = client.metrics().await;
    assert_eq!(
        metrics.count(HEDGES, &[("outcome", "won")]),
        10,
        "{}",
        metrics.lines(HEDGES)
    );
    assert_eq!(
        metrics.count("selvage_endpoints", &[("state", "closed")]),
        2
    );
    let clusters = client::get(client.admin(), "localhost", "/clusters")
        .await
        .text();
    assert_eq!(clusters.matches("\"pending\":0").count(), 2, "{clusters}");
    // What may not be done twice is not: a POST waits for its one try.
    let post = tokio::time::timeout(
        Duration::from_millis(300),
        client::post(client.outbound(), ORDERS, "/", "once"),
    );
    assert!(post.await.is_err(), "its try hangs");
    assert_eq!(asked.load(Ordering::SeqCst), 21);
}

#[tokio::test]
async fn a_failure_does_not_beat_an_answer_that_is_still_to_come() {
    let (applications, asked) = applications(2, |asked| async move {
        let (wait, code) = if asked % 2 == 0 {
            (150, 503)
        } else {
            (300, 200)
        };
        tokio::time::sleep(Duration::from_millis(wait)).await;
        status(code)
    })
    .await;
    let policy = traffic_policy("  hedge: { delay: 50ms, maxPercent: 100 }\n");
    let (_pki, client) = plaintext_caller("http", &addresses(&applications), &policy).await;
    for _ in 0..4 {
        assert_eq!(
            client::get(client.outbound(), ORDERS, "/").await.status,
            200
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 8);
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_probed_and_not_hedged_around() {
    // It fails once, which takes it out, and hangs from then on.
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let hung = App::start(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if !first {
                tokio::time::sleep(Duration::from_secs(60)).await;
            }
            status(503)
        }
    })
    .await;
    let well = App::start(|_| async { ok("answered") }).await;
    let policy = traffic_policy(
        "  timeouts: { backendRequest: 500ms }\n  retry: { attempts: 1, on: [timeout, 503], budget: { percent: 100 } }\n  circuitBreaker: { consecutiveFailures: 1, backoff: { base: 100ms, max: 10s } }\n  hedge: { delay: 50ms, maxPercent: 100 }\n  loadBalancer: { algorithm: round-robin }\n",
    );
    let (_pki, client) = plaintext_caller("http", &[hung.address, well.address], &policy).await;
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    for _ in 0..150 {
        ticks.tick().await;
        let answer = client::get(client.outbound(), ORDERS, "/").await;
        assert_eq!(answer.status, 200, "{}", answer.flag());
    }
    // Each probe takes its whole time, and takes it out for twice as long as the one before.
    let probes = asked.load(Ordering::SeqCst) - 1;
    println!("{probes} probes in 150 requests");
    assert!((1..=6).contains(&probes), "{probes} probes");
    let metrics = client.metrics().await;
    assert_eq!(
        metrics.count(HEDGES, &[("outcome", "won")]),
        0,
        "{}",
        metrics.lines(HEDGES)
    );
}

#[tokio::test]
async fn no_hedge_without_another_endpoint_or_a_budget() {
    let slow = |_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        ok("answered")
    };
    let none = "  retry: { budget: { percent: 0, minPerSecond: 0 } }\n";
    for (count, budget, outcome) in [(1, "", "no-endpoint"), (2, none, "budget")] {
        let (applications, asked) = applications(count, slow).await;
        let policy = traffic_policy(&format!(
            "  hedge: {{ delay: 20ms, maxPercent: 100 }}\n{budget}"
        ));
        let (_pki, client) = plaintext_caller("http", &addresses(&applications), &policy).await;
        for _ in 0..3 {
            assert_eq!(
                client::get(client.outbound(), ORDERS, "/").await.status,
                200
            );
        }
        assert_eq!(asked.load(Ordering::SeqCst), 3);
        let metrics = client.metrics().await;
        assert_eq!(
            metrics.count(HEDGES, &[("outcome", outcome)]),
            3,
            "{}",
            metrics.lines(HEDGES)
        );
    }
}
