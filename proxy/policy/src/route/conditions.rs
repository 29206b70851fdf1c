//! Of matches with one path the first whose other conditions a request meets.
//!
//! A few are tried one by one. Many are filed, each under the exact condition
//! of its own that the fewest others share (a header field, a query parameter,
//! the method, by a hash of name and value), and what is filed in one place is
//! filed again by what is left. A request is looked up under what it has, and
//! only matches found there are tried: an index that lists too much costs
//! time, never another answer, so a hash needs no equal key beside it. What
//! has no exact condition (a regular expression, or nothing) is tried in turn.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method};

use crate::hash::hash_all;

use super::entry::Entry;
use super::matches::{decoded, parameter, parameters};
use super::{Asked, Match, TextMatch};

/// As many are tried one by one, without an index.
const SCANNED: usize = 4;

/// As many query parameters are looked for one by one; for more of them all
/// that the request has are looked up.
const LOOKED_FOR: usize = 8;

/// The numbers of some entries, which is their rank; the lowest comes first.
#[derive(Debug)]
pub(super) struct Conditions {
    /// Tried in this order.
    scanned: Box<[u32]>,
    filed: Option<Box<Filed>>,
}

/// Entries by one exact condition of each.
#[derive(Debug)]
struct Filed {
    /// The lowest of all here.
    first: u32,
    under: HashMap<u64, Conditions>,
    headers: Box<[HeaderName]>,
    query: Box<[Arc<str>]>,
    method: bool,
}

impl Conditions {
    /// Of entries in their order.
    pub(super) fn new(entries: &[Entry], ranks: &[u32]) -> Self {
        // What stands behind an entry without a condition is never met.
        let unconditional = |rank: &u32| is_unconditional(entries[*rank as usize].matched());
        let end = ranks.iter().position(unconditional);
        let ranks = match end {
            Some(end) => &ranks[..=end],
            None => ranks,
        };
        Self::filing(entries, ranks, &mut Vec::new())
    }

    /// Those in `ranks`, all of which have the conditions in `under`.
    fn filing(entries: &[Entry], ranks: &[u32], under: &mut Vec<u64>) -> Self {
        if ranks.len() <= SCANNED {
            return Self::one_by_one(ranks);
        }
        let mut sharing: HashMap<u64, usize> = HashMap::new();
        for &rank in ranks {
            for condition in exact_conditions(entries[rank as usize].matched()) {
                *sharing.entry(condition.hash()).or_default() += 1;
            }
        }
        let mut scanned = Vec::new();
        let mut files: HashMap<u64, Vec<u32>> = HashMap::new();
        let mut headers: HashSet<&HeaderName> = HashSet::new();
        let mut query: BTreeSet<&Arc<str>> = BTreeSet::new();
        let mut method = false;
        for &rank in ranks {
            let own = exact_conditions(entries[rank as usize].matched())
                .filter(|condition| !under.contains(&condition.hash()))
                .min_by_key(|condition| sharing[&condition.hash()]);
            let Some(own) = own else {
                scanned.push(rank);
                continue;
            };
            match own {
                Condition::Header(name, _) => drop(headers.insert(name)),
                Condition::Query(name, _) => drop(query.insert(name)),
                Condition::Method(_) => method = true,
            }
            files.entry(own.hash()).or_default().push(rank);
        }
        let first = files.values().filter_map(|ranks| ranks.first().copied());
        let filed = first.min().map(|first| {
            let file = |(hash, ranks): (u64, Vec<u32>)| {
                under.push(hash);
                let file = Self::filing(entries, &ranks, under);
                under.pop();
                (hash, file)
            };
            Box::new(Filed {
                first,
                under: files.into_iter().map(file).collect(),
                headers: headers.into_iter().cloned().collect(),
                query: query.into_iter().cloned().collect(),
                method,
            })
        });
        Self {
            scanned: scanned.into(),
            filed,
        }
    }

    fn one_by_one(ranks: &[u32]) -> Self {
        Self {
            scanned: ranks.into(),
            filed: None,
        }
    }

    /// The lowest below `best` that a request meets, else `best`.
    pub(super) fn best(&self, entries: &[Entry], asked: &Asked<'_>, best: u32) -> u32 {
        let mut earlier = self.scanned.iter().take_while(|rank| **rank < best);
        let met = |rank: &&u32| entries[**rank as usize].matched().fails(asked).is_none();
        let best = earlier.find(met).copied().unwrap_or(best);
        match &self.filed {
            Some(filed) if filed.first < best => filed.best(entries, asked, best),
            _ => best,
        }
    }
}

impl Filed {
    fn best(&self, entries: &[Entry], asked: &Asked<'_>, mut best: u32) -> u32 {
        let mut look = |hash: u64| {
            if let Some(file) = self.under.get(&hash) {
                best = file.best(entries, asked, best);
            }
        };
        if self.method {
            look(method_hash(asked.method));
        }
        // By the fewer: what is asked for, or what the request has.
        if self.headers.len() <= asked.headers.keys_len() {
            for name in &self.headers {
                if let Some(hash) = field_hash(name, asked.headers) {
                    look(hash);
                }
            }
        } else {
            for name in asked.headers.keys() {
                if let Some(hash) = field_hash(name, asked.headers) {
                    look(hash);
                }
            }
        }
        let query = asked.query.unwrap_or_default();
        if self.query.len() <= LOOKED_FOR {
            for name in &self.query {
                if let Some(value) = parameter(query, name) {
                    look(parameter_hash(name.bytes(), decoded(value)));
                }
            }
        } else {
            for (name, value) in parameters(query) {
                look(parameter_hash(decoded(name), decoded(value)));
            }
        }
        best
    }
}

/// A condition that one value alone meets.
enum Condition<'t> {
    Header(&'t HeaderName, &'t Arc<str>),
    Query(&'t Arc<str>, &'t Arc<str>),
    Method(&'t Method),
}

fn exact_conditions(matched: &Match) -> impl Iterator<Item = Condition<'_>> {
    let headers = matched.headers.iter().filter_map(|it| match &it.value {
        TextMatch::Exact(value) => Some(Condition::Header(&it.name, value)),
        TextMatch::Regex(_) => None,
    });
    let query = matched.query.iter().filter_map(|it| match &it.value {
        TextMatch::Exact(value) => Some(Condition::Query(&it.name, value)),
        TextMatch::Regex(_) => None,
    });
    let method = matched.method.iter().map(Condition::Method);
    headers.chain(query).chain(method)
}

fn is_unconditional(matched: &Match) -> bool {
    matched.method.is_none() && matched.headers.is_empty() && matched.query.is_empty()
}

impl Condition<'_> {
    fn hash(&self) -> u64 {
        match self {
            Self::Header(name, value) => header_hash(name, value.bytes()),
            Self::Query(name, value) => parameter_hash(name.bytes(), value.bytes()),
            Self::Method(method) => method_hash(method),
        }
    }
}

/// Of a header field that a request has: of all of its name, joined by commas.
fn field_hash(name: &HeaderName, headers: &HeaderMap) -> Option<u64> {
    let mut fields = headers.get_all(name).iter();
    let first = fields.next()?.as_bytes().iter().copied();
    let more = fields.flat_map(|field| [b','].into_iter().chain(field.as_bytes().iter().copied()));
    Some(header_hash(name, first.chain(more)))
}

fn header_hash(name: &HeaderName, value: impl Iterator<Item = u8>) -> u64 {
    condition_hash(b'h', name.as_str().bytes(), value)
}

fn parameter_hash(name: impl Iterator<Item = u8>, value: impl Iterator<Item = u8>) -> u64 {
    condition_hash(b'q', name, value)
}

fn method_hash(method: &Method) -> u64 {
    condition_hash(b'm', method.as_str().bytes(), std::iter::empty())
}

fn condition_hash(
    kind: u8,
    name: impl Iterator<Item = u8>,
    value: impl Iterator<Item = u8>,
) -> u64 {
    hash_all([kind].into_iter().chain(name).chain([0]).chain(value))
}
