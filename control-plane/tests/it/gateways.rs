//! A gateway reaches the proxy that serves it, and nobody else: it carries keys.

use std::time::{Duration, SystemTime};

use selvage_api::client::Session;
use selvage_api::name;
use selvage_api::v1::resource::Body;
use selvage_api::v1::{self, Resource};
use selvage_certs::{RootCa, TrustDomain};

use crate::support::{Plane, Stream, Workload, hello};

const GATEWAY: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: public, namespace: shop }
spec:
  gatewayClassName: selvage
  listeners:
    - { name: web, port: 80, protocol: HTTP, allowedRoutes: { namespaces: { from: Selector, selector: { matchLabels: { open: 'yes' } } } } }
    - { name: secure, port: 443, protocol: HTTPS, tls: { certificateRefs: [{ name: pair, namespace: vault }] } }
";

const GRANT: &str = "
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: { name: keys, namespace: vault }
spec:
  from: [{ group: gateway.networking.k8s.io, kind: Gateway, namespace: shop }]
  to: [{ group: '', kind: Secret }]
";

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: app, namespace: web }
spec:
  parentRefs: [{ name: public, namespace: shop, sectionName: web }]
  rules: [{ backendRefs: [{ name: app, port: 80 }] }]
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: { name: app, namespace: web }
spec: { ports: [{ port: 80 }] }
";

fn namespace(open: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Namespace\nmetadata: {{name: web, labels: {{open: '{open}'}}}}\n"
    )
}

/// A Secret with a new pair, and a line of its key.
fn secret() -> (String, String) {
    let domain = TrustDomain::parse("mesh.local").unwrap();
    let root = RootCa::generate(&domain, Duration::from_secs(3600), SystemTime::now()).unwrap();
    let text = root.to_pem().unwrap();
    let at = text.find("-----BEGIN PRIVATE KEY").unwrap();
    let other = text.find("-----BEGIN CERTIFICATE").unwrap();
    let (first, second) = text.split_at(at.max(other));
    let (key, certificate) = match at < other {
        true => (first, second),
        false => (second, first),
    };
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": { "name": "pair", "namespace": "vault" },
        "stringData": { "tls.crt": certificate, "tls.key": key },
    });
    (document.to_string(), key.lines().nth(1).unwrap().to_owned())
}

fn gateway(resource: Option<&Resource>) -> Option<&v1::Gateway> {
    match resource?.body.as_ref()? {
        Body::Gateway(gateway) => Some(gateway),
        _ => None,
    }
}

/// The key of its listener `secure`.
fn key(resource: Option<&Resource>) -> Option<String> {
    let listeners = &gateway(resource)?.listeners;
    let secure = listeners.iter().find(|it| it.name == "secure")?;
    match secure.certificates.first()?.from.as_ref()? {
        v1::certificate::From::Pair(pair) => String::from_utf8(pair.key.clone()).ok(),
        _ => None,
    }
}

/// What the only route of its listener `web` leads to.
fn leads_to(resource: Option<&Resource>) -> Option<v1::route_backend::To> {
    let listeners = &gateway(resource)?.listeners;
    let web = listeners.iter().find(|it| it.name == "web")?;
    web.http_routes.first()?.rules[0].backends[0].to.clone()
}

async fn serving(workload: &Workload, namespace: &str, service: &str) -> (Session, Stream) {
    let mut session = Session::new(hello(namespace, &format!("{service}-1"), service));
    session
        .subscribe([name::gateway("shop", "public")])
        .unwrap();
    let stream = workload.open(&mut session).await.unwrap();
    (session, stream)
}

#[tokio::test]
async fn whatever_a_gateway_depends_on_reaches_its_proxy() {
    let plane = Plane::start().await;
    let wanted = name::gateway("shop", "public");
    let proxy = plane.enrol("shop/public").await;
    let (mut session, mut stream) = serving(&proxy, "shop", "public").await;
    stream.take(&mut session).await;
    assert!(session.is_absent(&wanted));

    plane.apply(GATEWAY).await;
    let lacks_pair =
        |found: Option<&Resource>| gateway(found).is_some_and(|it| it.listeners.len() == 1);
    stream.until(&mut session, &wanted, lacks_pair).await;
    let (pair, line) = secret();
    plane.apply(&pair).await;
    plane.apply(GRANT).await;
    let shows = |line: String| {
        move |found: Option<&Resource>| key(found).is_some_and(|it| it.contains(&line))
    };
    stream.until(&mut session, &wanted, shows(line)).await;
    let (pair, line) = secret();
    plane.apply(&pair).await;
    stream.until(&mut session, &wanted, shows(line)).await;

    plane.apply(ROUTE).await;
    plane.apply(&namespace("no")).await;
    plane.apply(&namespace("yes")).await;
    use v1::route_backend::To;
    let invalid = |found: Option<&Resource>| matches!(leads_to(found), Some(To::Invalid(_)));
    stream.until(&mut session, &wanted, invalid).await;
    plane.apply(SERVICE).await;
    let there = |found: Option<&Resource>| matches!(leads_to(found), Some(To::Service(_)));
    stream.until(&mut session, &wanted, there).await;

    for (kind, namespace, name) in [
        ("ReferenceGrant", "vault", "keys"),
        ("Namespace", "default", "web"),
    ] {
        let path = format!("/api/v1/{kind}/{namespace}/{name}");
        assert_eq!(plane.ask("DELETE", &path, "").await.0, 200);
    }
    let bare = |found: Option<&Resource>| lacks_pair(found) && leads_to(found).is_none();
    stream.until(&mut session, &wanted, bare).await;
    plane.stop().await;
}

#[tokio::test]
async fn only_an_identity_of_the_gateways_own_name_is_told_of_it() {
    let plane = Plane::start().await;
    let (pair, _) = secret();
    for text in [GATEWAY, GRANT, &pair] {
        plane.apply(text).await;
    }
    let wanted = name::gateway("shop", "public");
    for (account, is_told) in [
        ("shop/public", true),
        ("shop/orders", false),
        ("web/public", false),
        ("vault/pair", false),
    ] {
        let workload = plane.enrol(account).await;
        let (namespace, service) = account.split_once('/').unwrap();
        let (mut session, mut stream) = serving(&workload, namespace, service).await;
        stream.take(&mut session).await;
        assert_eq!(
            key(session.resource(&wanted)).is_some(),
            is_told,
            "{account}"
        );
        assert_eq!(session.is_absent(&wanted), !is_told, "{account}");
    }
    // Nor one that only says it is.
    let liar = plane.enrol("shop/liar").await;
    let (_, mut stream) = serving(&liar, "shop", "public").await;
    let refused = stream.receive().await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    plane.stop().await;
}

#[tokio::test]
async fn nobody_is_shown_the_key_of_a_secret() {
    let plane = Plane::start().await;
    let (pair, line) = secret();
    plane.apply(&pair).await;
    let line = line.as_str();
    let broken = pair.replace("tls.key", "tls.kex");
    for (method, path, body) in [
        ("GET", "/api/v1/secrets", ""),
        ("GET", "/api/v1/secret/vault/pair", ""),
        ("GET", "/api/v1/events", ""),
        ("GET", "/api/v1/changes?since=0", ""),
        ("POST", "/api/v1/apply?dryRun=true", pair.as_str()),
        ("POST", "/api/v1/apply", broken.as_str()),
    ] {
        let (_, answer) = plane.ask(method, path, body).await;
        let answer = answer.to_string();
        assert!(
            answer.contains("pair") || answer.contains("tls.kex"),
            "{path}: {answer}"
        );
        assert!(!answer.contains(line), "{path}: {answer}");
    }
    let store = plane.config.data_dir.join("store.redb");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(store).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // What is kept is the Secret, not what is shown of it.
    for text in [GATEWAY, GRANT] {
        plane.apply(text).await;
    }
    let plane = plane.restart().await;
    let proxy = plane.enrol("shop/public").await;
    let (mut session, mut stream) = serving(&proxy, "shop", "public").await;
    stream.take(&mut session).await;
    let kept = key(session.resource(&name::gateway("shop", "public")));
    assert!(kept.is_some_and(|key| key.contains(line)));
    plane.stop().await;
}
