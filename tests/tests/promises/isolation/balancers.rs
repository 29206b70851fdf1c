//! Balancers choose as policy says: a key stays at its endpoint, turns are
//! exact, the caller's zone comes first, who is new begins slowly.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use http::{HeaderValue, Method};
use selvage_tests::app::{App, ok};
use selvage_tests::body;
use selvage_tests::client::{self, Answer, Http1};
use selvage_tests::control_plane::ControlPlane;
use selvage_tests::mesh::{plaintext_caller, traffic_policy};
use selvage_tests::pki::Pki;
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::wait::{self, PATIENCE};
use serde_json::{Value, json};

/// Applications that answer with their number.
async fn apps(count: usize) -> Vec<App> {
    let mut apps = Vec::new();
    for number in 0..count {
        apps.push(App::start(move |_| async move { ok(number.to_string()) }).await);
    }
    apps
}

fn addresses(apps: &[App]) -> Vec<SocketAddr> {
    apps.iter().map(|app| app.address).collect()
}

/// GET with a header, over a connection of the test's own.
async fn ask(connection: &mut Http1, name: &'static str, value: &str) -> Answer {
    let mut request = client::request(Method::GET, ORDERS, "/cart", body::empty());
    let value = HeaderValue::try_from(value).expect("a test's header is one");
    request.headers_mut().insert(name, value);
    let answer = connection.call(request).await.expect("a whole response");
    assert_eq!(answer.status, 200);
    answer
}

/// How many of `requests` each application answers, over one connection and so by one worker.
async fn shares(sidecar: &Sidecar, requests: usize) -> BTreeMap<String, usize> {
    let mut connection = Http1::connect(sidecar.outbound()).await;
    let mut shares = BTreeMap::new();
    for _ in 0..requests {
        let who = ask(&mut connection, "x-any", "thing").await.text();
        *shares.entry(who).or_default() += 1;
    }
    shares
}

/// A Service document for port 80 of `orders.shop`; what else an endpoint has is given with it.
fn orders(endpoints: &[(SocketAddr, Value)]) -> String {
    let endpoint = |(address, rest): &(SocketAddr, Value)| {
        let mut endpoint = rest.clone();
        endpoint["address"] = json!(address);
        endpoint
    };
    let document = json!({
        "kind": "Service",
        "metadata": { "name": "orders", "namespace": "shop" },
        "spec": {
            "ports": [{ "port": 80, "protocol": "http" }],
            "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
        },
    });
    document.to_string()
}

#[tokio::test]
async fn a_user_stays_at_one_endpoint_whoever_asks_for_it() {
    let apps = apps(4).await;
    let policy = traffic_policy(
        "  loadBalancer: { algorithm: ring-hash, hash: [{ header: x-user }, { query: user }] }\n",
    );
    let (_pki, one) = plaintext_caller("http", &addresses(&apps), &policy).await;
    let (_other_pki, other) = plaintext_caller("http", &addresses(&apps), &policy).await;
    let mut homes = BTreeMap::new();
    for caller in [&one, &other] {
        for _ in 0..3 {
            // Another connection may be another worker's.
            let mut connection = Http1::connect(caller.outbound()).await;
            for user in 0..40 {
                let user = format!("user-{user}");
                let home = ask(&mut connection, "x-user", &user).await.text();
                let before = homes.entry(user).or_insert_with(|| home.clone());
                assert_eq!(*before, home);
            }
        }
    }
    let used: BTreeSet<_> = homes.values().collect();
    let counts: Vec<_> = apps.iter().map(App::count).collect();
    println!("40 users at 4 endpoints by two sidecars: {counts:?}");
    assert!(used.len() > 1);
    assert_eq!(counts.iter().sum::<usize>(), 240, "no retries");
    // Where the header is not there, the parameter of the query is the key.
    for user in ["user-1", "user-2"] {
        let path = format!("/?page=2&user={user}");
        let home = client::get(one.outbound(), ORDERS, &path).await.text();
        assert_eq!(Some(&home), homes.get(user));
    }
}

#[tokio::test]
async fn a_caller_is_given_a_cookie_and_stays_where_it_leads() {
    let apps = apps(4).await;
    let policy = traffic_policy(
        "  loadBalancer: { algorithm: maglev, hash: [{ cookie: { name: at, ttl: 60s, path: / } }] }\n",
    );
    let (_pki, caller) = plaintext_caller("http", &addresses(&apps), &policy).await;
    let mut used = BTreeSet::new();
    let mut values = BTreeSet::new();
    for _ in 0..12 {
        let first = client::get(caller.outbound(), ORDERS, "/cart").await;
        let cookie = first.header("set-cookie").to_owned();
        let (pair, attributes) = cookie.split_once("; ").expect("a cookie with attributes");
        assert_eq!(attributes, "Path=/; Max-Age=60; HttpOnly");
        let value = pair.strip_prefix("at=").expect("its name");
        assert!(
            value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit()),
            "{value}"
        );
        values.insert(value.to_owned());
        let home = first.text();
        let mut connection = Http1::connect(caller.outbound()).await;
        for _ in 0..5 {
            let again = ask(&mut connection, "cookie", &format!("a=1; {pair}")).await;
            assert_eq!(
                (again.text(), again.header("set-cookie")),
                (home.clone(), "")
            );
        }
        used.insert(home);
    }
    println!(
        "12 callers with a cookie each at {} of 4 endpoints",
        used.len()
    );
    assert!(values.len() == 12 && used.len() > 1);
}

#[tokio::test]
async fn turns_are_exactly_by_weight() {
    let apps = apps(3).await;
    let weights = [2, 1, 1];
    let endpoints: Vec<_> = apps
        .iter()
        .zip(weights)
        .map(|(app, weight)| (app.address, json!({ "weight": weight })))
        .collect();
    let pki = Pki::new();
    let caller = Sidecar::builder("client")
        .resources(&orders(&endpoints))
        .resources(&traffic_policy(
            "  loadBalancer: { algorithm: round-robin }\n",
        ))
        .start(&pki)
        .await;
    let shares = shares(&caller, 400).await;
    println!("400 requests in turn at weights {weights:?}: {shares:?}");
    let counts: Vec<usize> = apps.iter().map(App::count).collect();
    assert!(
        counts
            .iter()
            .zip([200usize, 100, 100])
            .all(|(had, fair)| had.abs_diff(fair) <= 1),
        "{counts:?}"
    );
}

#[tokio::test]
async fn the_callers_zone_comes_first_and_spills_when_it_fails() {
    let zone = |name: &str| json!({ "labels": { "topology.kubernetes.io/zone": name } });
    let mut apps = apps(4).await;
    let endpoints: Vec<_> = apps
        .iter()
        .zip(["there", "here", "there", "here"])
        .map(|(app, name)| (app.address, zone(name)))
        .collect();
    let pki = Pki::new();
    let caller = Sidecar::builder("client")
        .set("workload.labels", zone("here")["labels"].clone())
        .resources(&orders(&endpoints))
        .resources(&traffic_policy(
            "  loadBalancer: { algorithm: random, locality: { minHealthyPercent: 70 } }\n",
        ))
        .start(&pki)
        .await;
    let stayed = |shares: &BTreeMap<String, usize>| {
        let of = |who: &str| shares.get(who).copied().unwrap_or_default();
        of("1") + of("3")
    };
    assert_eq!(stayed(&shares(&caller, 100).await), 100);
    let open = async |count| {
        let labels = [("destination", "shop/orders"), ("state", "open")];
        caller.metrics().await.count("selvage_endpoints", &labels) == count
    };
    // One of the two is gone: 50 % are healthy, and 50 of 70 in a hundred stay.
    drop(apps.pop());
    wait::until(
        "the breaker of the one that is gone",
        PATIENCE,
        async || {
            shares(&caller, 10).await;
            open(1).await
        },
    )
    .await;
    let shares = shares(&caller, 400).await;
    let left = stayed(&shares);
    let spilled = caller.metrics().await.count(
        "selvage_balancer_spills_total",
        &[("destination", "shop/orders"), ("reason", "zone")],
    );
    println!(
        "400 requests with half of the zone gone: {left} stayed, 286 are due; {spilled} spilled in all"
    );
    assert!((220..350).contains(&left), "{shares:?}");
    assert!(spilled >= 400 - left as u64);
}

#[tokio::test]
async fn who_is_new_begins_slowly() {
    let apps = apps(2).await;
    let policy =
        traffic_policy("  loadBalancer: { algorithm: round-robin, slowStart: { window: 10m } }\n");
    let documents = |count: usize| {
        let endpoints: Vec<_> = apps[..count]
            .iter()
            .map(|app| (app.address, json!({})))
            .collect();
        format!("{}\n---\n{policy}", orders(&endpoints))
    };
    let pki = Pki::new();
    let caller = Sidecar::builder("client")
        .resources(&documents(1))
        .start(&pki)
        .await;
    assert_eq!(
        shares(&caller, 20).await["0"],
        20,
        "it was there from the start"
    );
    caller.write_resources(&documents(2));
    let clusters = async || {
        let answer = client::get(caller.admin(), "localhost", "/clusters").await;
        let shown: Value = serde_json::from_str(&answer.text()).expect("JSON");
        shown["services"]["shop/orders"]["80"].clone()
    };
    wait::until("the second endpoint", PATIENCE, async || {
        clusters()
            .await
            .as_array()
            .is_some_and(|known| known.len() == 2)
    })
    .await;
    let shares = shares(&caller, 440).await;
    println!("440 requests, one of two endpoints new: {shares:?}, 40 are due to it");
    let new = shares.get("1").copied().unwrap_or_default();
    assert!((10..90).contains(&new), "{shares:?}");
    let mut parts: Vec<f64> = (0..2)
        .zip(std::iter::repeat(clusters().await))
        .filter_map(|(index, shown)| shown[index]["share"].as_f64())
        .collect();
    parts.sort_by(f64::total_cmp);
    assert_eq!(parts, [0.1, 1.0]);
}

#[tokio::test]
async fn zones_travel_with_registrations() {
    let control = ControlPlane::start().await;
    control
        .apply(&traffic_policy(
            "  loadBalancer: { algorithm: least-request, locality: { prefer: zone } }\n",
        ))
        .await;
    let zone = |name: &str| json!({ "topology.kubernetes.io/zone": name });
    let apps = apps(3).await;
    let mut servers = Vec::new();
    for (number, name) in ["there", "here", "there"].into_iter().enumerate() {
        let server = control
            .sidecar(&format!("orders-{number}"), "orders")
            .await
            .application(80, apps[number].address, "http")
            .set("workload.labels", zone(name));
        servers.push(server.start(&Pki::new()).await);
    }
    control.registered("orders", 3).await;
    let caller = control
        .sidecar("client", "client")
        .await
        .set("workload.labels", zone("here"))
        .start(&Pki::new())
        .await;
    let shares = shares(&caller, 60).await;
    assert_eq!(shares, BTreeMap::from([("1".to_owned(), 60)]));
}
