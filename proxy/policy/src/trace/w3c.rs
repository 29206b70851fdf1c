//! W3C Trace Context, level 1: `traceparent` and `tracestate`.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Parent, SpanContext, SpanId, TraceId};

/// Which span a request is part of (§3.2).
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add to that for themselves (§3.3).
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// `00-<trace>-<parent>-<flags>`.
const LENGTH: usize = 55;
const SAMPLED: u8 = 1;
/// §3.3.1.1.
const MEMBERS: usize = 32;
const KEY: usize = 256;
const TENANT: usize = 241;
const SYSTEM: usize = 14;
const VALUE: usize = 256;

/// The parent that `traceparent` names. Two of them are none (§3.2.1).
pub(super) fn read(headers: &HeaderMap) -> Option<Parent> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    let only = values.next().filter(|_| values.next().is_none())?;
    parse(only.as_bytes())
}

/// Version 00 is as long as it is; a later version may go on after another dash
/// (§4.3), and of its flags only the one that is known is believed.
fn parse(text: &[u8]) -> Option<Parent> {
    let (known, rest) = text.split_at_checked(LENGTH)?;
    let version = byte(&known[..2])?;
    let goes_on = rest.first() == Some(&b'-');
    let dashes = [2, 35, 52].iter().all(|place| known[*place] == b'-');
    let length = rest.is_empty() || (version != 0 && goes_on);
    if version == 0xff || !dashes || !length {
        return None;
    }
    let context = SpanContext {
        trace: TraceId::parse(&known[3..35])?,
        span: SpanId::parse(&known[36..52])?,
    };
    let flags = byte(&known[53..])?;
    Some(Parent {
        context: Some(context),
        sampled: Some(flags & SAMPLED != 0),
    })
}

/// Two lower-case digits.
fn byte(digits: &[u8]) -> Option<u8> {
    let lower = |digit: &u8| digit.is_ascii_digit() || (b'a'..=b'f').contains(digit);
    let text = std::str::from_utf8(digits).ok()?;
    digits.iter().all(lower).then_some(())?;
    u8::from_str_radix(text, 16).ok()
}

/// Writes version 00, with no flag but `sampled` (§3.2.2.5).
pub(super) fn encode(context: &SpanContext, sampled: bool) -> HeaderValue {
    let SpanContext { trace, span } = context;
    let text = format!("00-{trace}-{span}-{:02x}", u8::from(sampled));
    HeaderValue::try_from(text).expect("digits and dashes are a header value")
}

/// Whether all of `tracestate` may travel on; where one member is malformed, none may.
pub(super) fn state_is_valid(headers: &HeaderMap) -> bool {
    let mut keys: [&[u8]; MEMBERS] = [&[]; MEMBERS];
    let mut count = 0;
    for value in headers.get_all(TRACESTATE) {
        for member in value.as_bytes().split(|byte| *byte == b',') {
            // The space around a member is not its own, and nothing is no member (§3.3.1.1).
            let member = member.trim_ascii();
            if member.is_empty() {
                continue;
            }
            let Some(key) = key_of(member) else {
                return false;
            };
            if count == MEMBERS || keys[..count].contains(&key) {
                return false;
            }
            keys[count] = key;
            count += 1;
        }
    }
    true
}

/// The key of a well-formed member.
fn key_of(member: &[u8]) -> Option<&[u8]> {
    let equals = member.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    (is_key(key) && is_value(value)).then_some(key)
}

fn is_key(key: &[u8]) -> bool {
    let inner = |byte: &u8| {
        byte.is_ascii_lowercase()
            || byte.is_ascii_digit()
            || matches!(byte, b'_' | b'-' | b'*' | b'/')
    };
    let word = |word: &[u8], first: fn(&u8) -> bool, longest: usize| {
        word.len() <= longest && word.first().is_some_and(first) && word.iter().all(inner)
    };
    match key.iter().position(|byte| *byte == b'@') {
        None => word(key, u8::is_ascii_lowercase, KEY),
        Some(at) => {
            let tenant = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            word(&key[..at], tenant, TENANT) && word(&key[at + 1..], u8::is_ascii_lowercase, SYSTEM)
        }
    }
}

/// Visible characters and spaces but `,` and `=`. The last is no space: those were trimmed.
fn is_value(value: &[u8]) -> bool {
    let allowed = |byte: &u8| matches!(byte, 0x20..=0x7e) && !matches!(byte, b',' | b'=');
    (1..=VALUE).contains(&value.len()) && value.iter().all(allowed)
}
