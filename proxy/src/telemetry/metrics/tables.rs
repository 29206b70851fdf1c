//! All series by their labels, within one budget of lines.
//!
//! Keys hold every label whole, so that `("ab", "c")` and `("a", "bc")` are two series. What comes
//! when no line is free is counted in a series labelled `overflow`. A series nobody holds any more
//! stays for two further scrapes, so that its last counts are seen, and makes room after that if
//! room is needed; it starts from zero should it come again.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use super::cells::{Counter, Lines};
use super::labels::{DIRECTIONS, Decision, Direction, Event};
use super::series::{DestinationSeries, HttpSeries, TcpSeries};

/// Longest label value in bytes; a longer one goes to the overflow.
const LABEL_BYTES: usize = 512;
/// Scrapes a series stays for after it was last held.
const SCRAPES_AFTER_USE: u64 = 2;
/// The label of what found no line.
pub(super) const OVERFLOW: &str = "overflow";

/// One open label set of `N` values, and one closed word `W`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key<W, const N: usize> {
    pub(super) word: W,
    pub(super) labels: [Arc<str>; N],
}

impl<W, const N: usize> Key<W, N> {
    /// `None` if a label is too long. An empty label would mean none to Prometheus: it is `-`.
    fn of(word: W, labels: [&str; N]) -> Option<Self> {
        labels
            .iter()
            .all(|label| label.len() <= LABEL_BYTES)
            .then(|| Self {
                word,
                labels: labels.map(|label| Arc::from(if label.is_empty() { "-" } else { label })),
            })
    }

    fn overflow(word: W) -> Self {
        Self {
            word,
            labels: std::array::from_fn(|_| Arc::from(OVERFLOW)),
        }
    }
}

/// How many lines of exposition a series has claimed.
trait Lined {
    fn lines(&self) -> usize;
}

impl Lined for HttpSeries {
    fn lines(&self) -> usize {
        Self::FIXED_LINES + self.outcomes.claimed()
    }
}

impl Lined for TcpSeries {
    fn lines(&self) -> usize {
        Self::FIXED_LINES + self.closed.claimed()
    }
}

impl Lined for DestinationSeries {
    fn lines(&self) -> usize {
        Self::FIXED_LINES
    }
}

impl Lined for Counter {
    fn lines(&self) -> usize {
        1
    }
}

struct Entry<S> {
    series: Arc<S>,
    /// Number of the scrape at which it was last seen in use.
    used: u64,
}

struct Table<K, S>(HashMap<K, Entry<S>>);

impl<K: Eq + Hash + Clone, S: Lined> Table<K, S> {
    fn find(&mut self, key: &K, scrape: u64) -> Option<Arc<S>> {
        let entry = self.0.get_mut(key)?;
        entry.used = scrape;
        Some(Arc::clone(&entry.series))
    }

    fn insert(&mut self, key: K, series: S, scrape: u64) -> Arc<S> {
        let series = Arc::new(series);
        self.0.insert(
            key,
            Entry {
                series: Arc::clone(&series),
                used: scrape,
            },
        );
        series
    }

    /// Marks what is in use and lists all.
    fn list(&mut self, scrape: u64) -> Vec<(K, Arc<S>)> {
        let mark = |(key, entry): (&K, &mut Entry<S>)| {
            // Handles are only given out under the lock that is held here.
            if Arc::strong_count(&entry.series) > 1 {
                entry.used = scrape;
            }
            (key.clone(), Arc::clone(&entry.series))
        };
        self.0.iter_mut().map(mark).collect()
    }

    fn sweep(&mut self, scrape: u64, lines: &Lines) {
        self.0.retain(|_, entry| {
            let unused = Arc::strong_count(&entry.series) == 1
                && scrape.saturating_sub(entry.used) > SCRAPES_AFTER_USE;
            if unused {
                lines.release(entry.series.lines());
            }
            !unused
        });
    }
}

type HttpKey = Key<Direction, 3>;
type TcpKey = Key<Direction, 2>;
type DestinationKey = Key<(), 1>;
type AuthorizationKey = Key<Decision, 2>;
type EventKey = Key<Event, 2>;

/// Every series there is.
pub(super) struct Tables {
    slots: usize,
    lines: Arc<Lines>,
    scrape: u64,
    swept_at: u64,
    http: Table<HttpKey, HttpSeries>,
    tcp: Table<TcpKey, TcpSeries>,
    destinations: Table<DestinationKey, DestinationSeries>,
    authorization: Table<AuthorizationKey, Counter>,
    events: Table<EventKey, Counter>,
    overflow: Kept,
}

/// Series that are shown: their labels and their cells.
#[derive(Default, Clone)]
pub(super) struct Kept {
    pub(super) http: Vec<(HttpKey, Arc<HttpSeries>)>,
    pub(super) tcp: Vec<(TcpKey, Arc<TcpSeries>)>,
    pub(super) destinations: Vec<(DestinationKey, Arc<DestinationSeries>)>,
    pub(super) authorization: Vec<(AuthorizationKey, Arc<Counter>)>,
    pub(super) events: Vec<(EventKey, Arc<Counter>)>,
    /// Lines nobody has claimed.
    pub(super) free_lines: usize,
}

impl Kept {
    /// The destinations that have series, whose endpoints have lines therefore.
    pub(super) fn known_destinations(&self) -> HashSet<&str> {
        self.destinations
            .iter()
            .map(|(key, _)| &*key.labels[0])
            .collect()
    }
}

impl Tables {
    pub(super) fn new(slots: usize, limit: usize) -> Self {
        let lines = Arc::new(Lines::new(limit));
        let http = || Arc::new(HttpSeries::new(slots, Arc::clone(&lines)));
        let tcp = || Arc::new(TcpSeries::new(slots, Arc::clone(&lines)));
        let destination = Arc::new(DestinationSeries::new(slots));
        let overflow = Kept {
            http: DIRECTIONS
                .map(|direction| (Key::overflow(direction), http()))
                .into(),
            tcp: DIRECTIONS
                .map(|direction| (Key::overflow(direction), tcp()))
                .into(),
            destinations: vec![(Key::overflow(()), destination)],
            authorization: Decision::ALL
                .map(|decision| (Key::overflow(decision), Arc::new(Counter::new(slots))))
                .into(),
            events: Event::ALL
                .map(|event| (Key::overflow(event), Arc::new(Counter::new(slots))))
                .into(),
            free_lines: 0,
        };
        Self {
            slots,
            lines,
            scrape: 0,
            swept_at: 0,
            http: Table(HashMap::new()),
            tcp: Table(HashMap::new()),
            destinations: Table(HashMap::new()),
            authorization: Table(HashMap::new()),
            events: Table(HashMap::new()),
            overflow,
        }
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.lines.set_limit(limit);
    }

    pub(super) fn http(&mut self, direction: Direction, labels: [&str; 3]) -> Arc<HttpSeries> {
        let key = Key::of(direction, labels);
        if let Some(found) = key
            .as_ref()
            .and_then(|key| self.http.find(key, self.scrape))
        {
            return found;
        }
        match key.filter(|_| self.room(HttpSeries::FIXED_LINES)) {
            Some(key) => {
                let series = HttpSeries::new(self.slots, Arc::clone(&self.lines));
                self.http.insert(key, series, self.scrape)
            }
            None => Arc::clone(&self.overflow.http[direction as usize].1),
        }
    }

    pub(super) fn tcp(&mut self, direction: Direction, labels: [&str; 2]) -> Arc<TcpSeries> {
        let key = Key::of(direction, labels);
        if let Some(found) = key.as_ref().and_then(|key| self.tcp.find(key, self.scrape)) {
            return found;
        }
        match key.filter(|_| self.room(TcpSeries::FIXED_LINES)) {
            Some(key) => {
                let series = TcpSeries::new(self.slots, Arc::clone(&self.lines));
                self.tcp.insert(key, series, self.scrape)
            }
            None => Arc::clone(&self.overflow.tcp[direction as usize].1),
        }
    }

    pub(super) fn destination(&mut self, destination: &str) -> Arc<DestinationSeries> {
        let key = Key::of((), [destination]);
        if let Some(found) = key
            .as_ref()
            .and_then(|key| self.destinations.find(key, self.scrape))
        {
            return found;
        }
        match key.filter(|_| self.room(DestinationSeries::FIXED_LINES)) {
            Some(key) => {
                let series = DestinationSeries::new(self.slots);
                self.destinations.insert(key, series, self.scrape)
            }
            None => Arc::clone(&self.overflow.destinations[0].1),
        }
    }

    pub(super) fn authorization(&mut self, decision: Decision, labels: [&str; 2]) -> Arc<Counter> {
        let key = Key::of(decision, labels);
        if let Some(found) = key
            .as_ref()
            .and_then(|key| self.authorization.find(key, self.scrape))
        {
            return found;
        }
        match key.filter(|_| self.room(1)) {
            Some(key) => self
                .authorization
                .insert(key, Counter::new(self.slots), self.scrape),
            None => Arc::clone(&self.overflow.authorization[decision as usize].1),
        }
    }

    pub(super) fn event(&mut self, event: Event, labels: [&str; 2]) -> Arc<Counter> {
        let key = Key::of(event, labels);
        if let Some(found) = key
            .as_ref()
            .and_then(|key| self.events.find(key, self.scrape))
        {
            return found;
        }
        match key.filter(|_| self.room(1)) {
            Some(key) => self
                .events
                .insert(key, Counter::new(self.slots), self.scrape),
            None => Arc::clone(&self.overflow.events[event as usize].1),
        }
    }

    /// All series at this moment, the overflow included; counts a scrape.
    pub(super) fn at_scrape(&mut self) -> Kept {
        self.scrape += 1;
        let mut kept = Kept {
            http: self.http.list(self.scrape),
            tcp: self.tcp.list(self.scrape),
            destinations: self.destinations.list(self.scrape),
            authorization: self.authorization.list(self.scrape),
            events: self.events.list(self.scrape),
            free_lines: self.lines.free(),
        };
        let overflow = self.overflow.clone();
        kept.http.extend(
            overflow
                .http
                .into_iter()
                .filter(|(_, series)| series.is_used()),
        );
        kept.tcp.extend(
            overflow
                .tcp
                .into_iter()
                .filter(|(_, series)| series.opened.value() > 0),
        );
        kept.destinations.extend(
            overflow
                .destinations
                .into_iter()
                .filter(|(_, s)| s.is_used()),
        );
        kept.authorization.extend(
            overflow
                .authorization
                .into_iter()
                .filter(|(_, s)| s.value() > 0),
        );
        let used = overflow.events.into_iter().filter(|(_, s)| s.value() > 0);
        kept.events.extend(used);
        kept
    }

    /// Claims `n` lines, after making room if there is none.
    fn room(&mut self, n: usize) -> bool {
        if self.lines.claim(n) {
            return true;
        }
        // Between two scrapes nothing more can fall out of use.
        if self.swept_at == self.scrape {
            return false;
        }
        self.swept_at = self.scrape;
        self.http.sweep(self.scrape, &self.lines);
        self.tcp.sweep(self.scrape, &self.lines);
        self.destinations.sweep(self.scrape, &self.lines);
        self.authorization.sweep(self.scrape, &self.lines);
        self.events.sweep(self.scrape, &self.lines);
        self.lines.claim(n)
    }
}
