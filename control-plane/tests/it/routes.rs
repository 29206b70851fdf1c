//! Whatever a route depends on reaches the proxies that use its service.

use selvage_api::client::Session;
use selvage_api::name;
use selvage_api::v1::resource::Body;
use selvage_api::v1::{HttpRule, Resource, RouteBackend, route_backend::To};

use crate::support::{Plane, hello};

const ROUTE: &str = "
kind: HTTPRoute
metadata: { name: orders, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: orders }]
  rules:
    - name: all
      backendRefs:
        - { name: orders, port: 80 }
        - { name: stock, namespace: store, port: 80 }
";

const GRANT: &str = "
kind: ReferenceGrant
metadata: { name: shop, namespace: store }
spec:
  from: [{ group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop }]
  to: [{ group: '', kind: Service, name: stock }]
";

const STOCK: &str = "
kind: Service
metadata: { name: stock, namespace: store }
spec: { ports: [{ port: 80 }] }
";

const POLICY: &str = "
kind: TrafficPolicy
metadata: { name: all, namespace: shop }
spec:
  targetRefs: [{ kind: HTTPRoute, name: orders, sectionName: all }]
  timeouts: { request: 3s }
";

/// The first rule of the first route.
fn rule(resource: Option<&Resource>) -> Option<&HttpRule> {
    match resource?.body.as_ref()? {
        Body::Service(service) => service.http_routes.first()?.rules.first(),
        _ => None,
    }
}

fn backend(resource: Option<&Resource>, index: usize) -> Option<&RouteBackend> {
    rule(resource)?.backends.get(index)
}

/// Whether a backend is refused for this reason.
fn is_refused(resource: Option<&Resource>, reason: &str) -> bool {
    let to = backend(resource, 1).and_then(|backend| backend.to.as_ref());
    matches!(to, Some(To::Invalid(why)) if why.starts_with(reason))
}

fn seconds(resource: Option<&Resource>) -> Option<i64> {
    let policy = backend(resource, 0)?.policy.as_ref()?;
    Some(policy.timeouts.as_ref()?.request.as_ref()?.seconds)
}

#[tokio::test]
async fn a_route_its_backends_grants_and_policies_reach_a_proxy() {
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

    plane.apply(ROUTE).await;
    let mut until = async |holds: &(dyn Fn(Option<&Resource>) -> bool + Sync)| {
        stream.until(&mut session, &wanted, holds).await;
    };
    until(&|found| is_refused(found, "RefNotPermitted")).await;
    plane.apply(GRANT).await;
    until(&|found| is_refused(found, "BackendNotFound")).await;
    plane.apply(STOCK).await;
    until(&|found| {
        let to = backend(found, 1).and_then(|backend| backend.to.as_ref());
        matches!(to, Some(To::Service(stock)) if stock.namespace == "store")
    })
    .await;
    plane.apply(POLICY).await;
    until(&|found| seconds(found) == Some(3)).await;

    let (_, shown) = plane.ask("GET", "/api/v1/httproutes/shop/orders", "").await;
    let parent = &shown["status"]["parents"][0];
    assert_eq!(parent["parentRef"]["name"], "orders");
    for (condition, kind) in [(0, "Accepted"), (1, "ResolvedRefs")] {
        assert_eq!(parent["conditions"][condition]["type"], kind);
        assert_eq!(parent["conditions"][condition]["status"], "True");
    }

    for gone in [
        "trafficpolicy/shop/all",
        "service/store/stock",
        "referencegrant/store/shop",
    ] {
        let path = format!("/api/v1/{gone}");
        assert_eq!(plane.ask("DELETE", &path, "").await.0, 200, "{gone}");
    }
    until(&|found| seconds(found).is_none() && is_refused(found, "RefNotPermitted")).await;
    let (_, shown) = plane.ask("GET", "/api/v1/httproutes/shop/orders", "").await;
    let resolved = &shown["status"]["parents"][0]["conditions"][1];
    assert_eq!(resolved["status"], "False");
    assert_eq!(resolved["reason"], "RefNotPermitted");

    let (status, _) = plane
        .ask("DELETE", "/api/v1/httproute/shop/orders", "")
        .await;
    assert_eq!(status, 200);
    until(&|found| found.is_some() && rule(found).is_none()).await;
}
