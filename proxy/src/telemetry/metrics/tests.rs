//! The whole of the metrics, seen as Prometheus sees them: through the parsed exposition.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use selvage_certs::HandshakeOutcome;
use selvage_policy::breaker::BreakerState;
use selvage_policy::flag::Flag;
use selvage_policy::retry::RetryOutcome;

use super::*;

/// A sample's name and labels, written `name{a="b",c="d"}`, to its value.
type Samples = BTreeMap<String, f64>;

fn scrape(metrics: &Metrics) -> Samples {
    let text = String::from_utf8(metrics.encode()).expect("the exposition is UTF-8");
    let mut samples = Samples::new();
    let mut announced = String::new();
    for line in text.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            announced = kind.split(' ').next().expect("a name").to_owned();
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            assert!(
                name.starts_with(&announced),
                "{name} stands under {announced}"
            );
            let value = value.parse().expect("a number");
            assert_eq!(
                samples.insert(name.to_owned(), value),
                None,
                "{name} is there twice"
            );
        }
    }
    samples
}

fn lines(metrics: &Metrics) -> usize {
    metrics
        .encode()
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
}

fn assert_samples(samples: &Samples, expected: &[(&str, f64)]) {
    for (name, value) in expected {
        assert_eq!(samples.get(*name), Some(value), "{name}");
    }
}

fn of_family(samples: &Samples, family: &str) -> Vec<String> {
    let prefix = format!("{family}{{");
    samples
        .keys()
        .filter(|name| name.starts_with(&prefix))
        .cloned()
        .collect()
}

#[test]
fn requests_are_counted_by_all_their_labels() {
    let metrics = Metrics::new(2);
    let series = metrics.http(Direction::Inbound, "shop/gateway", "shop/orders", "default");
    series.record(0, 200, None, None, Duration::from_millis(2));
    series.record(1, 200, None, None, Duration::from_millis(20));
    series.record(
        2,
        200,
        Some(14),
        Some(Flag::Overflow),
        Duration::from_secs(20),
    );
    let samples = scrape(&metrics);
    let labels =
        r#"direction="inbound",source="shop/gateway",destination="shop/orders",route="default""#;
    for (name, value) in [
        (
            r#"_requests_total{@,code="200",grpc_status="-",flag="-"}"#,
            2.0,
        ),
        (
            r#"_requests_total{@,code="200",grpc_status="14",flag="overflow"}"#,
            1.0,
        ),
        (r#"_request_duration_seconds_bucket{@,le="0.001"}"#, 0.0),
        (r#"_request_duration_seconds_bucket{@,le="0.0025"}"#, 1.0),
        (r#"_request_duration_seconds_bucket{@,le="0.025"}"#, 2.0),
        (r#"_request_duration_seconds_bucket{@,le="10"}"#, 2.0),
        (r#"_request_duration_seconds_bucket{@,le="+Inf"}"#, 3.0),
        (r#"_request_duration_seconds_count{@}"#, 3.0),
        (r#"_request_duration_seconds_sum{@}"#, 20.022),
    ] {
        let name = format!("selvage_http{}", name.replace('@', labels));
        assert_eq!(samples.get(&name), Some(&value), "{name}");
    }
}

#[test]
fn what_was_ignored_and_what_found_no_place_is_counted() {
    let metrics = Metrics::new(1);
    metrics.header_ignored(0, Ignored::Attempt);
    metrics.trace_not_kept(0);
    assert_samples(
        &scrape(&metrics),
        &[
            (
                r#"selvage_headers_ignored_total{header="x-selvage-attempt"}"#,
                1.0,
            ),
            (
                r#"selvage_headers_ignored_total{header="grpc-timeout"}"#,
                0.0,
            ),
            ("selvage_traces_not_kept_total", 1.0),
        ],
    );
}

#[test]
fn label_sets_that_read_the_same_when_joined_stay_apart() {
    let metrics = Metrics::new(1);
    metrics
        .tcp(Direction::Inbound, "ab", "c")
        .open(0)
        .received(1);
    metrics
        .tcp(Direction::Inbound, "a", "bc")
        .open(0)
        .received(2);
    assert_samples(
        &scrape(&metrics),
        &[
            (
                r#"selvage_tcp_bytes_total{direction="inbound",source="ab",destination="c",flow="received"}"#,
                1.0,
            ),
            (
                r#"selvage_tcp_bytes_total{direction="inbound",source="a",destination="bc",flow="received"}"#,
                2.0,
            ),
        ],
    );
}

#[test]
fn a_connection_is_closed_when_its_record_is_dropped() {
    let metrics = Metrics::new(1);
    let series = metrics.tcp(Direction::Outbound, "shop/orders", "shop/db");
    let plain = series.open(0);
    let cut = series.open(0);
    cut.received(10);
    cut.sent(5);
    cut.set_flag(Flag::Reset);
    drop(cut);
    let labels = r#"direction="outbound",source="shop/orders",destination="shop/db""#;
    let opened = format!("selvage_tcp_connections_opened_total{{{labels}}}");
    let closed = |flag| format!("selvage_tcp_connections_closed_total{{{labels},flag=\"{flag}\"}}");
    let bytes = |flow| format!("selvage_tcp_bytes_total{{{labels},flow=\"{flow}\"}}");
    let samples = scrape(&metrics);
    assert_samples(
        &samples,
        &[
            (&opened, 2.0),
            (&closed("reset"), 1.0),
            (&bytes("received"), 10.0),
            (&bytes("sent"), 5.0),
        ],
    );
    assert_eq!(samples.get(&closed("-")), None);
    drop(plain);
    assert_samples(&scrape(&metrics), &[(&closed("-"), 1.0)]);
}

#[test]
fn what_happens_toward_a_destination_is_counted() {
    let metrics = Metrics::new(1);
    let series = metrics.destination("shop/ratings");
    series.retry(0, RetryOutcome::Success);
    series.retry(1, RetryOutcome::Deadline);
    series.budget_exhausted(0);
    series.transition(0, BreakerState::Open);
    series.transition(0, BreakerState::HalfOpen);
    series.transition(1, BreakerState::Open);
    let samples = scrape(&metrics);
    assert_samples(
        &samples,
        &[
            (
                r#"selvage_http_retries_total{destination="shop/ratings",outcome="success"}"#,
                1.0,
            ),
            (
                r#"selvage_http_retries_total{destination="shop/ratings",outcome="deadline"}"#,
                1.0,
            ),
            (
                r#"selvage_http_retries_total{destination="shop/ratings",outcome="budget"}"#,
                0.0,
            ),
            (
                r#"selvage_retry_budget_exhausted_total{destination="shop/ratings"}"#,
                1.0,
            ),
            (
                r#"selvage_breaker_transitions_total{destination="shop/ratings",to="open"}"#,
                2.0,
            ),
            (
                r#"selvage_breaker_transitions_total{destination="shop/ratings",to="half_open"}"#,
                1.0,
            ),
            (
                r#"selvage_breaker_transitions_total{destination="shop/ratings",to="closed"}"#,
                0.0,
            ),
        ],
    );
    assert_eq!(of_family(&samples, "selvage_http_retries_total").len(), 6);
}

#[test]
fn guards_handshakes_and_decisions_are_counted() {
    let metrics = Metrics::new(1);
    let first = metrics.active(0, Direction::Inbound);
    let second = metrics.active(9, Direction::Inbound);
    metrics.handshake(0, Side::Server, HandshakeOutcome::NoCertificate);
    metrics.handshake(1, Side::Client, HandshakeOutcome::Ok);
    let denied = metrics.authorization("shop/orders", Decision::AuditDeny, "shop/strict");
    denied.inc(0);
    metrics
        .authorization("shop/orders", Decision::AuditDeny, "shop/strict")
        .inc(1);
    drop(first);
    let samples = scrape(&metrics);
    assert_samples(
        &samples,
        &[
            (r#"selvage_http_active_requests{direction="inbound"}"#, 1.0),
            (r#"selvage_http_active_requests{direction="outbound"}"#, 0.0),
            (
                r#"selvage_tls_handshakes_total{side="server",outcome="no-certificate"}"#,
                1.0,
            ),
            (
                r#"selvage_tls_handshakes_total{side="client",outcome="ok"}"#,
                1.0,
            ),
            (
                r#"selvage_authorization_decisions_total{destination="shop/orders",decision="audit-deny",policy="shop/strict"}"#,
                2.0,
            ),
            ("selvage_access_log_dropped_total", 0.0),
            ("selvage_log_dropped_total", 0.0),
            (r#"selvage_spans_total{outcome="exported"}"#, 0.0),
            (r#"selvage_spans_total{outcome="dropped"}"#, 0.0),
            (r#"selvage_spans_total{outcome="failed"}"#, 0.0),
        ],
    );
    assert_eq!(
        of_family(&samples, "selvage_tls_handshakes_total").len(),
        12
    );
    drop(second);
    assert_samples(
        &scrape(&metrics),
        &[(r#"selvage_http_active_requests{direction="inbound"}"#, 0.0)],
    );
}

#[test]
fn gauges_are_asked_for_at_each_scrape() {
    let metrics = Metrics::new(1);
    let asked = AtomicU64::new(0);
    metrics.on_scrape(move |gauges| {
        gauges.snapshot_version(7 + asked.fetch_add(1, Relaxed));
        gauges.discovery_connected(true);
        gauges.endpoints("shop/ratings", EndpointCondition::Closed, 2);
        gauges.endpoints("shop/ratings", EndpointCondition::Closed, 1);
        gauges.endpoints("shop/ratings", EndpointCondition::Open, 1);
        let expiry = SystemTime::UNIX_EPOCH + Duration::from_millis(1500);
        gauges.certificate_expiry(CertificateKind::Leaf, expiry);
        gauges.listener_expiry("web", expiry + Duration::from_secs(1));
    });
    for version in [7.0, 8.0] {
        assert_samples(
            &scrape(&metrics),
            &[
                ("selvage_snapshot_version", version),
                ("selvage_discovery_connected", 1.0),
                (
                    r#"selvage_endpoints{destination="shop/ratings",state="closed"}"#,
                    3.0,
                ),
                (
                    r#"selvage_endpoints{destination="shop/ratings",state="open"}"#,
                    1.0,
                ),
                (
                    r#"selvage_endpoints{destination="shop/ratings",state="half_open"}"#,
                    0.0,
                ),
                (
                    r#"selvage_certificate_expiry_timestamp_seconds{kind="leaf"}"#,
                    1.5,
                ),
                (
                    r#"selvage_gateway_certificate_expiry_timestamp_seconds{listener="web"}"#,
                    2.5,
                ),
            ],
        );
    }
}

#[test]
fn an_unset_gauge_is_absent_and_the_build_is_named() {
    let samples = scrape(&Metrics::new(1));
    assert!(!samples.contains_key("selvage_snapshot_version"));
    assert!(!samples.contains_key("selvage_discovery_connected"));
    let build = of_family(&samples, "selvage_build_info");
    assert_eq!(build.len(), 1);
    assert!(build[0].contains(concat!("version=\"", env!("CARGO_PKG_VERSION"), "\"")));
}

#[test]
fn labels_are_escaped_and_never_empty() {
    let metrics = Metrics::new(1);
    drop(metrics.tcp(Direction::Inbound, "a\"b\\c\nd", "").open(0));
    let samples = scrape(&metrics);
    assert!(samples.contains_key(
        r#"selvage_tcp_connections_opened_total{direction="inbound",source="a\"b\\c\nd",destination="-"}"#
    ));
}

#[test]
fn beyond_the_limit_series_are_labelled_overflow_and_none_is_lost() {
    let metrics = Metrics::new(1);
    metrics.set_series_limit(400);
    metrics.on_scrape(|gauges| {
        for n in 0..100 {
            gauges.endpoints(&format!("shop/s{n}"), EndpointCondition::Closed, 1);
        }
    });
    for n in 0..200_u16 {
        let name = format!("shop/w{n}");
        let series = metrics.http(Direction::Inbound, &name, "shop/orders", "default");
        series.record(0, 100 + n, None, None, Duration::ZERO);
        drop(
            metrics
                .tcp(Direction::Outbound, &name, "shop/orders")
                .open(0),
        );
        metrics.destination(&name).budget_exhausted(0);
        metrics.authorization(&name, Decision::Deny, "-").inc(0);
    }
    let samples = scrape(&metrics);
    assert!(lines(&metrics) <= 400, "{} lines", lines(&metrics));
    for family in [
        "selvage_http_requests_total",
        "selvage_tcp_connections_opened_total",
        "selvage_tcp_connections_closed_total",
        "selvage_retry_budget_exhausted_total",
        "selvage_authorization_decisions_total",
    ] {
        let names = of_family(&samples, family);
        assert!(
            names.iter().any(|name| name.contains("\"overflow\"")),
            "{family}"
        );
        let sum: f64 = names.iter().map(|name| samples[name]).sum();
        assert_eq!(sum, 200.0, "{family}");
    }
    let endpoints: f64 = of_family(&samples, "selvage_endpoints")
        .iter()
        .map(|name| samples[name])
        .sum();
    assert_eq!(endpoints, 100.0);
}

#[test]
fn a_limit_too_small_for_anything_still_counts() {
    let metrics = Metrics::new(1);
    metrics.set_series_limit(0);
    metrics
        .http(Direction::Inbound, "a", "b", "c")
        .record(0, 200, None, None, Duration::ZERO);
    let samples = scrape(&metrics);
    let name = r#"selvage_http_requests_total{direction="inbound",source="overflow",destination="overflow",route="overflow",code="overflow",grpc_status="overflow",flag="overflow"}"#;
    assert_samples(&samples, &[(name, 1.0)]);
    assert!(lines(&metrics) <= RESERVED_LINES);
}

#[test]
fn what_policies_do_is_counted_by_family() {
    let metrics = Metrics::new(1);
    metrics.event(Event::Hedge, "shop/b", "won").inc(0);
    metrics.event(Event::Hedge, "shop/b", "won").inc(0);
    metrics.event(Event::Fallback, "shop/b", "cached").inc(0);
    metrics.event(Event::Fault, "shop/b", "delay").inc(0);
    metrics.set_series_limit(0);
    metrics.event(Event::Mirror, "shop/b", "sent").inc(0);
    assert_samples(
        &scrape(&metrics),
        &[
            (
                r#"selvage_hedges_total{destination="shop/b",outcome="won"}"#,
                2.0,
            ),
            (
                r#"selvage_fallbacks_total{destination="shop/b",name="cached"}"#,
                1.0,
            ),
            (
                r#"selvage_faults_total{destination="shop/b",kind="delay"}"#,
                1.0,
            ),
            (
                r#"selvage_mirrors_total{destination="overflow",outcome="overflow"}"#,
                1.0,
            ),
        ],
    );
}

#[test]
fn a_label_too_long_goes_to_the_overflow() {
    let metrics = Metrics::new(1);
    drop(
        metrics
            .tcp(Direction::Inbound, &"x".repeat(513), "b")
            .open(0),
    );
    let names = of_family(&scrape(&metrics), "selvage_tcp_connections_opened_total");
    assert_eq!(names.len(), 1);
    assert!(names[0].contains("source=\"overflow\""));
}

#[test]
fn a_series_that_vanished_makes_room_after_two_scrapes() {
    let metrics = Metrics::new(1);
    metrics.set_series_limit(RESERVED_LINES + HttpSeries::FIXED_LINES + 1);
    let record = |source: &str| {
        let series = metrics.http(Direction::Inbound, source, "b", "c");
        series.record(0, 200, None, None, Duration::ZERO);
        series
    };
    let sources = || {
        let names = of_family(&scrape(&metrics), "selvage_http_requests_total");
        let label = |name: &String| {
            name.split("source=\"")
                .nth(1)?
                .split('"')
                .next()
                .map(str::to_owned)
        };
        names.iter().filter_map(label).collect::<Vec<_>>()
    };
    let held = record("gone");
    for _ in 0..4 {
        assert_eq!(sources(), ["gone"], "held, however many scrapes");
    }
    drop(record("new"));
    assert_eq!(sources(), ["gone", "overflow"], "there is no room yet");
    drop(held);
    for _ in 0..2 {
        assert_eq!(
            sources(),
            ["gone", "overflow"],
            "its last counts are still seen"
        );
        drop(record("new"));
    }
    assert_eq!(sources(), ["gone", "overflow"]);
    drop(record("new"));
    assert_eq!(sources(), ["new", "overflow"]);
    drop(record("new"));
    assert_eq!(
        sources(),
        ["new", "overflow"],
        "the lines of the old one were given back once"
    );
}

#[test]
fn the_same_labels_are_the_same_series() {
    let metrics = Metrics::new(1);
    let first = metrics.http(Direction::Inbound, "a", "b", "c");
    assert!(Arc::ptr_eq(
        &first,
        &metrics.http(Direction::Inbound, "a", "b", "c")
    ));
    assert!(!Arc::ptr_eq(
        &first,
        &metrics.http(Direction::Outbound, "a", "b", "c")
    ));
}
