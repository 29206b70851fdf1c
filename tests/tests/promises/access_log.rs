//! One line for each request and each connection, in both formats: every field
//! that is documented is there and right, and nobody can break out of a line.

use std::collections::BTreeSet;

use http::{HeaderValue, Method, Version};
use http_body_util::BodyExt;
use selvage_tests::app::{App, ClosedPort, RawApp, ok};
use selvage_tests::client::{Http1, Http2, request};
use selvage_tests::mesh::{Mesh, service, traffic_policy};
use selvage_tests::pki::{Pki, spiffe_id};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wire::Wire;
use selvage_tests::{body, grpc};
use serde_json::Value;
use tokio::net::TcpStream;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// The fields that proxy/README.md documents, in its order.
fn documented() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../proxy/README.md");
    let text = std::fs::read_to_string(path).unwrap();
    let table = text
        .split("| field |")
        .nth(1)
        .expect("there is a table of fields");
    let rows = table.lines().take_while(|line| line.contains('|')).skip(2);
    rows.flat_map(|row| {
        let names = row.split('|').nth(1).unwrap().to_owned();
        let names: Vec<_> = names
            .split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect();
        names
    })
    .collect()
}

/// The names in a line of text, in their order.
fn names(line: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = line
        .strip_prefix("access ")
        .expect("a line of the access log");
    while let Some((name, value)) = rest.split_once('=') {
        names.push(name.trim_start().to_owned());
        let end = match value.strip_prefix('"') {
            // What stands in quotes is a JSON string.
            Some(_) => {
                let mut values = serde_json::Deserializer::from_str(value).into_iter::<String>();
                values
                    .next()
                    .expect("a quoted value")
                    .expect("a JSON string");
                values.byte_offset()
            }
            None => value.find(' ').unwrap_or(value.len()),
        };
        rest = &value[end..];
    }
    names
}

/// It answers when it has read all that was sent.
async fn reading_application() -> App {
    App::start(|request| async {
        request.into_body().collect().await.unwrap();
        ok("hello")
    })
    .await
}

async fn called(mesh: &Mesh, path: &str) {
    let mut sent = request(Method::POST, ORDERS, path, body::full("four"));
    let fields = [
        ("x-request-id", "id-7"),
        ("user-agent", "tests/1 (a=\"b\")"),
        ("traceparent", &format!("00-{TRACE}-b7ad6b7169203331-00")),
    ];
    for (name, value) in fields {
        sent.headers_mut()
            .insert(name, HeaderValue::from_str(value).unwrap());
    }
    let mut connection = Http1::connect(mesh.outbound()).await;
    assert_eq!(connection.call(sent).await.unwrap().status, 200);
}

#[tokio::test]
async fn json_tells_every_field_of_a_request() {
    let app = reading_application().await;
    let mut mesh = Mesh::builder(app.address, "http")
        .set("telemetry.accessLog", "json")
        .start()
        .await;
    called(&mesh, "/path?secret=1").await;
    let inbound = mesh.server.inbound().to_string();
    let (outgoing, incoming) = (
        mesh.client.accessed(&["outbound", "/path"]).await,
        mesh.server.accessed(&["inbound", "/path"]).await,
    );
    let both: [(&str, Value); 17] = [
        ("source_identity", spiffe_id("shop", "client").into()),
        ("source", "shop/client".into()),
        ("destination", "shop/orders".into()),
        ("destination_identity", spiffe_id("shop", "orders").into()),
        ("route", "default".into()),
        ("protocol", "http".into()),
        ("method", "POST".into()),
        ("authority", "orders.shop".into()),
        ("path", "/path".into()),
        ("status", 200.into()),
        ("flag", "-".into()),
        ("bytes_received", 4.into()),
        ("bytes_sent", 5.into()),
        ("tries", 1.into()),
        ("trace_id", TRACE.into()),
        ("request_id", "id-7".into()),
        ("user_agent", "tests/1 (a=\"b\")".into()),
    ];
    for record in [&outgoing, &incoming] {
        for (field, expected) in &both {
            assert_eq!(record[field], *expected, "{field}: {record}");
        }
        let [whole, first, upstream] =
            ["duration_ms", "first_byte_ms", "upstream_ms"].map(|field| {
                record[field]
                    .as_f64()
                    .unwrap_or_else(|| panic!("{field}: {record}"))
            });
        assert!(
            0.0 < upstream && upstream <= first && first <= whole,
            "{record}"
        );
        let documented: BTreeSet<_> = documented().into_iter().collect();
        let fields = record
            .as_object()
            .unwrap()
            .keys()
            .filter(|key| *key != "event");
        assert!(
            fields.clone().all(|field| documented.contains(field)),
            "{record}"
        );
        assert!(record["time"].as_str().unwrap().ends_with('Z'));
        for absent in ["grpc_status", "retry_reason", "denied_by"] {
            assert!(record[absent].is_null(), "{absent}: {record}");
        }
    }
    for (record, field, expected) in [
        (&outgoing, "direction", "outbound"),
        (&outgoing, "version", "1.1"),
        (&outgoing, "tls", "no"),
        (&outgoing, "endpoint_address", &inbound),
        (&incoming, "direction", "inbound"),
        (&incoming, "version", "2"),
        (&incoming, "tls", "yes"),
        (&incoming, "endpoint", "application"),
        (&incoming, "endpoint_address", &app.address.to_string()),
    ] {
        assert_eq!(record[field], expected, "{field}: {record}");
    }
}

#[tokio::test]
async fn text_tells_every_field_that_is_documented() {
    let app = reading_application().await;
    let mesh = Mesh::builder(app.address, "http")
        .set("telemetry.accessLog", "text")
        .start()
        .await;
    called(&mesh, "/path").await;
    mesh.server.logged(&["access ", "path=/path"]).await;
    let log = mesh.server.process.log();
    let line = log
        .lines()
        .find(|line| line.starts_with("access "))
        .unwrap();
    assert_eq!(names(line), documented(), "{line}");
    for part in [
        " direction=inbound ",
        " source_identity=spiffe://mesh.local/ns/shop/sa/client ",
        " method=POST authority=orders.shop path=/path status=200 grpc_status=- flag=- ",
        " bytes_received=4 bytes_sent=5 ",
        r#" user_agent="tests/1 (a=\"b\")" tls=yes"#,
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

#[tokio::test]
async fn nobody_breaks_out_of_a_line() {
    let app = App::start(|_| async { ok("") }).await;
    for format in ["json", "text"] {
        let mut mesh = Mesh::builder(app.address, "http")
            .set("telemetry.accessLog", format)
            .start()
            .await;
        let mut wire = Wire::connect(mesh.outbound()).await;
        let long = "x".repeat(3000);
        // A path may hold no control character; other fields may hold a tab and what is no ASCII.
        wire.send(format!(
            "POST /a\"b\\c=d%0Aaccess HTTP/1.1\r\nhost: orders.shop\r\ncontent-length: 0\r\n\
             user-agent: e\t\" path=/evil \u{202e}\u{2028}\r\nx-request-id: {long}\r\n\r\n"
        ))
        .await;
        assert_eq!(wire.head().await.status(), 200);
        if format == "json" {
            let record = mesh.client.accessed(&["POST"]).await;
            assert_eq!(record["user_agent"], "e\t\" path=/evil \u{202e}\u{2028}");
            let id = record["request_id"].as_str().unwrap();
            assert!(id.len() < 1100 && id.ends_with('…'), "{id}");
            continue;
        }
        mesh.client.logged(&["access ", "method=POST"]).await;
        let log = mesh.client.process.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains("access")).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(names(lines[0]), documented());
        assert!(
            lines[0].contains(r#"e\u0009\" path=/evil \u202e\u2028"#),
            "{}",
            lines[0]
        );
        assert!(lines[0].len() < 3000, "a long field is cut");
    }
}

#[tokio::test]
async fn calls_of_grpc_and_refusals_are_told() {
    let app = grpc::application().await;
    let mut mesh = Mesh::builder(app.address, "grpc")
        .set("telemetry.accessLog", "json")
        .start()
        .await;
    let connection = Http2::connect(mesh.outbound()).await;
    let sent = grpc::request(ORDERS, "FailLate", body::full(grpc::frame(b"x")));
    grpc::call(&connection, sent).await.unwrap();
    let record = mesh.server.accessed(&["FailLate"]).await;
    assert_eq!(record["protocol"], "grpc");
    assert_eq!(record["grpc_status"], 14);
    assert_eq!(record["version"], "2");
    // What never became a request is told as far as it is known.
    let mut wire = Wire::connect(mesh.outbound()).await;
    wire.send("GET /a b HTTP/1.1\r\n\r\n").await;
    assert_eq!(wire.head().await.status(), 400);
    drop(wire);
    let record = mesh.client.accessed(&["bad-request"]).await;
    assert_eq!(record["status"], 400);
    assert_eq!(record["protocol"], "http");
    let sent = http::Request::builder().version(Version::HTTP_2);
    let sent = sent
        .uri("http://nobody.shop/a")
        .body(body::empty())
        .unwrap();
    connection.call(sent).await.unwrap();
    let record = mesh.client.accessed(&["no-service"]).await;
    assert_eq!(record["status"], 404);
    assert_eq!(record["tries"], 0);
    assert!(record["endpoint_address"].is_null(), "{record}");
}

#[tokio::test]
async fn a_connection_of_opaque_bytes_is_one_line() {
    let app = RawApp::start(|mut wire, _| async move {
        let received = wire.rest().await.unwrap();
        wire.send(vec![7; received.len() * 2]).await;
        wire.finish().await;
    })
    .await;
    let mut mesh = Mesh::builder(app.address, "tcp")
        .set("telemetry.accessLog", "json")
        .start()
        .await;
    let mut wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    wire.send(vec![1; 1000]).await;
    wire.finish().await;
    assert_eq!(wire.rest().await.unwrap().len(), 2000);
    let outgoing = mesh.client.accessed(&["tcp"]).await;
    let incoming = mesh.server.accessed(&["tcp"]).await;
    for record in [&outgoing, &incoming] {
        for (field, expected) in [
            ("protocol", Value::from("tcp")),
            ("source", "shop/client".into()),
            ("source_identity", spiffe_id("shop", "client").into()),
            ("destination", "shop/orders".into()),
            ("destination_identity", spiffe_id("shop", "orders").into()),
            ("bytes_received", 1000.into()),
            ("bytes_sent", 2000.into()),
            ("flag", "-".into()),
            ("tries", 1.into()),
        ] {
            assert_eq!(record[field], expected, "{field}: {record}");
        }
        assert!(record["duration_ms"].as_f64().unwrap() > 0.0);
        for absent in ["method", "path", "status", "version", "first_byte_ms"] {
            assert!(record[absent].is_null(), "{absent}: {record}");
        }
    }
    assert_eq!(
        outgoing["endpoint_address"],
        mesh.server.inbound().to_string()
    );
    assert_eq!(incoming["endpoint_address"], app.address.to_string());
    assert_eq!(incoming["tls"], "yes");
}

#[tokio::test]
async fn a_retry_and_a_denial_are_told_with_their_reasons() {
    let app = App::start(|_| async { ok("") }).await;
    let deny = "kind: AuthorizationPolicy\nmetadata: { name: nobody, namespace: shop }\nspec: { targetRefs: [{ kind: Service, name: orders }], mode: enforce, rules: [{ name: all, action: deny }] }";
    let mut mesh = Mesh::builder(app.address, "http")
        .set("telemetry.accessLog", "json")
        .server_resources(deny)
        .start()
        .await;
    let sent = request(Method::GET, ORDERS, "/denied", body::empty());
    let mut caller = Http1::connect(mesh.outbound()).await;
    assert_eq!(caller.call(sent).await.unwrap().status, 403);
    let record = mesh.server.accessed(&["/denied"]).await;
    assert_eq!(record["denied_by"], "shop/nobody");
    assert_eq!(record["destination"], "shop/orders");
    assert_eq!(
        (&record["flag"], &record["tries"]),
        (&"denied".into(), &0.into())
    );

    let closed = ClosedPort::new();
    let endpoints = [(closed.address, None), (app.address, None)];
    let orders = service("orders", "http", &endpoints);
    let in_turn = traffic_policy("  loadBalancer: { algorithm: round-robin }\n");
    let mut sidecar = Sidecar::builder("client")
        .resources(&format!("{orders}\n---\n{in_turn}"))
        .set("telemetry.accessLog", "json")
        .start(&Pki::new())
        .await;
    let mut caller = Http1::connect(sidecar.outbound()).await;
    // One of the first two goes to the closed port first.
    let mut retried = None;
    for number in 0..2 {
        let path = format!("/{number}/");
        let sent = request(Method::GET, ORDERS, &path, body::empty());
        assert_eq!(caller.call(sent).await.unwrap().status, 200);
        let record = sidecar.accessed(&[&path]).await;
        if record["tries"] == 2 {
            retried = Some(record);
            break;
        }
        assert!(record["retry_reason"].is_null(), "{record}");
    }
    let record = retried.expect("one was retried");
    assert_eq!(record["retry_reason"], "connect-failure");
    assert_eq!(record["endpoint_address"], app.address.to_string());
}

#[tokio::test]
async fn a_connection_that_is_refused_is_told_with_its_flag() {
    let closed = ClosedPort::new();
    let pki = Pki::new();
    let service = service("orders", "tcp", &[(closed.address, None)]);
    let mut sidecar = Sidecar::builder("client")
        .listener(ORDERS, 80)
        .resources(&service)
        .set("telemetry.accessLog", "json")
        .start(&pki)
        .await;
    // It may be reset before the caller has seen that it was accepted.
    let _caller = TcpStream::connect(sidecar.listener(ORDERS, 80)).await;
    let record = sidecar.accessed(&["tcp"]).await;
    assert_eq!(record["flag"], "connect-failure");
    assert_eq!(record["endpoint_address"], closed.address.to_string());
    assert_eq!(record["bytes_sent"], 0);
}
