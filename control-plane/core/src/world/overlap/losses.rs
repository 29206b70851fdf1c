//! Which matches of one table lose requests to which.
//!
//! Each match is looked up once under each of its hosts, so the cost grows
//! with the number of matches, not with the number of their pairs. Only what
//! is certain is told: an equal match, and an expression that takes every path
//! before a prefix. Whether two different expressions, or several matches
//! together, cover a third is not asked.

use std::collections::{BTreeMap, HashMap};

use super::conditions::Conditions;
use crate::resource::Resource;

/// Of the expressions that take every path of a host, so many are looked at.
const MAX_CATCH_ALLS: usize = 16;

/// A route as it is attached.
#[derive(Debug)]
pub(super) struct Attached<'w> {
    pub(super) route: &'w Resource,
    /// Those it shares with its listener; empty: every host.
    pub(super) hostnames: Vec<String>,
    /// The matches of each rule.
    pub(super) rules: Vec<Vec<Conditions>>,
}

impl<'w> Attached<'w> {
    pub(super) fn new(route: &'w Resource, hostnames: Vec<String>) -> Self {
        Self {
            route,
            hostnames,
            rules: Conditions::of_rules(&route.spec),
        }
    }

    fn hosts(&self) -> Vec<&str> {
        match self.hostnames.as_slice() {
            [] => vec![""],
            some => some.iter().map(String::as_str).collect(),
        }
    }
}

/// One match, by position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) route: usize,
    pub(super) rule: usize,
    pub(super) matched: usize,
}

/// Who takes the requests of a match.
#[derive(Debug, Clone)]
pub(super) struct Loss {
    pub(super) winner: Claim,
    /// The one host for which they are taken; `None`: for all of its hosts.
    pub(super) host: Option<String>,
    /// Whether by an expression for every path rather than by the same match.
    pub(super) by_catch_all: bool,
}

/// Every match that loses requests to another, among routes given oldest first.
pub(super) fn losses(routes: &[Attached<'_>]) -> BTreeMap<Claim, Loss> {
    let seen = Seen::of(routes);
    let mut lost = BTreeMap::new();
    for (claim, conditions) in claims(routes) {
        let hosts = routes[claim.route].hosts();
        let taken = |host: &&str| {
            let winner = seen.winner(claim, conditions, host)?;
            Some((winner, (*host).to_owned()))
        };
        let takings: Vec<((Claim, bool), String)> = hosts.iter().filter_map(taken).collect();
        let everywhere = takings.len() == hosts.len();
        if let Some(((winner, by_catch_all), host)) = takings.into_iter().next() {
            let loss = Loss {
                winner,
                host: (!everywhere).then_some(host),
                by_catch_all,
            };
            lost.insert(claim, loss);
        }
    }
    lost
}

/// Every match of every route.
pub(super) fn claims<'r>(
    routes: &'r [Attached<'_>],
) -> impl Iterator<Item = (Claim, &'r Conditions)> {
    let of_rule = |route, rule, matches: &'r [Conditions]| {
        matches.iter().enumerate().map(move |(matched, it)| {
            let claim = Claim {
                route,
                rule,
                matched,
            };
            (claim, it)
        })
    };
    routes.iter().enumerate().flat_map(move |(route, it)| {
        let rules = it.rules.iter().enumerate();
        rules.flat_map(move |(rule, matches)| of_rule(route, rule, matches))
    })
}

/// What is claimed under each host, and by whom first.
#[derive(Default)]
struct Seen<'r> {
    first: HashMap<(&'r str, &'r Conditions), Claim>,
    every_path: HashMap<&'r str, Vec<(Claim, &'r Conditions)>>,
}

impl<'r> Seen<'r> {
    fn of(routes: &'r [Attached<'_>]) -> Self {
        let mut seen = Self::default();
        for (claim, conditions) in claims(routes) {
            for host in routes[claim.route].hosts() {
                seen.first.entry((host, conditions)).or_insert(claim);
                if conditions.takes_every_path() {
                    let known = seen.every_path.entry(host).or_default();
                    if known.len() < MAX_CATCH_ALLS {
                        known.push((claim, conditions));
                    }
                }
            }
        }
        seen
    }

    /// Who takes what a match asks for, and whether by an expression for every path.
    fn winner(&self, claim: Claim, conditions: &Conditions, host: &str) -> Option<(Claim, bool)> {
        let first = self.first.get(&(host, conditions)).copied();
        if let Some(first) = first.filter(|first| *first != claim) {
            return Some((first, false));
        }
        let hides = |(_, it): &&(Claim, &Conditions)| it.hides(conditions);
        let found = self.every_path.get(host)?.iter().find(hides);
        found.map(|(winner, _)| (*winner, true))
    }
}
