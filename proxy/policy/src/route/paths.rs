//! Which matches under one hostname a request meets by its path, and of those
//! the first: exact paths and gRPC calls by a hash, regular expressions by
//! what they begin with, prefixes by a search among them in their order.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use regex::Regex;

use super::conditions::Conditions;
use super::entry::Entry;
use super::explain::Verdict;
use super::matches::{grpc_call, pattern};
use super::patterns::{Candidate, Patterns};
use super::prefixes::Prefixes;
use super::{Asked, GrpcMatch, PathMatch, TextMatch};

/// As many matches under one hostname are tried one by one, without an index.
const SCANNED: usize = 4;

/// Matches by path. An entry's number is its rank; the lowest comes first.
#[derive(Debug)]
pub(super) enum Paths {
    Few(Range<u32>),
    Many(Box<Index>),
}

/// Where groups of one path are filed, by their numbers. A group has the lower
/// number the lower its first entry.
#[derive(Debug)]
pub(super) struct Index {
    groups: Box<[Group]>,
    exact: HashMap<Box<str>, u32>,
    calls: Calls,
    patterns: Patterns,
    prefixes: Prefixes,
    /// By the number of its prefix.
    below: Box<[u32]>,
}

/// gRPC calls: by service and method, by one of them, or all.
#[derive(Debug)]
struct Calls {
    named: HashMap<Box<str>, u32>,
    services: Texts,
    methods: Texts,
    all: Option<u32>,
}

/// Groups by one text of theirs.
#[derive(Debug)]
struct Texts {
    exact: HashMap<Box<str>, Vec<u32>>,
    patterns: Patterns,
}

/// Entries with one path.
#[derive(Debug)]
struct Group {
    /// The first of them.
    first: u32,
    conditions: Conditions,
    /// It is filed by less than all of its path, which is tried after that.
    partial: bool,
}

/// What tells the path of one entry from that of another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Key<'t> {
    Exact(&'t str),
    Prefix(&'t str),
    Regex(&'t str),
    Grpc(Option<Text<'t>>, Option<Text<'t>>),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Text<'t> {
    Exact(&'t str),
    Regex(&'t str),
}

impl<'t> From<&'t PathMatch> for Key<'t> {
    fn from(path: &'t PathMatch) -> Self {
        let text = |text: &'t TextMatch| match text {
            TextMatch::Exact(text) => Text::Exact(text),
            TextMatch::Regex(regex) => Text::Regex(pattern(regex)),
        };
        match path {
            PathMatch::Any => Key::Prefix("/"),
            PathMatch::Prefix(prefix) => Key::Prefix(prefix),
            PathMatch::Exact(path) => Key::Exact(path),
            PathMatch::Regex(regex) => Key::Regex(pattern(regex)),
            PathMatch::Grpc(GrpcMatch { service, method }) => {
                Key::Grpc(service.as_ref().map(text), method.as_ref().map(text))
            }
        }
    }
}

impl Paths {
    /// Of entries under one hostname, which stand together.
    pub(super) fn new(entries: &[Entry], ranks: Range<u32>) -> Self {
        if ranks.len() <= SCANNED {
            Self::Few(ranks)
        } else {
            Self::Many(Box::new(Index::new(entries, ranks)))
        }
    }

    /// The first that a request meets, apart from its host.
    pub(super) fn find(&self, entries: &[Entry], asked: &Asked<'_>) -> Option<u32> {
        match self {
            Self::Few(ranks) => ranks
                .clone()
                .find(|rank| entries[*rank as usize].apart_from_host(asked) == Verdict::Taken),
            Self::Many(index) => index.find(entries, asked),
        }
    }
}

impl Index {
    fn new(entries: &[Entry], ranks: Range<u32>) -> Self {
        let path = |rank: u32| &entries[rank as usize].matched().path;
        let mut by_path: BTreeMap<Key<'_>, Vec<u32>> = BTreeMap::new();
        for rank in ranks {
            by_path.entry(Key::from(path(rank))).or_default().push(rank);
        }
        let mut groups: Vec<(u32, Vec<u32>)> = by_path
            .into_values()
            .map(|ranks| (ranks[0], ranks))
            .collect();
        groups.sort_unstable();
        let mut filing = Filing::default();
        let group = |(number, (first, ranks)): (u32, (u32, Vec<u32>))| Group {
            first,
            conditions: Conditions::new(entries, &ranks),
            partial: filing.file(number, path(first)),
        };
        let groups = (0..).zip(groups).map(group).collect();
        filing.index(groups)
    }

    fn find(&self, entries: &[Entry], asked: &Asked<'_>) -> Option<u32> {
        let mut search = Search {
            groups: &self.groups,
            entries,
            asked,
            best: u32::MAX,
        };
        if let Some(number) = self.exact.get(asked.path) {
            search.meet(*number);
        }
        self.calls.find(&mut search);
        self.patterns.find(asked.path, &mut search);
        for number in self.prefixes.of(asked.path.as_bytes()) {
            let prefix = self.prefixes.length(number);
            if prefix == 0 || matches!(asked.path.as_bytes().get(prefix), None | Some(b'/')) {
                search.meet(self.below[number]);
            }
        }
        (search.best < u32::MAX).then_some(search.best)
    }
}

impl Calls {
    fn find(&self, search: &mut Search<'_>) {
        let path = search.asked.path;
        if let Some(number) = self.named.get(path) {
            search.meet(*number);
        }
        if let Some((service, method)) = grpc_call(path) {
            self.services.find(service, search);
            self.methods.find(method, search);
            if let Some(number) = self.all {
                search.meet(number);
            }
        }
    }
}

impl Texts {
    fn find(&self, text: &str, search: &mut Search<'_>) {
        let numbers = self.exact.get(text).into_iter().flatten();
        for number in numbers {
            search.meet(*number);
        }
        self.patterns.find(text, search);
    }
}

impl Patterns {
    fn find(&self, text: &str, search: &mut Search<'_>) {
        let earliest = self.lowest().is_some_and(|number| search.may_meet(number));
        if earliest {
            // Those behind one that cannot come first come later still.
            self.matching(text, |Candidate { number, surely }| {
                search.try_group(number, surely);
                search.may_meet(number)
            });
        }
    }
}

/// What is known while one request is looked up.
struct Search<'a> {
    groups: &'a [Group],
    entries: &'a [Entry],
    asked: &'a Asked<'a>,
    /// The lowest entry yet that the request meets.
    best: u32,
}

impl Search<'_> {
    /// Whether a group can have what comes before all that is known.
    fn may_meet(&self, number: u32) -> bool {
        self.groups[number as usize].first < self.best
    }

    /// Tries a group that the path leads to.
    fn meet(&mut self, number: u32) {
        self.try_group(number, true);
    }

    /// Tries a group; `surely` its own text is what the request has.
    fn try_group(&mut self, number: u32, surely: bool) {
        let group = &self.groups[number as usize];
        let path = &self.entries[group.first as usize].matched().path;
        let is_known = surely && !group.partial;
        if self.may_meet(number) && (is_known || path.takes(self.asked.path)) {
            self.best = group.conditions.best(self.entries, self.asked, self.best);
        }
    }
}

/// An index in the making.
#[derive(Default)]
struct Filing<'t> {
    exact: HashMap<Box<str>, u32>,
    named: HashMap<Box<str>, u32>,
    services: FilingTexts<'t>,
    methods: FilingTexts<'t>,
    all: Option<u32>,
    patterns: Vec<(&'t Regex, u32)>,
    prefixes: BTreeMap<Box<[u8]>, u32>,
}

#[derive(Default)]
struct FilingTexts<'t> {
    exact: HashMap<Box<str>, Vec<u32>>,
    patterns: Vec<(&'t Regex, u32)>,
}

impl<'t> Filing<'t> {
    /// Files a group; whether by less than all of its path.
    fn file(&mut self, number: u32, path: &'t PathMatch) -> bool {
        match path {
            PathMatch::Exact(path) => drop(self.exact.insert((**path).into(), number)),
            PathMatch::Regex(regex) => self.patterns.push((regex, number)),
            PathMatch::Any => drop(self.prefixes.insert(Box::default(), number)),
            PathMatch::Prefix(prefix) => {
                let prefix = if &**prefix == "/" { "" } else { prefix };
                self.prefixes.insert(prefix.as_bytes().into(), number);
            }
            PathMatch::Grpc(call) => return self.file_call(number, call),
        }
        false
    }

    fn file_call(&mut self, number: u32, call: &'t GrpcMatch) -> bool {
        match (&call.service, &call.method) {
            (None, None) => {
                self.all = Some(number);
                false
            }
            (Some(TextMatch::Exact(service)), Some(TextMatch::Exact(method))) => {
                self.named
                    .insert(format!("/{service}/{method}").into(), number);
                // Then it is the name of no method.
                method.contains('/')
            }
            (Some(service @ TextMatch::Exact(_)), method) => {
                self.services.file(number, service);
                method.is_some()
            }
            (service, Some(method @ TextMatch::Exact(_))) => {
                self.methods.file(number, method);
                service.is_some()
            }
            (Some(service), method) => {
                self.services.file(number, service);
                method.is_some()
            }
            (None, Some(method)) => {
                self.methods.file(number, method);
                false
            }
        }
    }

    fn index(self, groups: Box<[Group]>) -> Index {
        let (prefixes, below): (Vec<_>, Vec<_>) = self.prefixes.into_iter().unzip();
        Index {
            groups,
            exact: self.exact,
            calls: Calls {
                named: self.named,
                services: self.services.index(),
                methods: self.methods.index(),
                all: self.all,
            },
            patterns: Patterns::new(&self.patterns),
            prefixes: Prefixes::new(prefixes),
            below: below.into(),
        }
    }
}

impl<'t> FilingTexts<'t> {
    fn file(&mut self, number: u32, text: &'t TextMatch) {
        match text {
            TextMatch::Exact(text) => {
                let numbers = self.exact.entry((**text).into());
                numbers.or_default().push(number);
            }
            TextMatch::Regex(regex) => self.patterns.push((regex, number)),
        }
    }

    fn index(self) -> Texts {
        Texts {
            exact: self.exact,
            patterns: Patterns::new(&self.patterns),
        }
    }
}
