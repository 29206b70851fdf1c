//! Routes change under load: no request is lost, and none meets two versions.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::Method;
use selvage_tests::app::{App, ok};
use selvage_tests::body;
use selvage_tests::client::{self, Answer, Http1, request};
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{app, caller, route, services, to};

/// Routes that follow each other.
const VERSIONS: usize = 20;
/// Each is there at least this long: `VERSIONS` of them in 5 s.
const LASTS: Duration = Duration::from_millis(250);
const CALLERS: usize = 6;
/// Between an answer and a caller's next request.
const PAUSE: Duration = Duration::from_millis(8);
/// Requests per second that there must be at least.
const LEAST: f64 = 200.0;
/// Of what is promised on wall clock: others work on this machine too.
const SLACK: u32 = 5;

/// An application that says its name, and what of a route's version reached it.
async fn witness(name: &'static str) -> App {
    App::start(move |request| {
        let version = request.headers().get("x-version");
        let version = version.and_then(|value| value.to_str().ok()).unwrap_or("-");
        let said = format!("{name} {version} {}", request.uri().path());
        async move { ok(said) }
    })
    .await
}

/// The route of a version: everything about it says which.
fn version(number: usize) -> String {
    let backend = ["one", "two"][number % 2];
    let set = json!({ "set": [{ "name": "x-version", "value": number.to_string() }] });
    let path = json!({ "type": "ReplaceFullPath", "replaceFullPath": format!("/v{number}") });
    route(&json!([{
        "backendRefs": [to(backend, 1)],
        "filters": [
            { "type": "RequestHeaderModifier", "requestHeaderModifier": set },
            { "type": "URLRewrite", "urlRewrite": { "path": path } },
            { "type": "ResponseHeaderModifier", "responseHeaderModifier": set },
        ],
    }]))
}

/// The version that all of an answer speaks of.
fn consistent(answer: &Answer) -> Result<usize, String> {
    let told = answer.header("x-version");
    let said = answer.text();
    let wrong = || format!("{} {} `{told}`: `{said}`", answer.status, answer.flag());
    let number: usize = told.parse().map_err(|_| wrong())?;
    let backend = ["one", "two"][number % 2];
    if answer.status == 200 && said == format!("{backend} {number} /v{number}") {
        Ok(number)
    } else {
        Err(wrong())
    }
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    sent: AtomicUsize,
    newest: AtomicUsize,
}

/// Callers that look at every answer; each ends with what was wrong, if anything.
fn load(address: SocketAddr) -> (Arc<Tally>, JoinSet<Vec<String>>) {
    let tally = Arc::new(Tally::default());
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let tally = Arc::clone(&tally);
        callers.spawn(async move {
            let mut wrong = Vec::new();
            let mut connection = Http1::connect(address).await;
            while !tally.stop.load(Ordering::Relaxed) {
                let request = request(Method::GET, ORDERS, "/asked", body::empty());
                match connection.call(request).await {
                    Ok(answer) => match consistent(&answer) {
                        Ok(number) => {
                            tally.newest.fetch_max(number, Ordering::Relaxed);
                        }
                        Err(why) => wrong.push(why),
                    },
                    Err(error) => {
                        wrong.push(error.to_string());
                        connection = Http1::connect(address).await;
                    }
                }
                tally.sent.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(PAUSE).await;
            }
            wrong
        });
    }
    (tally, callers)
}

/// Brings one version after the other, and says what came of the load meanwhile.
async fn replaced(address: SocketAddr, how: &str, mut bring: impl AsyncFnMut(usize)) {
    let (tally, mut callers) = load(address);
    let begun = Instant::now();
    for number in 1..=VERSIONS {
        let changed = Instant::now();
        bring(number).await;
        wait::until(&format!("version {number}"), PATIENCE, async || {
            tally.newest.load(Ordering::Relaxed) == number
        })
        .await;
        tokio::time::sleep(LASTS.saturating_sub(changed.elapsed())).await;
    }
    let took = begun.elapsed();
    tally.stop.store(true, Ordering::Relaxed);
    let mut wrong = Vec::new();
    while let Some(ended) = wait::soon("a caller's last answer", callers.join_next()).await {
        wrong.extend(ended.expect("a caller ends by itself"));
    }
    let sent = tally.sent.load(Ordering::Relaxed);
    let rate = sent as f64 / took.as_secs_f64();
    println!(
        "{how}: {VERSIONS} versions in {took:?}, {sent} requests ({rate:.0}/s), {} wrong",
        wrong.len()
    );
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(rate >= LEAST / f64::from(SLACK), "too little load: {rate}");
    assert!(sent >= 1000, "{sent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_replaced_under_load_lose_no_request_and_mix_no_versions() {
    let (one, two) = (witness("one").await, witness("two").await);
    let orders = app("orders").await;
    let known = services(
        "http",
        &[
            ("orders", &[orders.address]),
            ("one", &[one.address]),
            ("two", &[two.address]),
        ],
    );
    let (_pki, sidecar) = caller(&[known.clone(), version(0)]).await;
    replaced(sidecar.outbound(), "files", async |number| {
        sidecar.write_resources(&format!("{known}\n---\n{}", version(number)));
    })
    .await;
    assert_eq!(orders.count(), 0);
}

/// A caller joined to a control plane that knows these documents.
async fn joined(documents: &[String]) -> (ControlPlane, Sidecar) {
    let control = ControlPlane::with(json!({})).await;
    control.apply(&documents.join("\n---\n")).await;
    let caller = control.sidecar("client-1", "client").await;
    let caller = caller.start(&Pki::new()).await;
    (control, caller)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn applied_under_load_they_lose_no_request_and_mix_no_versions() {
    let (one, two) = (witness("one").await, witness("two").await);
    let orders = app("orders").await;
    let known = services(
        "http",
        &[
            ("orders", &[orders.address]),
            ("one", &[one.address]),
            ("two", &[two.address]),
        ],
    );
    let (control, caller) = joined(&[known, version(0)]).await;
    let first = client::get(caller.outbound(), ORDERS, "/asked").await;
    assert_eq!(
        consistent(&first),
        Ok(0),
        "on first use, its backends with it"
    );
    replaced(caller.outbound(), "applied", async |number| {
        control.apply(&version(number)).await;
    })
    .await;
    assert_eq!(orders.count(), 0);
}

#[tokio::test]
async fn weights_shift_within_a_second_of_their_application() {
    let (one, two) = (app("one").await, app("two").await);
    let orders = app("orders").await;
    let known = services(
        "http",
        &[
            ("orders", &[orders.address]),
            ("one", &[one.address]),
            ("two", &[two.address]),
        ],
    );
    let split = |first: u32, second: u32| -> Value {
        json!([{ "backendRefs": [to("one", first), to("two", second)] }])
    };
    let (control, caller) = joined(&[known, route(&split(1, 0))]).await;
    let ask = async || client::get(caller.outbound(), ORDERS, "/").await.text();
    for _ in 0..10 {
        assert_eq!(ask().await, "one");
    }
    control.apply(&route(&split(0, 1))).await;
    let took = wait::until("the other backend", PATIENCE, async || ask().await == "two").await;
    println!("applied to shifted: {took:?}");
    assert!(took < Duration::from_secs(1) * SLACK, "{took:?}");
    for _ in 0..10 {
        assert_eq!(ask().await, "two", "weight 0 gets none");
    }
}
