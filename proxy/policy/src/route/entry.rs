//! One match of one rule under one hostname, and where it stands among all
//! that may meet a request.
//!
//! Precedence is an order of values, so that a table is sorted once, when it
//! is made: the most specific hostname, then path, method, headers and query
//! (Gateway API, HTTPRoute and GRPCRoute). What is equal stays in the order in
//! which it was given: the oldest route, its name, its first rule.

use std::cmp::Reverse;
use std::sync::Arc;

use crate::path::canonical;

use super::explain::Verdict;
use super::matches::pattern;
use super::{
    Asked, GrpcMatch, HeaderMatch, Hostname, HttpRoute, Match, PathMatch, QueryMatch, Rule,
    TextMatch,
};

/// The match of a rule that has none.
static EVERY: Match = Match::every();

/// One match of one rule under one hostname.
#[derive(Debug)]
pub(super) struct Entry {
    /// `None`: every host.
    pub(super) hostname: Option<Hostname>,
    pub(super) rule: Arc<Rule>,
    /// Which match of the rule; `None`: it has none.
    pub(super) index: Option<usize>,
    /// The match in its one form, where the rule has it in another.
    normal: Option<Box<Match>>,
}

impl Entry {
    /// All of some routes, given oldest first, in the order of precedence.
    pub(super) fn sorted(routes: &[HttpRoute]) -> Vec<Self> {
        let mut entries = Vec::new();
        for route in routes {
            let hostnames: Vec<Option<&Hostname>> = match route.hostnames.as_slice() {
                [] => vec![None],
                some => some.iter().map(Some).collect(),
            };
            for rule in &route.rules {
                let indices: Vec<Option<usize>> = match rule.matches.len() {
                    0 => vec![None],
                    some => (0..some).map(Some).collect(),
                };
                for (hostname, index) in hostnames
                    .iter()
                    .flat_map(|hostname| indices.iter().map(move |index| (hostname, index)))
                {
                    entries.push(Self {
                        hostname: hostname.cloned(),
                        rule: rule.clone(),
                        index: *index,
                        normal: index.and_then(|index| normal(&rule.matches[index])),
                    });
                }
            }
        }
        entries.sort_by(|one, other| one.precedence().cmp(&other.precedence()));
        entries
    }

    /// The match, in its one form.
    pub(super) fn matched(&self) -> &Match {
        match (&self.normal, self.index) {
            (Some(normal), _) => normal,
            (None, Some(index)) => &self.rule.matches[index],
            (None, None) => &EVERY,
        }
    }

    /// Whether it takes a request of `host`, as if it stood alone, or why not.
    pub(super) fn verdict(&self, asked: &Asked<'_>, host: Option<&str>) -> Verdict<'_> {
        let is_host = |hostname: &Hostname| host.is_some_and(|host| hostname.takes(host));
        if self.hostname.as_ref().is_none_or(is_host) {
            self.apart_from_host(asked)
        } else {
            Verdict::Host
        }
    }

    /// The same, whatever the host.
    pub(super) fn apart_from_host(&self, asked: &Asked<'_>) -> Verdict<'_> {
        let matched = self.matched();
        if matched.path.takes(asked.path) {
            matched.fails(asked).map_or(Verdict::Taken, Verdict::from)
        } else {
            Verdict::Path
        }
    }

    /// The lesser comes first. What belongs to one hostname stands together.
    fn precedence(&self) -> impl Ord + '_ {
        let matched = self.matched();
        let specific = (
            path_rank(&matched.path),
            matched.method.is_some(),
            matched.headers.len(),
            matched.query.len(),
        );
        let host = Reverse(host_rank(self.hostname.as_ref()));
        (host, &self.hostname, Reverse(specific))
    }
}

/// A hostname of its own before wildcards, the longer before the shorter.
fn host_rank(hostname: Option<&Hostname>) -> impl Ord + use<> {
    match hostname {
        None => (0, 0),
        Some(Hostname::Below(suffix)) => (1, suffix.len()),
        Some(Hostname::Exact(host)) => (2, host.len()),
    }
}

/// Exact paths and calls before regular expressions before prefixes; within
/// them the longer. A call is compared by its service, then by its method.
fn path_rank(path: &PathMatch) -> impl Ord + use<> {
    let of = |text: &Option<TextMatch>| match text {
        Some(TextMatch::Exact(text)) => text.len(),
        Some(TextMatch::Regex(regex)) => pattern(regex).len(),
        None => 0,
    };
    match path {
        PathMatch::Any
        | PathMatch::Grpc(GrpcMatch {
            service: None,
            method: None,
        }) => (0, 1, 0),
        PathMatch::Prefix(prefix) => (0, prefix.len(), 0),
        PathMatch::Regex(regex) => (1, pattern(regex).len(), 0),
        PathMatch::Exact(path) => (2, path.len(), 0),
        PathMatch::Grpc(GrpcMatch { service, method }) => (2, of(service), of(method)),
    }
}

/// Another form of a match that has not its one form: paths canonical, prefixes
/// without a slash at their end, the first of several conditions of one name.
fn normal(matched: &Match) -> Option<Box<Match>> {
    let path = match &matched.path {
        PathMatch::Exact(path) => normal_path(path).map(PathMatch::Exact),
        PathMatch::Prefix(prefix) => {
            let below = normal_path(prefix).unwrap_or_else(|| prefix.clone());
            let trimmed = match below.trim_end_matches('/') {
                "" => "/",
                some => some,
            };
            (*trimmed != **prefix).then(|| PathMatch::Prefix(trimmed.into()))
        }
        PathMatch::Any | PathMatch::Regex(_) | PathMatch::Grpc(_) => None,
    };
    let headers = firsts(&matched.headers, |one: &HeaderMatch, other| {
        one.name == other.name
    });
    let query = firsts(&matched.query, |one: &QueryMatch, other| {
        one.name == other.name
    });
    (path.is_some() || headers.is_some() || query.is_some()).then(|| {
        Box::new(Match {
            path: path.unwrap_or_else(|| matched.path.clone()),
            method: matched.method.clone(),
            headers: headers.unwrap_or_else(|| matched.headers.clone()),
            query: query.unwrap_or_else(|| matched.query.clone()),
        })
    })
}

/// The canonical form of a path, where it is another. What has none stays as
/// it is, and meets no request.
fn normal_path(path: &str) -> Option<Arc<str>> {
    let canonical = canonical(path).ok()?;
    (canonical != path).then(|| canonical.into())
}

/// Those with no equal before them, where they are fewer.
fn firsts<T: Clone>(all: &[T], equal: impl Fn(&T, &T) -> bool) -> Option<Vec<T>> {
    let is_first = |&at: &usize| !all[..at].iter().any(|it| equal(it, &all[at]));
    let firsts: Vec<usize> = (0..all.len()).filter(is_first).collect();
    (firsts.len() < all.len()).then(|| firsts.iter().map(|&at| all[at].clone()).collect())
}
