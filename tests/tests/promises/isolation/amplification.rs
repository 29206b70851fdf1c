//! A service that fails everything is not asked again at every hop above it:
//! what the last hop retried in vain, nobody multiplies.

use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use selvage_tests::app::{App, ok, status};
use selvage_tests::body::{self, Body};
use selvage_tests::client::Http2;
use selvage_tests::grpc;
use selvage_tests::mesh::{Mesh as Pair, plaintext_caller, traffic_policy};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use tokio::task::JoinSet;

use super::chain::{Mesh, Next, get, own_fields, traceparent};

/// Two retries everywhere. Breakers, which would end a storm too, are off.
const RETRIES: &str = "{ retry: { attempts: 2, on: [503, UNAVAILABLE], backoff: { base: 5ms, max: 20ms } }, circuitBreaker: { consecutiveFailures: 0, successRate: { threshold: 0, window: 10s, minimumRequests: 20 } } }";

/// Requests offered a second, and how many.
const RATE: u32 = 120;
const OFFERED: usize = 360;

/// Calls the next service, and answers as it does.
async fn forward(received: Request<Incoming>, next: Next) -> Response<Body> {
    let answer = next.get(received.headers()).await;
    // What sidecars say to each other, no application sees: neither in requests nor in answers.
    let leaks = own_fields(received.headers()).len() + own_fields(&answer.headers).len();
    status(if leaks > 0 {
        418
    } else {
        answer.status.as_u16()
    })
}

async fn retries(sidecar: &Sidecar, outcome: &str) -> u64 {
    let labels = [("outcome", outcome)];
    let metrics = sidecar.metrics().await;
    metrics.count("selvage_http_retries_total", &labels)
}

#[tokio::test]
async fn what_was_retried_in_vain_is_not_multiplied_on_its_way_up() {
    let mesh = Mesh::new("http", RETRIES);
    let three = mesh
        .link("three", None, "strict", |_, _| async { status(503) })
        .await;
    let two = mesh.link("two", Some(&three), "strict", forward).await;
    let one = mesh.link("one", Some(&two), "strict", forward).await;
    let client = mesh.client(&one).await;

    let begun = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / RATE);
    let mut calls = JoinSet::new();
    for number in 0..OFFERED {
        ticks.tick().await;
        let outbound = client.outbound();
        calls.spawn(async move {
            let trace = traceparent(number);
            get(outbound, "one.shop", &[("traceparent", &trace)]).await
        });
    }
    while let Some(answer) = calls.join_next().await {
        let answer = answer.expect("each is answered");
        assert_eq!(
            (answer.status.as_u16(), own_fields(&answer.headers)),
            (503, vec![])
        );
    }
    let load = three.app.count();
    println!(
        "{OFFERED} requests in {:?} came to the last service {load} times: {:.2}x",
        begun.elapsed(),
        load as f64 / OFFERED as f64
    );
    assert!(load <= OFFERED * 13 / 10, "{load} of {OFFERED}");
    assert!(load > OFFERED, "the last hop retries within its budget");
    // Who is nearest retries; the others pass on what it says.
    assert_eq!((one.app.count(), two.app.count()), (OFFERED, OFFERED));
    let sent = retries(&two.sidecar, "failure").await as usize;
    assert_eq!(sent, load - OFFERED);
    for above in [&client, &one.sidecar] {
        assert_eq!(
            retries(above, "failure").await + retries(above, "success").await,
            0
        );
        assert_eq!(retries(above, "exhausted-below").await as usize, OFFERED);
    }
}

#[tokio::test]
async fn calls_of_grpc_carry_the_mark_too() {
    fn unavailable() -> Response<Body> {
        let mut response = ok("");
        *response.headers_mut() = grpc::trailers(14, "no");
        let kind = HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", kind);
        response
    }
    let mesh = Mesh::new("grpc", RETRIES);
    let two = mesh
        .link("two", None, "strict", |_, _| async { unavailable() })
        .await;
    let one = mesh
        .link("one", Some(&two), "strict", |received, next| async move {
            let outcome = next.unary(received.headers()).await;
            if outcome.status == Some(14) {
                unavailable()
            } else {
                status(418)
            }
        })
        .await;
    let client = mesh.client(&one).await;
    let connection = Http2::connect(client.outbound()).await;
    for (trace, upper) in [(Some(traceparent(0)), 1), (None, 3)] {
        let before = [one.app.count(), two.app.count()];
        let mut sent = grpc::request("one.shop", "Unary", body::full(grpc::frame(b"x")));
        if let Some(trace) = &trace {
            let trace = trace.parse().unwrap();
            sent.headers_mut().insert("traceparent", trace);
        }
        let outcome = grpc::call(&connection, sent).await.unwrap();
        assert_eq!(
            (outcome.status, own_fields(&outcome.headers)),
            (Some(14), vec![])
        );
        let counts = [one.app.count() - before[0], two.app.count() - before[1]];
        assert_eq!(counts, [upper, 3 * upper], "{trace:?}");
    }
}

#[tokio::test]
async fn the_mark_is_believed_from_sidecars_and_told_to_sidecars_alone() {
    let forged = |_| async {
        let mut response = status(503);
        let value = HeaderValue::from_static("exhausted");
        response.headers_mut().insert("x-selvage-retried", value);
        response
    };
    let policy =
        traffic_policy("  retry: { attempts: 2, on: [503], backoff: { base: 1ms, max: 2ms } }");
    // Neither an application beside a sidecar is believed, nor one outside the mesh.
    let inside = App::start(forged).await;
    let mut pair = Pair::builder(inside.address, "http")
        .set("telemetry.accessLog", "json")
        .client_resources(&policy)
        .start()
        .await;
    let outside = App::start(forged).await;
    let (_pki, caller) = plaintext_caller("http", &[outside.address], &policy).await;
    let trace = traceparent(0);
    for (outbound, app) in [(pair.outbound(), &inside), (caller.outbound(), &outside)] {
        let fields = [
            ("traceparent", &*trace),
            ("x-selvage-retried", "exhausted"),
            ("x-selvage-attempt", "7"),
        ];
        let answer = get(outbound, ORDERS, &fields).await;
        assert_eq!((answer.status.as_u16(), app.count()), (503, 3));
        assert!(own_fields(&answer.headers).is_empty());
        for seen in app.seen() {
            assert!(own_fields(&seen.headers).is_empty(), "{seen:?}");
        }
    }
    // The other sidecar is told which try it is, by this one and not by its caller.
    let record = pair.server.accessed(&["inbound"]).await;
    assert!(
        record["attempt"].is_null(),
        "the first is none to speak of: {record}"
    );
    for attempt in 2..=3 {
        let word = format!("\"attempt\":{attempt}");
        pair.server.accessed(&["inbound", &word]).await;
    }
    let record = pair.client.accessed(&["outbound"]).await;
    assert_eq!(
        (&record["tries"], &record["retry_refused"]),
        (&3.into(), &"limit".into())
    );

    // A caller without an identity hears nothing of it.
    let mesh = Mesh::new("http", RETRIES);
    let two = mesh
        .link("two", None, "strict", |_, _| async { status(503) })
        .await;
    let one = mesh.link("one", Some(&two), "permissive", forward).await;
    let answer = get(
        one.sidecar.inbound(),
        "one.shop",
        &[("traceparent", &trace)],
    )
    .await;
    assert_eq!((answer.status.as_u16(), two.app.count()), (503, 3));
    assert_eq!(answer.headers.get("x-selvage-retried"), None);
    let seen: Vec<HeaderMap> = one
        .app
        .seen()
        .into_iter()
        .map(|seen| seen.headers)
        .collect();
    assert_eq!(seen.len(), 1);
}
