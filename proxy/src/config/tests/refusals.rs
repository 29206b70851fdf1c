//! What is refused, and what the refusal says.

use super::*;

#[test]
fn what_is_wrong_is_refused_with_its_place() {
    // What is added to the smallest file, and what the refusal must say.
    let table: &[(&str, &[&str])] = &[
        ("outbond: {}", &["sidecar.yaml:4:1", "outbound"]),
        (
            "outbound: { adress: 127.0.0.1:1 }",
            &["sidecar.yaml:4:", "address"],
        ),
        (
            "outbound: { address: here }",
            &["sidecar.yaml:4:", "outbound.address", "127.0.0.1:15001"],
        ),
        ("gateway: {}", &["gateway.name", "is missing"]),
        (
            "gateway: { name: public }",
            &["workload.service", "is not the Gateway's name, `public`"],
        ),
        ("gateway: { nam: public }", &["sidecar.yaml:4:", "name"]),
        ("gateway: { name: a.b }", &["gateway.name", "DNS label"]),
        (
            "gateway: { name: public, address: here }",
            &["gateway.address", "0.0.0.0"],
        ),
        (
            "gateway: { name: public, ports: { web: 8080 } }",
            &["sidecar.yaml:4:", "expected a port such as 443"],
        ),
        (
            "gateway: { name: public, ports: { 80: 8080, 81: 8080 } }",
            &["gateway.ports.81", "8080 is already taken"],
        ),
        (
            "gateway: { name: public, ports: { 80: 15020 } }",
            &["gateway.ports.80", "already taken by `telemetry.address`"],
        ),
        (
            "gateway: { name: public, trustedHops: 17 }",
            &["gateway.trustedHops", "at most 16"],
        ),
        (
            "gateway: { name: public }\ninbound: { ports: [{ port: 1 }] }",
            &["inbound", "contradicts `gateway`"],
        ),
        (
            "gateway: { name: public }\noutbound: { address: 127.0.0.1:1 }",
            &["outbound", "contradicts `gateway`"],
        ),
        (
            "static: { resources: ./r }",
            &["static", "contradicts `controlPlane`"],
        ),
        ("trustDomain: Mesh.Local", &["trustDomain"]),
        ("inbound: { tls: maybe }", &["inbound.tls", "strict"]),
        (
            "inbound: { advertise: 0.0.0.0:1 }",
            &["inbound.advertise", "can connect to"],
        ),
        (
            "inbound: { ports: [{ port: 0 }] }",
            &["inbound.ports[0].port"],
        ),
        (
            "inbound: { ports: [{ port: 70000 }] }",
            &["inbound.ports[0].port"],
        ),
        (
            "inbound: { ports: [{ port: 1, servicePort: 80 }, { port: 80 }] }",
            &["inbound.ports[1].port", "80 is already taken"],
        ),
        (
            "inbound: { ports: [{ port: 15001 }] }",
            &["ports[0].port", "outbound.address", "circle"],
        ),
        (
            "inbound: { ports: [{ port: 1, protocol: htp }] }",
            &["ports[0].protocol", "http"],
        ),
        (
            "outbound: { listeners: [{ address: 127.0.0.1:15000, service: a }] }",
            &[
                "outbound.listeners[0].address",
                "already taken by `admin.address`",
            ],
        ),
        (
            "outbound: { listeners: [{ address: 127.0.0.1:1, service: a.b.c }] }",
            &["outbound.listeners[0].service", "NAME.NAMESPACE"],
        ),
        (
            "outbound: { listeners: [{ address: 127.0.0.1:1, service: a, port: 0 }] }",
            &["outbound.listeners[0].port"],
        ),
        (
            "admin: { address: 0.0.0.0:15000 }",
            &["admin.address", "loopback"],
        ),
        (
            "telemetry: { accessLog: yaml }",
            &["telemetry.accessLog", "json"],
        ),
        (
            "drain: { delay: 30s }",
            &["drain.delay", "longer than drain.delay"],
        ),
        (
            "drain: { delay: 2s, timeout: 2s }",
            &["drain.timeout", "longer than drain.delay"],
        ),
        ("drain: { delay: 2 }", &["drain.delay", "5s"]),
        (
            "limits: { headerBytes: 1KiB }",
            &["limits.headerBytes", "8KiB"],
        ),
        (
            "limits: { streams: 0 }",
            &["limits.streams", "nothing would get through"],
        ),
        (
            "limits: { replayBytes: 5GiB }",
            &["limits.replayBytes", "4GiB"],
        ),
        ("workers: 1000", &["workers", "256"]),
    ];
    refuses(table);
}

#[test]
fn a_check_of_the_application_that_contradicts_itself_is_refused() {
    refuses(&[
        (
            "inbound: { ports: [{ port: 1, health: never }] }",
            &["ports[0].health", "never"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { tcp: {}, grpc: {} } }] }",
            &["ports[0].health", "one of"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { interval: 1ms } }] }",
            &["interval", "100ms"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { http: { path: x } } }] }",
            &["health.http.path", "/health"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { tcp: {}, interval: 1s, timeout: 2s } }] }",
            &["ports[0].health.timeout", "(2s)", "(1s)"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { tcp: {}, healthyThreshold: 0 } }] }",
            &["ports[0].health.healthyThreshold", "1 to 100"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { off: {}, interval: 1s } }] }",
            &["ports[0].health.off", "beside `off`"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { http: { path: /, expectedStatuses: [1xx] } } }] }",
            &["health.http.expectedStatuses[0]", "1xx"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { grpc: { servce: a } } }] }",
            &["health", "servce"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { tcp: {}, unhealtyThreshold: 2 } }] }",
            &["health", "unhealtyThreshold"],
        ),
        (
            "inbound: { ports: [{ port: 1, health: { http: {} } }] }",
            &["health", "path"],
        ),
    ]);
}

/// What is added to the smallest file, and what the refusal must say.
fn refuses(table: &[(&str, &[&str])]) {
    for (added, said) in table {
        let refusal = load_text(&format!("{SMALLEST}{added}\n")).expect_err(added);
        for word in *said {
            assert!(
                refusal.contains(word),
                "{added}\nshould say {word}:\n{refusal}"
            );
        }
    }
}

#[test]
fn what_is_missing_is_named() {
    let local = "workload: { name: a, service: b }\nstatic: ";
    let table: &[(&str, &[&str])] = &[
        (
            "",
            &[
                "workload.name",
                "workload.service",
                "controlPlane.address",
                "static.resources",
            ],
        ),
        (
            "workload: { name: A_B, service: b }",
            &["workload.name", "DNS label"],
        ),
        (
            "controlPlane: { token: x }",
            &["controlPlane.address", "is missing"],
        ),
        (
            "controlPlane: { address: nowhere }",
            &["controlPlane.address", "HOST:PORT"],
        ),
        (
            "controlPlane: { address: a:1, token: 'file:' }",
            &["controlPlane.token", "without a path"],
        ),
        (
            &format!("{local}{{ identity: {{ key: k }} }}"),
            &["static.resources", "trustBundle"],
        ),
        (
            &format!("{local}{{ resources: r }}\ninbound: {{ ports: [{{ port: 1 }}] }}"),
            &["inbound.ports", "without an identity"],
        ),
        (
            &format!("{local}{{ resources: r }}\ninbound: {{ advertise: 10.0.0.1:1 }}"),
            &["inbound.advertise", "no effect"],
        ),
    ];
    for (text, said) in table {
        let refusal = load_text(text).expect_err(text);
        for word in *said {
            assert!(
                refusal.contains(word),
                "{text}\nshould say {word}:\n{refusal}"
            );
        }
    }
}

#[test]
fn a_wrong_flag_or_variable_is_called_by_its_name() {
    let variable = |name, text| load_with(SMALLEST, |_| {}, &[(name, text)]).expect_err("wrong");
    assert_eq!(
        variable("SELVAGE_OUTBOUND_ADDRESS", "here"),
        "SELVAGE_OUTBOUND_ADDRESS: expected an address and a port such as 127.0.0.1:15001, found `here`"
    );
    assert!(variable("SELVAGE_WORKERS", "many").starts_with("SELVAGE_WORKERS: "));
    assert!(
        variable("SELVAGE_ADMIN_ADDRESS", "0.0.0.0:1")
            .starts_with("SELVAGE_ADMIN_ADDRESS: must be")
    );
    assert!(
        variable("SELVAGE_LOG_FORMAT", "xml")
            .starts_with("SELVAGE_LOG_FORMAT: expected text or json")
    );
    let flagged = load_with(
        SMALLEST,
        |args| args.access_log = Some("loud".to_owned()),
        &[],
    );
    assert_eq!(
        flagged.expect_err("wrong"),
        "--access-log: expected off or text or json, found `loud`"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let args = ProxyArgs {
        config: Some("/does/not/exist.yaml".into()),
        ..ProxyArgs::default()
    };
    let error = load(&args, |_| None)
        .expect_err("there is none")
        .to_string();
    assert!(
        error.starts_with("cannot read the configuration /does/not/exist.yaml: "),
        "{error}"
    );
    let long = format!("{SMALLEST}#{}", "x".repeat(CONFIG_BYTES as usize));
    assert!(
        load_text(&long)
            .expect_err("too long")
            .contains("longer than")
    );
}
