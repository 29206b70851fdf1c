//! Who answers, and as whose the answer is counted and logged.

use http::Method;
use selvage_tests::client::{self, Http1, Http2, request};
use selvage_tests::sidecar::ORDERS;
use selvage_tests::{body, grpc};
use serde_json::json;

use super::{app, caller, route, services, to};

const REQUESTS: &str = "selvage_http_requests_total";

#[tokio::test]
async fn a_request_is_told_by_the_rule_it_met() {
    let (orders, one) = (app("orders").await, app("one").await);
    let rules = json!([
        { "name": "v1", "matches": [{ "path": { "value": "/v1" } }], "backendRefs": [to("one", 1)],
          "filters": [
            { "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [{ "name": "x-rule", "value": "v1" }] } },
            { "type": "URLRewrite", "urlRewrite": { "hostname": "inner.example", "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/" } } },
            { "type": "ResponseHeaderModifier", "responseHeaderModifier": { "add": [{ "name": "x-by", "value": "v1" }] } },
        ] },
        { "matches": [{ "path": { "value": "/old" } }],
          "filters": [{ "type": "RequestRedirect", "requestRedirect": { "hostname": "new.example", "statusCode": 301 } }] },
    ]);
    let documents = [
        services(
            "http",
            &[("orders", &[orders.address]), ("one", &[one.address])],
        ),
        route(&rules),
    ];
    let (_pki, mut sidecar) = caller(&documents).await;
    let answer = client::get(sidecar.outbound(), ORDERS, "/v1/list?a=b").await;
    assert_eq!(
        (answer.status.as_u16(), answer.text()),
        (200, "one".to_owned())
    );
    assert_eq!(answer.header("x-by"), "v1");
    let seen = one.last();
    assert_eq!(seen.uri, "/list?a=b");
    assert_eq!(
        (seen.header("host"), seen.header("x-rule")),
        ("inner.example", "v1")
    );
    let line = sidecar.accessed(&["/v1/list"]).await;
    assert_eq!(line["route"], "shop/orders/v1");
    assert_eq!(line["destination"], "shop/one");

    let answer = client::get(sidecar.outbound(), ORDERS, "/old/x").await;
    assert_eq!(answer.status.as_u16(), 301);
    assert_eq!(answer.header("location"), "http://new.example/old/x");
    let line = sidecar.accessed(&["/old/x"]).await;
    assert_eq!(line["route"], "shop/orders/1");
    assert_eq!(line["destination"], "shop/orders");

    let answer = client::get(sidecar.outbound(), ORDERS, "/elsewhere").await;
    assert_eq!((answer.status.as_u16(), answer.flag()), (404, "no-route"));
    let line = sidecar.accessed(&["/elsewhere"]).await;
    assert_eq!(
        (&line["route"], &line["flag"]),
        (&json!("default"), &json!("no-route"))
    );
    assert_eq!(
        orders.count(),
        0,
        "its own endpoints are a backend only where a rule says so"
    );

    let metrics = sidecar.metrics().await;
    let counted = |destination, route, code| {
        let labels = [
            ("destination", destination),
            ("route", route),
            ("code", code),
        ];
        metrics.count(REQUESTS, &labels)
    };
    assert_eq!(counted("shop/one", "shop/orders/v1", "200"), 1);
    assert_eq!(counted("shop/orders", "shop/orders/1", "301"), 1);
    assert_eq!(counted("shop/orders", "default", "404"), 1);
}

#[tokio::test]
async fn what_cannot_be_used_answers_500_for_its_share() {
    let (orders, one) = (app("orders").await, app("one").await);
    let rules = json!([{ "backendRefs": [to("one", 3), to("missing", 1)] }]);
    let documents = [
        services(
            "http",
            &[("orders", &[orders.address]), ("one", &[one.address])],
        ),
        route(&rules),
    ];
    let (_pki, sidecar) = caller(&documents).await;
    let mut connection = Http1::connect(sidecar.outbound()).await;
    let (mut good, mut bad) = (0, 0);
    for _ in 0..200 {
        let request = request(Method::GET, ORDERS, "/", body::empty());
        let answer = connection.call(request).await.unwrap();
        match (answer.status.as_u16(), answer.flag()) {
            (200, "") => good += 1,
            (500, "invalid-backend") => bad += 1,
            other => panic!("{other:?}"),
        }
    }
    println!("of 200, {good} went to the backend that is there, {bad} were answered 500");
    assert!((149..=151).contains(&good), "{good}");
    let metrics = sidecar.metrics().await;
    let labels = [("route", "shop/orders/0"), ("flag", "invalid-backend")];
    assert_eq!(metrics.count(REQUESTS, &labels), bad);
}

#[tokio::test]
async fn a_grpc_call_that_is_answered_here_hears_it_as_a_grpc_status() {
    let orders = grpc::application().await;
    let rules = json!([
        { "matches": [{ "path": { "value": "/test.Echo/Moved" } }],
          "filters": [{ "type": "RequestRedirect", "requestRedirect": { "hostname": "new.example" } }] },
    ]);
    let documents = [
        services("http2", &[("orders", &[orders.address])]),
        route(&rules),
    ];
    let (_pki, sidecar) = caller(&documents).await;
    let connection = Http2::connect(sidecar.outbound()).await;
    let call = async |method: &str| {
        let request = grpc::request(ORDERS, method, body::full(grpc::frame(b"hello")));
        let response = connection.send(request).await.unwrap();
        (
            response.status().as_u16(),
            grpc::status_of(response.headers()),
        )
    };
    assert_eq!(
        call("Moved").await,
        (200, Some(2)),
        "a redirect says nothing to gRPC"
    );
    assert_eq!(
        call("Missing").await,
        (200, Some(12)),
        "no rule: UNIMPLEMENTED"
    );
    assert_eq!(orders.count(), 0);
}
