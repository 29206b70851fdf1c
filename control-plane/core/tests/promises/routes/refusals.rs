//! What an HTTPRoute or GRPCRoute cannot say, each with its field.

use selvage_core::parse::parse;

use crate::told;

/// What is refused of a route with this `spec`, without its places.
fn refused(kind: &str, spec: &str) -> Vec<String> {
    let text = format!("kind: {kind}\nmetadata: {{ name: a }}\nspec: {spec}\n");
    match parse("t", &text) {
        Ok(_) => Vec::new(),
        Err(found) => told(&found)
            .iter()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect(),
    }
}

fn check(kind: &str, table: &[(&str, &str)]) {
    for (spec, expected) in table {
        let expected: Vec<&str> = [*expected]
            .into_iter()
            .filter(|it| !it.is_empty())
            .collect();
        assert_eq!(refused(kind, spec), expected, "{spec}");
    }
}

fn rule(rule: &str) -> String {
    format!("{{rules: [{rule}]}}")
}

fn check_rules(kind: &str, table: &[(&str, &str)]) {
    for (text, expected) in table {
        let expected: Vec<String> = match *expected {
            "" => Vec::new(),
            some => vec![format!("spec.rules[0]{some}")],
        };
        assert_eq!(refused(kind, &rule(text)), expected, "{text}");
    }
}

#[test]
fn parents_and_hosts() {
    check(
        "HTTPRoute",
        &[
            ("{}", ""),
            (
                "{parentRefs: [{name: gw}, {kind: Service, name: a, group: ''}]}",
                "",
            ),
            (
                "{parentRefs: [{kind: Service, name: a, port: 80}, {kind: Service, name: a, port: 90}]}",
                "",
            ),
            (
                "{parentRefs: [{name: gw, sectionName: a}, {name: gw, sectionName: b}]}",
                "",
            ),
            (
                "{parentRefs: [{kind: Servce, name: a}]}",
                "spec.parentRefs[0].kind: unknown kind `Servce` / did you mean `Service`?",
            ),
            (
                "{parentRefs: [{kind: Service, group: gateway.networking.k8s.io, name: a}]}",
                "spec.parentRefs[0].group: a Service is of group `` or `core` or `selvage.dev`, not of `gateway.networking.k8s.io`",
            ),
            (
                "{parentRefs: [{name: gw}, {name: gw, sectionName: b}]}",
                "spec.parentRefs[1]: Gateway default/gw is a parent twice: each says the same of `sectionName` and `port`, or neither",
            ),
            (
                "{parentRefs: [{name: gw, port: 80}, {name: gw, namespace: default, port: 80}]}",
                "spec.parentRefs[1]: the parent Gateway default/gw is given twice",
            ),
            (
                "{parentRefs: [{name: gw, port: 0}]}",
                "spec.parentRefs[0].port: expected a port from 1 to 65535, found `0`",
            ),
            (
                "{parentRef: [{name: gw}]}",
                "spec.parentRef: unknown key `parentRef` / did you mean `parentRefs`?",
            ),
            (
                "{hostnames: [a.example.com, '*.example.com', localhost]}",
                "",
            ),
            (
                "{hostnames: [10.0.0.1]}",
                "spec.hostnames[0]: expected a host name, found the IP address `10.0.0.1`",
            ),
            (
                "{hostnames: ['a.*.com']}",
                "spec.hostnames[0]: `*` stands alone as the first label, as in `*.example.com`, found `a.*.com`",
            ),
            (
                "{hostnames: ['*']}",
                "spec.hostnames[0]: `*` stands alone as the first label, as in `*.example.com`, found `*`",
            ),
            (
                "{hostnames: [A.example.com]}",
                "spec.hostnames[0]: expected a host name of a-z, 0-9, `-` and `.`, found `A.example.com`",
            ),
            (
                "{hostnames: [a.b, a.b]}",
                "spec.hostnames[1]: the host `a.b` is given twice",
            ),
        ],
    );
    let many = vec!["{name: g}"; 33].join(", ");
    let found = refused("HTTPRoute", &format!("{{parentRefs: [{many}]}}"));
    assert_eq!(
        found[0],
        "spec.parentRefs: expected at most 32 parents, found 33"
    );
}

#[test]
fn rules_and_their_names() {
    check(
        "HTTPRoute",
        &[
            ("{rules: []}", "spec.rules: expected 1 to 16 rules, found 0"),
            (
                "{rules: [{name: a}, {}, {name: a}]}",
                "spec.rules[2].name: the rule `a` is given twice",
            ),
            (
                "{rules: [{name: A_b}]}",
                "spec.rules[0].name: expected a name of a-z, 0-9, `-` and `.`, found `A_b`",
            ),
        ],
    );
    let rules = vec!["{}"; 17].join(", ");
    assert_eq!(
        refused("HTTPRoute", &rule(&rules)),
        ["spec.rules: expected 1 to 16 rules, found 17"]
    );
    let matches = |count: usize| format!("{{matches: [{}]}}", vec!["{}"; count].join(", "));
    assert_eq!(
        refused("HTTPRoute", &rule(&matches(65))),
        ["spec.rules[0].matches: expected at most 64 matches, found 65"]
    );
    let three = [64, 64, 1].map(matches).join(", ");
    assert_eq!(
        refused("HTTPRoute", &rule(&three)),
        ["spec.rules: expected at most 128 matches over all rules, found 129"]
    );
    assert!(refused("GRPCRoute", "{rules: []}").is_empty());
}

#[test]
fn paths() {
    let path = |kind: &str, value: &str| {
        refused(
            "HTTPRoute",
            &rule(&format!(
                "{{matches: [{{path: {{type: {kind}, value: '{value}'}}}}]}}"
            )),
        )
    };
    for kind in ["Exact", "PathPrefix"] {
        for value in ["/", "/v1", "/v1/", "/a%20b", "/a;b", "/a.b"] {
            assert!(path(kind, value).is_empty(), "{value}");
        }
        let table = [
            ("v1", "expected a path that starts with `/`, found `v1`"),
            ("/a//b", "a path here holds no `//`"),
            ("/./a", "paths are compared with `.` and `..` resolved"),
            ("/a/..", "paths are compared with `.` and `..` resolved"),
            ("/a%2fb", "a path here holds no `%2f`"),
            ("/a%zz", "`%` stands before two hexadecimal digits"),
        ];
        for (value, expected) in table {
            let expected = format!("spec.rules[0].matches[0].path.value: {expected}");
            assert_eq!(path(kind, value), [expected], "{value}");
        }
        assert!(path(kind, "/a#b")[0].ends_with("found `#`"));
    }
    assert!(path("RegularExpression", "/v[12]/.*").is_empty());
    let found = path("RegularExpression", "/v[");
    assert!(
        found[0].starts_with("spec.rules[0].matches[0].path.value: not a regular expression: "),
        "{found:?}"
    );
    assert_eq!(
        path("RegularExpression", "(a{100}){100}(b{100}){100}"),
        [
            "spec.rules[0].matches[0].path.value: a regular expression that takes more than 262144 bytes"
        ]
    );
    assert_eq!(
        path("Prefix", "/a"),
        [
            "spec.rules[0].matches[0].path.type: unknown value `Prefix` / known here: `Exact`, `PathPrefix`, `RegularExpression`"
        ]
    );
}

#[test]
fn methods_headers_and_parameters() {
    check_rules(
        "HTTPRoute",
        &[
            (
                "{matches: [{method: GET, headers: [{name: a, value: b}], queryParams: [{name: a, value: b}]}]}",
                "",
            ),
            (
                "{matches: [{method: get}]}",
                ".matches[0].method: expected an HTTP method, found `get` / did you mean `GET`?",
            ),
            (
                "{matches: [{headers: [{name: X-A, value: b}, {name: x-a, value: c}]}]}",
                ".matches[0].headers[1].name: the header `x-a` is given twice",
            ),
            (
                "{matches: [{headers: [{name: ':path', value: b}]}]}",
                ".matches[0].headers[0].name: expected the name of a header, found `:path`",
            ),
            (
                "{matches: [{headers: [{name: a, value: ''}]}]}",
                ".matches[0].headers[0].value: expected 1 to 4096 visible ASCII characters, without spaces around them",
            ),
            (
                "{matches: [{headers: [{name: a, type: RegularExpression, value: '['}]}]}",
                ".matches[0].headers[0].value: not a regular expression: unclosed character class",
            ),
            (
                "{matches: [{queryParams: [{name: a, value: b}, {name: a, value: c}]}]}",
                ".matches[0].queryParams[1].name: the query parameter `a` is given twice",
            ),
            (
                "{matches: [{queryParams: [{name: a, value: b}, {name: A, value: c}]}]}",
                "",
            ),
        ],
    );
}

#[test]
fn filters() {
    let redirect = "{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 308}}";
    let rewrite = "{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /b}}}";
    let set = "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: a, value: b}]}}";
    let mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}}}";
    let cors = "{type: CORS, cors: {allowOrigins: ['https://a.com']}}";
    let table = [
        (format!("{{filters: [{redirect}, {set}, {cors}]}}"), String::new()),
        (format!("{{filters: [{rewrite}, {mirror}, {mirror}]}}"), String::new()),
        (
            format!("{{filters: [{redirect}, {rewrite}]}}"),
            ".filters: a request is redirected or rewritten, not both".to_owned(),
        ),
        (
            format!("{{filters: [{set}, {set}]}}"),
            ".filters[1].type: the filter `RequestHeaderModifier` is given twice".to_owned(),
        ),
        (
            format!("{{filters: [{cors}, {cors}]}}"),
            ".filters[1].type: the filter `CORS` is given twice".to_owned(),
        ),
        (
            format!("{{filters: [{redirect}], backendRefs: [{{name: a, port: 80}}]}}"),
            ".backendRefs: a rule that redirects has no backends".to_owned(),
        ),
        (
            format!("{{matches: [{{path: {{type: Exact, value: /a}}}}], filters: [{rewrite}]}}"),
            ".filters[0].urlRewrite.path.type: a prefix is replaced where the rule has exactly one match, of type `PathPrefix`".to_owned(),
        ),
        (
            format!("{{matches: [{{}}, {{method: GET}}], backendRefs: [{{name: a, port: 80, filters: [{rewrite}]}}]}}"),
            ".backendRefs[0].filters[0].urlRewrite.path.type: a prefix is replaced where the rule has exactly one match, of type `PathPrefix`".to_owned(),
        ),
        (
            format!("{{backendRefs: [{{name: a, port: 80, filters: [{set}, {cors}]}}]}}"),
            ".backendRefs[0].filters[1].type: `CORS` is no filter that can stand here / known filters: `RequestHeaderModifier`, `ResponseHeaderModifier`, `URLRewrite`, `RequestMirror`".to_owned(),
        ),
        (
            format!("{{backendRefs: [{{name: a, port: 80, filters: [{redirect}]}}]}}"),
            ".backendRefs[0].filters[0].type: `RequestRedirect` is no filter that can stand here / known filters: `RequestHeaderModifier`, `ResponseHeaderModifier`, `URLRewrite`, `RequestMirror`".to_owned(),
        ),
    ];
    let table: Vec<_> = table
        .iter()
        .map(|(text, found)| (text.as_str(), found.as_str()))
        .collect();
    check_rules("HTTPRoute", &table);
    check_rules(
        "HTTPRoute",
        &[
            (
                "{filters: [{type: ExtensionRef, extensionRef: {group: a, kind: b, name: c}}]}",
                ".filters[0].type: `ExtensionRef` is not supported",
            ),
            (
                "{filters: [{type: CORS}]}",
                ".filters[0]: the key `cors` is missing: a filter of type `CORS`",
            ),
            (
                "{filters: [{type: CORS, cors: {}, urlRewrite: {}}]}",
                ".filters[0].urlRewrite: the filter is of type `CORS`",
            ),
            (
                "{filters: [{type: RequestRedirect, requestRedirect: {statusCode: 304}}]}",
                ".filters[0].requestRedirect.statusCode: expected 301, 302, 303, 307 or 308, found `304`",
            ),
            (
                "{filters: [{type: RequestRedirect, requestRedirect: {hostname: '*.a.com'}}]}",
                ".filters[0].requestRedirect.hostname: expected one host, found `*.a.com`",
            ),
            (
                "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replacePrefixMatch: /a, replaceFullPath: /b}}}]}",
                ".filters[0].urlRewrite.path.replacePrefixMatch: the change is of type `ReplaceFullPath`",
            ),
            (
                "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath}}}]}",
                ".filters[0].urlRewrite.path: the key `replaceFullPath` is missing",
            ),
            (
                "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: 'b'}}}]}",
                ".filters[0].urlRewrite.path.replaceFullPath: expected a path that starts with `/`, found `b`",
            ),
            (
                "{filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: ''}}}]}",
                "",
            ),
        ],
    );
    check_rules(
        "GRPCRoute",
        &[(
            "{filters: [{type: CORS, cors: {}}]}",
            ".filters[0].type: `CORS` is no filter that can stand here / known filters: `RequestHeaderModifier`, `ResponseHeaderModifier`, `RequestMirror`",
        )],
    );
}

#[test]
fn header_modifiers() {
    let modifier = |text: &str| {
        format!("{{filters: [{{type: ResponseHeaderModifier, responseHeaderModifier: {text}}}]}}")
    };
    let base = ".filters[0].responseHeaderModifier";
    let table = [
        (
            "{set: [{name: a, value: 'b, c'}], add: [{name: b, value: c}], remove: [c]}",
            "",
        ),
        (
            "{set: [{name: a, value: b}], remove: [A]}",
            ".remove[0]: the header `A` is given twice",
        ),
        (
            "{add: [{name: 'a b', value: b}]}",
            ".add[0].name: expected the name of a header, found `a b`",
        ),
        (
            "{set: [{name: a, value: ''}]}",
            ".set[0].value: expected 1 to 4096 visible ASCII characters, without spaces around them",
        ),
        (
            "{set: [{name: Host, value: b}]}",
            ".set[0].name: `Host` is changed by a filter of type `URLRewrite`",
        ),
        (
            "{remove: [Content-Length]}",
            ".remove[0]: `Content-Length` is the proxy's own to set",
        ),
        (
            "{remove: [x_selvage_flag]}",
            ".remove[0]: `x_selvage_flag` is the proxy's own to set",
        ),
    ];
    for (text, expected) in table {
        let expected = match expected {
            "" => String::new(),
            some => format!("{base}{some}"),
        };
        check_rules("HTTPRoute", &[(&modifier(text), &expected)]);
    }
}

#[test]
fn mirrors_and_cors() {
    check_rules(
        "HTTPRoute",
        &[
            (
                "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, percent: 0}}]}",
                "",
            ),
            (
                "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, percent: 101}}]}",
                ".filters[0].requestMirror.percent: expected a whole number from 0 to 100 (per cent)",
            ),
            (
                "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, percent: 1, fraction: {numerator: 1}}}]}",
                ".filters[0].requestMirror: expected at most one of `percent` and `fraction`",
            ),
            (
                "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a, port: 80}, fraction: {numerator: 6, denominator: 5}}}]}",
                ".filters[0].requestMirror.fraction.numerator: expected at most the denominator (5), found `6`",
            ),
            (
                "{filters: [{type: RequestMirror, requestMirror: {backendRef: {name: a}}}]}",
                ".filters[0].requestMirror.backendRef: the key `port` is missing: a service is reached at one of its ports",
            ),
            (
                "{filters: [{type: CORS, cors: {allowOrigins: ['*'], allowMethods: ['*'], allowHeaders: ['*'], exposeHeaders: ['*'], allowCredentials: true, maxAge: 1}}]}",
                "",
            ),
            (
                "{filters: [{type: CORS, cors: {allowOrigins: ['*', 'https://a.com']}}]}",
                ".filters[0].cors.allowOrigins[0]: `*` stands alone",
            ),
            (
                "{filters: [{type: CORS, cors: {allowOrigins: ['a.com']}}]}",
                ".filters[0].cors.allowOrigins[0]: expected `*` or an origin such as `https://*.example.com:8443`, found `a.com`",
            ),
            (
                "{filters: [{type: CORS, cors: {allowMethods: [PTU]}}]}",
                ".filters[0].cors.allowMethods[0]: expected an HTTP method, found `PTU` / did you mean `PUT`?",
            ),
            (
                "{filters: [{type: CORS, cors: {maxAge: 0}}]}",
                ".filters[0].cors.maxAge: expected at least 1 (seconds), found `0`",
            ),
        ],
    );
}

#[test]
fn backends() {
    check_rules(
        "HTTPRoute",
        &[
            (
                "{backendRefs: [{name: a, port: 80, weight: 0}, {name: a, port: 80, weight: 1000000}]}",
                "",
            ),
            (
                "{backendRefs: [{kind: StorageBucket, group: example.com, name: A_b}]}",
                "",
            ),
            (
                "{backendRefs: [{name: a}]}",
                ".backendRefs[0]: the key `port` is missing: a service is reached at one of its ports",
            ),
            (
                "{backendRefs: [{name: a, port: 80, weight: 1000001}]}",
                ".backendRefs[0].weight: expected a weight from 0 to 1000000, found `1000001`",
            ),
            (
                "{backendRefs: [{name: a, port: 80, wieght: 1}]}",
                ".backendRefs[0].wieght: unknown key `wieght` / did you mean `weight`?",
            ),
        ],
    );
    let many = vec!["{name: a, port: 80}"; 17].join(", ");
    assert_eq!(
        refused("HTTPRoute", &rule(&format!("{{backendRefs: [{many}]}}"))),
        ["spec.rules[0].backendRefs: expected 0 to 16 backends, found 17"]
    );
}

#[test]
fn timeouts_retries_and_sessions() {
    check_rules(
        "HTTPRoute",
        &[
            (
                "{timeouts: {request: 0s, backendRequest: 5s}, retry: {codes: [500, 503], attempts: 2, backoff: 100ms}}",
                "",
            ),
            (
                "{timeouts: {request: 1s, backendRequest: 2s}}",
                ".timeouts.backendRequest: one try (2s) cannot take longer than the whole request (1s)",
            ),
            (
                "{timeouts: {request: 1.5s}}",
                ".timeouts.request: expected a duration such as `250ms`, `5s` or `1h30m`, found `1.5s`",
            ),
            (
                "{retry: {codes: [200]}}",
                ".retry.codes[0]: expected a status from 400 to 599, found `200`",
            ),
            (
                "{retry: {codes: [503, 503]}}",
                ".retry.codes[1]: the status 503 is given twice",
            ),
            (
                "{retry: {attempts: 11}}",
                ".retry.attempts: expected at most 10 retries",
            ),
            (
                "{retry: {backoff: 0s}}",
                ".retry.backoff: expected more than 0s and at most 1h",
            ),
            (
                "{sessionPersistence: {type: Header, sessionName: x-session}}",
                "",
            ),
            (
                "{sessionPersistence: {type: Header, cookieConfig: {}}}",
                ".sessionPersistence.cookieConfig: a session of type `Header` has no cookie",
            ),
            (
                "{sessionPersistence: {cookieConfig: {lifetimeType: Permanent}}}",
                ".sessionPersistence.absoluteTimeout: a permanent cookie needs an end: expected `absoluteTimeout`",
            ),
            (
                "{sessionPersistence: {type: Header, sessionName: x-selvage-a}}",
                ".sessionPersistence.sessionName: `x-selvage-a` is the proxy's own to set",
            ),
            (
                "{sessionPersistence: {type: Header, sessionName: Connection}}",
                ".sessionPersistence.sessionName: `Connection` is the proxy's own to set",
            ),
            (
                "{sessionPersistence: {type: Cookie, sessionName: Connection}}",
                "",
            ),
        ],
    );
    assert_eq!(
        refused("GRPCRoute", &rule("{retry: {}}")),
        [
            "spec.rules[0].retry: unknown key `retry` / known here: `name`, `matches`, `filters`, `backendRefs`, `sessionPersistence`"
        ]
    );
}

#[test]
fn grpc_methods() {
    check_rules(
        "GRPCRoute",
        &[
            (
                "{matches: [{method: {service: foo.Bar, method: Get_1}}, {method: {service: .foo.Bar}}, {}]}",
                "",
            ),
            (
                "{matches: [{method: {type: RegularExpression, service: 'foo\\..*'}}]}",
                "",
            ),
            (
                "{matches: [{method: {}}]}",
                ".matches[0].method: expected `service`, `method` or both; leave `method` out to match any call",
            ),
            (
                "{matches: [{method: {service: foo/Bar}}]}",
                ".matches[0].method.service: expected the name of a gRPC service, found `foo/Bar`",
            ),
            (
                "{matches: [{method: {method: 1a}}]}",
                ".matches[0].method.method: expected the name of a gRPC method, found `1a`",
            ),
        ],
    );
}

#[test]
fn policies_for_routes() {
    let refused = |spec: &str| {
        let text = format!("kind: TrafficPolicy\nmetadata: {{ name: a }}\nspec: {spec}\n");
        match parse("t", &text) {
            Ok(_) => Vec::new(),
            Err(found) => told(&found)
                .iter()
                .map(|line| line.split_once(' ').unwrap().1.to_owned())
                .collect(),
        }
    };
    let route = "targetRefs: [{kind: HTTPRoute, name: a, sectionName: b}]";
    let table = [
        (format!("{{{route}, timeouts: {{request: 5s}}, fault: {{abort: {{percent: 10, status: 503}}}}}}"), ""),
        (format!("{{{route}, directResponse: {{status: 200, body: hello}}}}"), ""),
        (
            format!("{{{route}, circuitBreaker: {{consecutiveFailures: 1}}}}"),
            "spec.circuitBreaker: is about the endpoints of a service: a policy for a route cannot set it",
        ),
        (
            format!("{{{route}, timeouts: {{connect: 1s}}}}"),
            "spec.timeouts.connect: is about the endpoints of a service: a policy for a route cannot set it",
        ),
        (
            "{targetRefs: [{kind: Service, name: a}], directResponse: {status: 200}}".to_owned(),
            "spec.targetRefs[0].kind: `directResponse` is for routes: a service answers by itself",
        ),
        (
            "{targetRefs: [{kind: GRPCRoute, name: a}], directResponse: {status: 200}}".to_owned(),
            "spec.targetRefs[0].kind: a static answer is never given to a gRPC call",
        ),
        (
            "{targetRefs: [{kind: Service, name: a, sectionName: b}]}".to_owned(),
            "spec.targetRefs[0].sectionName: of a route it names a rule; a service is meant whole",
        ),
        (
            "{targetRefs: [{kind: HTTProute, name: a}]}".to_owned(),
            "spec.targetRefs[0].kind: unknown kind `HTTProute` / did you mean `HTTPRoute`?",
        ),
        (
            "{targetRefs: [{kind: HTTPRoute, group: selvage.dev, name: a}]}".to_owned(),
            "spec.targetRefs[0].group: a route is of group `gateway.networking.k8s.io`, not of `selvage.dev`",
        ),
        (
            "{targetRefs: [{kind: HTTPRoute, name: a}, {kind: HTTPRoute, name: a}]}".to_owned(),
            "spec.targetRefs[1]: the target HTTPRoute default/a is given twice",
        ),
        (
            "{targetRefs: [{kind: HTTPRoute, name: a}, {kind: HTTPRoute, name: a, sectionName: b}, {kind: Service, name: a}]}".to_owned(),
            "",
        ),
    ];
    for (spec, expected) in table {
        let expected: Vec<&str> = [expected].into_iter().filter(|it| !it.is_empty()).collect();
        assert_eq!(refused(&spec), expected, "{spec}");
    }
}
