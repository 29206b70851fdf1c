//! The rules of precedence as one sort and one scan over plain texts, knowing
//! nothing of the index: slow, and easily read beside the specification.

use std::cmp::Ordering;

use regex::bytes::Regex;

use crate::plain::{Field, Path, Request, Route, Text, Wanted};

/// One match of one rule under one hostname.
pub(crate) struct Line<'a> {
    hostname: Option<&'a str>,
    wanted: Wanted,
    label: String,
}

/// What the reference chooses.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) label: String,
    pub(crate) prefix: Option<String>,
    pub(crate) kind: &'static str,
    pub(crate) host: &'static str,
    pub(crate) conditions: usize,
}

/// All lines, in the order of precedence.
pub(crate) struct Reference<'a>(Vec<Line<'a>>);

impl<'a> Reference<'a> {
    pub(crate) fn new(routes: &'a [Route]) -> Self {
        let mut lines = lines(routes);
        // Stable: what is equal stays in the order of routes and rules.
        lines.sort_by(precedence);
        Self(lines)
    }

    pub(crate) fn choose(&self, request: &Request) -> Option<Choice> {
        let line = self.0.iter().find(|line| takes(line, request))?;
        let wanted = &line.wanted;
        Some(Choice {
            label: line.label.clone(),
            prefix: match wanted.path {
                Path::Any => Some("/".to_owned()),
                Path::Prefix(prefix) => Some(one_form(prefix).to_owned()),
                _ => None,
            },
            kind: match wanted.path {
                Path::Any => "any path",
                Path::Exact(_) => "exact path",
                Path::Prefix(_) => "prefix",
                Path::Regex(_) => "regular expression",
                Path::Grpc(..) => "gRPC",
            },
            host: match line.hostname {
                None => "every host",
                Some(name) if name.starts_with('*') => "wildcard",
                Some(_) => "exact host",
            },
            conditions: usize::from(wanted.method.is_some())
                + wanted.headers.len()
                + wanted.query.len(),
        })
    }
}

fn lines(routes: &[Route]) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    for (number, route) in routes.iter().enumerate() {
        let mut hostnames: Vec<Option<&str>> = route.hostnames.iter().copied().map(Some).collect();
        if hostnames.is_empty() {
            hostnames.push(None);
        }
        for (at, rule) in route.rules.iter().enumerate() {
            let mut matches = rule.clone();
            if matches.is_empty() {
                matches.push(Wanted::default());
            }
            for wanted in matches {
                for hostname in &hostnames {
                    let mut wanted = wanted.clone();
                    wanted.headers = firsts(&wanted.headers, |name| name.to_lowercase());
                    wanted.query = firsts(&wanted.query, str::to_owned);
                    lines.push(Line {
                        hostname: *hostname,
                        wanted,
                        label: format!("shop/r{number}/{at}"),
                    });
                }
            }
        }
    }
    lines
}

/// Of fields of one name the first.
fn firsts(fields: &[Field], name: impl Fn(&str) -> String) -> Vec<Field> {
    let mut names = Vec::new();
    let mut kept = Vec::new();
    for field in fields {
        let name = name(field.name);
        if !names.contains(&name) {
            names.push(name);
            kept.push(*field);
        }
    }
    kept
}

/// Whoever has more comes first.
fn precedence(one: &Line<'_>, other: &Line<'_>) -> Ordering {
    let more = |of: &dyn Fn(&Line<'_>) -> usize| of(other).cmp(&of(one));
    // Names before wildcards before nothing, the longer first.
    more(&|line| match line.hostname {
        None => 0,
        Some(name) if name.starts_with('*') => 1,
        Some(_) => 2,
    })
    .then(more(&|line| line.hostname.map_or(0, str::len)))
    .then(more(&|line| match line.wanted.path {
        Path::Any | Path::Grpc(None, None) | Path::Prefix(_) => 0,
        Path::Regex(_) => 1,
        Path::Exact(_) | Path::Grpc(..) => 2,
    }))
    .then(more(&|line| match line.wanted.path {
        Path::Any | Path::Grpc(None, None) => 1,
        Path::Prefix(prefix) => one_form(prefix).len(),
        Path::Regex(text) | Path::Exact(text) => text.len(),
        Path::Grpc(service, _) => length(service),
    }))
    .then(more(&|line| match line.wanted.path {
        Path::Grpc(_, method) => length(method),
        _ => 0,
    }))
    .then(more(&|line| usize::from(line.wanted.method.is_some())))
    .then(more(&|line| line.wanted.headers.len()))
    .then(more(&|line| line.wanted.query.len()))
}

fn length(text: Option<Text>) -> usize {
    match text {
        None => 0,
        Some(Text::Exact(text) | Text::Regex(text)) => text.len(),
    }
}

fn one_form(prefix: &str) -> &str {
    match prefix.strip_suffix('/') {
        None => prefix,
        Some("") => "/",
        Some(rest) => rest,
    }
}

fn takes(line: &Line<'_>, request: &Request) -> bool {
    let wanted = &line.wanted;
    takes_host(line.hostname, request.host)
        && takes_path(wanted.path, request.path)
        && wanted.method.is_none_or(|method| method == request.method)
        && wanted.headers.iter().all(|field| {
            let mut values = Vec::new();
            for (name, value) in &request.headers {
                if name.eq_ignore_ascii_case(field.name) {
                    values.push(value.to_vec());
                }
            }
            !values.is_empty() && takes_text(field.value, &values.join(&b","[..]))
        })
        && wanted.query.iter().all(|field| {
            let pairs = request.query.unwrap_or("").split('&').map(|pair| {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                (decoded(name), decoded(value))
            });
            let mut named = pairs.filter(|(name, _)| name == field.name.as_bytes());
            named
                .next()
                .is_some_and(|(_, value)| takes_text(field.value, &value))
        })
}

fn takes_host(hostname: Option<&str>, host: Option<&str>) -> bool {
    let Some(hostname) = hostname else {
        return true;
    };
    let Some(host) = host else { return false };
    let host = host.to_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let host: Vec<&str> = host.split('.').collect();
    let labels: Vec<&str> = hostname.split('.').collect();
    if labels[0] == "*" {
        host.len() >= labels.len() && host.ends_with(&labels[1..])
    } else {
        host == labels
    }
}

fn takes_path(wanted: Path, path: &str) -> bool {
    match wanted {
        Path::Any | Path::Prefix("/") => true,
        Path::Exact(text) => text == path,
        Path::Prefix(prefix) => {
            let segments: Vec<&str> = path.split('/').collect();
            let prefix: Vec<&str> = one_form(prefix).split('/').collect();
            segments.starts_with(&prefix)
        }
        Path::Regex(pattern) => takes_text(Text::Regex(pattern), path.as_bytes()),
        Path::Grpc(service, method) => {
            let mut parts: Vec<&str> = path.split('/').collect();
            let last = parts.pop().unwrap_or("");
            let Some(("", parts)) = parts.split_first().map(|(first, rest)| (*first, rest)) else {
                return false;
            };
            !parts.is_empty()
                && service.is_none_or(|text| takes_text(text, parts.join("/").as_bytes()))
                && method.is_none_or(|text| takes_text(text, last.as_bytes()))
        }
    }
}

fn takes_text(wanted: Text, text: &[u8]) -> bool {
    match wanted {
        Text::Exact(wanted) => wanted.as_bytes() == text,
        Text::Regex(pattern) => {
            std::str::from_utf8(text).is_ok() && compiled(pattern).is_match(text)
        }
    }
}

fn compiled(pattern: &'static str) -> Regex {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    thread_local! {
        static ALL: RefCell<BTreeMap<&'static str, Regex>> = RefCell::default();
    }
    ALL.with_borrow_mut(|all| {
        let regex = || Regex::new(&format!(r"\A(?:{pattern})\z")).expect("a pattern");
        all.entry(pattern).or_insert_with(regex).clone()
    })
}

fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let escape = (byte == b'%').then(|| after.get(..2)).flatten();
        let value = escape
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(value.unwrap_or(byte));
        rest = if value.is_some() { &after[2..] } else { after };
    }
    out
}
