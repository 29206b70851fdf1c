//! What cannot be taken is refused, precisely; what can be taken is given back.

use selvage_core::parse::{parse, parse_all};
use selvage_core::resource::Spec;

use crate::told;

/// Every key of the kinds that exist.
pub(crate) const EVERYTHING: &str = r#"
kind: Service
metadata: { name: ratings, namespace: shop, labels: {team: a}, annotations: {note: b} }
spec:
  ports: [{ port: 80, targetPort: 8080, protocol: http }, { port: 90 }]
  endpoints:
    - { address: 127.0.0.1:21080, identity: spiffe://mesh.local/ns/shop/sa/ratings, weight: 1, labels: {version: 1.10} }
    - { address: 127.0.0.1:31080 }
    - { address: "::1" }
---
apiVersion: selvage.dev/v1
kind: TrafficPolicy
metadata: { name: ratings, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: ratings }]
  timeouts: { request: 5s, backendRequest: 2s, connect: 1s, idle: 5m }
  retry: { attempts: 2, on: [connect-failure, reset, timeout, 502, "503", UNAVAILABLE], methods: [GET, POST],
           bufferLimit: 64KiB, backoff: {base: 25ms, max: 250ms}, budget: {percent: 20, interval: 10s, minPerSecond: 1} }
  circuitBreaker: { consecutiveFailures: 5, successRate: {threshold: 80, window: 10s, minimumRequests: 20}, backoff: {base: 1s, max: 60s}, maxOpenPercent: 50 }
  limits: { maxConnections: 1024, maxRequests: 1024, maxPending: 1024 }
  loadBalancer: { algorithm: peak-ewma }
---
kind: ServerPolicy
metadata: { name: orders, namespace: shop }
spec:
  targetRefs: [{ kind: Service, name: orders }, { kind: Service, name: orders, port: 80 }]
  rateLimit: { requests: 1000, per: 1s, burst: 2000, key: identity }
  concurrency: { mode: adaptive, max: 1000, min: 20, start: 20, queue: 64, queueTimeout: 50ms, perCaller: { maxConcurrent: 200 } }
---
kind: AuthorizationPolicy
metadata: { name: orders, namespace: shop }
spec:
  targetRefs: [{ group: selvage.dev, kind: Service, name: orders }]
  mode: audit
  rules:
    - { name: gateway-reads, action: allow, from: [{ identities: ["spiffe://mesh.local/ns/shop/sa/gateway"] }], to: [{ methods: [GET], paths: [{ type: PathPrefix, value: /v1/ }] }] }
    - { name: no-strangers, action: deny, from: [{ notNamespaces: [shop] }] }
---
kind: MeshConfig
metadata: { name: mesh }
spec:
  trustDomain: mesh.local
  mtls: strict
  authorization: { default: allow }
  telemetry: { seriesLimit: 10000 }
  defaults: { timeouts: {request: 5s}, retry: {attempts: 1}, circuitBreaker: {consecutiveFailures: 3} }
"#;

#[test]
fn what_is_given_is_given_back() {
    for resource in parse("all.yaml", EVERYTHING).unwrap() {
        let yaml = resource.to_yaml();
        let again = parse("again.yaml", &yaml).unwrap();
        assert_eq!(again[0].key, resource.key);
        assert_eq!(again[0].document, resource.document, "{yaml}");
        let json = parse("again.json", &resource.document.to_string()).unwrap();
        assert_eq!(json[0].document, resource.document);
        if let (Spec::Service(given), Spec::Service(back)) = (&resource.spec, &json[0].spec) {
            assert_eq!(given, back);
            assert_eq!(given.endpoints[0].labels["version"], "1.10");
        }
    }
    let names: Vec<_> = parse("all.yaml", EVERYTHING)
        .unwrap()
        .iter()
        .map(|resource| resource.key.to_string())
        .collect();
    assert_eq!(
        names,
        [
            "Service shop/ratings",
            "TrafficPolicy shop/ratings",
            "ServerPolicy shop/orders",
            "AuthorizationPolicy shop/orders",
            "MeshConfig default/mesh"
        ]
    );
}

#[test]
fn kinds_are_told_apart() {
    let table = [
        (
            "kind: Servcie",
            "1:7 kind: unknown kind `Servcie` / did you mean `Service`?",
        ),
        (
            "kind: Pod",
            "1:7 kind: unknown kind `Pod` / known kinds: `MeshConfig`, `Service`, `TrafficPolicy`, `ServerPolicy`, `AuthorizationPolicy`, `Gateway`, `HTTPRoute`, `GRPCRoute`, `TLSRoute`, `TCPRoute`, `ReferenceGrant`, `Secret`, `Namespace`",
        ),
        (
            "kind: HttpRoute",
            "1:7 kind: unknown kind `HttpRoute` / did you mean `HTTPRoute`?",
        ),
        (
            "{apiVersion: v1, kind: HTTPRoute}",
            "1:14 apiVersion: `HTTPRoute` is of version `gateway.networking.k8s.io/v1`, found `v1`",
        ),
        (
            "{apiVersion: selvage.dev/v2, kind: Service}",
            "1:14 apiVersion: `Service` is of version `selvage.dev/v1` or `v1`, found `selvage.dev/v2`",
        ),
        (
            "Kind: Service",
            "1:1 : the key `kind` is missing / there is `Kind`",
        ),
        (
            "[]",
            "1:1 : expected a resource: a mapping with `kind`, `metadata` and `spec`",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(told(&parse("t", text).unwrap_err()), [expected], "{text}");
    }
}

/// `spec` of a kind, and the one refusal it earns.
fn refused(kind: &str, spec: &str, expected: &str) {
    let text = format!("kind: {kind}\nmetadata: {{ name: a }}\nspec: {spec}\n");
    assert_eq!(told(&parse("t", &text).unwrap_err()), [expected], "{text}");
}

#[test]
fn services_are_refused_for_what_cannot_be() {
    let table = [
        ("{}", "3:7 spec.ports: expected 1 to 64 ports, found 0"),
        (
            "{ports: [{port: 0}]}",
            "3:23 spec.ports[0].port: expected a port from 1 to 65535, found `0`",
        ),
        (
            "{ports: [{port: 80}, {port: 80}]}",
            "3:35 spec.ports[1].port: port 80 is given twice",
        ),
        (
            "{ports: [{port: 80, protocol: htpp}]}",
            "3:37 spec.ports[0].protocol: unknown value `htpp` / did you mean `http`?",
        ),
        (
            "{ports: [{port: 80, protocol: grpc, appProtocol: http}]}",
            "3:56 spec.ports[0].appProtocol: `protocol` says what is spoken already",
        ),
        (
            "{ports: [{port: 80}], endpoints: [{address: db.internal:5432}]}",
            "3:51 spec.endpoints[0].address: host names (`db.internal:5432`) are not supported yet: give an IP address",
        ),
        (
            "{ports: [{port: 80}], endpoints: [{address: 1.2.3.4:99999}]}",
            "3:51 spec.endpoints[0].address: expected an IP address with or without a port, found `1.2.3.4:99999`",
        ),
        (
            "{ports: [{port: 80}], endpoints: [{address: 0.0.0.0:1}]}",
            "3:51 spec.endpoints[0].address: nothing can be reached at `0.0.0.0:1`",
        ),
        (
            "{ports: [{port: 80}], endpoints: [{address: 10.0.0.1, identity: spiffe://m/a}]}",
            "3:51 spec.endpoints[0].address: an endpoint with an identity needs the port of its sidecar / sidecars listen on 15008: `10.0.0.1:15008`",
        ),
        (
            "{ports: [{port: 80}], endpoints: [{address: 1.2.3.4:1, identity: http://m}]}",
            "3:72 spec.endpoints[0].identity: not a SPIFFE id: must begin with `spiffe://`",
        ),
        (
            "{ports: [{port: 80}], endpoints: [{address: 1.2.3.4, tls: {hostname: a}}]}",
            "3:65 spec.endpoints[0].tls: not supported yet",
        ),
        (
            "{ports: [{port: 80}], endpoints: [{address: 1.2.3.4}, {address: 1.2.3.4}]}",
            "3:71 spec.endpoints[1].address: the address 1.2.3.4 is given twice",
        ),
    ];
    for (spec, expected) in table {
        refused("Service", spec, expected);
    }
}

#[test]
fn traffic_policies_are_refused_for_contradictions() {
    let table = [
        (
            "timeouts: {request: 1s, backendRequest: 2s}",
            "timeouts.backendRequest: one try (2s) cannot take longer than the whole request (1s)",
        ),
        (
            "timeouts: {connect: 1}",
            "timeouts.connect: expected a duration such as `250ms`, `5s` or `1h30m`, found `1`",
        ),
        (
            "retry: {attempts: 11}",
            "retry.attempts: expected at most 10 retries",
        ),
        (
            "retry: {on: [5xx]}",
            "retry.on[0]: unknown condition `5xx`: expected `connect-failure`, `reset`, `timeout`, an HTTP status from 400 to 599, or the name of a gRPC status",
        ),
        (
            "retry: {on: []}",
            "retry.on: expected at least one condition; `attempts: 0` turns retries off",
        ),
        (
            "retry: {methods: [get]}",
            "retry.methods[0]: methods are compared with their case, and `get` is not one / did you mean `GET`?",
        ),
        (
            "retry: {budget: {percent: 101}}",
            "retry.budget.percent: expected a whole number from 0 to 100 (per cent), found `101`",
        ),
        (
            "retry: {budget: {interval: 10ms}}",
            "retry.budget.interval: expected 1s to 1h",
        ),
        (
            "retry: {backoff: {base: 2s, max: 1s}}",
            "retry.backoff.base: the first step (2s) is above the maximum (1s)",
        ),
        (
            "circuitBreaker: {successRate: {threshold: -1}}",
            "circuitBreaker.successRate.threshold: expected a whole number from 0 to 100 (per cent), found `-1`",
        ),
        (
            "circuitBreaker: {successRate: {minimumRequests: 0}}",
            "circuitBreaker.successRate.minimumRequests: expected at least 1, found `0`",
        ),
        (
            "limits: {maxPending: 0}",
            "limits.maxPending: expected at least 1, found `0`",
        ),
        (
            "limits: {maxPendig: 1}",
            "limits.maxPendig: unknown key `maxPendig` / did you mean `maxPending`?",
        ),
    ];
    for (spec, expected) in table {
        let text = format!(
            "kind: TrafficPolicy\nmetadata: {{ name: a }}\nspec:\n  targetRefs: [{{kind: Service, name: a}}]\n  {spec}\n"
        );
        let told = told(&parse("t", &text).unwrap_err());
        let told: Vec<_> = told
            .iter()
            .map(|line| line.split_once("spec.").unwrap().1)
            .collect();
        assert_eq!(told, [expected], "{text}");
    }
    let targets = [
        (
            "[]",
            "3:20 spec.targetRefs: expected 1 to 16 targets, found 0",
        ),
        (
            "[{kind: TCPRoute, name: a}]",
            "3:28 spec.targetRefs[0].kind: unknown kind `TCPRoute` / did you mean `HTTPRoute`?",
        ),
        (
            "[{kind: service, name: a}]",
            "3:28 spec.targetRefs[0].kind: unknown kind `service` / did you mean `Service`?",
        ),
        (
            "[{kind: Service, name: a, sectionName: b}]",
            "3:59 spec.targetRefs[0].sectionName: of a route it names a rule; a service is meant whole",
        ),
        (
            "[{kind: Service, name: A}]",
            "3:43 spec.targetRefs[0].name: expected a DNS label (1 to 63 of a-z, 0-9 and `-`), found `A`",
        ),
        (
            "[{kind: Service, name: a}, {kind: Service, name: a, namespace: default}]",
            "3:47 spec.targetRefs[1]: the target default/a is given twice",
        ),
    ];
    for (list, expected) in targets {
        refused(
            "TrafficPolicy",
            &format!("{{targetRefs: {list}}}"),
            expected,
        );
    }
}

#[test]
fn authorization_is_refused_where_it_could_be_misread() {
    let table = [
        ("[]", "rules: expected 1 to 256 rules, found 0"),
        (
            "[{name: a, action: alow}]",
            "rules[0].action: unknown value `alow` / did you mean `allow`?",
        ),
        ("[{name: a}]", "rules[0]: the key `action` is missing"),
        (
            "[{name: a, action: deny}, {name: a, action: deny}]",
            "rules[1].name: the rule `a` is given twice",
        ),
        (
            "[{name: a, action: deny, from: []}]",
            "rules[0].from: expected at least one entry; leave the key out to match any",
        ),
        (
            "[{name: a, action: deny, from: [{}]}]",
            "rules[0].from[0]: expected at least one key; leave `from` out to match anybody",
        ),
        (
            "[{name: a, action: deny, to: [{methods: []}]}]",
            "rules[0].to[0].methods: expected at least one entry; leave the key out to match any",
        ),
        (
            "[{name: a, action: deny, to: [{paths: [{type: RegularExpression, value: /a}]}]}]",
            "rules[0].to[0].paths[0].type: `RegularExpression` is not supported yet",
        ),
        (
            "[{name: a, action: deny, to: [{paths: [{type: Exact, value: /a/../b}]}]}]",
            "rules[0].to[0].paths[0].value: paths are compared without `//`, `.` and `..`",
        ),
        (
            "[{name: a, action: deny, to: [{methods: ['G T']}]}]",
            "rules[0].to[0].methods[0]: expected an HTTP method, found `G T`",
        ),
    ];
    for (rules, expected) in table {
        let text = format!(
            "kind: AuthorizationPolicy\nmetadata: {{ name: a }}\nspec: {{rules: {rules}}}\n"
        );
        let told = told(&parse("t", &text).unwrap_err());
        let told: Vec<_> = told
            .iter()
            .map(|line| line.split_once("spec.").unwrap().1)
            .collect();
        assert_eq!(told, [expected], "{text}");
    }
    refused(
        "AuthorizationPolicy",
        "{targetRefs: [{kind: Service, name: a, namespace: b}], rules: [{name: a, action: deny}]}",
        "3:57 spec.targetRefs[0].namespace: a policy protects its own namespace, which is `default`",
    );
}

#[test]
fn mesh_config_is_refused_out_of_bounds() {
    refused(
        "MeshConfig",
        "{telemetry: {seriesLimit: 1}}",
        "3:33 spec.telemetry.seriesLimit: expected 100 to 10000000 lines, found `1`",
    );
    refused(
        "MeshConfig",
        "{mtls: stric}",
        "3:14 spec.mtls: unknown value `stric` / did you mean `strict`?",
    );
    refused(
        "MeshConfig",
        "{trustDomain: A}",
        "3:21 spec.trustDomain: not a trust domain: the trust domain may only hold a-z, 0-9, `.`, `-` and `_`",
    );
}

#[test]
fn every_document_is_read() {
    let first = "kind: Service\nmetadata: {name: A}\nspec: {ports: [{port: 0}]}\n---\nkind: [\n---\n# nothing\n---\nkind: Gateway\n";
    let second = "kind: Service\nmetadata: {name: a}\nspec: {ports: [{port: x}]}\n";
    let found = parse_all([("one.yaml", first), ("two.yaml", second)]).unwrap_err();
    let places: Vec<_> = found
        .as_slice()
        .iter()
        .map(|found| format!("{}:{}", found.source, found.line))
        .collect();
    assert_eq!(
        places,
        [
            "one.yaml:2",
            "one.yaml:3",
            "one.yaml:5",
            "one.yaml:9",
            "two.yaml:3"
        ]
    );
}

#[test]
fn a_refused_resource_reads_as_a_snippet() {
    let text = "kind: Service\nmetadata: { name: ratings }\nspec:\n  ports:\n  - port: 80\n    targetPrt: 8080\n";
    let expected = "\
error: unknown key `targetPrt`
 --> shop.yaml:6:5
  |
6 |     targetPrt: 8080
  |     ^^^^^^^^^ spec.ports[0].targetPrt
  |
  = help: did you mean `targetPort`?
";
    assert_eq!(
        parse("shop.yaml", text).unwrap_err().render(false),
        expected
    );
}
