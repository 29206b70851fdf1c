//! A Snapshot, shown.

use std::sync::Arc;

use selvage_certs::{SpiffeId, TrustDomain};

use selvage_policy::snapshot::ServiceName;

use super::*;

fn ratings() -> ServiceName {
    ServiceName::new("shop", "ratings")
}

#[test]
fn a_snapshot_is_shown_whole() {
    let identity = SpiffeId::parse("spiffe://mesh.local/ns/shop/sa/ratings").expect("an id");
    let key = EndpointKey {
        service: ratings(),
        port: 80,
        address: "10.0.0.5:15008".parse().expect("an address"),
        identity: Some(identity.clone()),
    };
    let endpoint = Endpoint {
        key,
        id: "shop/ratings-1".into(),
        weight: 1,
        labels: [("version".to_owned(), "v1".to_owned())].into(),
        healthy: true,
    };
    let port = ServicePort {
        service: ratings(),
        port: 80,
        protocol: Protocol::Http,
        endpoints: vec![Arc::new(endpoint)],
        routes: None,
        streams: Vec::new(),
    };
    let retry = RetryPolicy {
        attempts: 2,
        on: RetryOn {
            statuses: vec![http::StatusCode::BAD_GATEWAY],
            ..RetryOn::default()
        },
        methods: vec![http::Method::GET],
        backoff: BackoffPolicy {
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        },
        buffer_limit: 65536,
    };
    let policy = TrafficPolicy {
        retry: Some(retry),
        ..TrafficPolicy::default()
    };
    let service = Service {
        name: ratings(),
        ports: vec![Arc::new(port)],
        policy: Arc::new(policy),
    };
    let rule = Rule {
        name: "reads".into(),
        action: Action::Allow,
        from: vec![Source {
            identities: vec![identity],
            ..Source::default()
        }],
        to: vec![Operation {
            methods: vec![http::Method::GET],
            paths: vec![PathMatch::Prefix("/v1".into())],
            ..Operation::default()
        }],
    };
    let authorization = AuthorizationPolicy {
        namespace: "shop".into(),
        name: "orders".into(),
        mode: Mode::Audit,
        rules: vec![rule],
    };
    let shown = snapshot(&Snapshot {
        revision: 7,
        workload: WorkloadName {
            namespace: "shop".into(),
            name: "orders-1".into(),
            service: "orders".into(),
        },
        mesh: Mesh {
            trust_domain: TrustDomain::parse("mesh.local").expect("a trust domain"),
            mutual_tls: MutualTls::Strict,
            series_limit: 10_000,
        },
        inbound: InboundPolicy {
            default_deny: true,
            authorization: vec![authorization],
            ..InboundPolicy::default()
        },
        services: [(ratings(), Arc::new(service))].into(),
        gateway: None,
    });
    for (pointer, expected) in [
        ("/revision", json!(7)),
        ("/workload/name", json!("orders-1")),
        ("/mesh/mtls", json!("strict")),
        ("/inbound/default", json!("deny")),
        ("/inbound/authorization/0/mode", json!("audit")),
        ("/inbound/authorization/0/rules/0/action", json!("allow")),
        (
            "/inbound/authorization/0/rules/0/from/0/identities",
            json!(["spiffe://mesh.local/ns/shop/sa/ratings"]),
        ),
        (
            "/inbound/authorization/0/rules/0/to/0/paths",
            json!([{ "type": "PathPrefix", "value": "/v1" }]),
        ),
        ("/services/shop~1ratings/ports/0/protocol", json!("http")),
        (
            "/services/shop~1ratings/ports/0/endpoints/0/address",
            json!("10.0.0.5:15008"),
        ),
        (
            "/services/shop~1ratings/ports/0/endpoints/0/labels",
            json!({ "version": "v1" }),
        ),
        (
            "/services/shop~1ratings/policy/retry/on/statuses",
            json!([502]),
        ),
        (
            "/services/shop~1ratings/policy/retry/backoff/baseMs",
            json!(25.0),
        ),
        (
            "/services/shop~1ratings/policy/timeouts/connectMs",
            json!(1000.0),
        ),
        (
            "/services/shop~1ratings/policy/timeouts/requestMs",
            Value::Null,
        ),
        (
            "/services/shop~1ratings/policy/circuitBreaker/successRate/thresholdPercent",
            json!(80),
        ),
    ] {
        assert_eq!(
            shown.pointer(pointer),
            Some(&expected),
            "{pointer} of {shown:#}"
        );
    }
}
