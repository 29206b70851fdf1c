//! The static table (RFC 7541 appendix A): its fields ready to be cloned, and its header names
//! found by their octets in one look.

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::words::Words;
use super::{Field, Pseudo};

/// Fields of the static table; the dynamic table's indices begin behind it.
pub(super) const FIELDS: usize = 61;
/// Pseudo fields at its beginning.
const PSEUDOS: usize = 14;

/// How a header of that name is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// By index once it repeats.
    Repeats,
    /// Its values are told once and never again, so they would only push others out.
    Passes,
    /// A secret: no table on the way may hold it (RFC 7541 §7.1.3).
    Secret,
}

/// A header name of the static table.
pub(super) struct Known {
    /// Its field's index.
    pub(super) index: u8,
    pub(super) rule: Rule,
    /// The value it has there.
    pub(super) value: &'static str,
    name: &'static str,
    words: Words,
}

macro_rules! static_table {
    (
        pseudo { $($which:ident $text:literal,)* }
        headers { $($name:literal $value:literal $rule:ident,)* }
    ) => {
        static TABLE: [Field; FIELDS] = [
            $(Field::Pseudo(Pseudo::$which, Bytes::from_static($text.as_bytes())),)*
            $(Field::Header(HeaderName::from_static($name), HeaderValue::from_static($value)),)*
        ];
        const NAMES: [(&str, &str, Rule); FIELDS - PSEUDOS] = [$(($name, $value, Rule::$rule),)*];
    };
}

static_table! {
    pseudo {
        Authority "",
        Method "GET",
        Method "POST",
        Path "/",
        Path "/index.html",
        Scheme "http",
        Scheme "https",
        Status "200",
        Status "204",
        Status "206",
        Status "304",
        Status "400",
        Status "404",
        Status "500",
    }
    headers {
        "accept-charset" "" Repeats,
        "accept-encoding" "gzip, deflate" Repeats,
        "accept-language" "" Repeats,
        "accept-ranges" "" Repeats,
        "accept" "" Repeats,
        "access-control-allow-origin" "" Repeats,
        "age" "" Passes,
        "allow" "" Repeats,
        "authorization" "" Secret,
        "cache-control" "" Repeats,
        "content-disposition" "" Repeats,
        "content-encoding" "" Repeats,
        "content-language" "" Repeats,
        "content-length" "" Passes,
        "content-location" "" Passes,
        "content-range" "" Passes,
        "content-type" "" Repeats,
        "cookie" "" Secret,
        "date" "" Repeats,
        "etag" "" Passes,
        "expect" "" Repeats,
        "expires" "" Passes,
        "from" "" Repeats,
        "host" "" Repeats,
        "if-match" "" Passes,
        "if-modified-since" "" Passes,
        "if-none-match" "" Passes,
        "if-range" "" Passes,
        "if-unmodified-since" "" Passes,
        "last-modified" "" Passes,
        "link" "" Repeats,
        "location" "" Passes,
        "max-forwards" "" Repeats,
        "proxy-authenticate" "" Repeats,
        "proxy-authorization" "" Secret,
        "range" "" Passes,
        "referer" "" Repeats,
        "refresh" "" Repeats,
        "retry-after" "" Repeats,
        "server" "" Repeats,
        "set-cookie" "" Secret,
        "strict-transport-security" "" Repeats,
        "transfer-encoding" "" Repeats,
        "user-agent" "" Repeats,
        "vary" "" Repeats,
        "via" "" Repeats,
        "www-authenticate" "" Repeats,
    }
}

/// The static table's field of that index, which counts from 1.
#[inline]
pub(super) fn field(index: usize) -> Option<&'static Field> {
    TABLE.get(index.wrapping_sub(1))
}

/// The static table's entry of that header name, whose words are `words`.
#[inline]
pub(super) fn find(name: &[u8], words: &Words) -> Option<&'static Known> {
    let place = SLOTS[slot(words, MULTIPLIER)];
    let known = KNOWN.get(usize::from(place))?;
    let same = known.words.same(words) && (words.whole() || name == known.name.as_bytes());
    same.then_some(known)
}

const fn slot(words: &Words, multiplier: u64) -> usize {
    (words.mixed(multiplier) >> 56) as usize
}

const KNOWN: [Known; NAMES.len()] = known();
/// By the slot of a name's words: its place among the known names, or one beyond the last.
static SLOTS: [u8; 256] = slots(MULTIPLIER);
/// The first odd multiplier that sends each known name to a slot of its own.
pub(super) const MULTIPLIER: u64 = separating();

const fn known() -> [Known; NAMES.len()] {
    let mut all = [const {
        Known {
            index: 0,
            rule: Rule::Repeats,
            value: "",
            name: "",
            words: Words::of(&[]),
        }
    }; NAMES.len()];
    let mut place = 0;
    while place < NAMES.len() {
        let (name, value, rule) = NAMES[place];
        all[place] = Known {
            index: (PSEUDOS + 1 + place) as u8,
            rule,
            value,
            name,
            words: Words::of(name.as_bytes()),
        };
        place += 1;
    }
    all
}

const fn slots(multiplier: u64) -> [u8; 256] {
    let mut slots = [NAMES.len() as u8; 256];
    let mut place = 0;
    while place < NAMES.len() {
        slots[slot(&Words::of(NAMES[place].0.as_bytes()), multiplier)] = place as u8;
        place += 1;
    }
    slots
}

const fn separating() -> u64 {
    // The golden ratio's bits: a usual start for multiplicative hashing.
    let mut multiplier = 0x9e37_79b9_7f4a_7c15_u64;
    while !separates(multiplier) {
        multiplier = multiplier.wrapping_mul(0x2545_f491_4f6c_dd1d);
    }
    multiplier
}

const fn separates(multiplier: u64) -> bool {
    let mut taken = [false; 256];
    let mut place = 0;
    while place < NAMES.len() {
        let slot = slot(&Words::of(NAMES[place].0.as_bytes()), multiplier);
        if taken[slot] {
            return false;
        }
        taken[slot] = true;
        place += 1;
    }
    true
}
