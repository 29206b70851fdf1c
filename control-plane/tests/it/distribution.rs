//! A change travels to the proxies that use it, and their answers come back.

use selvage_api::client::{Received, Session};
use selvage_api::name;
use selvage_api::v1::resource::Body;
use selvage_api::v1::{Health, HeartbeatRequest, RegisteredPort, Resource, Service};
use tonic::Code;

use crate::support::{Plane, Workload, eventually, hello};

fn service(resource: Option<&Resource>) -> Option<&Service> {
    match resource?.body.as_ref()? {
        Body::Service(service) => Some(service),
        _ => None,
    }
}

const POLICY: &str = "
kind: TrafficPolicy
metadata: { name: orders, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: orders }]
  retry: { attempts: 3, on: [connect-failure] }
";

#[tokio::test]
async fn a_policy_reaches_a_proxy_and_its_answer_comes_back() {
    let plane = Plane::start().await;
    let orders = plane.enrol("shop/orders").await;
    let (own, wanted) = (
        name::workload("shop", "orders-1"),
        name::service("shop", "orders"),
    );
    let bundle = name::trust_bundle("mesh.local");
    let mut session = Session::new(hello("shop", "orders-1", "orders"));
    session
        .subscribe([own.clone(), wanted.clone(), bundle.clone()])
        .unwrap();
    let mut stream = orders.open(&mut session).await.unwrap();
    stream
        .until(&mut session, &bundle, |found| found.is_some())
        .await;
    assert!(session.resource(&own).is_some());
    assert!(session.is_absent(&wanted), "nobody registered yet");

    orders.register("orders-1", "orders").await.unwrap();
    stream
        .until(&mut session, &wanted, |found| {
            service(found).is_some_and(|s| s.endpoints.len() == 1)
        })
        .await;
    let endpoint = service(session.resource(&wanted)).unwrap().endpoints[0].clone();
    assert_eq!(endpoint.identity, "spiffe://mesh.local/ns/shop/sa/orders");

    let revision = plane.apply(POLICY).await["revision"].as_u64().unwrap();
    let retries = |found: Option<&Resource>| {
        service(found)?
            .policy
            .as_ref()?
            .retry
            .as_ref()
            .map(|retry| retry.attempts)
    };
    stream
        .until(&mut session, &wanted, |found| retries(found) == Some(3))
        .await;
    let acked = |answer: &(u16, serde_json::Value)| {
        answer.1["items"][0]["acked"].as_u64() == Some(revision)
    };
    let (_, proxies) = eventually(|| plane.ask("GET", "/api/v1/proxies", ""), acked).await;
    assert_eq!(proxies["items"][0]["workload"], "shop/orders-1");
    assert_eq!(proxies["items"][0]["subscriptions"], 3);

    let (status, _) = plane
        .ask("DELETE", "/api/v1/trafficpolicy/shop/orders", "")
        .await;
    assert_eq!(status, 200);
    stream.refuse(&mut session, &wanted, "it is too good").await;
    let refused = |answer: &(u16, serde_json::Value)| {
        answer.1["items"][0]["nacks"][0]["reason"] == "it is too good"
    };
    eventually(|| plane.ask("GET", "/api/v1/proxies", ""), refused).await;
    let (_, metrics) = plane.raw("GET", "/metrics", "", "").await;
    assert!(
        metrics.contains("selvage_nacks_total{kind=\"service\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("selvage_connected_proxies 1"));
    assert!(metrics.contains("selvage_registered_endpoints{service=\"shop/orders\"} 1"));
    drop(stream);
    eventually(
        || plane.ask("GET", "/api/v1/proxies", ""),
        |answer| answer.1["items"] == serde_json::json!([]),
    )
    .await;
    plane.stop().await;
}

/// Services of one workload, each asked for once.
const SERVICES: usize = 20;

/// `service-0` and so on, and a workload whose token binds them all.
async fn many_services(plane: &Plane) -> (Vec<String>, Workload) {
    let services: Vec<_> = (0..SERVICES).map(|n| format!("service-{n}")).collect();
    let asked = serde_json::json!({ "workload": "shop/orders", "services": services });
    let token = plane.token(asked).await;
    let (svid, bundle) = plane.attest(&token).await.unwrap();
    let workload = Workload::with(plane, svid, bundle).await.unwrap();
    (services, workload)
}

async fn report(workload: &Workload, service: &str, health: Health) {
    let mut beat = HeartbeatRequest {
        namespace: "shop".into(),
        workload: service.into(),
        ports: Vec::new(),
    };
    beat.ports.push(RegisteredPort {
        service_port: 80,
        protocol: 2,
        health: health.into(),
    });
    workload.registry().heartbeat(beat).await.unwrap();
}

/// Makes the service unhealthy, in a burst: a change of another one is
/// published at once, so that this one waits for its publication.
async fn fail_in_a_burst(workload: &Workload, service: &str) {
    let other = "registered-before";
    report(workload, other, Health::Unhealthy).await;
    report(workload, other, Health::Healthy).await;
    report(workload, service, Health::Unhealthy).await;
}

fn is_unhealthy(found: Option<&Resource>) -> bool {
    let endpoint = service(found).and_then(|service| service.endpoints.first());
    endpoint.is_some_and(|endpoint| endpoint.ports[0].health() == Health::Unhealthy)
}

#[tokio::test]
async fn what_was_registered_is_in_the_first_push_of_a_later_stream() {
    let plane = Plane::start().await;
    let (services, orders) = many_services(&plane).await;
    for name in &services {
        orders.register(name, name).await.unwrap();
        let wanted = name::service("shop", name);
        let mut session = Session::new(hello("shop", name, name));
        session.subscribe([wanted.clone()]).unwrap();
        let mut stream = orders.open(&mut session).await.unwrap();
        stream.take(&mut session).await;
        assert!(session.resource(&wanted).is_some(), "{name} is absent");
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_new_stream_is_told_nothing_older_than_itself() {
    let plane = Plane::start().await;
    let (services, orders) = many_services(&plane).await;
    orders
        .register("registered-before", "service-0")
        .await
        .unwrap();
    for name in &services[1..] {
        orders.register(name, name).await.unwrap();
        fail_in_a_burst(&orders, name).await;
        let wanted = name::service("shop", name);
        let mut session = Session::new(hello("shop", name, name));
        session.subscribe([wanted.clone()]).unwrap();
        let mut stream = orders.open(&mut session).await.unwrap();
        stream.take(&mut session).await;
        assert!(is_unhealthy(session.resource(&wanted)), "{name}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_new_subscription_is_told_nothing_older_than_itself() {
    let plane = Plane::start().await;
    let (services, orders) = many_services(&plane).await;
    orders
        .register("registered-before", "service-0")
        .await
        .unwrap();
    let mut session = Session::new(hello("shop", "registered-before", "service-0"));
    let mut stream = orders.open(&mut session).await.unwrap();
    stream.take(&mut session).await;
    for name in &services[1..] {
        orders.register(name, name).await.unwrap();
        fail_in_a_burst(&orders, name).await;
        let wanted = name::service("shop", name);
        let asked = session.subscribe([wanted.clone()]).unwrap();
        stream.send(asked).await;
        stream.take(&mut session).await;
        assert!(is_unhealthy(session.resource(&wanted)), "{name}");
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_proxy_sees_only_what_its_identity_may() {
    let plane = Plane::start().await;
    let orders = plane.enrol("shop/orders").await;
    for stranger in [
        hello("bank", "orders-1", "orders"),
        hello("shop", "vault-1", "vault"),
        hello("shop", "a/b", "orders"),
    ] {
        let mut session = Session::new(stranger);
        let mut stream = orders.open(&mut session).await.unwrap();
        let refused = stream.receive().await.unwrap_err();
        assert!(
            matches!(
                refused.code(),
                Code::PermissionDenied | Code::InvalidArgument
            ),
            "{refused}"
        );
    }
    let other = name::workload("shop", "vault-1");
    let mut session = Session::new(hello("shop", "orders-1", "orders"));
    session.subscribe([other.clone()]).unwrap();
    let mut stream = orders.open(&mut session).await.unwrap();
    let response = stream.receive().await.unwrap();
    assert!(matches!(session.on_response(response), Received::Push(_)));
    session.ack();
    assert!(session.is_absent(&other), "another workload's resource");
    plane.stop().await;
}

#[tokio::test]
async fn a_proxy_resumes_after_a_restart_with_what_it_holds() {
    let plane = Plane::start().await;
    let orders = plane.enrol("shop/orders").await;
    orders.register("orders-1", "orders").await.unwrap();
    let wanted = name::service("shop", "orders");
    let mut session = Session::new(hello("shop", "orders-1", "orders"));
    session.subscribe([wanted.clone()]).unwrap();
    let mut stream = orders.open(&mut session).await.unwrap();
    stream
        .until(&mut session, &wanted, |found| found.is_some())
        .await;
    let (svid, bundle) = (orders.svid.clone(), orders.bundle.clone());
    let (plane, ended) = tokio::join!(plane.restart(), stream.receive());
    let ended = ended.unwrap_err();
    assert!(
        matches!(
            ended.code(),
            Code::Unavailable | Code::Cancelled | Code::Unknown
        ),
        "{ended}"
    );
    session.close();
    let orders = crate::support::Workload::with(&plane, svid, bundle)
        .await
        .unwrap();
    let mut stream = orders.open(&mut session).await.unwrap();
    let response = stream.receive().await.unwrap();
    assert!(
        response.resources.is_empty() && response.removed.is_empty(),
        "{response:?}"
    );
    plane.stop().await;
}

#[tokio::test]
async fn a_stream_ends_with_its_certificate() {
    let short = std::time::Duration::from_secs(2);
    let plane = Plane::start_with(|config| config.ca.leaf_ttl = short).await;
    let orders = plane.enrol("shop/orders").await;
    let mut session = Session::new(hello("shop", "orders-1", "orders"));
    let mut stream = orders.open(&mut session).await.unwrap();
    let first = stream.receive().await.unwrap();
    session.on_response(first);
    let ack = session.ack();
    stream.send(ack).await;
    assert_eq!(
        stream.receive().await.unwrap_err().code(),
        Code::Unauthenticated
    );
    let late = orders.register("orders-1", "orders").await.unwrap_err();
    assert_eq!(late.code(), Code::Unauthenticated, "on the same connection");
    plane.stop().await;
}
