//! Session persistence: a client stays with its endpoint while it is there.

use http::{HeaderValue, Method};
use selvage_tests::client::{Answer, Http1, request};
use selvage_tests::sidecar::{ORDERS, Sidecar};
use selvage_tests::{body, client, wait};
use serde_json::json;

use super::{app, caller, route, services, to};

async fn ask(sidecar: &Sidecar, field: &'static str, value: &str) -> Answer {
    let mut asked = request(Method::GET, ORDERS, "/", body::empty());
    let value = HeaderValue::try_from(value).unwrap();
    asked.headers_mut().insert(field, value);
    Http1::connect(sidecar.outbound())
        .await
        .call(asked)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_cookie_leads_back_to_its_endpoint_and_to_another_when_that_is_gone() {
    let apps = [app("a").await, app("b").await, app("c").await];
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let session = json!({ "sessionName": "stay", "type": "Cookie" });
    let rules = json!([{ "backendRefs": [to("many", 1)], "sessionPersistence": session }]);
    let all = |addresses: &[_]| {
        let known = [("orders", addresses), ("many", addresses)];
        format!("{}\n---\n{}", services("http", &known), route(&rules))
    };
    let (_pki, sidecar) = caller(&[all(&addresses)]).await;
    let first = client::get(sidecar.outbound(), ORDERS, "/").await;
    let cookie = first.header("set-cookie").to_owned();
    assert!(cookie.starts_with("stay="), "{cookie}");
    let token = cookie.split(';').next().unwrap().to_owned();
    for _ in 0..20 {
        let again = ask(&sidecar, "cookie", &token).await;
        assert_eq!(again.text(), first.text());
        assert_eq!(again.header("set-cookie"), "", "it is known already");
    }
    let left: Vec<_> = apps
        .iter()
        .zip(["a", "b", "c"])
        .filter(|(_, name)| *name != first.text())
        .map(|(app, _)| app.address)
        .collect();
    sidecar.write_resources(&all(&left));
    wait::until("another endpoint", wait::PATIENCE, async || {
        ask(&sidecar, "cookie", &token).await.text() != first.text()
    })
    .await;
    let moved = ask(&sidecar, "cookie", &token).await;
    assert_eq!(moved.status, 200);
    assert!(
        moved.header("set-cookie").starts_with("stay="),
        "told of the new one"
    );
}

#[tokio::test]
async fn a_header_leads_back_to_its_backend_whatever_the_weights() {
    let (one, two) = (app("one").await, app("two").await);
    let session = json!({ "sessionName": "x-stay", "type": "Header" });
    let rules =
        json!([{ "backendRefs": [to("one", 1), to("two", 1)], "sessionPersistence": session }]);
    let known = [
        ("orders", &[one.address][..]),
        ("one", &[one.address]),
        ("two", &[two.address]),
    ];
    let (_pki, sidecar) = caller(&[services("http", &known), route(&rules)]).await;
    let first = client::get(sidecar.outbound(), ORDERS, "/").await;
    let token = first.header("x-stay").to_owned();
    assert!(!token.is_empty());
    for _ in 0..20 {
        assert_eq!(ask(&sidecar, "x-stay", &token).await.text(), first.text());
    }
    let mut others = 0;
    for _ in 0..4 {
        let other = ask(&sidecar, "x-stay", "nonsense").await;
        assert_eq!(other.status, 200);
        others += usize::from(other.text() != first.text());
    }
    assert_eq!(others, 2, "by weight, where there is no session");
}
