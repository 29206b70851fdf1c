//! Any peer that speaks SPIFFE can take part: here Envoy, as caller and as
//! server, over HTTP/1.1 and HTTP/2.

use selvage_tests::app::App;
use selvage_tests::client;
use selvage_tests::envoy::Envoy;
use selvage_tests::mesh::service;
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};

#[tokio::test]
async fn envoy_calls_an_inbound() {
    for http2 in [false, true] {
        let (pki, app) = (Pki::new(), App::echo().await);
        let server = Sidecar::builder("orders")
            .application(80, app.address, "http")
            .start(&pki)
            .await;
        let identity = pki.account("shop", "envoy");
        let envoy = Envoy::caller(
            &identity,
            server.inbound(),
            &spiffe_id("shop", "orders"),
            http2,
        )
        .await;
        for number in 0..20 {
            let answer =
                client::post(envoy.listener, ORDERS, "/from-envoy", number.to_string()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.text()),
                (200, number.to_string()),
                "HTTP/2: {http2}"
            );
        }
        let seen = app.last();
        assert_eq!(seen.uri.path(), "/from-envoy");
        assert!(
            seen.header("x-forwarded-client-cert")
                .ends_with(&spiffe_id("shop", "envoy"))
        );
        let labels = [
            ("direction", "inbound"),
            ("source", "shop/envoy"),
            ("code", "200"),
        ];
        assert_eq!(
            server
                .metrics()
                .await
                .count("selvage_http_requests_total", &labels),
            20
        );
    }
}

#[tokio::test]
async fn an_outbound_calls_envoy() {
    for http2 in [false, true] {
        let (pki, app) = (Pki::new(), App::echo().await);
        let identity = pki.account("shop", "orders");
        let envoy =
            Envoy::server(&identity, app.address, &spiffe_id("shop", "client"), http2).await;
        let resources = service(
            "orders",
            "http",
            &[(envoy.listener, Some(spiffe_id("shop", "orders")))],
        );
        let caller = Sidecar::builder("client")
            .resources(&resources)
            .start(&pki)
            .await;
        for number in 0..20 {
            let answer =
                client::post(caller.outbound(), ORDERS, "/to-envoy", number.to_string()).await;
            assert_eq!(
                (answer.status.as_u16(), answer.text()),
                (200, number.to_string()),
                "HTTP/2: {http2}: {}",
                answer.flag()
            );
        }
        assert_eq!(app.count(), 20);
        let labels = [
            ("direction", "outbound"),
            ("destination", "shop/orders"),
            ("code", "200"),
        ];
        assert_eq!(
            caller
                .metrics()
                .await
                .count("selvage_http_requests_total", &labels),
            20
        );
    }
}

#[tokio::test]
async fn an_envoy_with_another_identity_is_refused() {
    let (pki, app) = (Pki::new(), App::echo().await);
    let identity = pki.account("shop", "ratings");
    let envoy = Envoy::server(&identity, app.address, &spiffe_id("shop", "client"), true).await;
    let resources = service(
        "orders",
        "http",
        &[(envoy.listener, Some(spiffe_id("shop", "orders")))],
    );
    let caller = Sidecar::builder("client")
        .resources(&resources)
        .start(&pki)
        .await;
    let answer = client::get(caller.outbound(), ORDERS, "/").await;
    assert_eq!(
        (answer.status.as_u16(), answer.flag(), app.count()),
        (503, "tls-failure", 0)
    );
}
