//! Who may call what is decided at the server's sidecar, by the identity that
//! the handshake proved.

use http::Method;
use selvage_tests::app::{App, RawApp};
use selvage_tests::client::{self, Answer, Http1, Http2, request};
use selvage_tests::grpc;
use selvage_tests::mesh::Mesh;
use selvage_tests::sidecar::ORDERS;
use selvage_tests::wire::Wire;
use selvage_tests::{body, wait};

fn policy(rest: &str) -> String {
    format!(
        "kind: AuthorizationPolicy\nmetadata: {{ name: orders, namespace: shop }}\nspec:\n  targetRefs: [{{ kind: Service, name: orders }}]\n{rest}"
    )
}

async fn mesh(app: &App, policies: &str) -> Mesh {
    Mesh::builder(app.address, "http")
        .server_set("telemetry.accessLog", "json")
        .server_resources(policies)
        .start()
        .await
}

async fn send(mesh: &Mesh, method: Method, path: &str) -> Answer {
    let sent = request(method, ORDERS, path, body::empty());
    Http1::connect(mesh.outbound())
        .await
        .call(sent)
        .await
        .unwrap()
}

#[tokio::test]
async fn an_identity_that_is_allowed_passes_and_others_do_not() {
    let app = App::echo().await;
    for (identity, status) in [
        ("spiffe://mesh.local/ns/shop/sa/client", 200),
        ("spiffe://mesh.local/ns/shop/sa/clien", 403),
    ] {
        let rules = format!(
            "  rules:\n    - {{ name: callers, action: allow, from: [{{ identities: [\"{identity}\"] }}] }}"
        );
        let mut mesh = mesh(&app, &policy(&rules)).await;
        let answer = send(&mesh, Method::GET, "/").await;
        assert_eq!(answer.status, status, "{identity}");
        if status == 403 {
            assert_eq!(answer.flag(), "denied");
            assert!(
                !answer.text().contains("callers")
                    && !answer.header("proxy-status").contains("callers")
            );
            mesh.server
                .accessed(&["shop/orders", "denied", "403"])
                .await;
        }
    }
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn deny_wins_over_allow() {
    let app = App::echo().await;
    let rules = "  rules:\n    - { name: all, action: allow }\n    - { name: no-shop, action: deny, from: [{ namespaces: [shop] }] }";
    let answer = send(&mesh(&app, &policy(rules)).await, Method::GET, "/").await;
    assert_eq!((answer.status.as_u16(), answer.flag()), (403, "denied"));
    let rules =
        "  rules:\n    - { name: strangers, action: deny, from: [{ notNamespaces: [shop] }] }";
    let answer = send(&mesh(&app, &policy(rules)).await, Method::GET, "/").await;
    assert_eq!(
        answer.status, 200,
        "a deny rule that does not match denies nothing"
    );
    assert_eq!(app.count(), 1);
}

#[tokio::test]
async fn methods_and_paths_are_part_of_the_rule() {
    let app = App::echo().await;
    let rules = "  rules:\n    - name: reads\n      action: allow\n      to:\n        - { methods: [GET], paths: [{ type: PathPrefix, value: /v1 }] }\n        - { methods: [POST], paths: [{ type: Exact, value: /v1/orders }] }";
    let mesh = mesh(&app, &policy(rules)).await;
    let rows = [
        (Method::GET, "/v1", 200),
        (Method::GET, "/v1/x?y", 200),
        (Method::GET, "/v1x", 403),
        (Method::GET, "/", 403),
        (Method::DELETE, "/v1", 403),
        (Method::POST, "/v1/orders", 200),
        (Method::POST, "/v1/orders/1", 403),
        // The path that is judged is the one that arrives.
        (Method::GET, "/v1/../admin", 403),
        (Method::GET, "/admin/../v1/x", 200),
        (Method::GET, "/%76%31/x", 200),
        (Method::GET, "//v1/x", 200),
        (Method::GET, "/v1/%2e%2e/admin", 403),
        (Method::GET, "/v1/%2Fadmin", 400),
        (Method::GET, "/v1/%5Cadmin", 400),
        (Method::GET, "/v1;/../admin", 403),
        (Method::GET, "/v1/a;b", 400),
    ];
    let mut passed = 0;
    for (method, path, status) in rows {
        let answer = send(&mesh, method.clone(), path).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.flag());
        passed += usize::from(status == 200);
        assert_eq!(app.count(), passed, "{method} {path}");
    }
}

#[tokio::test]
async fn an_audit_denies_nothing_and_is_counted() {
    let app = App::echo().await;
    let rules = "  mode: audit\n  rules:\n    - { name: nobody, action: deny, from: [{ namespaces: [shop] }] }";
    let mesh = mesh(&app, &policy(rules)).await;
    assert_eq!(send(&mesh, Method::GET, "/").await.status, 200);
    let metrics = mesh.server.metrics().await;
    let audited = [
        ("decision", "audit-deny"),
        ("destination", "shop/orders"),
        ("policy", "shop/orders"),
    ];
    assert_eq!(
        metrics.count("selvage_authorization_decisions_total", &audited),
        1,
        "{}",
        metrics.lines("selvage_auth")
    );
}

#[tokio::test]
async fn a_mesh_may_deny_by_default() {
    let app = App::echo().await;
    let config = "kind: MeshConfig\nmetadata: { name: mesh }\nspec: { trustDomain: mesh.local, authorization: { default: deny } }";
    let denied = mesh(&app, config).await;
    assert_eq!(send(&denied, Method::GET, "/").await.status, 403);
    let rules = "  rules:\n    - { name: ours, action: allow, from: [{ namespaces: [shop] }] }";
    let allowed = mesh(&app, &format!("{config}\n---\n{}", policy(rules))).await;
    assert_eq!(send(&allowed, Method::GET, "/").await.status, 200);
}

#[tokio::test]
async fn a_grpc_caller_is_denied_in_its_own_words() {
    let app = grpc::application().await;
    let rules = "  rules:\n    - { name: nobody, action: deny }";
    let mesh = Mesh::builder(app.address, "grpc")
        .server_resources(&policy(rules))
        .start()
        .await;
    let connection = Http2::connect(mesh.outbound()).await;
    let sent = grpc::request(ORDERS, "Unary", body::full(grpc::frame(b"x")));
    let outcome = grpc::call(&connection, sent).await.unwrap();
    assert_eq!(
        (outcome.http, outcome.status),
        (200, Some(7)),
        "PERMISSION_DENIED"
    );
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn opaque_connections_are_authorized_too() {
    let app = RawApp::start(|mut wire, _| async move {
        wire.send("hello").await;
        wire.rest().await.ok();
    })
    .await;
    let rules = "  rules:\n    - { name: nobody, action: deny, from: [{ namespaces: [shop] }] }";
    let mesh = Mesh::builder(app.address, "tcp")
        .server_resources(&policy(rules))
        .start()
        .await;
    let mut wire = Wire::connect(mesh.client.listener(ORDERS, 80)).await;
    let rest = wait::soon("the end", wire.rest()).await;
    assert!(
        rest.as_ref().is_err() || rest.as_ref().is_ok_and(Vec::is_empty),
        "not one byte: {rest:?}"
    );
    assert_eq!(app.accepted(), 0);
}

#[tokio::test]
async fn a_changed_policy_holds_on_connections_that_are_open() {
    let app = App::echo().await;
    let mesh = mesh(&app, "").await;
    let mut caller = Http1::connect(mesh.outbound()).await;
    let get = || request(Method::GET, ORDERS, "/", body::empty());
    assert_eq!(caller.call(get()).await.unwrap().status, 200);
    mesh.server
        .write_resources(&policy("  rules:\n    - { name: nobody, action: deny }"));
    let took = wait::until("the new policy", wait::PATIENCE, async || {
        caller.call(get()).await.unwrap().status == 403
    })
    .await;
    assert!(
        took.as_millis() <= 1500,
        "a watched folder takes effect within a second, not {took:?}"
    );
    assert_eq!(client::get(mesh.outbound(), ORDERS, "/").await.status, 403);
}
