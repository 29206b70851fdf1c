//! Secrets, and Services of the core group: what is taken, and what nobody is shown.

use std::time::{Duration, SystemTime};

use selvage_certs::{RootCa, TrustDomain};
use selvage_core::resource::Spec;
use selvage_core::resource::service::Protocol;

use crate::{apply, parse, told, world_of};

/// A certificate and its key, PEM.
pub(crate) fn pair() -> (String, String) {
    let domain = TrustDomain::parse("mesh.local").unwrap();
    let root = RootCa::generate(&domain, Duration::from_secs(3600), SystemTime::now()).unwrap();
    let text = root.to_pem().unwrap();
    let of = |label: &str| {
        let start = text.find(&format!("-----BEGIN {label}")).unwrap();
        let end = format!("-----END {label}-----\n");
        let length = text[start..].find(&end).unwrap() + end.len();
        text[start..start + length].to_owned()
    };
    (of("CERTIFICATE"), of("PRIVATE KEY"))
}

fn block(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// A Secret with a pair.
pub(crate) fn secret(namespace: &str, name: &str) -> String {
    let (certificate, key) = pair();
    written(namespace, name, &certificate, &key)
}

fn written(namespace: &str, name: &str, certificate: &str, key: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ntype: kubernetes.io/tls\nstringData:\n  tls.crt: |\n{}  tls.key: |\n{}---\n",
        block(certificate),
        block(key)
    )
}

#[test]
fn nothing_shows_the_key_of_a_secret() {
    let (certificate, key) = pair();
    let text = written("shop", "pair", &certificate, &key);
    let line = key.lines().nth(1).unwrap();
    let found = &parse("t", &text).unwrap()[0];
    assert!(found.document.to_string().contains(line), "it is kept");
    for shown in [
        found.shown().to_string(),
        found.to_yaml(),
        format!("{found:?}"),
        format!("{:?}", found.spec),
    ] {
        assert!(!shown.contains(line), "{shown}");
    }
    assert!(found.to_yaml().contains("(hidden, sha256 "));
    assert!(
        found.to_yaml().contains("BEGIN CERTIFICATE"),
        "that is no secret"
    );
    // Another key is seen to be another.
    let (_, other) = pair();
    let Err(refused) = parse("t", &text.replace(&block(&key), &block(&other))) else {
        panic!("it is not the certificate's");
    };
    assert!(!refused.render(false).contains("PRIVATE"), "{refused}");
}

#[test]
fn a_refused_secret_shows_nothing_of_itself() {
    let (certificate, key) = pair();
    let text = written("shop", "pair", &certificate, &key);
    let line = key.lines().nth(1).unwrap();
    let broken = [
        text.replace("type: kubernetes.io/tls", "type: Opaque"),
        text.replace("stringData", "data"),
        text.replace("stringData", "strinData"),
        text.replace("  tls.key: |\n", "  tls.kex: |\n"),
        text.replace("stringData:\n", "stringData: |\n"),
        text.replace("-----END PRIVATE KEY-----", "-----END-----"),
        text.replace("  tls.key: |\n", "  tls.key: \"\n"),
        text.replace(&format!("    {line}"), line),
    ];
    for text in broken {
        let refused = parse("t", &text).unwrap_err();
        let data = serde_json::to_string(&refused).unwrap();
        for shown in [refused.render(false), data, format!("{refused:?}")] {
            assert!(!shown.contains(&line[4..40]), "{shown}");
        }
    }
}

#[test]
fn secrets_are_refused_for_what_cannot_be() {
    let (certificate, key) = pair();
    let (_, other) = pair();
    let json = |kind: &str, data: &str| {
        format!("{{kind: Secret, metadata: {{name: a}}, {kind}stringData: {data}}}")
    };
    let tls = "type: kubernetes.io/tls, ";
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let both = |certificate: &str, key: &str| {
        format!("{{tls.crt: {}, tls.key: {}}}", text(certificate), text(key))
    };
    let table = [
        (
            json("", &both(&certificate, &key)),
            "type: expected a Secret of type `kubernetes.io/tls`, found `none`",
        ),
        (
            json(tls, &format!("{{tls.crt: {}}}", text(&certificate))),
            "data: the key `tls.key` is missing",
        ),
        (
            json(tls, &both(&certificate, &other)),
            "stringData.tls.key: `tls.key`: the key is not that of the first certificate",
        ),
        (
            json(tls, &both("none", &key)),
            "stringData.tls.crt: `tls.crt`: not a chain of 1 to 10 certificates in PEM",
        ),
        (
            json(tls, &both(&certificate, "none")),
            "stringData.tls.key: `tls.key`: no private key in PEM",
        ),
    ];
    for (document, expected) in table {
        let found = told(&parse("t", &document).unwrap_err());
        let found: Vec<_> = found
            .iter()
            .map(|it| it.split_once(' ').unwrap().1)
            .collect();
        assert_eq!(found, [expected]);
    }
}

#[test]
fn a_core_service_is_a_service() {
    let text = "
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec:
  selector: { app: web }
  clusterIP: None
  type: ClusterIP
  ports:
    - { name: h1, port: 80, targetPort: http, protocol: TCP }
    - { name: h2, port: 81, targetPort: 8081, appProtocol: kubernetes.io/h2c }
    - { name: ws, port: 82, appProtocol: kubernetes.io/ws }
";
    let found = &parse("t", text).unwrap()[0];
    let Spec::Service(spec) = &found.spec else {
        panic!("{found:?}");
    };
    let ports: Vec<_> = spec
        .ports
        .iter()
        .map(|port| {
            (
                port.name.as_deref().unwrap(),
                port.target_port,
                port.protocol(),
            )
        })
        .collect();
    assert_eq!(
        ports,
        [
            ("h1", None, Protocol::Detect),
            ("h2", Some(8081), Protocol::Http2),
            ("ws", None, Protocol::Http)
        ]
    );
    let mut world = world_of(text);
    let ours =
        "kind: Service\nmetadata: {name: web, namespace: shop}\nspec: {ports: [{port: 80}]}\n";
    assert_eq!(
        told(&apply(&mut world, ours).unwrap_err()),
        [
            "2:18 metadata.name: Service shop/web is there as one of `v1` / both are the same thing: delete that one first"
        ]
    );
    let both = format!("{text}---\n{ours}");
    let twice = told(
        &crate::mesh()
            .plan(parse("t", &both).unwrap(), crate::LENIENT)
            .unwrap_err(),
    );
    assert!(
        twice[0].contains("Service shop/web is given twice"),
        "{twice:?}"
    );
}

#[test]
fn core_services_are_refused_for_what_would_be_missed() {
    let table = [
        (
            "{type: LoadBalancer, ports: [{port: 80}]}",
            "spec.type: unknown value `LoadBalancer`",
        ),
        (
            "{externalName: a.b, ports: [{port: 80}]}",
            "spec.externalName: unknown key `externalName`",
        ),
        (
            "{ports: [{port: 80, protocol: UDP}]}",
            "spec.ports[0].protocol: unknown value `UDP`",
        ),
        (
            "{ports: [{port: 80, nodePort: 30080}]}",
            "spec.ports[0].nodePort: unknown key `nodePort`",
        ),
        (
            "{ports: [{port: 80}, {port: 81}]}",
            "spec.ports[0]: where a service has several ports, each has a name",
        ),
        (
            "{sessionAffinity: ClientIP, ports: [{port: 80}]}",
            "spec.sessionAffinity: unknown value `ClientIP`",
        ),
        ("{ports: []}", "spec.ports: expected 1 to 64 ports, found 0"),
        (
            "{ports: [{port: 80, targetPort: 0}]}",
            "spec.ports[0].targetPort: expected 1 to 65535, found `0`",
        ),
    ];
    for (spec, expected) in table {
        let text = format!("apiVersion: v1\nkind: Service\nmetadata: {{name: a}}\nspec: {spec}\n");
        let found = told(&parse("t", &text).unwrap_err());
        let found = found[0].split_once(' ').unwrap().1;
        assert!(found.starts_with(expected), "{found}");
    }
}
