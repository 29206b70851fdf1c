//! Routes and requests in plain texts, as resources and callers write them.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use regex::Regex;
use selvage_policy::route::{
    Asked, Filters, GrpcMatch, HeaderMatch, Hostname, HttpRoute, Match, PathMatch, QueryMatch,
    Rule, TextMatch, whole,
};

#[derive(Debug, Clone, Default)]
pub(crate) struct Route {
    pub(crate) hostnames: Vec<&'static str>,
    /// Each rule by its matches.
    pub(crate) rules: Vec<Vec<Wanted>>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    pub(crate) path: Path,
    pub(crate) method: Option<&'static str>,
    pub(crate) headers: Vec<Field>,
    pub(crate) query: Vec<Field>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) enum Path {
    #[default]
    Any,
    Exact(&'static str),
    Prefix(&'static str),
    Regex(&'static str),
    Grpc(Option<Text>, Option<Text>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) value: Text,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Text {
    Exact(&'static str),
    Regex(&'static str),
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) host: Option<&'static str>,
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) query: Option<&'static str>,
    pub(crate) headers: Vec<(&'static str, &'static [u8])>,
}

/// Compiled once: the same few occur in every case.
fn compiled(pattern: &'static str) -> Regex {
    static ALL: LazyLock<Mutex<HashMap<&'static str, Regex>>> = LazyLock::new(Mutex::default);
    let mut all = ALL.lock();
    let regex = all
        .entry(pattern)
        .or_insert_with(|| whole(pattern).expect("a pattern"));
    regex.clone()
}

impl Route {
    /// As the proxy has it, `number` in its name.
    pub(crate) fn decoded(&self, number: usize) -> HttpRoute {
        let hostname = |text: &&str| match text.strip_prefix('*') {
            Some(suffix) => Hostname::Below(suffix.into()),
            None => Hostname::Exact((*text).into()),
        };
        let rule = |(at, matches): (usize, &Vec<Wanted>)| {
            Arc::new(Rule {
                label: format!("shop/r{number}/{at}").into(),
                matches: matches.iter().map(Wanted::decoded).collect(),
                filters: Filters::default(),
                backends: Vec::new(),
                session: None,
                response: None,
                rate_limit: None,
            })
        };
        HttpRoute {
            name: format!("shop/r{number}").into(),
            hostnames: self.hostnames.iter().map(hostname).collect(),
            rules: self.rules.iter().enumerate().map(rule).collect(),
        }
    }
}

impl Wanted {
    fn decoded(&self) -> Match {
        let path = match self.path {
            Path::Any => PathMatch::Any,
            Path::Exact(path) => PathMatch::Exact(path.into()),
            Path::Prefix(prefix) => PathMatch::Prefix(prefix.into()),
            Path::Regex(pattern) => PathMatch::Regex(compiled(pattern)),
            Path::Grpc(service, method) => PathMatch::Grpc(GrpcMatch {
                service: service.map(Text::decoded),
                method: method.map(Text::decoded),
            }),
        };
        let header = |field: &Field| HeaderMatch {
            name: field.name.parse::<HeaderName>().expect("a name"),
            value: field.value.decoded(),
        };
        let parameter = |field: &Field| QueryMatch {
            name: field.name.into(),
            value: field.value.decoded(),
        };
        Match {
            path,
            method: self.method.map(|it| it.parse().expect("a method")),
            headers: self.headers.iter().map(header).collect(),
            query: self.query.iter().map(parameter).collect(),
        }
    }
}

impl Text {
    fn decoded(self) -> TextMatch {
        match self {
            Self::Exact(text) => TextMatch::Exact(text.into()),
            Self::Regex(pattern) => TextMatch::Regex(compiled(pattern)),
        }
    }
}

impl Request {
    /// Asks with it.
    pub(crate) fn ask<T>(&self, ask: impl FnOnce(&Asked<'_>) -> T) -> T {
        let method: Method = self.method.parse().expect("a method");
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let value = HeaderValue::from_bytes(value).expect("a value");
            headers.append(name.parse::<HeaderName>().expect("a name"), value);
        }
        ask(&Asked {
            host: self.host,
            method: &method,
            path: self.path,
            query: self.query,
            headers: &headers,
        })
    }
}
