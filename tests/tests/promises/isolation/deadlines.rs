//! Nobody starts work that nobody waits for: a deadline crosses hops, and the
//! applications between them, and only where somebody authenticated set it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use selvage_tests::app::{App, Seen, ok, status};
use selvage_tests::body::{self, Body};
use selvage_tests::client::Http2;
use selvage_tests::grpc;
use selvage_tests::mesh::Mesh as Pair;
use selvage_tests::metrics::Metrics;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wait;
use tokio::sync::{Notify, mpsc};

use super::chain::{Link, Mesh, Next, get, own_fields, traceparent};

/// One failure would open a breaker.
const FRAIL: &str = "{ circuitBreaker: { consecutiveFailures: 1 } }";
/// Of what is called, in milliseconds for the header.
const DEADLINE: Duration = Duration::from_millis(200);
const DEADLINE_MS: &str = "200";
const IGNORED: &str = "selvage_headers_ignored_total";

/// A service whose application calls `below` only once it is told to, and no sooner than
/// `patience` after it was asked, whoever has left until then.
async fn sluggish(
    mesh: &Mesh,
    name: &'static str,
    below: &Link,
    tls: &str,
    patience: Duration,
) -> (Link, Arc<Notify>, mpsc::UnboundedReceiver<(u16, String)>) {
    let go = Arc::new(Notify::new());
    let (tell, told) = mpsc::unbounded_channel();
    let when = Arc::clone(&go);
    let handler = move |received: Request<Incoming>, next: Next| {
        let (when, tell) = (Arc::clone(&when), tell.clone());
        let late = tokio::time::Instant::now() + patience;
        // A task of its own goes on when the connection that it was asked on is gone.
        let work = tokio::spawn(async move {
            when.notified().await;
            tokio::time::sleep_until(late).await;
            let answer = next.get(received.headers()).await;
            let _ = tell.send((answer.status.as_u16(), answer.flag().to_owned()));
        });
        async move {
            work.await.unwrap();
            status(200)
        }
    };
    (mesh.link(name, Some(below), tls, handler).await, go, told)
}

#[tokio::test]
async fn no_work_starts_after_the_deadline_has_passed() {
    let mesh = Mesh::new("http", FRAIL);
    let three = mesh
        .link("three", None, "strict", |_, _| async { ok("in stock") })
        .await;
    let (mut two, go, mut told) = sluggish(&mesh, "two", &three, "strict", DEADLINE).await;
    let one = mesh
        .link("one", Some(&two), "strict", |received, next| async move {
            status(next.get(received.headers()).await.status.as_u16())
        })
        .await;
    let client = mesh.client(&one).await;

    let begun = Instant::now();
    let trace = traceparent(0);
    let fields = [
        ("x-selvage-deadline-ms", DEADLINE_MS),
        ("traceparent", &*trace),
    ];
    let answer = get(client.outbound(), "one.shop", &fields).await;
    let took = begun.elapsed();
    println!("200 ms over three hops took {took:?}");
    assert_eq!((answer.status.as_u16(), answer.flag()), (504, "timeout"));
    assert!(
        took >= Duration::from_millis(199) && took < Duration::from_secs(1),
        "{took:?}"
    );

    go.notify_one();
    let answered = wait::soon("the late call of the second service", told.recv()).await;
    assert_eq!(answered, Some((504, "timeout".to_owned())));
    assert_eq!(
        [one.app.count(), two.app.count(), three.app.count()],
        [1, 1, 0]
    );
    let handshakes = [("side", "server")];
    let metrics = three.sidecar.metrics().await;
    assert_eq!(
        metrics.count("selvage_tls_handshakes_total", &handshakes),
        0,
        "nobody connected"
    );
    let record = two.sidecar.accessed(&["outbound", "shop/three"]).await;
    assert_eq!(
        (&record["flag"], &record["tries"]),
        (&"timeout".into(), &0.into())
    );
    assert!(record["endpoint"].is_null(), "{record}");
    for link in [&one, &two] {
        assert!(own_fields(&link.app.last().headers).is_empty());
        let metrics = link.sidecar.metrics().await;
        assert_eq!(metrics.count("selvage_breaker_transitions_total", &[]), 0);
    }
    let metrics = client.metrics().await;
    assert_eq!(
        metrics.count("selvage_breaker_transitions_total", &[]),
        0,
        "it was nobody's fault"
    );
}

#[tokio::test]
async fn a_peer_that_gives_up_at_the_callers_deadline_is_not_to_blame() {
    let app = App::start(|_| std::future::pending()).await;
    let pair = Pair::builder(app.address, "http")
        .client_resources("kind: TrafficPolicy\nmetadata: { name: orders, namespace: shop }\nspec:\n  targetRefs: [{ kind: Service, name: orders }]\n  circuitBreaker: { consecutiveFailures: 1 }")
        .start()
        .await;
    for _ in 0..8 {
        let fields = [("x-selvage-deadline-ms", "50")];
        let answer = get(pair.outbound(), ORDERS, &fields).await;
        assert_eq!((answer.status.as_u16(), answer.flag()), (504, "timeout"));
    }
    let metrics = pair.client.metrics().await;
    assert_eq!(metrics.count("selvage_breaker_transitions_total", &[]), 0);
    assert_eq!(app.count(), 8);
}

/// `grpc-timeout` as an application got it.
fn timeout(seen: &Seen) -> Duration {
    let text = seen.header("grpc-timeout");
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u32 = number.parse().unwrap();
    let nanos = match unit {
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        other => panic!("a unit nobody should need: {other}"),
    };
    number * Duration::from_nanos(nanos)
}

#[tokio::test]
async fn a_timeout_of_grpc_arrives_reduced_at_every_hop() {
    const WORK: Duration = Duration::from_millis(50);
    async fn answered() -> Response<Body> {
        let mut response = ok("");
        *response.headers_mut() = grpc::trailers(0, "");
        let kind = http::HeaderValue::from_static("application/grpc");
        response.headers_mut().insert("content-type", kind);
        response
    }
    async fn forward(received: Request<Incoming>, next: Next) -> Response<Body> {
        tokio::time::sleep(WORK).await;
        next.unary(received.headers()).await;
        answered().await
    }
    let mesh = Mesh::new("grpc", FRAIL);
    let three = mesh.link("three", None, "strict", |_, _| answered()).await;
    let two = mesh.link("two", Some(&three), "strict", forward).await;
    let one = mesh.link("one", Some(&two), "strict", forward).await;
    let client = mesh.client(&one).await;
    let connection = Http2::connect(client.outbound()).await;
    let call = async |fields: &[(&'static str, &str)]| {
        let mut sent = grpc::request("one.shop", "Unary", body::full(grpc::frame(b"x")));
        for (name, value) in fields {
            sent.headers_mut().insert(*name, value.parse().unwrap());
        }
        let outcome = grpc::call(&connection, sent).await.unwrap();
        assert_eq!(outcome.status, Some(0));
        [&one, &two, &three].map(|link| link.app.last())
    };
    let trace = traceparent(0);
    let seen = call(&[("grpc-timeout", "5S"), ("traceparent", &trace)]).await;
    let left = [Duration::from_secs(5)]
        .into_iter()
        .chain(seen.iter().map(timeout));
    let left: Vec<_> = left.collect();
    println!("left of 5 s at each hop: {left:?}");
    assert!(left[1] < left[0], "{left:?}");
    assert!(
        left[2] + WORK <= left[1] && left[3] + WORK <= left[2],
        "{left:?}"
    );
    // Without a trace nobody knows that the second call belongs to the first.
    let [first, second, _] = call(&[("grpc-timeout", "5S")]).await;
    assert!(timeout(&first) < Duration::from_secs(5));
    assert_eq!(second.header("grpc-timeout"), "");
}

#[tokio::test]
async fn nonsense_is_ignored_and_counted() {
    let app = App::echo().await;
    let pair = Pair::of(app.address, "http").await;
    for (name, value) in [
        ("x-selvage-deadline-ms", "soon"),
        ("x-selvage-deadline-ms", "-5"),
        ("grpc-timeout", "5 minutes"),
        ("x-selvage-attempt", "many"),
    ] {
        let answer = get(pair.outbound(), ORDERS, &[(name, value)]).await;
        assert_eq!(answer.status, 200, "{name}: {value}");
    }
    let counted = |metrics: &Metrics| {
        let fields = [
            "x-selvage-deadline-ms",
            "grpc-timeout",
            "x-selvage-attempt",
            "x-selvage-retried",
        ];
        fields.map(|name| metrics.count(IGNORED, &[("header", name)]))
    };
    assert_eq!(counted(&pair.client.metrics().await), [2, 1, 1, 0]);
    // gRPC's own is the application's affair, and goes on as it came.
    assert_eq!(counted(&pair.server.metrics().await), [0, 1, 0, 0]);
    assert_eq!(app.seen()[2].header("grpc-timeout"), "5 minutes");
}

#[tokio::test]
async fn the_trace_of_a_caller_without_an_identity_is_not_kept() {
    let mesh = Mesh::new("http", FRAIL);
    let two = mesh
        .link("two", None, "strict", |_, _| async { ok("in stock") })
        .await;
    let (one, go, mut told) = sluggish(&mesh, "one", &two, "permissive", DEADLINE).await;
    let trace = traceparent(0);
    let fields = [
        ("x-selvage-deadline-ms", DEADLINE_MS),
        ("traceparent", &*trace),
    ];
    let answer = get(one.sidecar.inbound(), "one.shop", &fields).await;
    assert_eq!((answer.status.as_u16(), answer.flag()), (504, "timeout"));
    go.notify_one();
    let answered = wait::soon("the call of the first service", told.recv()).await;
    assert_eq!(answered, Some((200, String::new())));
    assert_eq!(two.app.count(), 1);
}
