//! What the access log says of tries is what was sent: also of the one whose
//! caller did not wait for its end, and not of one that never began.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{HeaderValue, Method, Response};
use selvage_tests::app::{App, ok, status};
use selvage_tests::body::{self, Body};
use selvage_tests::client::{self, Http1, request};
use selvage_tests::mesh::{service, traffic_policy};
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};

async fn caller(app: &App) -> Sidecar {
    let policy = "  retry: { attempts: 2, on: [503], backoff: { base: 1ms, max: 2ms } }";
    Sidecar::builder("client")
        .set("telemetry.accessLog", "json")
        .resources(&service("orders", "http", &[(app.address, None)]))
        .resources(&traffic_policy(policy))
        .start(&Pki::new())
        .await
}

/// Asks for `path`, and leaves once `left` says so.
async fn leaves(sidecar: &Sidecar, path: &str, left: impl AsyncFnOnce()) {
    let mut connection = Http1::connect(sidecar.outbound()).await;
    let sent = request(Method::GET, ORDERS, path, body::empty());
    tokio::select! {
        answer = connection.call(sent) => panic!("it was answered: {answer:?}"),
        () = left() => {}
    }
}

#[tokio::test]
async fn a_try_whose_caller_leaves_is_told_of() {
    let count = Arc::new(AtomicUsize::new(0));
    let app = App::start(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                return status(503);
            }
            std::future::pending::<Response<Body>>().await
        }
    })
    .await;
    let mut sidecar = caller(&app).await;
    for (path, requests, tries, reason) in
        [("/second", 2, 2, Some("status")), ("/first", 3, 1, None)]
    {
        leaves(&sidecar, path, async || {
            wait::until("the try", PATIENCE, async || app.count() == requests).await;
        })
        .await;
        let record = sidecar.accessed(&[path]).await;
        assert_eq!(record["status"], 499);
        assert_eq!(record["tries"], tries, "{record}");
        assert_eq!(record["retry_reason"].as_str(), reason, "{record}");
        assert_eq!(record["endpoint_address"], app.address.to_string());
    }
}

#[tokio::test]
async fn a_retry_that_never_began_has_no_reason() {
    let app = App::start(|request| async move {
        if request.uri().path() != "/left" {
            return ok("");
        }
        let mut response = status(503);
        let wait = HeaderValue::from_static("30");
        response.headers_mut().insert("retry-after", wait);
        response
    })
    .await;
    let mut sidecar = caller(&app).await;
    leaves(&sidecar, "/left", async || {
        wait::until("the try", PATIENCE, async || app.count() == 1).await;
        // One worker: whoever comes later is answered later.
        for _ in 0..3 {
            let answer = client::get(sidecar.outbound(), ORDERS, "/later").await;
            assert_eq!(answer.status, 200);
        }
    })
    .await;
    let record = sidecar.accessed(&["/left"]).await;
    assert_eq!(
        (&record["status"], &record["tries"]),
        (&499.into(), &1.into())
    );
    assert!(record["retry_reason"].is_null(), "{record}");
}
