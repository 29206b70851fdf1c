//! The same routes as configuration for Envoy, which takes the first route that
//! matches within the one virtual host it chose: so they are sorted here by the
//! precedence that Gateway API prescribes, with what applies to a host repeated
//! under each hostname that covers it.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::net::SocketAddr;

use serde_json::{Value, json};

use super::draw::{Field, Match, Path, Route};

const ANY: &str = "*";

/// Envoy's whole configuration.
pub(super) fn envoy(routes: &[Route], backends: &[SocketAddr]) -> String {
    let loopback = json!({ "socket_address": { "address": "127.0.0.1", "port_value": 0 } });
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "main",
        "normalize_path": true,
        "route_config": { "ignore_port_in_host_matching": true, "virtual_hosts": hosts(routes) },
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
        }],
    });
    let chain = json!({ "filters": [{ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager }] });
    let clusters: Vec<_> = backends.iter().enumerate().map(cluster).collect();
    // Fields of one name count joined by commas, as RFC 9110 and Gateway API have it. Envoy
    // does so where it is told not to look at each by itself.
    let joined = json!({ "envoy.reloadable_features.match_headers_individually": false });
    let config = json!({
        "admin": { "address": loopback },
        "layered_runtime": { "layers": [{ "name": "joined", "static_layer": joined }] },
        "static_resources": {
            "listeners": [{ "name": "main", "address": loopback, "filter_chains": [chain] }],
            "clusters": clusters,
        },
    });
    config.to_string()
}

fn cluster((number, address): (usize, &SocketAddr)) -> Value {
    let socket =
        json!({ "socket_address": { "address": address.ip(), "port_value": address.port() } });
    json!({
        "name": format!("b{number}"), "type": "STATIC", "connect_timeout": "2s",
        "load_assignment": { "cluster_name": format!("b{number}"), "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": socket } }] }] },
    })
}

/// One match of one rule under one hostname.
struct Entry<'r> {
    hostname: &'r str,
    matched: &'r Match,
    /// Route, rule.
    place: (usize, usize),
    backend: usize,
}

fn hosts(routes: &[Route]) -> Vec<Value> {
    let entries = sorted(routes);
    let hostnames: BTreeSet<_> = entries
        .iter()
        .map(|entry| entry.hostname)
        .chain([ANY])
        .collect();
    let host = |(number, hostname): (usize, &str)| {
        let applying = entries
            .iter()
            .filter(|entry| covers(entry.hostname, hostname));
        let routes: Vec<_> = applying.map(route).collect();
        json!({ "name": format!("h{number}"), "domains": [hostname], "routes": routes })
    };
    hostnames.into_iter().enumerate().map(host).collect()
}

/// Whether all hosts that the second hostname means are hosts of the first.
fn covers(one: &str, other: &str) -> bool {
    let below = one
        .strip_prefix('*')
        .is_some_and(|suffix| other.ends_with(suffix));
    one == ANY || one == other || below
}

/// In the order of precedence; what is equal stays as it was: the older route, its earlier rule.
fn sorted(routes: &[Route]) -> Vec<Entry<'_>> {
    let every = &[ANY][..];
    let mut entries: Vec<Entry<'_>> = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        let hostnames = if route.hostnames.is_empty() {
            every
        } else {
            &route.hostnames
        };
        for (index, rule) in route.rules.iter().enumerate() {
            for matched in &rule.matches {
                entries.extend(hostnames.iter().map(|hostname| Entry {
                    hostname,
                    matched,
                    place: (number, index),
                    backend: rule.backend,
                }));
            }
        }
    }
    entries.sort_by_key(|entry| {
        let Match {
            path,
            method,
            headers,
            query,
        } = entry.matched;
        // An exact hostname before wildcards, then the longer one.
        let wild = entry.hostname.starts_with('*');
        let host = (wild, Reverse(entry.hostname.len()));
        let path = match path {
            Path::Exact(path) => (0, path.len()),
            Path::Expression(expression) => (1, expression.len()),
            Path::Prefix(prefix) => (2, bare(prefix).len()),
        };
        let (kind, length) = path;
        let conditions = (
            method.is_none(),
            Reverse(headers.len()),
            Reverse(query.len()),
        );
        (host, kind, Reverse(length), conditions)
    });
    entries
}

/// A slash at the end of a prefix is not meant.
fn bare(prefix: &str) -> &str {
    match prefix.trim_end_matches('/') {
        "" => "/",
        bare => bare,
    }
}

fn route(entry: &Entry<'_>) -> Value {
    let Match {
        path,
        method,
        headers,
        query,
    } = entry.matched;
    let mut fields: Vec<_> = headers.iter().map(field).collect();
    fields.extend(
        method.map(|method| json!({ "name": ":method", "string_match": { "exact": method } })),
    );
    let parameters: Vec<_> = query.iter().map(field).collect();
    let mut matched = json!({ "headers": fields, "query_parameters": parameters });
    match path {
        Path::Exact(path) => matched["path"] = json!(path),
        Path::Expression(it) => matched["safe_regex"] = json!({ "regex": it }),
        Path::Prefix(prefix) => match bare(prefix) {
            "/" => matched["prefix"] = json!("/"),
            bare => matched["path_separated_prefix"] = json!(bare),
        },
    }
    let (number, index) = entry.place;
    let name = json!({ "key": "x-rule", "value": format!("r{number:02}/{index}") });
    json!({
        "match": matched,
        "route": { "cluster": format!("b{}", entry.backend) },
        "request_headers_to_add": [{ "header": name, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" }],
    })
}

fn field(field: &Field) -> Value {
    let text = match field.expression {
        true => json!({ "safe_regex": { "regex": field.value } }),
        false => json!({ "exact": field.value }),
    };
    json!({ "name": field.name, "string_match": text })
}
