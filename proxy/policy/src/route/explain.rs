//! Why a request meets the rule it meets, and no other: for people.
//!
//! What a match fails by is told by the same functions that route. Never on
//! the path of a request: every match of the table is looked at.

use std::fmt;
use std::sync::Arc;

use http::HeaderName;

use super::hostnames::Host;
use super::matches::{Failed, pattern};
use super::{
    Asked, GrpcMatch, HeaderMatch, Hostname, Match, PathMatch, QueryMatch, RouteTable, Rule,
    TextMatch,
};

/// As many matches are explained; the one that takes the request always is.
pub const EXPLAINED: usize = 1_000;

/// One match of one rule under one hostname, and what became of it.
#[derive(Debug, Clone)]
pub struct Considered<'t> {
    /// The rule.
    pub rule: &'t Arc<Rule>,
    /// Which hostname of its route; `None`: the route is for every host.
    pub hostname: Option<&'t Hostname>,
    /// Which of the rule's matches, from 0; `None`: it has none, and takes every request.
    pub index: Option<usize>,
    /// The match.
    pub matched: &'t Match,
    /// Whether it takes the request, or why not.
    pub verdict: Verdict<'t>,
}

/// Whether a match takes a request, or the first condition that it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'t> {
    /// It takes the request.
    Taken,
    /// It would, if an earlier one did not.
    Earlier,
    /// The host is another.
    Host,
    /// The path is another.
    Path,
    /// The method is another.
    Method,
    /// This header field is another, or missing.
    Header(&'t HeaderName),
    /// This query parameter is another, or missing.
    Query(&'t str),
}

impl RouteTable {
    /// What became of every match, in the order of precedence: one at most is
    /// [`Verdict::Taken`], and exactly where [`RouteTable::find`] finds its rule.
    #[must_use]
    pub fn explain(&self, asked: &Asked<'_>) -> Vec<Considered<'_>> {
        let mut place = Host::new();
        let host = asked.host.and_then(|host| place.of(host));
        let mut taken = false;
        let mut all = Vec::new();
        for entry in self.entries() {
            let verdict = match entry.verdict(asked, host) {
                Verdict::Taken if taken => Verdict::Earlier,
                verdict => verdict,
            };
            let takes = verdict == Verdict::Taken;
            taken |= takes;
            if takes || all.len() < EXPLAINED {
                all.push(Considered {
                    rule: &entry.rule,
                    hostname: entry.hostname.as_ref(),
                    index: entry.index,
                    matched: entry.matched(),
                    verdict,
                });
            }
            if taken && all.len() >= EXPLAINED {
                break;
            }
        }
        all
    }
}

impl<'t> From<Failed<'t>> for Verdict<'t> {
    fn from(failed: Failed<'t>) -> Self {
        match failed {
            Failed::Method => Self::Method,
            Failed::Header(name) => Self::Header(name),
            Failed::Query(name) => Self::Query(name),
        }
    }
}

/// What it takes, or which condition failed: half a sentence.
impl fmt::Display for Considered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict {
            Verdict::Taken => f.write_str("takes the request"),
            Verdict::Earlier => f.write_str("would take it, but an earlier one does"),
            Verdict::Host => match self.hostname {
                Some(hostname) => write!(f, "the host is not {hostname}"),
                None => f.write_str("the host is another"),
            },
            Verdict::Path => write!(f, "the path is not {}", self.matched.path),
            Verdict::Method => match &self.matched.method {
                Some(method) => write!(f, "the method is not {method}"),
                None => f.write_str("the method is another"),
            },
            Verdict::Header(name) => {
                write!(f, "the header {name} is not")?;
                let wanted = |it: &&HeaderMatch| it.name == name;
                or_nothing(
                    f,
                    self.matched.headers.iter().find(wanted).map(|it| &it.value),
                )
            }
            Verdict::Query(name) => {
                write!(f, "the query parameter {name} is not")?;
                let wanted = |it: &&QueryMatch| *it.name == *name;
                or_nothing(
                    f,
                    self.matched.query.iter().find(wanted).map(|it| &it.value),
                )
            }
        }
    }
}

fn or_nothing(f: &mut fmt::Formatter<'_>, wanted: Option<&TextMatch>) -> fmt::Result {
    match wanted {
        Some(wanted) => write!(f, " {wanted}"),
        None => Ok(()),
    }
}

/// As resources write it.
impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Below(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// What the path must be: `/a`, `/a or below`, `like /a[0-9]`.
impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("anything"),
            Self::Exact(path) => f.write_str(path),
            Self::Prefix(prefix) if &**prefix == "/" => f.write_str("anything"),
            Self::Prefix(prefix) => write!(f, "{prefix} or below"),
            Self::Regex(regex) => write!(f, "like {}", pattern(regex)),
            Self::Grpc(GrpcMatch { service, method }) => {
                let part = |f: &mut fmt::Formatter<'_>, part: &Option<TextMatch>| match part {
                    Some(text) => write!(f, "/{text}"),
                    None => f.write_str("/*"),
                };
                f.write_str("the call ")?;
                part(f, service)?;
                part(f, method)
            }
        }
    }
}

/// What a text must be: `a`, or `like a|b`.
impl fmt::Display for TextMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "{text:?}"),
            Self::Regex(regex) => write!(f, "like {:?}", pattern(regex)),
        }
    }
}

/// All that it asks for: `path /a or below, method GET, header x = "1"`.
impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "path {}", self.path)?;
        if let Some(method) = &self.method {
            write!(f, ", method {method}")?;
        }
        for HeaderMatch { name, value } in &self.headers {
            write!(f, ", header {name} {value}")?;
        }
        for QueryMatch { name, value } in &self.query {
            write!(f, ", query parameter {name} {value}")?;
        }
        Ok(())
    }
}
