//! What is read, which source of a setting wins, and what is refused.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use selvage_policy::failures::StatusSet;
use selvage_policy::health::{Pace, Question};
use selvage_policy::snapshot::{Protocol, ServiceName};

use super::*;

mod refusals;
mod tracing;

const SMALLEST: &str = "
workload: { name: ratings-1, service: ratings }
controlPlane: { address: 127.0.0.1:15010 }
";

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Loads `text` as a file with flags and an environment.
fn load_with(
    text: &str,
    flags: impl FnOnce(&mut ProxyArgs),
    variables: &[(&str, &str)],
) -> Result<Config, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sidecar.yaml");
    fs::write(&path, text).expect("a file");
    let mut args = ProxyArgs {
        config: Some(path),
        ..ProxyArgs::default()
    };
    flags(&mut args);
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    let env = |name: &str| variables.get(name).map(|text| (*text).to_owned());
    load(&args, env).map_err(|error| {
        error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    })
}

fn load_text(text: &str) -> Result<Config, String> {
    load_with(text, |_| {}, &[])
}

#[test]
fn defaults_are_those_of_the_reference() {
    let config = load_text(SMALLEST).expect("it is good");
    assert_eq!(config.workload.namespace, "default");
    assert_eq!(
        config.identity().as_str(),
        "spiffe://mesh.local/ns/default/sa/default"
    );
    assert_eq!(config.inbound.address.to_string(), "0.0.0.0:15008");
    assert_eq!(config.outbound.address.to_string(), "127.0.0.1:15001");
    assert_eq!(config.admin.to_string(), "127.0.0.1:15000");
    assert_eq!(config.telemetry.to_string(), "0.0.0.0:15020");
    assert_eq!(config.access_log, AccessLogFormat::Off);
    assert_eq!(config.inbound.tls, None);
    assert_eq!(config.drain.delay, Duration::from_secs(1));
    assert_eq!(config.drain.timeout, Duration::from_secs(25));
    assert_eq!(
        config.limits,
        Limits {
            header_bytes: 65536,
            header_count: 100,
            uri_bytes: 16384,
            header_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(5),
            handshakes: 256,
            streams: 100,
            replay_bytes: 65536,
            connections: 10_000,
        }
    );
    assert!((1..=2).contains(&config.workers));
    assert_eq!(config.state_dir, Path::new("/var/lib/selvage"));
    assert_eq!(config.log_format, LogFormat::Text);
}

#[test]
fn a_whole_file_is_read() {
    let config = load_text(
        "
workload: { name: ratings-1, service: ratings, namespace: shop, serviceAccount: ratings, labels: {version: v1} }
trustDomain: example.org
controlPlane: { address: control-plane.mesh:15010, token: file:token }
inbound:
  address: 127.0.0.1:0
  advertise: 10.0.0.5:15008
  tls: strict
  ports:
    - { port: 8080, servicePort: 80, protocol: http, health: { tcp: {}, interval: 2s } }
    - { port: 9090, protocol: grpc, health: grpc }
    - { port: 9091, health: off }
    - { port: 9092, health: { http: { path: /healthz } } }
outbound:
  address: 127.0.0.1:0
  listeners:
    - { address: 127.0.0.1:9001, service: reviews.books, port: 80 }
    - { address: 127.0.0.1:0, service: orders }
admin: { address: '[::1]:15000' }
telemetry: { address: 0.0.0.0:0, accessLog: json }
drain: { delay: 100ms, timeout: 2s }
limits: { headerBytes: 32KiB, streams: 7 }
workers: 3
stateDir: state
",
    )
    .expect("it is good");
    assert_eq!(
        config.identity().as_str(),
        "spiffe://example.org/ns/shop/sa/ratings"
    );
    let Source::ControlPlane {
        address,
        token: Some(Token::File(token)),
    } = &config.source
    else {
        panic!("{:?}", config.source);
    };
    assert_eq!(address.to_string(), "control-plane.mesh:15010");
    assert!(
        token.is_absolute() && token.ends_with("token"),
        "beside the file: {token:?}"
    );
    assert!(config.state_dir.is_absolute() && config.state_dir.ends_with("state"));
    let ports: Vec<_> = config
        .inbound
        .ports
        .iter()
        .map(|port| {
            (
                port.port,
                port.service_port,
                port.protocol,
                port.health
                    .as_ref()
                    .map(|check| (check.question.as_str(), check.pace.interval)),
            )
        })
        .collect();
    assert_eq!(
        ports,
        [
            (8080, 80, Protocol::Http, Some(("tcp", seconds(2)))),
            (9090, 9090, Protocol::Grpc, Some(("grpc", seconds(5)))),
            (9091, 9091, Protocol::Detect, None),
            (9092, 9092, Protocol::Detect, Some(("http", seconds(5)))),
        ]
    );
    let paced = config.inbound.ports[3].health.as_ref().expect("checked");
    assert_eq!(
        paced.pace,
        Pace {
            interval: seconds(5),
            jitter_percent: 10,
            timeout: seconds(1),
            unhealthy_threshold: 2,
            healthy_threshold: 1,
        }
    );
    assert_eq!(
        paced.question,
        Question::Http {
            path: "/healthz".into(),
            host: None,
            expected: StatusSet::EMPTY.with(200, 399),
        }
    );
    let listeners = &config.outbound.listeners;
    assert_eq!(listeners[0].service, ServiceName::new("books", "reviews"));
    assert_eq!(
        (&listeners[1].service, listeners[1].port),
        (&ServiceName::new("shop", "orders"), None)
    );
    assert_eq!(config.access_log, AccessLogFormat::Json);
    assert_eq!(
        (config.limits.header_bytes, config.limits.streams),
        (32768, 7)
    );
    assert_eq!(config.limits.header_count, 100);
    assert_eq!(config.workers, 3);
}

#[test]
fn static_files_stand_beside_the_configuration() {
    let config = load_text(
        "
workload: { name: a, service: b }
static: { resources: ./resources/, identity: { certificate: c.pem, key: k.pem, trustBundle: /ca.pem } }
",
    )
    .expect("it is good");
    let Source::Static {
        resources,
        identity: Some(identity),
    } = config.source
    else {
        panic!("{:?}", config.source);
    };
    assert!(resources.is_absolute() && resources.ends_with("resources"));
    assert!(identity.key.is_absolute() && identity.key.ends_with("k.pem"));
    assert_eq!(identity.trust_bundle, Path::new("/ca.pem"));
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let text = format!("{SMALLEST}outbound: {{ address: 127.0.0.1:1 }}\n");
    let variable = ("SELVAGE_OUTBOUND_ADDRESS", "127.0.0.1:2");
    let flag = |args: &mut ProxyArgs| args.outbound_address = Some("127.0.0.1:3".to_owned());
    for (flagged, variables, port) in [
        (false, &[][..], 1),
        (false, &[variable][..], 2),
        (true, &[variable][..], 3),
        (true, &[], 3),
    ] {
        let config = load_with(
            &text,
            |args| {
                if flagged {
                    flag(args)
                }
            },
            variables,
        );
        assert_eq!(config.expect("it is good").outbound.address.port(), port);
    }
}

#[test]
fn no_file_is_needed() {
    let args = ProxyArgs {
        workload_service: Some("ratings".to_owned()),
        ..ProxyArgs::default()
    };
    let env = |name: &str| {
        let text = match name {
            "SELVAGE_WORKLOAD_NAME" => "ratings-1",
            "SELVAGE_CONTROL_PLANE_ADDRESS" => "[::1]:15010",
            "SELVAGE_CONTROL_PLANE_TOKEN" => "secret",
            "SELVAGE_TELEMETRY_ACCESS_LOG" => "text",
            "SELVAGE_LIMITS_HEADER_BYTES" => "8KiB",
            "SELVAGE_DRAIN_DELAY" => "0s",
            "SELVAGE_LOG_FORMAT" => "json",
            "SELVAGE_WORKERS" => "5",
            _ => return None,
        };
        Some(text.to_owned())
    };
    let config = load(&args, env).expect("it is good");
    assert_eq!(config.workload.name, "ratings-1");
    let Source::ControlPlane { address, token } = &config.source else {
        panic!("{config:?}")
    };
    assert_eq!(
        (address.host.as_str(), address.to_string().as_str()),
        ("::1", "[::1]:15010")
    );
    assert_eq!(token, &Some(Token::Literal("secret".to_owned())));
    assert_eq!(config.access_log, AccessLogFormat::Text);
    assert_eq!(config.limits.header_bytes, 8192);
    assert_eq!(config.drain.delay, Duration::ZERO);
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.workers, 5);
    assert!(
        !format!("{config:?}").contains("secret"),
        "a token is never shown"
    );
}

#[test]
fn every_setting_has_its_variable() {
    let names: Vec<_> = SETTINGS.iter().map(file::Setting::variable).collect();
    for name in [
        "SELVAGE_OUTBOUND_ADDRESS",
        "SELVAGE_WORKLOAD_SERVICE_ACCOUNT",
        "SELVAGE_CONTROL_PLANE_TOKEN",
        "SELVAGE_STATIC_IDENTITY_TRUST_BUNDLE",
        "SELVAGE_LIMITS_HEADER_BYTES",
        "SELVAGE_STATE_DIR",
    ] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
}

#[test]
fn every_flag_names_a_setting() {
    for path in ProxyArgs::PATHS {
        assert!(
            SETTINGS.iter().any(|setting| setting.path == *path),
            "{path}"
        );
    }
}

#[test]
fn a_gateway_stands_beside_nobody() {
    let gateway = |text: &str| {
        let text = format!("static: {{ resources: ./r }}\n{text}");
        let config = load_text(&text).expect("it is good");
        (config.gateway.expect("a gateway"), config.workload)
    };
    let (own, workload) = gateway(
        "gateway: { name: public, namespace: shop, address: 127.0.0.1, ports: {80: 8080, 443: 0}, trustedHops: 1 }",
    );
    assert_eq!(
        (own.name.as_str(), own.namespace.as_str()),
        ("public", "shop")
    );
    assert_eq!(own.address, IpAddr::from([127, 0, 0, 1]));
    assert_eq!(own.ports, [(80, 8080), (443, 0)].into());
    assert_eq!(own.trusted_hops, 1);
    assert!(own.folder.is_absolute());
    let named = (workload.name, workload.service, workload.namespace);
    let expected = ("public", "public", "shop");
    assert_eq!(
        named,
        (
            expected.0.to_owned(),
            expected.1.to_owned(),
            expected.2.to_owned()
        )
    );
    let (own, workload) =
        gateway("gateway: { name: public }\nworkload: { name: edge-1, namespace: edge }");
    assert_eq!(own.namespace, "edge");
    assert_eq!(own.address, IpAddr::from([0, 0, 0, 0]));
    assert_eq!(
        (workload.name.as_str(), workload.service.as_str()),
        ("edge-1", "public")
    );
}
