//! OpenTelemetry's variables: what they mean, and what is refused.

use super::*;

fn tracing(variables: &[(&str, &str)]) -> Result<Option<Tracing>, String> {
    load_with(SMALLEST, |_| {}, variables).map(|config| config.tracing)
}

const ON: (&str, &str) = ("OTEL_TRACES_EXPORTER", "otlp");

#[test]
fn tracing_is_on_where_it_is_asked_for() {
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let table: &[(&[(&str, &str)], bool)] = &[
        (&[], false),
        (&[("OTEL_SERVICE_NAME", "a")], false),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], false),
        (&[endpoint], true),
        (&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c/")], true),
        (&[ON], true),
        (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], false),
        (&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")], false),
        (&[endpoint, ("OTEL_SDK_DISABLED", "false")], true),
        // Nothing is asked of what is not used.
        (&[("OTEL_TRACES_SAMPLER", "jaeger_remote")], false),
    ];
    for (variables, on) in table {
        let tracing = tracing(variables).expect("it is good");
        assert_eq!(tracing.is_some(), *on, "{variables:?}");
    }
}

#[test]
fn variables_that_are_anothers_are_not_read() {
    let strange = ("OTEL_PROPAGATORS", "xray");
    assert!(tracing(&[ON, strange]).is_err());
    let off = tracing(&[ON, strange, ("SELVAGE_TELEMETRY_TRACES", "off")]);
    assert_eq!(off, Ok(None));
    assert!(tracing(&[("SELVAGE_TELEMETRY_TRACES", "none")]).is_err());
}

#[test]
fn the_defaults_are_those_of_opentelemetry() {
    let tracing = tracing(&[ON]).expect("it is good").expect("it is on");
    assert_eq!(tracing.endpoint, "http://localhost:4318/v1/traces");
    assert_eq!(tracing.protocol, OtlpProtocol::HttpProtobuf);
    assert_eq!(tracing.timeout, Duration::from_secs(10));
    assert!(tracing.headers.is_empty());
    let batch = Batch {
        delay: Duration::from_secs(5),
        queue: 2048,
        size: 512,
        timeout: Duration::from_secs(30),
    };
    assert_eq!(tracing.batch, batch);
    assert_eq!(format!("{:?}", tracing.sampler), "ParentBased(On)");
    let resource = [
        ("service.name", "ratings"),
        ("service.namespace", "default"),
        ("service.instance.id", "ratings-1"),
    ];
    assert_eq!(
        tracing.resource,
        resource.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
}

#[test]
fn endpoints_are_made_whole() {
    let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
    let own = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    let grpc = ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc");
    let table: &[(&[(&str, &str)], &str)] = &[
        (&[ON, grpc], "http://localhost:4317/"),
        (&[(all, "http://c:1")], "http://c:1/v1/traces"),
        (&[(all, "http://c:1/")], "http://c:1/v1/traces"),
        (&[(all, "http://c:1/otlp/")], "http://c:1/otlp/v1/traces"),
        (&[(own, "http://c:1")], "http://c:1/"),
        (&[(own, "http://c:1/in?key=1")], "http://c:1/in?key=1"),
        (
            &[(all, "http://a:1"), (own, "http://[::1]:2/b")],
            "http://[::1]:2/b",
        ),
        (&[(all, "http://c:1"), grpc], "http://c:1/"),
    ];
    for (variables, expected) in table {
        let tracing = tracing(variables).expect("it is good").expect("it is on");
        assert_eq!(tracing.endpoint, *expected, "{variables:?}");
    }
}

#[test]
fn the_rest_is_taken_over() {
    let tracing = tracing(&[
        ON,
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "authorization=Bearer%20a%2Cb, x-tenant=7",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "250"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment=t%C3%A9st,service.name=x",
        ),
        ("OTEL_SERVICE_NAME", "front"),
        ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "300"),
        ("OTEL_PROPAGATORS", "tracecontext,baggage,b3"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
    ]);
    let tracing = tracing.expect("it is good").expect("it is on");
    assert_eq!(tracing.headers["authorization"], "Bearer a,b");
    assert!(!format!("{tracing:?}").contains("Bearer"));
    assert_eq!(tracing.headers["x-tenant"], "7");
    assert_eq!(tracing.timeout, Duration::from_millis(250));
    let value = |key| {
        let found = tracing.resource.iter().filter(|known| known.0 == key);
        found.map(|known| known.1.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(value("service.name"), ["front"]);
    assert_eq!(value("deployment.environment"), ["tést"]);
    assert_eq!(value("service.instance.id"), ["ratings-1"]);
    let batch = Batch {
        delay: Duration::from_millis(20),
        queue: 8,
        size: 8,
        timeout: Duration::from_millis(300),
    };
    assert_eq!(tracing.batch, batch);
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let table: &[(&str, &str, &[&str])] = &[
        (
            "OTEL_TRACES_EXPORTER",
            "zipkin",
            &["zipkin", "not supported yet", "otlp or none"],
        ),
        ("OTEL_SDK_DISABLED", "1", &["neither true nor false"]),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "https://c:4317",
            &["TLS", "not supported yet"],
        ),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4317", &["no URL"]),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1", &["no URL"]),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "http://me:pass@c:1",
            &["no user"],
        ),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/ca.pem",
            &["TLS", "not supported yet"],
        ),
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "http/json",
            &["http/json", "not supported yet"],
        ),
        (
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
            "gzip",
            &["gzip", "not supported yet"],
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "secret", &["key=value"]),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "a=secret%",
            &["`a`", "percent"],
        ),
        // A slip that is often made: its first `=` stands within the credential.
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "Authorization: Basic secret==",
            &["no name of a header"],
        ),
        (
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "10s",
            &["10s", "whole number"],
        ),
        (
            "OTEL_TRACES_SAMPLER",
            "jaeger_remote",
            &["jaeger_remote", "traceidratio"],
        ),
        ("OTEL_PROPAGATORS", "jaeger", &["jaeger", "b3multi"]),
        ("OTEL_RESOURCE_ATTRIBUTES", "a", &["key=value"]),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", &["`0`"]),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", &["2048"]),
        ("OTEL_BSP_SCHEDULE_DELAY", "-1", &["-1"]),
    ];
    for (variable, value, expected) in table {
        let mut variables = vec![(*variable, *value)];
        if *variable != ON.0 {
            variables.push(ON);
        }
        let refusal = tracing(&variables).expect_err(variable);
        assert!(refusal.starts_with(variable), "{refusal}");
        for part in *expected {
            assert!(refusal.contains(part), "{variable}={value}: {refusal}");
        }
        assert!(
            !refusal.contains("secret") && !refusal.contains("pass"),
            "{refusal}"
        );
    }
    for share in ["1.5", "-1", "NaN", "half"] {
        let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
        let refusal = tracing(&[ON, sampler, ("OTEL_TRACES_SAMPLER_ARG", share)]);
        assert!(refusal.expect_err(share).contains(share));
    }
}
