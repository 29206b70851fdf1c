//! What is read of a trace, what is decided, and what the next hop is told.

use super::{SPAN, TRACE, call, parts};
use selvage_tests::app::{App, ok};
use selvage_tests::collector::Collector;
use selvage_tests::mesh::Mesh;

async fn traced(collector: &Collector, more: &[(&'static str, &str)]) -> (App, Mesh) {
    let app = App::start(|_| async { ok("") }).await;
    let mut variables = collector.variables("grpc");
    variables.extend(
        more.iter()
            .map(|(name, value)| (*name, (*value).to_owned())),
    );
    let mesh = Mesh::builder(app.address, "http")
        .environment(&variables)
        .start()
        .await;
    (app, mesh)
}

#[tokio::test]
async fn what_is_malformed_begins_a_new_trace() {
    let collector = Collector::start().await;
    let (app, mesh) = traced(&collector, &[]).await;
    let good = format!("00-{TRACE}-{SPAN}-01");
    let table = [
        String::new(),
        "00".to_owned(),
        good.to_uppercase(),
        good.replace("00-", "ff-"),
        good.replace("00-", "0-"),
        format!("{good}-more"),
        format!("{good}0"),
        good.replace(TRACE, &"0".repeat(32)),
        good.replace(SPAN, &"0".repeat(16)),
        good.replace(TRACE, &TRACE[1..]),
        good.replace('7', "x"),
        good.replace('-', "_"),
        good.replace("-01", "-1"),
        "é".repeat(20),
        "9".repeat(4000),
    ];
    for malformed in &table {
        let fields = [
            ("traceparent", malformed.as_str()),
            ("tracestate", "shop=1"),
        ];
        assert_eq!(
            call(mesh.outbound(), &fields).await.status,
            200,
            "{malformed}"
        );
        let (trace, _, flags) = parts(app.last().header("traceparent"));
        assert_ne!(trace, TRACE, "{malformed}");
        assert_eq!(flags, "01");
        assert_eq!(app.last().header("tracestate"), "", "{malformed}");
        let spans = collector.spans(&trace, 2).await;
        assert_eq!(spans[0]["parent"], "", "it begins here");
        assert_eq!(spans[1]["parent"], spans[0]["span"]);
    }
    let twice = [
        ("traceparent", good.as_str()),
        ("traceparent", good.as_str()),
    ];
    assert_eq!(call(mesh.outbound(), &twice).await.status, 200);
    assert_ne!(parts(app.last().header("traceparent")).0, TRACE);
    // A tracestate that nobody can read goes, the trace goes on.
    let state = [("traceparent", good.as_str()), ("tracestate", "shop=1,,=")];
    assert_eq!(call(mesh.outbound(), &state).await.status, 200);
    assert_eq!(parts(app.last().header("traceparent")).0, TRACE);
    assert_eq!(app.last().header("tracestate"), "");
}

#[tokio::test]
async fn b3_is_continued_in_the_form_it_came() {
    let collector = Collector::start().await;
    let (app, mesh) = traced(&collector, &[]).await;
    let single = format!("{TRACE}-{SPAN}-1");
    call(mesh.outbound(), &[("b3", &single)]).await;
    let spans = collector.spans(TRACE, 2).await;
    assert_eq!(spans[0]["parent"], SPAN);
    let last = spans[1]["span"].as_str().unwrap();
    assert_eq!(app.last().header("b3"), format!("{TRACE}-{last}-1"));
    assert_eq!(
        app.last().header("traceparent"),
        format!("00-{TRACE}-{last}-01")
    );

    let short = "463ac35c9f6413ad";
    let fields = [
        ("X-B3-TraceId", short),
        ("X-B3-SpanId", SPAN),
        ("X-B3-ParentSpanId", "0000000000000007"),
        ("X-B3-Sampled", "1"),
    ];
    call(mesh.outbound(), &fields).await;
    let spans = collector.spans(&format!("{short:0>32}"), 2).await;
    assert_eq!(spans[0]["parent"], SPAN);
    let last = spans[1]["span"].as_str().unwrap();
    let seen = app.last();
    assert_eq!(seen.header("x-b3-traceid"), short);
    assert_eq!(seen.header("x-b3-spanid"), last);
    assert_eq!(seen.header("x-b3-sampled"), "1");
    assert_eq!(seen.header("x-b3-parentspanid"), "");
    assert_eq!(seen.header("b3"), "");
}

#[tokio::test]
async fn the_callers_decision_is_respected() {
    let collector = Collector::start().await;
    let (app, mesh) = traced(&collector, &[]).await;
    let unsampled = format!("00-{TRACE}-{SPAN}-00");
    call(mesh.outbound(), &[("traceparent", &unsampled)]).await;
    assert_eq!(app.last().header("traceparent"), unsampled);
    call(mesh.outbound(), &[("b3", "0")]).await;
    let (denied, _, flags) = parts(app.last().header("traceparent"));
    assert_eq!(flags, "00");
    // What comes after them has been exported, so they would have been.
    call(mesh.outbound(), &[]).await;
    let (begun, _, flags) = parts(app.last().header("traceparent"));
    assert_eq!(flags, "01");
    collector.spans(&begun, 2).await;
    assert_eq!(
        collector.spans_now(TRACE).len() + collector.spans_now(&denied).len(),
        0
    );
}

#[tokio::test]
async fn a_sampler_decides_where_no_caller_did() {
    let collector = Collector::start().await;
    let sampled = format!("00-{TRACE}-{SPAN}-01");
    let unsampled = sampled.replace("-01", "-00");
    // The sampler, and the flags that leave it: below a parent that records, one that does not, none.
    for (sampler, argument, expected) in [
        ("always_on", "", ["01", "01", "01"]),
        ("always_off", "", ["00", "00", "00"]),
        ("parentbased_always_off", "", ["01", "00", "00"]),
        ("traceidratio", "0", ["00", "00", "00"]),
        ("parentbased_traceidratio", "1", ["01", "00", "01"]),
    ] {
        let chosen = [
            ("OTEL_TRACES_SAMPLER", sampler),
            ("OTEL_TRACES_SAMPLER_ARG", argument),
        ];
        let (app, mesh) = traced(&collector, &chosen).await;
        let parents = [Some(&sampled), Some(&unsampled), None];
        for (parent, expected) in parents.into_iter().zip(expected) {
            let fields: Vec<_> = parent
                .iter()
                .map(|parent| ("traceparent", parent.as_str()))
                .collect();
            call(mesh.outbound(), &fields).await;
            let (_, _, flags) = parts(app.last().header("traceparent"));
            assert_eq!(flags, expected, "{sampler} below {parent:?}");
        }
    }
}

#[tokio::test]
async fn without_tracing_the_headers_pass_untouched() {
    let app = App::start(|_| async { ok("") }).await;
    let mesh = Mesh::of(app.address, "http").await;
    let fields = [
        ("traceparent", "00-not-one-01"),
        ("tracestate", "=,="),
        ("b3", "1-2-3-4-5"),
        ("x-b3-traceid", "x"),
        ("x-b3-sampled", "maybe"),
    ];
    call(mesh.outbound(), &fields).await;
    for (name, value) in fields {
        assert_eq!(app.last().header(name), value, "{name}");
    }
    call(mesh.outbound(), &[]).await;
    assert_eq!(app.last().header("traceparent"), "");
}
