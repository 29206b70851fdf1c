//! Routes as JSON: the matches of a table in the order of precedence, and the
//! rules they lead to. Of headers that filters write the names alone are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use http::uri::Scheme;
use selvage_policy::route::{
    Certificate, Cors, Filters, Gateway, GrpcMatch, HeaderEdits, HeaderMatch, Hostname, Listener,
    ListenerProtocol, Match, PathEdit, PathMatch, QueryMatch, Redirect, Rewrite, RouteBackend,
    RouteTable, RouteTarget, Rule, SessionCarrier, SessionPersistence, StreamRoute, TextMatch,
    pattern,
};
use serde_json::{Value, json};

use super::isolation::{backend, mirror};
use super::{milliseconds, traffic_policy};

pub(super) fn gateway(gateway: &Gateway) -> Value {
    let Gateway { name, listeners } = gateway;
    let listeners: Vec<_> = listeners.iter().map(|it| listener(it)).collect();
    json!({ "name": &**name, "listeners": listeners })
}

fn listener(listener: &Listener) -> Value {
    let Listener {
        name,
        port,
        protocol,
        hostname,
        certificates,
        routes,
        streams: stream_routes,
    } = listener;
    let protocol = match protocol {
        ListenerProtocol::Http => "HTTP",
        ListenerProtocol::Https => "HTTPS",
        ListenerProtocol::Tls => "TLS",
        ListenerProtocol::Passthrough => "TLS passed through",
        ListenerProtocol::Tcp => "TCP",
    };
    let certificate = |certificate: &Certificate| match certificate {
        Certificate::Pair { .. } => json!("of a Secret"),
        Certificate::Files { certificate, .. } => json!({ "file": &**certificate }),
        Certificate::Mesh => json!("of the mesh"),
    };
    json!({
        "name": &**name,
        "port": port,
        "protocol": protocol,
        "hostname": hostname.as_ref().map(self::hostname),
        "certificates": certificates.iter().map(certificate).collect::<Vec<_>>(),
        "routes": table(routes),
        "streams": streams(stream_routes),
    })
}

pub(super) fn table(table: &RouteTable) -> Value {
    let mut rules = BTreeMap::new();
    let mut matches = Vec::new();
    for (host, matched, rule) in table.matches() {
        let mut shown = self::matched(matched);
        shown["hostname"] = json!(host.map(hostname));
        shown["rule"] = json!(&*rule.label);
        matches.push(shown);
        rules
            .entry(rule.label.to_string())
            .or_insert_with(|| self::rule(rule));
    }
    json!({ "matches": matches, "rules": rules })
}

pub(super) fn streams(routes: &[Arc<StreamRoute>]) -> Vec<Value> {
    let stream = |route: &Arc<StreamRoute>| {
        let StreamRoute {
            label,
            hostnames,
            tls,
            backends: targets,
        } = &**route;
        json!({
            "rule": &**label,
            "tls": tls,
            "hostnames": hostnames.iter().map(hostname).collect::<Vec<_>>(),
            "backends": backends(targets),
        })
    };
    routes.iter().map(stream).collect()
}

fn hostname(hostname: &Hostname) -> String {
    match hostname {
        Hostname::Exact(name) => name.to_string(),
        Hostname::Below(suffix) => format!("*{suffix}"),
    }
}

fn text(text: &TextMatch) -> Value {
    match text {
        TextMatch::Exact(text) => json!({ "exact": &**text }),
        TextMatch::Regex(regex) => json!({ "regex": pattern(regex) }),
    }
}

fn matched(matched: &Match) -> Value {
    let Match {
        path,
        method,
        headers,
        query,
    } = matched;
    let path = match path {
        PathMatch::Any => Value::Null,
        PathMatch::Exact(path) => json!({ "exact": &**path }),
        PathMatch::Prefix(prefix) => json!({ "prefix": &**prefix }),
        PathMatch::Regex(regex) => json!({ "regex": pattern(regex) }),
        PathMatch::Grpc(GrpcMatch { service, method }) => json!({
            "grpcService": service.as_ref().map(text),
            "grpcMethod": method.as_ref().map(text),
        }),
    };
    let headers: BTreeMap<&str, Value> = headers
        .iter()
        .map(|HeaderMatch { name, value }| (name.as_str(), text(value)))
        .collect();
    let query: BTreeMap<&str, Value> = query
        .iter()
        .map(|QueryMatch { name, value }| (&**name, text(value)))
        .collect();
    json!({
        "path": path,
        "method": method.as_ref().map(http::Method::as_str),
        "headers": headers,
        "query": query,
    })
}

fn rule(rule: &Rule) -> Value {
    let Rule {
        label: _,
        matches: _,
        filters: own,
        backends: targets,
        session,
        response,
        rate_limit,
    } = rule;
    json!({
        "filters": filters(own),
        "backends": backends(targets),
        "session": session.as_ref().map(self::session),
        "directResponse": response.as_ref().map(|response| response.status.as_u16()),
        "rateLimit": rate_limit.as_ref().map(super::server::rate_limit),
    })
}

fn backends(backends: &[RouteBackend]) -> Vec<Value> {
    let one = |target: &RouteBackend| {
        let RouteBackend {
            to,
            weight,
            filters: own,
            policy,
        } = target;
        let (service, invalid) = match to {
            RouteTarget::Service(to) => (Some(backend(to)), None),
            RouteTarget::Invalid(why) => (None, Some(&**why)),
        };
        json!({
            "service": service,
            "invalid": invalid,
            "weight": weight,
            "filters": filters(own),
            "policy": policy.as_deref().map(traffic_policy),
        })
    };
    backends.iter().map(one).collect()
}

fn filters(filters: &Filters) -> Value {
    let Filters {
        request_headers,
        response_headers,
        redirect,
        rewrite,
        mirrors,
        cors,
    } = filters;
    json!({
        "requestHeaders": request_headers.as_ref().map(edits),
        "responseHeaders": response_headers.as_ref().map(edits),
        "redirect": redirect.as_ref().map(self::redirect),
        "rewrite": rewrite.as_ref().map(|Rewrite { hostname, path }| json!({
            "hostname": hostname.as_deref(),
            "path": path.as_ref().map(path_edit),
        })),
        "mirrors": mirrors.iter().map(|it| mirror(it)).collect::<Vec<_>>(),
        "cors": cors.as_ref().map(self::cors),
    })
}

fn edits(edits: &HeaderEdits) -> Value {
    let HeaderEdits { set, add, remove } = edits;
    let names = |written: &[(HeaderName, _)]| -> Vec<String> {
        written.iter().map(|(name, _)| name.to_string()).collect()
    };
    let removed: Vec<&str> = remove.iter().map(HeaderName::as_str).collect();
    json!({ "set": names(set), "add": names(add), "remove": removed })
}

fn redirect(redirect: &Redirect) -> Value {
    let Redirect {
        scheme,
        hostname,
        path,
        port,
        status,
    } = redirect;
    json!({
        "scheme": scheme.as_ref().map(Scheme::as_str),
        "hostname": hostname.as_deref(),
        "path": path.as_ref().map(path_edit),
        "port": port,
        "status": status.as_u16(),
    })
}

fn path_edit(edit: &PathEdit) -> Value {
    match edit {
        PathEdit::Full(path) => json!({ "full": &**path }),
        PathEdit::Prefix(prefix) => json!({ "prefix": &**prefix }),
    }
}

fn cors(cors: &Cors) -> Value {
    let Cors {
        allow_origins,
        allow_credentials,
        allow_methods,
        allow_headers,
        expose_headers,
        max_age,
    } = cors;
    let list =
        |texts: &[Arc<str>]| -> Vec<String> { texts.iter().map(|text| text.to_string()).collect() };
    json!({
        "allowOrigins": list(allow_origins),
        "allowCredentials": allow_credentials,
        "allowMethods": list(allow_methods),
        "allowHeaders": list(allow_headers),
        "exposeHeaders": list(expose_headers),
        "maxAgeSeconds": max_age.as_secs(),
    })
}

fn session(session: &SessionPersistence) -> Value {
    let SessionPersistence {
        name,
        carrier,
        absolute_timeout,
        idle_timeout,
    } = session;
    let carrier = match carrier {
        SessionCarrier::Cookie { permanent: false } => "cookie",
        SessionCarrier::Cookie { permanent: true } => "permanent cookie",
        SessionCarrier::Header => "header",
    };
    json!({
        "name": &**name,
        "carrier": carrier,
        "absoluteTimeoutMs": absolute_timeout.map(milliseconds),
        "idleTimeoutMs": idle_timeout.map(milliseconds),
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use selvage_policy::route::HttpRoute;

    use super::*;

    #[test]
    fn a_table_is_shown_in_its_order_and_without_what_filters_write() {
        let secret = HeaderValue::from_static("Bearer secret");
        let filters = Filters {
            request_headers: Some(HeaderEdits {
                set: vec![(http::header::AUTHORIZATION, secret)],
                ..HeaderEdits::default()
            }),
            ..Filters::default()
        };
        let rule = Rule {
            label: "shop/a/0".into(),
            matches: vec![
                Match::every(),
                Match {
                    path: PathMatch::Exact("/one".into()),
                    ..Match::every()
                },
            ],
            filters,
            backends: vec![RouteBackend {
                to: RouteTarget::Invalid("RefNotPermitted".into()),
                weight: 1,
                filters: Filters::default(),
                policy: None,
            }],
            session: None,
            response: None,
            rate_limit: None,
        };
        let route = HttpRoute {
            name: "shop/a".into(),
            hostnames: vec![Hostname::Below(".example".into())],
            rules: vec![Arc::new(rule)],
        };
        let shown = table(&RouteTable::new(&[route]));
        assert_eq!(shown["matches"][0]["path"], json!({ "exact": "/one" }));
        assert_eq!(shown["matches"][0]["hostname"], "*.example");
        assert_eq!(shown["matches"][1]["rule"], "shop/a/0");
        let rule = &shown["rules"]["shop/a/0"];
        assert_eq!(
            rule["filters"]["requestHeaders"]["set"],
            json!(["authorization"])
        );
        assert_eq!(rule["backends"][0]["invalid"], "RefNotPermitted");
        assert!(!shown.to_string().contains("secret"));
    }
}
