//! The routes as documents for Selvage.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::draw::{Field, Match, Path, Route, Rule};

/// The services behind the routes, one for each backend, and the one in front of them.
pub(super) fn services(backends: &[SocketAddr]) -> Vec<Value> {
    let named = backends.iter().enumerate();
    let behind = named.map(|(number, address)| service(&format!("b{number}"), &[*address]));
    std::iter::once(service("front", &[]))
        .chain(behind)
        .collect()
}

fn service(name: &str, endpoints: &[SocketAddr]) -> Value {
    let endpoints: Vec<_> = endpoints
        .iter()
        .map(|at| json!({ "address": at }))
        .collect();
    json!({
        "kind": "Service", "metadata": { "name": name, "namespace": "shop" },
        "spec": { "ports": [{ "port": 80, "protocol": "http" }], "endpoints": endpoints },
    })
}

/// A gateway that takes every host.
pub(super) fn gateway() -> Value {
    let listener = json!({ "name": "http", "port": 80, "protocol": "HTTP" });
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "name": "public", "namespace": "shop" },
        "spec": { "gatewayClassName": "selvage", "listeners": [listener] },
    })
}

/// The routes below `parent`, in their order. Each rule says its name to its backend.
pub(super) fn routes(routes: &[Route], parent: &Value) -> Vec<Value> {
    let document = |(number, route): (usize, &Route)| {
        let rules = route.rules.iter().enumerate();
        let rules: Vec<_> = rules.map(|(index, it)| rule(it, number, index)).collect();
        let mut spec = json!({ "parentRefs": [parent], "rules": rules });
        if !route.hostnames.is_empty() {
            spec["hostnames"] = json!(route.hostnames);
        }
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": format!("r{number:02}"), "namespace": "shop" }, "spec": spec,
        })
    };
    routes.iter().enumerate().map(document).collect()
}

fn rule(rule: &Rule, route: usize, index: usize) -> Value {
    let mut backends = vec![backend(rule.backend, 1)];
    backends.extend(rule.idle.map(|idle| backend(idle, 0)));
    let name = json!({ "name": "x-rule", "value": format!("r{route:02}/{index}") });
    let named =
        json!({ "type": "RequestHeaderModifier", "requestHeaderModifier": { "set": [name] } });
    let mut document = json!({ "filters": [named], "backendRefs": backends });
    if !rule.matches.is_empty() {
        document["matches"] = rule.matches.iter().map(matched).collect();
    }
    document
}

fn backend(number: usize, weight: u32) -> Value {
    json!({ "name": format!("b{number}"), "port": 80, "weight": weight })
}

fn matched(matched: &Match) -> Value {
    let (kind, value) = match &matched.path {
        Path::Exact(path) => ("Exact", path.as_str()),
        Path::Prefix(path) => ("PathPrefix", path.as_str()),
        Path::Expression(expression) => ("RegularExpression", *expression),
    };
    let mut document = json!({
        "path": { "type": kind, "value": value },
        "headers": fields(&matched.headers), "queryParams": fields(&matched.query),
    });
    if let Some(method) = matched.method {
        document["method"] = json!(method);
    }
    document
}

fn fields(fields: &[Field]) -> Value {
    let field = |field: &Field| {
        let kind = if field.expression {
            "RegularExpression"
        } else {
            "Exact"
        };
        json!({ "type": kind, "name": field.name, "value": field.value })
    };
    fields.iter().map(field).collect()
}
