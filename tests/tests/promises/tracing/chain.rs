//! A caller, three services and their sidecars: six spans in their order.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use http::{HeaderValue, Method, StatusCode};
use serde_json::Value;

use super::{SPAN, TRACE, call, parts};
use selvage_tests::app::{App, ClosedPort, ok, status};
use selvage_tests::client::{Http1, Http2, request};
use selvage_tests::collector::Collector;
use selvage_tests::mesh::{EndpointOf, Mesh, service, traffic_policy};
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{Builder, ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use selvage_tests::{body, grpc};

/// One service and its sidecar. Its application has a span of its own in the
/// trace, and below that calls the service `next`, if there is one.
struct Link {
    app: App,
    sidecar: Sidecar,
}

/// The span of the application of `name`.
fn own_span(name: &str) -> String {
    format!("{:016x}", name.bytes().map(u64::from).sum::<u64>())
}

async fn link(
    pki: &Pki,
    name: &'static str,
    next: Option<(&'static str, &Link)>,
    variables: &[(&str, String)],
) -> Link {
    let outbound = Arc::new(OnceLock::<SocketAddr>::new());
    let own_outbound = outbound.clone();
    let authority = next.map(|(next, _)| format!("{next}.shop"));
    let app = App::start(move |received| {
        let (outbound, authority) = (own_outbound.get().copied(), authority.clone());
        async move {
            let Some(authority) = authority else {
                return ok("in stock");
            };
            let (trace, _, flags) = parts(received.headers()["traceparent"].to_str().unwrap());
            let mut sent = request(Method::GET, &authority, "/next", body::empty());
            let traceparent = format!("00-{trace}-{}-{flags}", own_span(name));
            let headers = sent.headers_mut();
            headers.insert("traceparent", traceparent.try_into().unwrap());
            if let Some(state) = received.headers().get("tracestate") {
                headers.insert("tracestate", state.clone());
            }
            let mut connection = Http1::connect(outbound.unwrap()).await;
            status(connection.call(sent).await.unwrap().status.as_u16())
        }
    })
    .await;
    let mut builder = Sidecar::builder(name).application(80, app.address, "http");
    if let Some((next, link)) = next {
        builder = reaching(builder, next, link);
    }
    let sidecar = with(builder, variables).start(pki).await;
    outbound.set(sidecar.outbound()).unwrap();
    Link { app, sidecar }
}

fn reaching(builder: Builder, name: &str, link: &Link) -> Builder {
    let endpoint: EndpointOf = (link.sidecar.inbound(), Some(spiffe_id("shop", name)));
    builder.resources(&service(name, "http", &[endpoint]))
}

fn with(builder: Builder, variables: &[(&str, String)]) -> Builder {
    variables.iter().fold(builder, |builder, (name, value)| {
        builder.environment(name, value)
    })
}

async fn leads_through_the_mesh(protocol: &str) {
    let collector = Collector::start().await;
    let mut variables = collector.variables(protocol);
    variables.push((
        "OTEL_EXPORTER_OTLP_HEADERS",
        "x-tenant=the%20shop".to_owned(),
    ));
    variables.push((
        "OTEL_RESOURCE_ATTRIBUTES",
        "deployment.environment.name=test".to_owned(),
    ));
    let pki = Pki::new();
    let inventory = link(&pki, "inventory", None, &variables).await;
    let orders = link(&pki, "orders", Some(("inventory", &inventory)), &variables).await;
    let gateway = link(&pki, "gateway", Some(("orders", &orders)), &variables).await;
    let builder = reaching(Sidecar::builder("client"), "gateway", &gateway);
    let client = with(builder, &variables).start(&pki).await;

    let mut sent = request(Method::GET, "gateway.shop", "/a?b=c", body::empty());
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let headers = sent.headers_mut();
    headers.insert("traceparent", traceparent.try_into().unwrap());
    headers.insert("tracestate", HeaderValue::from_static("shop=1"));
    headers.insert("user-agent", HeaderValue::from_static("the caller"));
    let answer = Http1::connect(client.outbound())
        .await
        .call(sent)
        .await
        .unwrap();
    assert_eq!(answer.status, StatusCode::OK);

    let spans = collector.spans(TRACE, 6).await;
    let expected = [
        ("client", "CLIENT", "gateway"),
        ("gateway", "SERVER", "gateway"),
        ("gateway", "CLIENT", "orders"),
        ("orders", "SERVER", "orders"),
        ("orders", "CLIENT", "inventory"),
        ("inventory", "SERVER", "inventory"),
    ];
    let mut parent = SPAN.to_owned();
    for (span, (sender, kind, called)) in spans.iter().zip(expected) {
        assert_eq!(span["kind"], kind, "{span}");
        assert_eq!(
            span["parent"],
            parent.as_str(),
            "{sender} {kind}: {spans:#?}"
        );
        assert_eq!(span["state"], "shop=1");
        assert_eq!(span["name"], "GET");
        assert_eq!(span["status"], "UNSET");
        assert!(span["end"].as_u64() > span["start"].as_u64(), "{span}");
        let resource = &span["resource"];
        assert_eq!(resource["service.name"], sender);
        assert_eq!(resource["service.namespace"], "shop");
        assert_eq!(resource["service.instance.id"], sender);
        assert_eq!(resource["deployment.environment.name"], "test");
        says_what_was_called(&span["attributes"], sender, kind, called);
        // A server's span ends at its application, which has a span of its own in between.
        parent = match kind {
            "SERVER" => own_span(sender),
            _ => span["span"].as_str().unwrap().to_owned(),
        };
    }
    for (service, span) in [
        (&gateway, &spans[1]),
        (&orders, &spans[3]),
        (&inventory, &spans[5]),
    ] {
        let (_, received, flags) = parts(service.app.last().header("traceparent"));
        assert_eq!(
            span["span"],
            received.as_str(),
            "the application continues its sidecar's span"
        );
        assert_eq!(flags, "01");
        assert_eq!(service.app.last().header("tracestate"), "shop=1");
    }
    let exports = collector.exports();
    let expected = protocol.split('/').next().unwrap();
    assert!(exports.iter().all(|export| export["protocol"] == expected));
    assert!(
        exports
            .iter()
            .all(|export| export["headers"]["x-tenant"] == "the shop")
    );
    // The collector has it before the sidecar hears that it has.
    wait::until("the count of the export", PATIENCE, async || {
        let metrics = client.metrics().await;
        let outcomes = ["exported", "dropped", "failed"];
        let counts =
            outcomes.map(|outcome| metrics.count("selvage_spans_total", &[("outcome", outcome)]));
        counts == [1, 0, 0]
    })
    .await;
}

fn says_what_was_called(attributes: &Value, sender: &str, kind: &str, called: &str) {
    let path = if sender == "client" || (sender, kind) == ("gateway", "SERVER") {
        "/a"
    } else {
        "/next"
    };
    // Between the sidecars there is HTTP/2; what the application spoke is not known there.
    let version = if kind == "SERVER" { "2" } else { "1.1" };
    for (key, value) in [
        ("http.request.method", "GET".into()),
        ("http.response.status_code", 200.into()),
        ("url.path", path.into()),
        ("url.scheme", "http".into()),
        ("server.address", format!("{called}.shop").into()),
        ("network.protocol.version", version.into()),
        ("selvage.destination", format!("shop/{called}").into()),
        ("selvage.route", "default".into()),
    ] as [(&str, Value); 8]
    {
        assert_eq!(attributes[key], value, "{key}: {attributes}");
    }
    let peer = attributes["selvage.peer.identity"].as_str().unwrap();
    let (other, source) = match kind {
        "SERVER" => (
            if called == "gateway" {
                "client"
            } else if called == "orders" {
                "gateway"
            } else {
                "orders"
            },
            None,
        ),
        _ => (called, Some(format!("shop/{sender}"))),
    };
    assert_eq!(peer, spiffe_id("shop", other));
    if let Some(source) = source {
        assert_eq!(attributes["selvage.source"], source.as_str());
    }
    let agent = &attributes["user_agent.original"];
    assert_eq!(agent.as_str(), (path == "/a").then_some("the caller"));
    for absent in [
        "error.type",
        "selvage.flag",
        "http.request.resend_count",
        "url.query",
    ] {
        assert!(attributes[absent].is_null(), "{absent}: {attributes}");
    }
}

#[tokio::test]
async fn one_trace_leads_through_the_mesh_by_grpc() {
    leads_through_the_mesh("grpc").await;
}

#[tokio::test]
async fn one_trace_leads_through_the_mesh_by_http() {
    leads_through_the_mesh("http/protobuf").await;
}

#[tokio::test]
async fn a_retry_is_told_by_the_one_span_of_its_request() {
    let collector = Collector::start().await;
    let app = App::start(|_| async { ok("") }).await;
    let closed = ClosedPort::new();
    let pki = Pki::new();
    let endpoints = [(closed.address, None), (app.address, None)];
    let builder = Sidecar::builder("client")
        .resources(&service("orders", "http", &endpoints))
        .resources(&traffic_policy(
            "  retry: { attempts: 2, on: [connect-failure] }\n  loadBalancer: { algorithm: round-robin }",
        ));
    let sidecar = with(builder, &collector.variables("grpc"))
        .start(&pki)
        .await;
    // One of the first two goes to the closed port first.
    let mut retried = None;
    for number in 1..=2 {
        let trace = format!("{number:032x}");
        let traceparent = format!("00-{trace}-{SPAN}-01");
        let answer = call(sidecar.outbound(), &[("traceparent", &traceparent)]).await;
        assert_eq!(answer.status, 200);
        let span = collector.spans(&trace, 1).await.remove(0);
        if !span["events"].as_array().unwrap().is_empty() {
            retried = Some(span);
            break;
        }
    }
    let span = retried.expect("one was retried");
    assert_eq!(span["attributes"]["http.request.resend_count"], 1);
    assert_eq!(span["attributes"]["network.peer.port"], app.address.port());
    assert_eq!(span["status"], "UNSET");
    let event = &span["events"][0];
    assert_eq!(event["name"], "selvage.retry");
    assert_eq!(event["selvage.retry.reason"], "connect-failure");
    assert_eq!(
        event["selvage.endpoint.address"],
        closed.address.to_string()
    );
}

#[tokio::test]
async fn calls_of_grpc_and_errors_are_told_as_such() {
    let collector = Collector::start().await;
    let app = grpc::application().await;
    let mesh = Mesh::builder(app.address, "grpc")
        .environment(&collector.variables("grpc"))
        .start()
        .await;
    let connection = Http2::connect(mesh.outbound()).await;
    for (method, status, client, server) in [
        ("Unary", 0, "UNSET", "UNSET"),
        // FAILED_PRECONDITION is the caller's affair, UNAVAILABLE the server's.
        ("Fail", 9, "ERROR", "UNSET"),
        ("FailLate", 14, "ERROR", "ERROR"),
    ] {
        let mut sent = grpc::request(ORDERS, method, body::full(grpc::frame(b"x")));
        let trace = format!("{:032x}", status + 1);
        let traceparent = format!("00-{trace}-{SPAN}-01");
        let headers = sent.headers_mut();
        headers.insert("traceparent", traceparent.try_into().unwrap());
        grpc::call(&connection, sent).await.unwrap();
        let spans = collector.spans(&trace, 2).await;
        for (span, expected) in spans.iter().zip([client, server]) {
            assert_eq!(span["name"], format!("test.Echo/{method}"));
            let attributes = &span["attributes"];
            assert_eq!(attributes["rpc.system"], "grpc");
            assert_eq!(attributes["rpc.service"], "test.Echo");
            assert_eq!(attributes["rpc.method"], method);
            assert_eq!(attributes["rpc.grpc.status_code"], status);
            assert_eq!(span["status"], expected, "{span}");
            let error = (expected == "ERROR").then(|| status.to_string());
            assert_eq!(attributes["error.type"].as_str(), error.as_deref());
        }
    }
    let traceparent = format!("00-{TRACE}-{SPAN}-01");
    let mut sent = request(Method::GET, "nobody.shop", "/", body::empty());
    sent.headers_mut()
        .insert("traceparent", traceparent.try_into().unwrap());
    Http1::connect(mesh.outbound())
        .await
        .call(sent)
        .await
        .unwrap();
    let span = collector.spans(TRACE, 1).await.remove(0);
    assert_eq!(span["status"], "ERROR");
    assert_eq!(span["attributes"]["selvage.flag"], "no-service");
    assert_eq!(span["attributes"]["error.type"], "no-service");
    assert_eq!(span["attributes"]["http.response.status_code"], 404);
}
