//! What a policy says of slow and failing services, and contradicts itself in.

use selvage_core::parse::parse;

use crate::told;

/// What is wrong with a policy for the service `default/a`.
fn refused(spec: &str) -> Vec<String> {
    let text = format!(
        "kind: TrafficPolicy\nmetadata: {{ name: a }}\nspec:\n  targetRefs: [{{kind: Service, name: a}}]\n  {spec}\n"
    );
    let told = told(&parse("t", &text).unwrap_err());
    let after_the_place = |line: &String| line.split_once("spec.").unwrap().1.to_owned();
    told.iter().map(after_the_place).collect()
}

#[test]
fn a_hedge_that_never_comes_or_does_a_thing_twice_is_refused() {
    let table = [
        (
            "hedge: {delay: p999}",
            "hedge.delay: expected a quantile from `p50` to `p99`, or a duration such as `50ms`, found `p999`",
        ),
        (
            "hedge: {delay: 0s}",
            "hedge.delay: expected more than 0s: without a delay every request is sent twice",
        ),
        (
            "timeouts: {backendRequest: 1s}\n  hedge: {delay: 2s}",
            "hedge.delay: a hedge after 2s is never sent: `timeouts.backendRequest` is 1s",
        ),
        (
            "hedge: {delay: p95, methods: [GET, POST]}",
            "hedge.methods[1]: `POST` is not idempotent: sent twice, it is done twice / any of GET, HEAD, OPTIONS, TRACE, PUT, DELETE",
        ),
        (
            "hedge: {delay: p95, methods: []}",
            "hedge.methods: expected at least one method; `maxPercent: 0` turns hedging off",
        ),
        (
            "hedge: {delay: p95, maxPercent: 101}",
            "hedge.maxPercent: expected a whole number from 0 to 100 (per cent), found `101`",
        ),
    ];
    for (spec, expected) in table {
        assert_eq!(refused(spec), [expected], "{spec}");
    }
}

#[test]
fn a_fallback_is_for_something_and_to_one_thing_else() {
    let table = [
        (
            "fallback: {name: a, on: [time-out], service: {name: b}}",
            "fallback.on[0]: unknown condition `time-out`: expected a flag such as `no-healthy-endpoint` or `timeout`, an HTTP status from 400 to 599, or the name of a gRPC status; did you mean `timeout`?",
        ),
        (
            "fallback: {name: a, on: [], service: {name: b}}",
            "fallback.on: expected 1 to 32 conditions, found 0",
        ),
        (
            "fallback: {name: a, on: [503]}",
            "fallback: expected exactly one of `service` and `response`",
        ),
        (
            "fallback: {name: a, on: [503], service: {name: a}}",
            "fallback.service.name: default/a is what this policy is for: another service is expected",
        ),
        (
            "fallback: {name: a, on: [503], service: {name: b, port: 0}}",
            "fallback.service.port: expected a port from 1 to 65535, found `0`",
        ),
        (
            "fallback: {name: a, on: [UNAVAILABLE], response: {status: 200}}",
            "fallback.on: a static response is never given to a gRPC call, and only gRPC statuses are listed",
        ),
        (
            "fallback: {name: a, on: [503], response: {status: 204, body: x}}",
            "fallback.response.body: an answer of status 204 has no body",
        ),
        (
            "fallback: {name: a, on: [503], response: {status: 200, headers: [{name: Content-Length, value: '1'}]}}",
            "fallback.response.headers[0].name: `Content-Length` is the proxy's own to set",
        ),
    ];
    for (spec, expected) in table {
        assert_eq!(refused(spec), [expected], "{spec}");
    }
}

#[test]
fn faults_and_mirrors_say_how_much_of_what() {
    let table = [
        (
            "fault: {match: {headers: []}}",
            "fault: expected `delay`, `abort`, or both",
        ),
        (
            "fault: {delay: {percent: 100.5, duration: 1s}}",
            "fault.delay.percent: expected more than 0 and at most 100 (per cent), with up to four decimals, found `100.5`",
        ),
        (
            "fault: {delay: {percent: 1, duration: 0s}}",
            "fault.delay.duration: expected more than 0s and at most 1h",
        ),
        (
            "fault: {abort: {percent: 1, status: 503, reset: true}}",
            "fault.abort: expected exactly one of `status`, `grpcStatus` and `reset: true`",
        ),
        (
            "fault: {abort: {percent: 1, status: 200}}",
            "fault.abort.status: expected a status from 400 to 599",
        ),
        (
            "fault: {abort: {percent: 1, grpcStatus: UNAVAIL}}",
            "fault.abort.grpcStatus: expected the name of a gRPC status such as `UNAVAILABLE`, found `UNAVAIL`",
        ),
        (
            "fault: {abort: {percent: 1, reset: true}, match: {headers: [{name: 'a b', value: c}]}}",
            "fault.match.headers[0].name: expected the name of a header, found `a b`",
        ),
        (
            "mirror: {service: {name: a}}",
            "mirror.service.name: default/a is what this policy is for: another service is expected",
        ),
        (
            "mirror: {service: {name: b}, percent: 0}",
            "mirror.percent: expected more than 0 and at most 100 (per cent), with up to four decimals, found `0`",
        ),
        (
            "mirror: {service: {name: b}, maxPending: 0}",
            "mirror.maxPending: expected 1 to 1024",
        ),
        (
            "mirror: {service: {name: b}, hostSuffix: '/x'}",
            "mirror.hostSuffix: expected 1 to 63 of a-z, 0-9, `-` and `.`, such as `-shadow`",
        ),
    ];
    for (spec, expected) in table {
        assert_eq!(refused(spec), [expected], "{spec}");
    }
}
