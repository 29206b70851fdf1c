//! Who may register what.

use selvage_api::client::Session;
use selvage_api::name;
use selvage_api::v1::{DeregisterRequest, HeartbeatRequest, RegisteredPort};
use selvage_certs::control_plane_client_config;
use selvage_control_plane::rpc::registry_client::RegistryClient;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{Plane, Workload, eventually, hello, registration};

#[tokio::test]
async fn a_workload_registers_what_its_token_binds_and_nothing_else() {
    let plane = Plane::start().await;
    let orders = plane.enrol("shop/orders").await;
    orders.register("orders-1", "orders").await.unwrap();
    let code = |result: Result<(), tonic::Status>| result.unwrap_err().code();
    assert_eq!(
        code(orders.register("orders-2", "payments").await),
        Code::PermissionDenied
    );
    let elsewhere = orders
        .registry()
        .register(registration("bank", "orders-1", "orders"))
        .await;
    assert_eq!(code(elsewhere.map(drop)), Code::PermissionDenied);
    let nameless = orders
        .registry()
        .register(registration("shop", "Bad Name", "orders"))
        .await;
    assert_eq!(code(nameless.map(drop)), Code::InvalidArgument);

    let token = plane
        .token(json!({ "workload": "shop/batch", "services": ["orders", "batch"] }))
        .await;
    let (svid, bundle) = plane.attest(&token).await.unwrap();
    let batch = Workload::with(&plane, svid, bundle).await.unwrap();
    batch.register("batch-1", "batch").await.unwrap();
    assert_eq!(
        code(batch.register("orders-1", "orders").await),
        Code::PermissionDenied,
        "the name is taken"
    );
    plane.stop().await;
}

#[tokio::test]
async fn without_a_certificate_nothing_is_registered() {
    let plane = Plane::start().await;
    let bundle = plane.enrol("shop/orders").await.bundle;
    let channel = plane
        .channel(control_plane_client_config(&bundle, None).unwrap())
        .await
        .unwrap();
    let refused = RegistryClient::new(channel)
        .register(registration("shop", "orders-1", "orders"))
        .await;
    assert_eq!(refused.unwrap_err().code(), Code::Unauthenticated);
    plane.stop().await;
}

#[tokio::test]
async fn health_and_departure_show_at_once() {
    let plane = Plane::start().await;
    let orders = plane.enrol("shop/orders").await;
    let beat = |health| HeartbeatRequest {
        namespace: "shop".into(),
        workload: "orders-1".into(),
        ports: vec![RegisteredPort {
            service_port: 80,
            protocol: 2,
            health,
        }],
    };
    let unknown = orders.registry().heartbeat(beat(1)).await;
    assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    orders.register("orders-1", "orders").await.unwrap();
    let response = orders
        .registry()
        .heartbeat(beat(2))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(response.lease.unwrap().seconds, 15);
    let first = |answer: &Value| answer["items"][0]["workloads"][0].clone();
    let (_, services) = plane.ask("GET", "/api/v1/services", "").await;
    assert_eq!(first(&services)["healthy"], false, "{services}");
    let (_, targets) = plane.ask("GET", "/sd/prometheus", "").await;
    assert_eq!(targets[0]["targets"][0], "127.0.0.1:21020");
    assert_eq!(targets[0]["labels"]["workload"], "orders-1");

    let goodbye = DeregisterRequest {
        namespace: "shop".into(),
        workload: "orders-1".into(),
    };
    let stranger = plane.enrol("shop/stranger").await;
    let refused = stranger.registry().deregister(goodbye.clone()).await;
    assert_eq!(
        refused.unwrap_err().code(),
        Code::NotFound,
        "somebody else's"
    );
    orders.registry().deregister(goodbye).await.unwrap();
    let (_, targets) = plane.ask("GET", "/sd/prometheus", "").await;
    assert_eq!(targets, json!([]));
    plane.stop().await;
}

#[tokio::test]
async fn who_only_calls_is_scraped_for_as_long_as_it_is_connected() {
    let plane = Plane::start().await;
    let client = plane.enrol("shop/client").await;
    let mut said = hello("shop", "client-1", "client");
    said.telemetry = "0.0.0.0:21021".to_owned();
    said.labels = [("version".to_owned(), "v1".to_owned())].into();
    let mut session = Session::new(said);
    session
        .subscribe([name::workload("shop", "client-1")])
        .unwrap();
    let mut stream = client.open(&mut session).await.unwrap();
    stream.take(&mut session).await;
    let (_, targets) = plane.ask("GET", "/sd/prometheus", "").await;
    let expected = json!([{
        "targets": ["127.0.0.1:21021"],
        "labels": {
            "namespace": "shop",
            "service": "client",
            "workload": "client-1",
            "__meta_selvage_label_version": "v1",
        },
    }]);
    assert_eq!(targets, expected, "at the address its stream comes from");

    client.register("client-1", "client").await.unwrap();
    let (_, targets) = plane.ask("GET", "/sd/prometheus", "").await;
    assert_eq!(targets.as_array().map(Vec::len), Some(1), "{targets}");
    assert_eq!(targets[0]["targets"][0], "127.0.0.1:21020", "as registered");
    let goodbye = DeregisterRequest {
        namespace: "shop".into(),
        workload: "client-1".into(),
    };
    client.registry().deregister(goodbye).await.unwrap();
    drop(stream);
    eventually(
        async || plane.ask("GET", "/sd/prometheus", "").await.1,
        |targets| *targets == json!([]),
    )
    .await;
    plane.stop().await;
}

#[tokio::test]
async fn a_hello_that_cannot_be_listed_is_refused() {
    let plane = Plane::start().await;
    let client = plane.enrol("shop/client").await;
    let long = "x".repeat(257);
    for (telemetry, label, reason) in [
        ("somewhere", "v1", "telemetry: expected IP:PORT"),
        ("127.0.0.1:21021", long.as_str(), "labels of at most"),
    ] {
        let mut said = hello("shop", "client-1", "client");
        said.telemetry = telemetry.to_owned();
        said.labels = [("version".to_owned(), label.to_owned())].into();
        let mut session = Session::new(said);
        let mut stream = client.open(&mut session).await.unwrap();
        let refused = stream.receive().await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        assert!(refused.message().contains(reason), "{refused}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn prometheus_is_told_where_workloads_are_scraped() {
    let plane = Plane::start().await;
    let orders = plane.enrol("shop/orders").await;
    let mut labelled = registration("shop", "orders-1", "orders");
    labelled.labels = [("app.example/version", "v1"), ("service", "forged")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    orders.registry().register(labelled).await.unwrap();
    let mut silent = registration("shop", "orders-2", "orders");
    silent.telemetry.clear();
    orders.registry().register(silent).await.unwrap();
    let (_, targets) = plane.ask("GET", "/sd/prometheus", "").await;
    let expected = json!([{
        "targets": ["127.0.0.1:21020"],
        "labels": {
            "namespace": "shop",
            "service": "orders",
            "workload": "orders-1",
            "__meta_selvage_label_app_example_version": "v1",
            "__meta_selvage_label_service": "forged",
        },
    }]);
    assert_eq!(targets, expected);
    plane.stop().await;
}
