//! A client stays with its endpoint (GEP-1619): what its token says, and how
//! the token travels.
//!
//! Met by requests of rules with session persistence: before a backend is
//! chosen by weight, since a session goes to its backend even at weight 0, and
//! again when the response leaves. No proxy keeps sessions: everything is in
//! the token, so that any proxy knows it, also after a restart. A table of
//! sessions would be lost with its proxy, and be as large as callers please.
//!
//! A token names its rule, backend and endpoint by hashes and holds two moments,
//! when the session began and when it was last used: `idleTimeout` tells a new
//! one with every response, `absoluteTimeout` keeps the first. It is opaque, not
//! secret: who forges one chooses an endpoint that he may ask anyway. What is
//! malformed, out of time, of another rule or of nobody is as if it were not
//! there. It knows no breakers: whether the endpoint may be asked is told
//! elsewhere ([`crate::balance::pick_pinned`]).

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::matches::pattern;
use super::{PathMatch, Rule, SessionCarrier, SessionPersistence, TextMatch};
use crate::hash::hash;
use crate::snapshot::{Backend, Endpoint};

/// Tokens that are read of one request; a browser may send several of one name.
pub const TOKENS: usize = 8;
/// How far in the future a token's moments may lie: clocks differ.
pub const SKEW: Duration = Duration::from_secs(60);
/// Of tokens; another layout has another one.
const VERSION: char = '1';
/// Version, two hashes, two moments, in hexadecimal digits.
const LENGTH: usize = 1 + 2 * 16 + 2 * 12;
/// Milliseconds that fit into a moment of a token: some 8,900 years.
const LAST: u64 = (1 << 48) - 1;

/// What a token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// See [`backend_tag`].
    pub backend: u64,
    /// See [`endpoint_tag`].
    pub endpoint: u64,
    /// When it began, in milliseconds since 1970.
    begun: u64,
    /// When it was used last, alike.
    used: u64,
}

/// What a cookie is told for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// See [`cookie_path`].
    pub path: &'a str,
    /// Whether the client speaks HTTPS.
    pub secure: bool,
}

impl Session {
    /// One that begins `now`.
    #[must_use]
    pub fn begin(backend: u64, endpoint: u64, now: SystemTime) -> Self {
        let now = millis(now);
        Self {
            backend,
            endpoint,
            begun: now,
            used: now,
        }
    }

    fn token(&self) -> String {
        let Self {
            backend,
            endpoint,
            begun,
            used,
        } = self;
        format!("{VERSION}{backend:016x}{endpoint:016x}{begun:012x}{used:012x}")
    }

    fn parse(token: &[u8]) -> Option<Self> {
        let digits = token.strip_prefix(&[VERSION as u8])?;
        if token.len() != LENGTH || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        let number = |from, to| u64::from_str_radix(&digits[from..to], 16).ok();
        Some(Self {
            backend: number(0, 16)?,
            endpoint: number(16, 32)?,
            begun: number(32, 44)?,
            used: number(44, 56)?,
        })
    }
}

impl SessionPersistence {
    /// The sessions that a request carries and that are in time, in its order:
    /// the first whose backend and endpoint are known is meant.
    pub fn carried<'h>(
        &'h self,
        headers: &'h HeaderMap,
        now: SystemTime,
    ) -> impl Iterator<Item = Session> + 'h {
        let (field, cookie) = match self.carrier {
            SessionCarrier::Cookie { .. } => (COOKIE.as_str(), true),
            SessionCarrier::Header => (&*self.name, false),
        };
        let values = headers.get_all(field).into_iter();
        let pieces = values.flat_map(move |value| {
            let pieces = value.as_bytes().split(move |byte| cookie && *byte == b';');
            pieces.map(<[u8]>::trim_ascii)
        });
        let tokens = pieces.filter_map(move |piece| match cookie {
            true => piece.strip_prefix(self.name.as_bytes())?.strip_prefix(b"="),
            false => Some(piece),
        });
        let sessions = tokens.take(TOKENS).filter_map(Session::parse);
        let now = millis(now);
        sessions.filter(move |session| self.is_in_time(session, now))
    }

    fn is_in_time(&self, session: &Session, now: u64) -> bool {
        let within = |since: u64, timeout: Option<Duration>| {
            let age = Duration::from_millis(now.saturating_sub(since));
            since <= now.saturating_add(whole_millis(SKEW)) && timeout.is_none_or(|it| age <= it)
        };
        within(session.begun, self.absolute_timeout) && within(session.used, self.idle_timeout)
    }

    /// What the client is told with the response: always where the session is
    /// new or moved, and where it can end unused. `carried` is the one it came with.
    #[must_use]
    pub fn tell(
        &self,
        session: Session,
        carried: Option<Session>,
        place: Place<'_>,
        now: SystemTime,
    ) -> Option<(HeaderName, HeaderValue)> {
        let same = |it: Session| (it.backend, it.endpoint) == (session.backend, session.endpoint);
        let stays = carried.filter(|carried| same(*carried));
        if stays.is_some() && self.idle_timeout.is_none() {
            return None;
        }
        let now = millis(now);
        let begun = stays.map_or(now, |carried| carried.begun);
        let told = Session {
            begun,
            used: now,
            ..session
        };
        match self.carrier {
            SessionCarrier::Header => {
                let name = HeaderName::try_from(&*self.name).ok()?;
                Some((name, HeaderValue::try_from(told.token()).ok()?))
            }
            SessionCarrier::Cookie { permanent } => {
                let lasts = self.absolute_timeout.filter(|_| permanent);
                let passed = Duration::from_millis(now.saturating_sub(begun));
                let left = lasts.map(|lasts| lasts.saturating_sub(passed));
                let cookie = cookie(&self.name, &told.token(), place, left);
                Some((SET_COOKIE, HeaderValue::try_from(cookie).ok()?))
            }
        }
    }
}

fn cookie(name: &str, token: &str, place: Place<'_>, left: Option<Duration>) -> String {
    let mut text = format!("{name}={token}; Path={}", place.path);
    if let Some(left) = left {
        let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
        // Writing to a String cannot fail.
        let _ = write!(text, "; Max-Age={}", seconds.max(1));
    }
    text.push_str("; HttpOnly; SameSite=Strict");
    if place.secure {
        text.push_str("; Secure");
    }
    text
}

fn millis(at: SystemTime) -> u64 {
    whole_millis(at.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn whole_millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).map_or(LAST, |millis| millis.min(LAST))
}

/// How tokens name a backend of a rule: rules share no sessions. `rule` is its label.
#[must_use]
pub fn backend_tag(rule: &str, backend: &Backend) -> u64 {
    let port = backend.port.unwrap_or_default();
    hash(format!("{rule}\0{}\0{port}", backend.service).as_bytes())
}

/// How tokens name an endpoint: by what the registry calls it, which outlives
/// a change of its address; by its address where it has no other name.
#[must_use]
pub fn endpoint_tag(endpoint: &Endpoint) -> u64 {
    hash(endpoint.id.as_bytes())
}

/// The endpoints of a port, found by their tags.
#[derive(Debug)]
pub struct Tags(Box<[(u64, u32)]>);

impl Tags {
    /// Of these, in their order.
    #[must_use]
    pub fn of(endpoints: &[Arc<Endpoint>]) -> Self {
        let mut tags: Box<[_]> = (0..)
            .zip(endpoints)
            .map(|(index, endpoint)| (endpoint_tag(endpoint), index))
            .collect();
        tags.sort_unstable();
        Self(tags)
    }

    /// The index of the endpoint that is meant.
    #[must_use]
    pub fn find(&self, tag: u64) -> Option<usize> {
        let at = self.0.partition_point(|(other, _)| *other < tag);
        let (found, index) = *self.0.get(at)?;
        (found == tag).then_some(index as usize)
    }
}

/// The path that a cookie is for: what a rule says of the path it matched. Of a
/// regular expression the whole segments before anything special. `prefix` is
/// the one that matched, where one did.
#[must_use]
pub fn cookie_path<'a>(rule: &'a Rule, prefix: Option<&'a str>, path: &'a str) -> &'a str {
    let said = match prefix {
        Some(prefix) => prefix,
        None => {
            let mut matches = rule.matches.iter();
            let of = |it: &'a super::Match| path_of(&it.path, path);
            matches.find_map(of).unwrap_or("/")
        }
    };
    let special = |byte: u8| byte == b';' || !byte.is_ascii_graphic();
    match said.bytes().position(special) {
        _ if !said.starts_with('/') => "/",
        Some(at) => segments(&said[..at]),
        None => said,
    }
}

/// What one match says of a path, if the path meets it.
fn path_of<'a>(matched: &'a PathMatch, path: &'a str) -> Option<&'a str> {
    match matched {
        PathMatch::Any => Some("/"),
        PathMatch::Prefix(prefix) => path.starts_with(&**prefix).then_some(prefix),
        PathMatch::Exact(whole) => (path == &**whole).then_some(path),
        PathMatch::Regex(regex) => regex.is_match(path).then(|| literal(pattern(regex))),
        PathMatch::Grpc(call) => {
            let (_, method) = path.strip_prefix('/')?.rsplit_once('/')?;
            let service = &path[..path.len() - method.len() - 1];
            match (&call.service, &call.method) {
                (Some(TextMatch::Exact(it)), _) if service[1..] != **it => None,
                (Some(TextMatch::Exact(_)), Some(TextMatch::Exact(it))) => {
                    (*method == **it).then_some(path)
                }
                (Some(TextMatch::Exact(_)), _) => Some(service),
                _ => Some("/"),
            }
        }
    }
}

/// The whole segments with which every match of an expression begins.
fn literal(expression: &str) -> &str {
    let mut inner = expression;
    while let Some(rest) = ["^", "\\A", "(?:"]
        .iter()
        .find_map(|it| inner.strip_prefix(it))
    {
        inner = rest;
    }
    if inner.contains('|') {
        return "/";
    }
    let special =
        inner.find(|letter: char| !letter.is_ascii_alphanumeric() && !"/-_~%".contains(letter));
    match special {
        // What is special may be about the letter before it.
        Some(at) => segments(&inner[..at]),
        None => inner,
    }
}

/// A path without its last segment, which may be cut.
fn segments(path: &str) -> &str {
    match path.rfind('/') {
        None | Some(0) => "/",
        Some(at) => &path[..at],
    }
}

#[cfg(test)]
mod tests;
