//! Which of many regular expressions match a text.
//!
//! Each is filed under the literal that all its matches begin with (`/v1/` of
//! `/v1/[0-9]+`), and tried only on texts that begin so: a binary search, and
//! links. A few under one literal are tried one by one. Many are one automaton
//! (Thompson's, made deterministic lazily, as far as texts lead it): one pass
//! over the text, whatever their number. What that costs: a step that no text
//! took before is computed once, by the number of patterns that are still
//! possible there, and remembered within [`STATES_BYTES`]; texts that all
//! differ before the patterns do, forget as much as they learn, and then each
//! is linear in the number of patterns. An automaton made whole would never
//! compute a step, but may be exponentially large.

use std::collections::BTreeMap;
use std::panic::{RefUnwindSafe, UnwindSafe};

use regex::Regex;
use regex_automata::hybrid::dfa::{Cache, DFA};
use regex_automata::nfa::thompson::{self, WhichCaptures};
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input, MatchKind};
use regex_syntax::hir::{Hir, HirKind};

use super::prefixes::{Prefixes, shared};

/// As many patterns are tried one by one, without an automaton of their own.
const SCANNED: usize = 4;

/// What the patterns of one automaton may compile to, in bytes; where they are
/// larger, they become several.
const AUTOMATON_BYTES: usize = 16 << 20;

/// What each thread remembers of one automaton's steps, in bytes, at most.
const STATES_BYTES: usize = 4 << 20;

/// The same for each of its patterns, so that many small automata stay small.
const STATES_BYTES_EACH: usize = 64 << 10;

/// Makes what a thread remembers of an automaton's steps.
type MakeCache = Box<dyn Fn() -> Cache + Send + Sync + UnwindSafe + RefUnwindSafe>;

/// Patterns, each with the number it was given. All match texts as a whole.
#[derive(Debug)]
pub(super) struct Patterns {
    lowest: Option<u32>,
    literals: Prefixes,
    /// By the number of their literal.
    files: Box<[Vec<Bundle>]>,
}

/// Patterns that are tried together, by their numbers.
#[derive(Debug)]
enum Bundle {
    Few(Box<[u32]>),
    Many(Box<Automaton>),
}

#[derive(Debug)]
struct Automaton {
    steps: DFA,
    caches: Pool<Cache, MakeCache>,
    numbers: Box<[u32]>,
}

/// A pattern that may match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) number: u32,
    /// It does match; else that is still to be tried.
    pub(super) surely: bool,
}

impl Patterns {
    /// Of regular expressions in the order of their numbers.
    pub(super) fn new(patterns: &[(&Regex, u32)]) -> Self {
        let mut files: BTreeMap<Box<[u8]>, Vec<(&Regex, u32)>> = BTreeMap::new();
        for pattern in patterns {
            let literal = literal(pattern.0.as_str());
            files.entry(literal).or_default().push(*pattern);
        }
        let bundles = |(literal, patterns): (Box<[u8]>, Vec<(&Regex, u32)>)| {
            let mut bundles = Vec::new();
            add_bundles(&patterns, AUTOMATON_BYTES, &mut bundles);
            (literal, bundles)
        };
        let (literals, files): (Vec<_>, Vec<_>) = files.into_iter().map(bundles).unzip();
        Self {
            lowest: patterns.first().map(|(_, number)| *number),
            literals: Prefixes::new(literals),
            files: files.into(),
        }
    }

    /// The lowest number of all.
    pub(super) const fn lowest(&self) -> Option<u32> {
        self.lowest
    }

    /// Those that may match `text`, within a bundle in their order, until
    /// `seen` has seen enough of it, and does not say to go on.
    pub(super) fn matching(&self, text: &str, mut seen: impl FnMut(Candidate) -> bool) {
        for file in self.literals.of(text.as_bytes()) {
            for bundle in &self.files[file] {
                match bundle {
                    Bundle::Few(numbers) => try_each(numbers, &mut seen),
                    Bundle::Many(automaton) => {
                        if automaton.matching(text, &mut seen).is_none() {
                            try_each(&automaton.numbers, &mut seen);
                        }
                    }
                }
            }
        }
    }
}

/// As few automata as `limit` allows, in bytes of each.
fn add_bundles(patterns: &[(&Regex, u32)], limit: usize, bundles: &mut Vec<Bundle>) {
    let numbers = || patterns.iter().map(|(_, number)| *number).collect();
    if patterns.len() <= SCANNED {
        bundles.push(Bundle::Few(numbers()));
    } else if let Some(automaton) = Automaton::try_new(patterns, limit) {
        bundles.push(Bundle::Many(Box::new(automaton)));
    } else {
        let (first, second) = patterns.split_at(patterns.len() / 2);
        add_bundles(first, limit, bundles);
        add_bundles(second, limit, bundles);
    }
}

fn try_each(numbers: &[u32], seen: &mut impl FnMut(Candidate) -> bool) {
    let surely = false;
    let mut numbers = numbers.iter();
    let _enough = numbers.all(|&number| seen(Candidate { number, surely }));
}

impl Automaton {
    fn try_new(patterns: &[(&Regex, u32)], limit: usize) -> Option<Self> {
        let texts: Vec<&str> = patterns.iter().map(|(regex, _)| regex.as_str()).collect();
        let steps = DFA::builder()
            .configure(
                DFA::config()
                    .match_kind(MatchKind::All)
                    .unicode_word_boundary(true)
                    .cache_capacity(STATES_BYTES.min(patterns.len() * STATES_BYTES_EACH))
                    .skip_cache_capacity_check(true),
            )
            .thompson(
                thompson::Config::new()
                    .nfa_size_limit(Some(limit))
                    .which_captures(WhichCaptures::None),
            )
            .build_many(&texts)
            .ok()?;
        let own = steps.clone();
        let make: MakeCache = Box::new(move || own.create_cache());
        Some(Self {
            steps,
            caches: Pool::new(make),
            numbers: patterns.iter().map(|(_, number)| *number).collect(),
        })
    }

    /// `None`: the automaton cannot tell, of a text that is not ASCII.
    fn matching(&self, text: &str, seen: &mut impl FnMut(Candidate) -> bool) -> Option<()> {
        let mut cache = self.caches.get();
        let steps = &self.steps;
        let input = Input::new(text).anchored(Anchored::Yes);
        let mut state = steps.start_state_forward(&mut cache, &input).ok()?;
        for byte in text.bytes() {
            state = steps.next_state(&mut cache, state, byte).ok()?;
            if state.is_dead() {
                return Some(());
            }
            if state.is_quit() {
                return None;
            }
        }
        let end = steps.next_eoi_state(&mut cache, state).ok()?;
        if end.is_match() {
            for at in 0..steps.match_len(&cache, end) {
                let pattern = steps.match_pattern(&cache, end, at);
                let number = self.numbers[pattern.as_usize()];
                if !seen(Candidate {
                    number,
                    surely: true,
                }) {
                    break;
                }
            }
        }
        Some(())
    }
}

/// What all that a pattern matches begins with; empty where that is not told.
fn literal(pattern: &str) -> Box<[u8]> {
    let mut literal = Vec::new();
    if let Ok(parsed) = regex_syntax::parse(pattern) {
        add_literal(&parsed, &mut literal);
    }
    literal.into()
}

/// Adds what `part` begins with; whether that is all it matches.
fn add_literal(part: &Hir, literal: &mut Vec<u8>) -> bool {
    match part.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(text) => {
            literal.extend_from_slice(&text.0);
            true
        }
        HirKind::Capture(group) => add_literal(&group.sub, literal),
        HirKind::Concat(parts) => parts.iter().all(|part| add_literal(part, literal)),
        HirKind::Repetition(repeated) if repeated.min > 0 => {
            add_literal(&repeated.sub, literal);
            false
        }
        HirKind::Alternation(ways) => {
            literal.extend(shared_literal(ways));
            false
        }
        HirKind::Class(_) | HirKind::Repetition(_) => false,
    }
}

/// What all of several ways begin with.
fn shared_literal(ways: &[Hir]) -> Vec<u8> {
    let literals = ways.iter().map(|way| {
        let mut literal = Vec::new();
        add_literal(way, &mut literal);
        literal
    });
    let shared = |mut one: Vec<u8>, other: Vec<u8>| {
        one.truncate(shared(&one, &other));
        one
    };
    literals.reduce(shared).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::whole;
    use super::*;

    #[test]
    fn a_pattern_tells_what_its_matches_begin_with() {
        let table = [
            ("/v1/[0-9]+", "/v1/"),
            ("/v1", "/v1"),
            ("/(v1)/x?", "/v1/"),
            ("(/a)+/b", "/a"),
            ("/ab|/ac", "/a"),
            ("/v(1|2|3)/.*", "/v"),
            ("/(in|out|)", "/"),
            ("(?i)/a", "/"),
            (".*", ""),
            ("^/a$", "/a"),
        ];
        for (pattern, expected) in table {
            let regex = whole(pattern).expect("a pattern");
            let literal = literal(regex.as_str());
            assert_eq!(String::from_utf8_lossy(&literal), expected, "{pattern}");
        }
    }

    #[test]
    fn one_automaton_tells_all_that_match_in_their_order() {
        let texts = ["/[ab]", "/a.*", "/(a|b)c", "/b", "/.*", "/\\bab\\b", "/é?a"];
        let compiled = texts.map(|text| whole(text).expect("a pattern"));
        let patterns: Vec<(&Regex, u32)> = compiled.iter().zip(0..).collect();
        let automaton = Automaton::try_new(&patterns, AUTOMATON_BYTES).expect("small");
        for text in [
            "/a", "/b", "/ab", "/ac", "/bc", "/", "", "*", "/ab/c", "/éa",
        ] {
            let mut found = Vec::new();
            let told = automaton.matching(text, &mut |it| {
                found.push(it.number);
                true
            });
            let matching = patterns.iter().filter(|(regex, _)| regex.is_match(text));
            let expected: Vec<u32> = matching.map(|(_, number)| *number).collect();
            match told {
                Some(()) => assert_eq!(found, expected, "{text}"),
                None => assert!(!text.is_ascii(), "{text}"),
            }
            let mut candidates = Vec::new();
            Patterns::new(&patterns).matching(text, |it| {
                candidates.push(it.number);
                true
            });
            let missing = expected.iter().find(|it| !candidates.contains(it));
            assert_eq!(missing, None, "{text}");
        }
    }

    #[test]
    fn what_is_too_large_for_one_automaton_becomes_several() {
        let compiled: Vec<Regex> = (0..40)
            .map(|number| whole(&format!("/[a-z]+/{number}")).expect("a pattern"))
            .collect();
        let patterns: Vec<(&Regex, u32)> = compiled.iter().zip(0..).collect();
        let mut bundles = Vec::new();
        add_bundles(&patterns, 10_000, &mut bundles);
        assert!((2..20).contains(&bundles.len()), "{}", bundles.len());
        let mut found = Vec::new();
        for bundle in &bundles {
            let Bundle::Many(automaton) = bundle else {
                panic!("{bundle:?}");
            };
            let told = automaton.matching("/abc/37", &mut |it| {
                found.push(it.number);
                true
            });
            assert_eq!(told, Some(()));
        }
        assert_eq!(found, [37]);
    }
}
