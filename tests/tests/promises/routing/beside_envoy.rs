//! The same routes, once for Selvage and once for Envoy, take the same requests
//! to the same backends, by the same rules.

mod configuration;
mod documents;
mod draw;

use std::net::SocketAddr;

use fastrand::Rng;
use http::Method;
use selvage_tests::app::{App, ok};
use selvage_tests::body;
use selvage_tests::client::{Http1, request};
use selvage_tests::envoy::Envoy;
use selvage_tests::gateway::Gateway;
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::Sidecar;
use serde_json::{Value, json};

use self::draw::{Ask, BACKENDS};

const REQUESTS: usize = 1_000;
/// `SELVAGE_SEED` draws others.
const SEED: u64 = 6;

/// Backends that say who they are, and by which rule they were reached.
async fn backends() -> Vec<App> {
    let mut apps = Vec::new();
    for number in 0..BACKENDS {
        let answer = move |request: http::Request<_>| {
            let rule: &http::HeaderMap = request.headers();
            let rule = rule.get("x-rule").and_then(|rule| rule.to_str().ok());
            let said = format!("b{number} {}", rule.unwrap_or("no rule"));
            async move { ok(said) }
        };
        apps.push(App::start(answer).await);
    }
    apps
}

/// What a caller hears: who answered and by which rule, or the status.
async fn heard(connection: &mut Http1, ask: &Ask, host: &str) -> String {
    let method = Method::from_bytes(ask.method.as_bytes()).unwrap();
    let mut request = request(method, host, &ask.target, body::empty());
    for (name, value) in &ask.headers {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let answer = connection.call(request).await.unwrap();
    match answer.status.as_u16() {
        200 => answer.text(),
        status => status.to_string(),
    }
}

fn join(documents: &[Value]) -> String {
    let texts: Vec<_> = documents.iter().map(Value::to_string).collect();
    texts.join("\n---\n")
}

/// Asks both the same, and compares.
async fn compare(
    profile: &str,
    rng: &mut Rng,
    selvage: SocketAddr,
    envoy: SocketAddr,
    host: Option<&str>,
) {
    let (mut ours, mut theirs) = (Http1::connect(selvage).await, Http1::connect(envoy).await);
    let (mut found, mut rules) = (0, std::collections::BTreeSet::new());
    let mut differences = Vec::new();
    for _ in 0..REQUESTS {
        let ask = draw::ask(rng);
        let here = heard(&mut ours, &ask, host.unwrap_or(ask.host)).await;
        let there = heard(&mut theirs, &ask, ask.host).await;
        if here == there {
            found += usize::from(here != "404");
            rules.insert(here);
        } else {
            differences.push(format!("{ask:?}: {here}, Envoy {there}"));
        }
    }
    println!(
        "{profile}: {REQUESTS} requests, {found} found a rule, {} different rules, {} differences",
        rules.len(),
        differences.len()
    );
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(found >= REQUESTS * 3 / 10, "{found} found a rule");
    assert!(found <= REQUESTS * 95 / 100, "{found} found a rule");
}

fn seeded() -> Rng {
    let seed = std::env::var("SELVAGE_SEED").ok();
    Rng::with_seed(seed.map_or(SEED, |seed| seed.parse().unwrap()))
}

#[tokio::test]
async fn routes_of_a_service_lead_where_envoys_do() {
    let (apps, mut rng) = (backends().await, seeded());
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let routes = draw::routes(&mut rng, false);
    let mut documents = documents::services(&addresses);
    let parent = json!({ "group": "", "kind": "Service", "name": "front", "port": 80 });
    documents.extend(documents::routes(&routes, &parent));
    let pki = Pki::new();
    let caller = Sidecar::builder("client").resources(&join(&documents));
    let caller = caller.start(&pki).await;
    let envoy = Envoy::run(&configuration::envoy(&routes, &addresses)).await;
    let front = Some("front.shop");
    compare(
        "service",
        &mut rng,
        caller.outbound(),
        envoy.listener,
        front,
    )
    .await;
}

#[tokio::test]
async fn routes_of_a_gateway_lead_where_envoys_do() {
    let (apps, mut rng) = (backends().await, seeded());
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let routes = draw::routes(&mut rng, true);
    let mut documents = documents::services(&addresses);
    documents.push(documents::gateway());
    documents.extend(documents::routes(&routes, &json!({ "name": "public" })));
    let gateway = Gateway::builder(&[80]).resources(&join(&documents));
    let mut gateway = gateway.start().await;
    let bound = gateway.port(80).await;
    let envoy = Envoy::run(&configuration::envoy(&routes, &addresses)).await;
    compare("gateway", &mut rng, bound, envoy.listener, None).await;
}
