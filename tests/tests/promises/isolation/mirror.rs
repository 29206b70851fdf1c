//! A mirror gets copies and nothing else changes: neither the caller's answer
//! nor its time, whatever becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Method};
use http_body_util::BodyExt;
use selvage_tests::app::{App, ok};
use selvage_tests::client::{self, Http2, request2};
use selvage_tests::mesh::{service, traffic_policy};
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::{body, wait};

const MIRRORS: &str = "selvage_mirrors_total";

/// A caller of `orders.shop` that may know `shadow.shop` too.
async fn caller(
    orders: &App,
    shadow: Option<std::net::SocketAddr>,
    mirror: &str,
) -> (Pki, Sidecar) {
    let pki = Pki::new();
    let mut builder = Sidecar::builder("client")
        .resources(&service("orders", "http", &[(orders.address, None)]))
        .resources(&traffic_policy(&format!("  mirror: {{ {mirror} }}\n")));
    if let Some(address) = shadow {
        builder = builder.resources(&service("shadow", "http", &[(address, None)]));
    }
    let sidecar = builder.start(&pki).await;
    (pki, sidecar)
}

async fn counted(sidecar: &Sidecar, outcome: &str, count: u64) {
    wait::until(
        &format!("{count} copies {outcome}"),
        wait::PATIENCE,
        async || {
            sidecar
                .metrics()
                .await
                .count(MIRRORS, &[("outcome", outcome)])
                == count
        },
    )
    .await;
}

#[tokio::test]
async fn copies_are_whole_and_their_host_is_suffixed_only_if_asked() {
    let orders = App::echo().await;
    let bytes = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&bytes);
    let shadow = App::start(move |request| {
        let taken = Arc::clone(&taken);
        async move {
            let body = request.into_body().collect().await.expect("a whole body");
            taken.fetch_add(body.to_bytes().len(), Ordering::SeqCst);
            ok("for nobody")
        }
    })
    .await;
    let to = Some(shadow.address);
    let (_pki, sidecar) = caller(&orders, to, "service: { name: shadow }").await;
    let answer = client::post(sidecar.outbound(), ORDERS, "/a?b", "twelve bytes").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, "twelve bytes".to_owned())
    );
    counted(&sidecar, "sent", 1).await;
    client::get(sidecar.outbound(), ORDERS, "/c").await;
    counted(&sidecar, "sent", 2).await;
    assert_eq!((orders.count(), shadow.count()), (2, 2));
    let seen = shadow.seen();
    assert_eq!(
        (seen[0].uri.to_string(), &seen[0].method),
        ("/a?b".to_owned(), &Method::POST)
    );
    assert_eq!(seen[0].header("host"), ORDERS);
    assert_eq!(bytes.load(Ordering::SeqCst), 12);
    // What is not kept whole is not copied.
    let large = client::post(sidecar.outbound(), ORDERS, "/", vec![b'a'; 100 << 10]).await;
    assert_eq!(large.body.len(), 100 << 10);
    counted(&sidecar, "dropped", 1).await;
    assert_eq!(shadow.count(), 2);
    let mirror = "service: { name: shadow }, hostSuffix: -shadow";
    let (_pki, sidecar) = caller(&orders, to, mirror).await;
    client::get(sidecar.outbound(), ORDERS, "/").await;
    counted(&sidecar, "sent", 1).await;
    assert_eq!(shadow.last().header("host"), "orders.shop-shadow");
}

#[tokio::test]
async fn a_mirror_that_hangs_or_is_away_hurts_nobody() {
    let orders = App::echo().await;
    let hanging = App::start(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        ok("late")
    })
    .await;
    let mirror = "service: { name: shadow }, maxPending: 4";
    let (_pki, sidecar) = caller(&orders, Some(hanging.address), mirror).await;
    let connection = Http2::connect(sidecar.outbound()).await;
    let begun = Instant::now();
    for _ in 0..20 {
        let answer = connection
            .call(request2(Method::GET, ORDERS, "/", body::empty()))
            .await;
        assert_eq!(answer.expect("an answer").status, 200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    counted(&sidecar, "dropped", 16).await;
    wait::until("four copies hang", wait::PATIENCE, async || {
        hanging.count() == 4
    })
    .await;
    // Nobody there, and nobody of that name.
    let closed = selvage_tests::app::ClosedPort::new();
    for shadow in [Some(closed.address), None] {
        let (_pki, sidecar) = caller(&orders, shadow, "service: { name: shadow }").await;
        assert_eq!(
            client::get(sidecar.outbound(), ORDERS, "/").await.status,
            200
        );
        counted(&sidecar, "failed", 1).await;
    }
}

#[tokio::test]
async fn a_mirror_of_a_mirror_ends_there_also_across_the_mesh() {
    let pki = Pki::new();
    let (orders, shadow) = (App::echo().await, App::echo().await);
    let mut servers = Vec::new();
    let mut resources = String::new();
    for (name, app, other) in [("orders", &orders, "shadow"), ("shadow", &shadow, "orders")] {
        let server = Sidecar::builder(name).application(80, app.address, "http");
        let server = server.start(&pki).await;
        let endpoint = (server.inbound(), Some(spiffe_id("shop", name)));
        resources += &format!(
            "{}\n---\nkind: TrafficPolicy\nmetadata: {{ name: {name}, namespace: shop }}\nspec:\n  targetRefs: [{{ kind: Service, name: {name} }}]\n  mirror: {{ percent: 100%, service: {{ name: {other}, port: 80 }} }}\n---\n",
            service(name, "http", &[endpoint])
        );
        servers.push(server);
    }
    let client = Sidecar::builder("client")
        .resources(&resources)
        .start(&pki)
        .await;
    for _ in 0..3 {
        assert_eq!(
            client::get(client.outbound(), ORDERS, "/").await.status,
            200
        );
    }
    counted(&client, "sent", 3).await;
    assert_eq!((orders.count(), shadow.count()), (3, 3));
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_copied() {
    let (orders, shadow) = (App::echo().await, App::echo().await);
    let mirror = "service: { name: shadow }";
    let (_pki, sidecar) = caller(&orders, Some(shadow.address), mirror).await;
    let connection = Http2::connect(sidecar.outbound()).await;
    let mut late = request2(Method::GET, ORDERS, "/", body::empty());
    let fields = late.headers_mut();
    fields.insert("x-selvage-deadline-ms", HeaderValue::from_static("0"));
    let answer = connection.call(late).await.expect("an answer");
    assert_eq!((answer.status.as_u16(), answer.flag()), (504, "timeout"));
    client::get(sidecar.outbound(), ORDERS, "/").await;
    counted(&sidecar, "sent", 1).await;
    assert_eq!((orders.count(), shadow.count()), (1, 1));
}
