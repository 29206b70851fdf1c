//! Header fields of routes: their names, their values, and how they are
//! changed. Refuses to know what they mean.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::config::Checker;
use crate::resource::backend::Header;

/// Header fields of one list, as in Gateway API.
pub(crate) const MAX_HEADERS: usize = 16;
/// Bytes of the name of a header or a query parameter.
const MAX_NAME_BYTES: usize = 256;
/// Bytes of the value of a header.
const MAX_VALUE_BYTES: usize = 4096;

/// How a head is changed: `set`, then `add`, then `remove`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct HeaderModifier {
    /// Instead of what is there.
    pub set: Vec<Header>,
    /// Beside what is there.
    pub add: Vec<Header>,
    /// Taken away.
    pub remove: Vec<String>,
}

/// How a message is framed and travels: the proxy's own to say.
const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a text is the name of a header (RFC 9110, 5.1), 256 bytes at most.
pub(crate) fn is_header_name(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(token)
}

/// Whether a text is the value of a header: visible ASCII, single spaces and tabs between.
pub(crate) fn is_header_value(text: &str) -> bool {
    let allowed = |b: u8| b == b' ' || b == b'\t' || b.is_ascii_graphic();
    (1..=MAX_VALUE_BYTES).contains(&text.len())
        && text.bytes().all(allowed)
        && text.trim_matches([' ', '\t']) == text
}

/// Whether only the proxies speak of it: what others say is taken away at the door.
pub(super) fn is_stripped(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('_', "-");
    name.starts_with("x-selvage-") || name == "x-forwarded-client-cert"
}

/// Why nobody but the proxy changes this field.
pub(super) fn reserved(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    let ours = name.starts_with("x-selvage-") || name == "x-forwarded-client-cert";
    if ours || FRAMING.contains(&name.as_str()) {
        Some("is the proxy's own to set")
    } else if name == "host" {
        Some("is changed by a filter of type `URLRewrite`")
    } else {
        None
    }
}

/// Checks a modifier: one action for each name, whatever its case.
pub(crate) fn check_modifier(modifier: &HeaderModifier, path: &str, check: &mut Checker<'_>) {
    let HeaderModifier { set, add, remove } = modifier;
    let lists = [
        ("set", set.len()),
        ("add", add.len()),
        ("remove", remove.len()),
    ];
    for (key, count) in lists {
        check.require(
            count <= MAX_HEADERS,
            format!("{path}.{key}"),
            format!("expected at most {MAX_HEADERS} headers, found {count}"),
        );
    }
    let mut names: Vec<(String, &str)> = Vec::new();
    for (key, headers) in [("set", set), ("add", add)] {
        for (index, Header { name, value }) in headers.iter().enumerate() {
            names.push((format!("{path}.{key}[{index}].name"), name));
            check.require(
                is_header_value(value),
                format!("{path}.{key}[{index}].value"),
                format!("expected 1 to {MAX_VALUE_BYTES} visible ASCII characters, without spaces around them"),
            );
        }
    }
    for (index, name) in remove.iter().enumerate() {
        names.push((format!("{path}.remove[{index}]"), name));
    }
    let mut seen = BTreeSet::new();
    for (path, name) in names {
        if !is_header_name(name) {
            check.error(
                path,
                format!("expected the name of a header, found `{name}`"),
            );
        } else if let Some(reason) = reserved(name) {
            check.error(path, format!("`{name}` {reason}"));
        } else if !seen.insert(name.to_ascii_lowercase()) {
            check.error(path, format!("the header `{name}` is given twice"));
        }
    }
}
