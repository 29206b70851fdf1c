//! Gateways, stream routes and grants that cannot be.

use super::{API, gateway};
use crate::{parse, told};

#[test]
fn gateways_are_refused_for_what_cannot_be() {
    let table = [
        ("", "spec.listeners: expected 1 to 64 listeners, found 0"),
        (
            "{name: a, port: 80, protocol: UDP}",
            "spec.listeners[0].protocol: unknown value `UDP` / known here: `HTTP`, `HTTPS`, `TLS`, `TCP`",
        ),
        (
            "{name: a, port: 0, protocol: HTTP}",
            "spec.listeners[0].port: expected a port from 1 to 65535, found `0`",
        ),
        (
            "{name: a, port: 80, protocol: HTTP}, {name: a, port: 81, protocol: HTTP}",
            "spec.listeners[1].name: the listener `a` is given twice: also at spec.listeners[0]",
        ),
        (
            "{name: a, port: 80, protocol: HTTP}, {name: b, port: 80, protocol: HTTP}",
            "spec.listeners[1]: spec.listeners[0] has the same port, protocol and hostname: one connection cannot mean both",
        ),
        (
            "{name: a, port: 80, protocol: HTTP, tls: {certificateRefs: [{name: s}]}}",
            "spec.listeners[0].tls: a listener of protocol HTTP has no TLS: that is of HTTPS and TLS",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS}",
            "spec.listeners[0]: the key `tls` is missing: protocol HTTPS needs it",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {}}",
            "spec.listeners[0].tls: to terminate TLS, `certificateRefs` or `options` name a certificate",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {mode: Passthrough}}",
            "spec.listeners[0].tls.mode: `Passthrough` is of protocol TLS: to speak HTTP, TLS ends at the gateway",
        ),
        (
            "{name: a, port: 9, protocol: TCP, hostname: a.com}",
            "spec.listeners[0].hostname: a listener of protocol TCP knows no host",
        ),
        (
            "{name: a, port: 80, protocol: HTTP, hostname: 10.0.0.1}",
            "spec.listeners[0].hostname: expected a host name, found the IP address `10.0.0.1`",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {options: {selvage.dev/certificat: mesh}}}",
            "spec.listeners[0].tls.options: unknown option `selvage.dev/certificat` / did you mean `selvage.dev/certificate`?",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {options: {selvage.dev/certificate: 'file:a.pem'}}}",
            "spec.listeners[0].tls.options: the option `selvage.dev/key` is missing",
        ),
        (
            "{name: a, port: 443, protocol: HTTPS, tls: {options: {selvage.dev/certificate: a.pem, selvage.dev/key: 'file:k'}}}",
            "spec.listeners[0].tls.options: `selvage.dev/certificate`: expected `file:` and a path, found `a.pem`",
        ),
        (
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector}}}",
            "spec.listeners[0].allowedRoutes.namespaces: the key `selector` is missing: `from: Selector` needs it",
        ),
        (
            "{name: a, port: 80, protocol: HTTP, allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}}}",
            "spec.listeners[0].allowedRoutes.namespaces.selector.matchExpressions[0].values: `Exists` and `DoesNotExist` take no values",
        ),
    ];
    for (listeners, expected) in table {
        let found = told(&parse("t", &gateway(listeners)).unwrap_err());
        let found: Vec<_> = found
            .iter()
            .map(|it| it.split_once(' ').unwrap().1)
            .collect();
        assert_eq!(found, [expected], "{listeners}");
    }
}

#[test]
fn stream_routes_and_grants_are_refused_for_what_cannot_be() {
    let table = [
        (
            "TCPRoute",
            "{rules: []}",
            "spec.rules: expected one rule, found 0: a connection tells nothing to choose by",
        ),
        (
            "TCPRoute",
            "{rules: [{backendRefs: []}]}",
            "spec.rules[0].backendRefs: expected 1 to 16 backends, found 0",
        ),
        (
            "TCPRoute",
            "{hostnames: [a.com], rules: [{backendRefs: [{name: a, port: 1}]}]}",
            "spec.hostnames: unknown key `hostnames`",
        ),
        (
            "TLSRoute",
            "{hostnames: ['*'], rules: [{backendRefs: [{name: a, port: 1}]}]}",
            "spec.hostnames[0]: `*` stands alone as the first label, as in `*.example.com`, found `*`",
        ),
        (
            "ReferenceGrant",
            "{from: [{group: '', kind: A, namespace: n}], to: []}",
            "spec.to: expected 1 to 16 entries, found 0",
        ),
    ];
    for (kind, spec, expected) in table {
        let text = format!("{API}kind: {kind}\nmetadata: {{name: a}}\nspec: {spec}\n");
        let found = told(&parse("t", &text).unwrap_err());
        let found = found[0].split_once(' ').unwrap().1;
        assert!(found.starts_with(expected), "{found}");
    }
}
