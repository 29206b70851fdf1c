//! All routes of one port or listener, and which rule a request meets.
//!
//! Every match of every rule is an entry under each hostname of its route.
//! Entries are sorted by precedence once, so that the number of an entry is its
//! rank, and filed by what they ask for: hostname, then path, then the rest. A
//! lookup follows what the request has, from the most specific hostname on,
//! and keeps the lowest rank it meets. A scan in the order of precedence says
//! the same (`tests/routes` holds one beside it) and grows with every route.

use std::sync::Arc;

use http::{HeaderMap, Method};

use super::entry::Entry;
use super::hostnames::{Host, Hostnames};
use super::paths::Paths;
use super::{Hostname, HttpRoute, Match, PathMatch, Rule};

/// A request, as far as routes look at it.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Its host, without a port; `None`: it names none.
    pub host: Option<&'a str>,
    /// Its method.
    pub method: &'a Method,
    /// Its canonical path.
    pub path: &'a str,
    /// Its query, as it was sent.
    pub query: Option<&'a str>,
    /// Its headers.
    pub headers: &'a HeaderMap,
}

/// The rule a request meets.
#[derive(Debug, Clone, Copy)]
pub struct Found<'t> {
    /// The rule.
    pub rule: &'t Arc<Rule>,
    /// The prefix that matched, where one did.
    pub prefix: Option<&'t str>,
}

/// Routes, compiled.
#[derive(Debug, Default)]
pub struct RouteTable {
    /// In the order of precedence.
    entries: Box<[Entry]>,
    /// By numbers of `paths`.
    hostnames: Hostnames,
    paths: Box<[Paths]>,
}

impl RouteTable {
    /// Compiles routes, given oldest first.
    #[must_use]
    pub fn new(routes: &[HttpRoute]) -> Self {
        let entries = Entry::sorted(routes);
        let mut hostnames = Hostnames::default();
        let mut paths = Vec::new();
        let mut first = 0;
        for (number, of_one) in
            (0..).zip(entries.chunk_by(|one, next| one.hostname == next.hostname))
        {
            let end = first + of_one.len() as u32;
            hostnames.insert(of_one[0].hostname.as_ref(), number);
            paths.push(Paths::new(&entries, first..end));
            first = end;
        }
        Self {
            entries: entries.into(),
            hostnames,
            paths: paths.into(),
        }
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many matches it has, each under each hostname of its route.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// All of it, in the order of precedence: the hostname that a match stands
    /// under, the match, and its rule.
    pub fn matches(&self) -> impl Iterator<Item = (Option<&Hostname>, &Match, &Arc<Rule>)> {
        self.entries
            .iter()
            .map(|entry| (entry.hostname.as_ref(), entry.matched(), &entry.rule))
    }

    /// In the order of precedence.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The first rule, in the order of precedence, that a request meets.
    #[must_use]
    pub fn find(&self, asked: &Asked<'_>) -> Option<Found<'_>> {
        let mut place = Host::new();
        let host = asked.host.and_then(|host| place.of(host));
        let mut paths = self.hostnames.of(host);
        let rank = paths.find_map(|at| self.paths[at as usize].find(&self.entries, asked))?;
        let entry = &self.entries[rank as usize];
        Some(Found {
            rule: &entry.rule,
            prefix: match &entry.matched().path {
                PathMatch::Prefix(prefix) => Some(prefix),
                PathMatch::Any => Some("/"),
                PathMatch::Exact(_) | PathMatch::Regex(_) | PathMatch::Grpc(_) => None,
            },
        })
    }
}
