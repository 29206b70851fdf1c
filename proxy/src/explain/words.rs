//! Rules in words: what they take, what they do, and why they do not take a
//! request. Refuses to know which rule is found.

use selvage_policy::route::{
    Considered, Cors, Filters, HeaderEdits, PathEdit, Redirect, Rewrite, Rule, SessionCarrier,
    SessionPersistence, Verdict,
};
use serde::Serialize;

use super::Other;

/// The rule that takes a request.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleShown {
    /// `namespace/name/rule`.
    pub label: String,
    /// Which of its matches holds, and all that it asks for.
    pub matched: String,
    /// What is done to the request and its response.
    pub filters: Vec<String>,
    /// How a client stays with its endpoint.
    pub session: Option<String>,
}

impl RuleShown {
    pub(super) fn of(rule: &Rule, considered: &[Considered<'_>]) -> Self {
        let holds = considered.iter().find(|it| it.verdict == Verdict::Taken);
        Self {
            label: rule.label.to_string(),
            matched: holds.map_or_else(String::new, matched),
            filters: filters(&rule.filters),
            session: rule.session.as_ref().map(session),
        }
    }
}

fn matched(considered: &Considered<'_>) -> String {
    let asked = match considered.index {
        Some(_) => considered.matched.to_string(),
        None => "every request".to_owned(),
    };
    match considered.hostname {
        Some(hostname) => format!("host {hostname}, {asked}"),
        None => asked,
    }
}

/// The rules, or matches of a rule, that do not take a request.
pub(super) fn others(considered: &[Considered<'_>]) -> Vec<Other> {
    let others = considered.iter().filter(|it| it.verdict != Verdict::Taken);
    let other = |it: &Considered<'_>| Other {
        rule: it.rule.label.to_string(),
        matched: it.index.filter(|_| it.rule.matches.len() > 1),
        why: it.to_string(),
    };
    others.map(other).collect()
}

/// What filters do, in the order in which it is done.
pub(super) fn filters(filters: &Filters) -> Vec<String> {
    let Filters {
        request_headers,
        response_headers,
        redirect,
        rewrite,
        mirrors,
        cors,
    } = filters;
    let mut all = Vec::new();
    all.extend(cors.as_ref().map(self::cors));
    all.extend(redirect.as_ref().map(self::redirect));
    for (edits, side) in [(request_headers, "request"), (response_headers, "response")] {
        all.extend(edits.iter().flat_map(|it| self::edits(it, side)));
    }
    all.extend(rewrite.as_ref().map(self::rewrite));
    for mirror in mirrors {
        let port = mirror.to.port.map(|it| format!(":{it}"));
        all.push(format!(
            "mirror {} % to {}{}",
            mirror.share.percent(),
            mirror.to.service,
            port.unwrap_or_default()
        ));
    }
    all
}

fn edits(edits: &HeaderEdits, side: &str) -> Vec<String> {
    let HeaderEdits { set, add, remove } = edits;
    let value = |it: &http::HeaderValue| String::from_utf8_lossy(it.as_bytes()).into_owned();
    let set = set
        .iter()
        .map(|(name, it)| format!("set {side} header {name}: {}", value(it)));
    let add = add
        .iter()
        .map(|(name, it)| format!("add {side} header {name}: {}", value(it)));
    let remove = remove
        .iter()
        .map(|name| format!("remove {side} header {name}"));
    set.chain(add).chain(remove).collect()
}

fn redirect(redirect: &Redirect) -> String {
    let Redirect {
        scheme,
        hostname,
        path,
        port,
        status,
    } = redirect;
    let mut text = format!("redirect {}", status.as_u16());
    if let Some(scheme) = scheme {
        text.push_str(&format!(", scheme {scheme}"));
    }
    if let Some(hostname) = hostname {
        text.push_str(&format!(", host {hostname}"));
    }
    if let Some(port) = port {
        text.push_str(&format!(", port {port}"));
    }
    text + &edit(path.as_ref())
}

fn rewrite(rewrite: &Rewrite) -> String {
    let Rewrite { hostname, path } = rewrite;
    let mut text = "rewrite".to_owned();
    if let Some(hostname) = hostname {
        text.push_str(&format!(", host {hostname}"));
    }
    text + &edit(path.as_ref())
}

fn edit(path: Option<&PathEdit>) -> String {
    match path {
        None => String::new(),
        Some(PathEdit::Full(path)) => format!(", path {path}"),
        Some(PathEdit::Prefix(prefix)) => format!(", prefix by {prefix}"),
    }
}

fn cors(cors: &Cors) -> String {
    format!("CORS for {}", cors.allow_origins.join(", "))
}

fn session(session: &SessionPersistence) -> String {
    let carrier = match session.carrier {
        SessionCarrier::Cookie { .. } => "cookie",
        SessionCarrier::Header => "header",
    };
    format!("{carrier} {}", session.name)
}
