//! Listeners of plain HTTP: told apart by host, both versions, and what
//! backends are told of clients.

use http::Method;
use selvage_tests::app::App;
use selvage_tests::body;
use selvage_tests::client::{self, Http1, Http2, request, request2};
use selvage_tests::gateway::Gateway;
use selvage_tests::wait::{self, PATIENCE};
use serde_json::json;

use super::{all, attached, backend, gateway, listener, named, refs, route};

#[tokio::test]
async fn listeners_of_one_port_are_told_apart_by_their_hosts() {
    let (any, below, exact) = (
        named("any").await,
        named("below").await,
        named("exact").await,
    );
    let mut edge = Gateway::builder(&[80, 81])
        .resources(&all(&[
            backend("any", "http", any.address),
            backend("below", "http", below.address),
            backend("exact", "http", exact.address),
            gateway(&[
                listener("any", 80, "HTTP", ""),
                listener("below", 80, "HTTP", "*.example.com"),
                listener("exact", 80, "HTTP", "a.example.com"),
                listener("other", 81, "HTTP", "b.org"),
            ]),
            route("HTTPRoute", "any", "any", &[("any", 1)]),
            route("HTTPRoute", "below", "below", &[("below", 1)]),
            route("HTTPRoute", "exact", "exact", &[("exact", 1)]),
            route("HTTPRoute", "other", "other", &[("any", 1)]),
        ]))
        .start()
        .await;
    let (port, other) = (edge.port(80).await, edge.port(81).await);
    for (address, host, expected) in [
        (port, "a.example.com", "exact"),
        (port, "A.Example.Com:8080", "exact"),
        (port, "x.example.com", "below"),
        (port, "x.y.example.com", "below"),
        (port, "example.com", "any"),
        (other, "b.org", "any"),
    ] {
        let answer = client::get(address, host, "/").await;
        assert_eq!(
            (answer.status.as_u16(), answer.text().as_str()),
            (200, expected),
            "{host}"
        );
    }
    let nobody = client::get(other, "elsewhere", "/").await;
    assert_eq!((nobody.status.as_u16(), nobody.flag()), (404, "no-route"));
    let labels = [
        ("direction", "outbound"),
        ("source", "shop/public"),
        ("destination", "shop/exact"),
        ("route", "shop/exact/0"),
    ];
    let metrics = edge.metrics().await;
    assert_eq!(metrics.count("selvage_http_requests_total", &labels), 2);
    let astray = [("code", "404"), ("flag", "no-route")];
    assert_eq!(metrics.count("selvage_http_requests_total", &astray), 1);
    let shown = edge.shows("/clusters").await;
    assert_eq!(shown["gateway"]["name"], "shop/public");
    assert_eq!(
        shown["gateway"]["ports"]["81"]["address"],
        json!(other.to_string())
    );
}

#[tokio::test]
async fn backends_are_told_of_the_client_and_believe_no_stranger() {
    let app = App::echo().await;
    let redirect = json!([
        {
            "matches": [{ "path": { "type": "PathPrefix", "value": "/old" } }],
            "filters": [{ "type": "RequestRedirect", "requestRedirect": {
                "path": { "type": "ReplacePrefixMatch", "replacePrefixMatch": "/new" },
            } }],
        },
        { "backendRefs": refs(&[("app", 1)]) },
    ]);
    let resources = all(&[
        backend("app", "http", app.address),
        gateway(&[listener("http", 8000, "HTTP", "")]),
        attached("HTTPRoute", "app", "http", &redirect),
    ]);
    let mut edge = Gateway::builder(&[8000])
        .resources(&resources)
        .start()
        .await;
    let address = edge.port(8000).await;
    let strange = [
        ("x-forwarded-for", "10.9.8.7"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "elsewhere"),
        ("forwarded", "for=10.9.8.7"),
        (
            "x-forwarded-client-cert",
            "URI=spiffe://mesh.local/ns/shop/sa/admin",
        ),
        ("x-selvage-criticality", "critical-plus"),
    ];
    let mut asked = request(Method::GET, "shop.example.com", "/a?b=c", body::empty());
    let mut asked2 = request2(Method::GET, "shop.example.com", "/a?b=c", body::empty());
    for (name, value) in strange {
        for asked in [&mut asked, &mut asked2] {
            asked.headers_mut().insert(name, value.parse().unwrap());
        }
    }
    let first = Http1::connect(address).await.call(asked).await.unwrap();
    let second = Http2::connect(address).await.call(asked2).await.unwrap();
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
    let seen = app.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.uri.path_and_query().unwrap(), "/a?b=c");
        assert_eq!(seen.header("host"), "shop.example.com");
        assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
        assert_eq!(seen.header("x-forwarded-proto"), "http");
        assert_eq!(seen.header("x-forwarded-host"), "shop.example.com");
        for gone in [
            "forwarded",
            "x-forwarded-client-cert",
            "x-selvage-criticality",
        ] {
            assert!(!seen.headers.contains_key(gone), "{gone}");
        }
    }
    // The port that clients use, not the one that happens to be bound.
    let moved = client::get(address, "shop.example.com", "/old/x?y=z").await;
    assert_eq!(moved.status, 302);
    assert_eq!(
        moved.header("location"),
        "http://shop.example.com:8000/new/x?y=z"
    );
}

#[tokio::test]
async fn a_trusted_hop_in_front_is_believed() {
    let app = App::echo().await;
    let resources = all(&[
        backend("app", "http", app.address),
        gateway(&[listener("http", 80, "HTTP", "")]),
        route("HTTPRoute", "app", "http", &[("app", 1)]),
    ]);
    let mut edge = Gateway::builder(&[80])
        .set("gateway.trustedHops", 1)
        .resources(&resources)
        .start()
        .await;
    let mut asked = request(Method::GET, "a", "/", body::empty());
    for (name, value) in [
        ("x-forwarded-for", "6.6.6.6, 192.0.2.1"),
        ("x-forwarded-proto", "https"),
    ] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let mut caller = Http1::connect(edge.port(80).await).await;
    assert_eq!(caller.call(asked).await.unwrap().status, 200);
    let seen = app.last();
    assert_eq!(seen.header("x-forwarded-for"), "192.0.2.1, 127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "https");
    assert_eq!(seen.header("x-forwarded-host"), "a");
}

#[tokio::test]
async fn a_rule_lets_each_client_through_at_its_rate() {
    let app = App::echo().await;
    let rules = json!([
        {
            "name": "buy",
            "matches": [{ "path": { "type": "PathPrefix", "value": "/buy" } }],
            "backendRefs": refs(&[("app", 1)]),
        },
        {
            "matches": [{ "path": { "type": "PathPrefix", "value": "/see" } }],
            "backendRefs": refs(&[("app", 1)]),
        },
    ]);
    // So slow that none of it comes back while this runs.
    let limit = json!({
        "apiVersion": "selvage.dev/v1", "kind": "ServerPolicy",
        "metadata": { "name": "buy", "namespace": "shop" },
        "spec": {
            "targetRefs": [{ "kind": "HTTPRoute", "name": "app", "sectionName": "buy" }],
            "rateLimit": { "requests": 1, "per": "1h", "burst": 3, "key": "sourceIp" },
        },
    });
    let resources = all(&[
        backend("app", "http", app.address),
        gateway(&[listener("http", 80, "HTTP", "")]),
        attached("HTTPRoute", "app", "http", &rules),
        limit.to_string(),
    ]);
    let mut edge = Gateway::builder(&[80])
        .set("gateway.trustedHops", 1)
        .resources(&resources)
        .start()
        .await;
    let address = edge.port(80).await;
    let ask = async |path: &str, client: &str| {
        let mut asked = request(Method::GET, "shop.example.com", path, body::empty());
        let headers = asked.headers_mut();
        headers.insert("x-forwarded-for", client.parse().unwrap());
        Http1::connect(address).await.call(asked).await.unwrap()
    };
    let mut counts = Vec::new();
    for client in ["192.0.2.1", "192.0.2.2"] {
        let mut passed = 0;
        for _ in 0..5 {
            let answer = ask("/buy/1", client).await;
            if answer.status == 200 {
                passed += 1;
                continue;
            }
            assert_eq!(
                (answer.status.as_u16(), answer.flag()),
                (429, "rate-limited")
            );
            let after = answer.header("retry-after");
            assert!(
                (1..=3600).contains(&after.parse::<u32>().unwrap()),
                "{after}"
            );
        }
        counts.push(passed);
        assert_eq!(ask("/see", client).await.status, 200, "another rule");
    }
    assert_eq!(counts, [3, 3], "the burst of each");
    assert_eq!(app.count(), 8, "what is over its rate reaches nobody");
    let over = [("route", "shop/app/buy"), ("flag", "rate-limited")];
    let metrics = edge.metrics().await;
    assert_eq!(metrics.count("selvage_http_requests_total", &over), 4);
    // A change of what is served forgets nobody's rate.
    edge.write_resources(&resources.replace(r#""value":"/see""#, r#""value":"/look""#));
    wait::until("the rule for /look", PATIENCE, async || {
        ask("/look", "192.0.2.1").await.status == 200
    })
    .await;
    assert_eq!(ask("/buy/2", "192.0.2.1").await.status, 429);
}
