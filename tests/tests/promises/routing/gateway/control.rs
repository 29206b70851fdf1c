//! A gateway that joins with a token serves the mesh: routes and certificates
//! from the control plane, backends by mutual TLS.

use http::Method;
use selvage_tests::app::App;
use selvage_tests::body;
use selvage_tests::client::{self, Http2, request2};
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::gateway::Gateway;
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::json;

use super::{all, connect, gateway, listener, route};

#[tokio::test]
async fn a_gateway_serves_the_mesh_by_mutual_tls() {
    let app = App::echo().await;
    let control = ControlPlane::start().await;
    let mut orders = control
        .sidecar("orders-1", "orders")
        .await
        .application(80, app.address, "http")
        .set("telemetry.accessLog", "json")
        .start(&Pki::new())
        .await;
    control.registered("orders", 1).await;
    let mut https = listener("https", 443, "HTTPS", "");
    https["tls"] = json!({ "options": { "selvage.dev/certificate": "mesh" } });
    control
        .apply(&all(&[
            gateway(&[listener("http", 80, "HTTP", ""), https]),
            route("HTTPRoute", "orders", "http", &[("orders", 1)]),
            route("HTTPRoute", "secure", "https", &[("orders", 1)]),
        ]))
        .await;
    let token = control.token("public").await;
    let mut edge = Gateway::builder(&[80, 443])
        .joining(control.grpc, &token)
        .start()
        .await;
    let answer = client::get(edge.port(80).await, "shop.example.com", "/a").await;
    assert_eq!((answer.status.as_u16(), answer.flag()), (200, ""));
    let line = orders.accessed(&["\"/a\""]).await;
    assert_eq!(line["direction"], "inbound");
    assert_eq!(line["source_identity"], spiffe_id("shop", "public"));
    assert_eq!(line["tls"], "yes");
    assert_eq!(app.last().header("x-forwarded-host"), "shop.example.com");
    assert_eq!(
        app.last().header("x-forwarded-client-cert"),
        format!(
            "By={};URI={}",
            spiffe_id("shop", "orders"),
            spiffe_id("shop", "public")
        )
    );
    // The gateway's own certificate says who it is, to those who know the mesh.
    let config = selvage_tests::pki::anonymous_client(&["h2"]);
    let stream = connect(edge.port(443).await, "shop.example.com", config).await;
    let caller = Http2::over(stream.unwrap()).await.unwrap();
    let asked = request2(Method::GET, "shop.example.com", "/b", body::empty());
    assert_eq!(caller.call(asked).await.unwrap().status, 200);
    orders.accessed(&["\"/b\""]).await;
    // A route that is taken away is gone, and nothing else with it.
    let path = "/api/v1/HTTPRoute/shop/orders";
    let gone = control.ask(Method::DELETE, path, "").await.unwrap();
    assert!(gone.status.is_success(), "{}", gone.text());
    let port = edge.port(80).await;
    wait::until("the end of the route", PATIENCE, async || {
        client::get(port, "shop.example.com", "/a").await.status == 404
    })
    .await;
    let asked = request2(Method::GET, "shop.example.com", "/c", body::empty());
    assert_eq!(caller.call(asked).await.unwrap().status, 200);
}
