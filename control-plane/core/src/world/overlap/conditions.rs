//! What a match asks for, in the one form in which equal matches are equal.

use std::collections::BTreeMap;

use crate::resource::Spec;
use crate::resource::route::matching::{
    FieldMatch, GrpcRouteMatch, HttpRouteMatch, MatchType, PathMatchType,
};
use crate::resource::route::path::canonical;

/// Expressions that take every path, as people write them.
const EVERY_PATH: [&str; 8] = [".*", "/.*", "(.*)", "/(.*)", "^.*", "^/.*", "^.*$", "^/.*$"];

/// All that one match asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Conditions {
    path: Path,
    method: Option<String>,
    headers: BTreeMap<String, Text>,
    query: BTreeMap<String, Text>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Path {
    Exact(String),
    /// Without a slash at its end; empty: every path.
    Prefix(String),
    Regex(String),
    Grpc {
        regex: bool,
        service: String,
        method: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Text {
    regex: bool,
    value: String,
}

impl Conditions {
    /// Of every match of every rule; a rule without matches has one that takes everything.
    pub(super) fn of_rules(spec: &Spec) -> Vec<Vec<Self>> {
        match spec {
            Spec::HttpRoute(spec) => {
                let rules = spec.rules.iter();
                rules
                    .map(|rule| all(&rule.matches, Self::of_http))
                    .collect()
            }
            Spec::GrpcRoute(spec) => {
                let rules = spec.rules.iter();
                rules
                    .map(|rule| all(&rule.matches, Self::of_grpc))
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn of_http(given: &HttpRouteMatch) -> Self {
        let path = match &given.path {
            None => Path::Prefix(String::new()),
            Some(path) => match path.kind {
                PathMatchType::Exact => Path::Exact(canonical(&path.value)),
                PathMatchType::PathPrefix => {
                    Path::Prefix(canonical(&path.value).trim_end_matches('/').to_owned())
                }
                PathMatchType::RegularExpression => Path::Regex(path.value.clone()),
            },
        };
        Self {
            path,
            method: given.method.clone(),
            headers: fields(&given.headers, true),
            query: fields(&given.query_params, false),
        }
    }

    fn of_grpc(given: &GrpcRouteMatch) -> Self {
        let path = match &given.method {
            None => Path::Prefix(String::new()),
            Some(call) => {
                let regex = call.kind == MatchType::RegularExpression;
                let service = match regex {
                    true => &call.service,
                    false => call.service.trim_start_matches('.'),
                };
                Path::Grpc {
                    regex,
                    service: service.to_owned(),
                    method: call.method.clone(),
                }
            }
        };
        Self {
            path,
            method: None,
            headers: fields(&given.headers, true),
            query: BTreeMap::new(),
        }
    }

    pub(super) fn takes_every_path(&self) -> bool {
        matches!(&self.path, Path::Regex(regex) if EVERY_PATH.contains(&regex.as_str()))
    }

    /// Whether all that `other` takes is taken by this expression for every
    /// path, which goes before the prefix of `other`.
    pub(super) fn hides(&self, other: &Self) -> bool {
        let holds_too = |own: &BTreeMap<String, Text>, others: &BTreeMap<String, Text>| {
            own.iter()
                .all(|(name, value)| others.get(name) == Some(value))
        };
        self.takes_every_path()
            && matches!(other.path, Path::Prefix(_))
            && (self.method.is_none() || self.method == other.method)
            && holds_too(&self.headers, &other.headers)
            && holds_too(&self.query, &other.query)
    }
}

fn all<M: Default>(matches: &[M], of: impl Fn(&M) -> Conditions) -> Vec<Conditions> {
    match matches {
        [] => vec![of(&M::default())],
        some => some.iter().map(of).collect(),
    }
}

fn fields(list: &[FieldMatch], without_case: bool) -> BTreeMap<String, Text> {
    let mut named = BTreeMap::new();
    for field in list {
        let name = match without_case {
            true => field.name.to_ascii_lowercase(),
            false => field.name.clone(),
        };
        // Of several of one name the first counts.
        named.entry(name).or_insert_with(|| Text {
            regex: field.kind == MatchType::RegularExpression,
            value: field.value.clone(),
        });
    }
    named
}
