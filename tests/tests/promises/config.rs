//! Bad input is refused with its place and what to do, and what was running
//! goes on running.

use std::time::Duration;

use selvage_tests::app::App;
use selvage_tests::client;
use selvage_tests::mesh::{Mesh, service};
use selvage_tests::pki::{Leaf, Pki, spiffe_id};
use selvage_tests::sidecar::{Builder, ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};

const LIMIT: Duration = Duration::from_secs(10);

/// Starts what cannot start: it must end with 1 and say all of `words` in few lines, without a panic.
async fn assert_refused(pki: &Pki, builder: Builder, words: &[&str]) {
    let (code, said) = builder.write(pki).fail(&format!("{words:?}"), LIMIT).await;
    assert_eq!(code, Some(1), "{said}");
    for word in words {
        assert!(said.contains(word), "nothing of `{word}` in:\n{said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert!(said.lines().count() <= 25, "{said}");
}

#[tokio::test]
async fn an_unknown_key_is_named_with_its_place_and_the_nearest_known() {
    let pki = Pki::new();
    let written = Sidecar::builder("client").write(&pki);
    let text = std::fs::read_to_string(&written.config).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    // Block style, so that the place is a line of its own.
    let identity = &value["static"]["identity"];
    let yaml = format!(
        "workload: {{ name: client, service: client, namespace: shop, serviceAccount: client }}\n\
         trustDomain: mesh.local\n\
         static:\n  resources: ./resources/\n  identity: {identity}\n\
         outbound:\n  adress: 127.0.0.1:0\n"
    );
    std::fs::write(&written.config, yaml).unwrap();
    let (code, said) = written.fail("an unknown key", LIMIT).await;
    assert_eq!(code, Some(1), "{said}");
    for word in ["sidecar.yaml:7:3", "adress", "address"] {
        assert!(said.contains(word), "nothing of `{word}` in:\n{said}");
    }
}

#[tokio::test]
async fn contradictions_and_wrong_types_are_refused() {
    let pki = Pki::new();
    let base = || Sidecar::builder("client");
    assert_refused(
        &pki,
        base().set("drain.timeout", "soon"),
        &["drain.timeout"],
    )
    .await;
    assert_refused(&pki, base().set("workers", "many"), &["workers"]).await;
    assert_refused(
        &pki,
        base().set(
            "controlPlane",
            serde_json::json!({"address": "127.0.0.1:1", "token": "x"}),
        ),
        &["static", "controlPlane"],
    )
    .await;
    assert_refused(
        &pki,
        base().set("gateway", serde_json::json!({"name": "public"})),
        &["contradicts `gateway`", "inbound"],
    )
    .await;
    assert_refused(
        &pki,
        base().set("trustDomain", "Not A Domain"),
        &["trustDomain"],
    )
    .await;
    assert_refused(
        &pki,
        base().set("trustDomain", "other.local"),
        &["other.local"],
    )
    .await;
}

#[tokio::test]
async fn resources_that_are_wrong_are_refused_at_the_start() {
    let pki = Pki::new();
    let wrong = "kind: Service\nmetadata: { name: orders, namespace: shop }\nspec:\n  ports: [{ port: 80, protcol: http }]\n";
    assert_refused(
        &pki,
        Sidecar::builder("client").resources(wrong),
        &["mesh.yaml", "protcol", "protocol"],
    )
    .await;
    let unknown = "kind: TraficPolicy\nmetadata: { name: orders, namespace: shop }\nspec: {}\n";
    assert_refused(
        &pki,
        Sidecar::builder("client").resources(unknown),
        &["TraficPolicy", "TrafficPolicy"],
    )
    .await;
    let extension = "kind: HTTPRoute\nmetadata: { name: orders, namespace: shop }\nspec: { rules: [{ filters: [{ type: ExtensionRef, extensionRef: { group: a, kind: B, name: c } }] }] }\n";
    assert_refused(
        &pki,
        Sidecar::builder("client").resources(extension),
        &["`ExtensionRef` is not supported"],
    )
    .await;
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let pki = Pki::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["outbound.address", "admin.address", "telemetry.address"] {
        assert_refused(
            &pki,
            Sidecar::builder("client").set(key, address.clone()),
            &[&address],
        )
        .await;
    }
}

#[tokio::test]
async fn an_identity_that_cannot_be_used_is_named() {
    let (pki, other) = (Pki::new(), Pki::new());
    let identity = pki.account("shop", "client");
    let base = || Sidecar::builder("client").identity(identity.clone());
    assert_refused(
        &pki,
        base().set("static.identity.key", "/nowhere/key.pem"),
        &["/nowhere/key.pem"],
    )
    .await;
    let another = pki.account("shop", "client");
    let key = another.key.to_string_lossy().into_owned();
    assert_refused(&pki, base().set("static.identity.key", key), &["key"]).await;
    let mut leaf = Leaf::of(&spiffe_id("shop", "client"));
    leaf.lasts = Duration::ZERO;
    assert_refused(
        &pki,
        Sidecar::builder("client").identity(pki.issue(&leaf)),
        &["expired"],
    )
    .await;
    let foreign = identity.clone().trusting(&other);
    assert_refused(
        &pki,
        Sidecar::builder("client").identity(foreign),
        &["trust"],
    )
    .await;
}

#[tokio::test]
async fn the_environment_beats_the_file() {
    let pki = Pki::new();
    let (code, said) = Sidecar::builder("client")
        .environment("SELVAGE_DRAIN_TIMEOUT", "never")
        .write(&pki)
        .fail("a variable", LIMIT)
        .await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("SELVAGE_DRAIN_TIMEOUT"), "{said}");
}

#[tokio::test]
async fn a_changed_resource_takes_effect_within_a_second() {
    let (first, second) = (
        App::start(|_| async { selvage_tests::app::ok("first") }).await,
        App::start(|_| async { selvage_tests::app::ok("second") }).await,
    );
    let pki = Pki::new();
    let of = |app: &App| service("orders", "http", &[(app.address, None)]);
    let caller = Sidecar::builder("client")
        .resources(&of(&first))
        .start(&pki)
        .await;
    assert_eq!(
        client::get(caller.outbound(), ORDERS, "/").await.text(),
        "first"
    );
    caller.write_resources(&of(&second));
    let took = wait::until("the second application", PATIENCE, async || {
        let answer = client::get(caller.outbound(), ORDERS, "/").await;
        assert_eq!(
            answer.status,
            200,
            "no request is lost meanwhile: {}",
            answer.flag()
        );
        answer.text() == "second"
    })
    .await;
    assert!(took < Duration::from_millis(1200), "{took:?}");
}

#[tokio::test]
async fn a_broken_resource_keeps_the_last_good() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    mesh.client
        .write_resources("kind: Service\nmetadata: { name: [\n");
    mesh.client.logged(&["mesh.yaml"]).await;
    assert_eq!(
        client::get(mesh.outbound(), ORDERS, "/").await.status,
        200,
        "what was running goes on running"
    );
    assert_eq!(mesh.client.readiness().await, Some(200));
    let good = service("orders", "http", &[(app.address, None)]);
    mesh.client.write_resources(&good);
    wait::until("the next good one", PATIENCE, async || {
        client::get(mesh.outbound(), ORDERS, "/").await;
        app.last().header("x-forwarded-client-cert").is_empty()
    })
    .await;
}

#[tokio::test]
async fn the_admin_port_answers_only_to_this_machine() {
    let app = App::echo().await;
    let mesh = Mesh::of(app.address, "http").await;
    let admin = mesh.client.admin();
    for path in ["/config_dump", "/clusters", "/certs"] {
        let answer = client::get(admin, "localhost", path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.text().contains("PRIVATE KEY"), "{path}");
    }
    assert!(
        client::get(admin, "localhost", "/clusters")
            .await
            .text()
            .contains("orders")
    );
    assert!(
        client::get(admin, "evil.example", "/clusters")
            .await
            .status
            .is_client_error(),
        "a Host that is not loopback"
    );
    let mut sent = client::request(
        http::Method::GET,
        "localhost",
        "/clusters",
        selvage_tests::body::empty(),
    );
    sent.headers_mut()
        .insert("origin", "http://localhost".parse().unwrap());
    let answer = client::Http1::connect(admin)
        .await
        .call(sent)
        .await
        .unwrap();
    assert!(
        answer.status.is_client_error(),
        "a request that a page of a browser makes"
    );
    for path in ["/metrics", "/live", "/ready"] {
        assert_eq!(
            client::get(mesh.client.telemetry(), "localhost", path)
                .await
                .status,
            200,
            "{path}"
        );
    }
    for path in ["/", "/clusters", "/drain"] {
        assert_eq!(
            client::get(mesh.client.telemetry(), "localhost", path)
                .await
                .status,
            404,
            "{path}"
        );
    }
}
