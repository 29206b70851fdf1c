//! `main → app → {connection, admin} → request → {http, forward} → upstream →
//! {accept, discovery} → tls → identity → telemetry → {lifecycle, config, error}`:
//! a module of the proxy imports only from its right, so that its source can be
//! read in that order.

use std::collections::BTreeSet;
use std::path::Path;

use super::{read, shown, sources, workspace};

/// The modules from left to right; those of one row do not know each other.
const ORDER: [&[&str]; 14] = [
    &["main"],
    &["app", "explain"],
    &["connection", "admin"],
    &["request"],
    &["forward"],
    &["worker"],
    &["upstream"],
    &["http"],
    &["gateway"],
    &["accept", "discovery"],
    &["tls"],
    &["identity"],
    &["telemetry", "journal"],
    &[
        "lifecycle",
        "config",
        "error",
        "state",
        "stubs",
        "buffers",
        "clock",
        "timers",
        "probe",
    ],
];

fn rank(module: &str) -> Option<usize> {
    ORDER.iter().position(|row| row.contains(&module))
}

/// The first part of a file's path below `src`, without `.rs`.
fn module_of(path: &Path, source: &Path) -> String {
    let below = path.strip_prefix(source).expect("it was found there");
    let first = below
        .iter()
        .next()
        .expect("a file has a name")
        .to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules named after `crate::` in code that is not a comment and not a test.
fn imports(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let mut found = BTreeSet::new();
    for rest in lines
        .collect::<Vec<_>>()
        .join("\n")
        .split("crate::")
        .skip(1)
    {
        // `use crate::{a::B, c};` names several; anything else names one.
        let group = rest
            .strip_prefix('{')
            .map(|rest| top_level(rest))
            .unwrap_or_else(|| vec![rest]);
        for one in group {
            let name: String = one
                .trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect();
            if !name.is_empty() {
                found.insert(name);
            }
        }
    }
    found
}

/// The parts of a brace group, up to its end, split at its own commas only.
fn top_level(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let mut start = 0;
    let mut parts = Vec::new();
    for (place, character) in text.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&text[start..place]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts
}

#[test]
fn modules_of_the_proxy_import_only_from_their_right() {
    let source = workspace().join("proxy/src");
    let mut wrong = Vec::new();
    for path in sources(&source) {
        let module = module_of(&path, &source);
        if module == "lib" {
            continue;
        }
        let Some(own) = rank(&module) else {
            wrong.push(format!("{} has no place in the order", shown(&path)));
            continue;
        };
        for import in imports(&read(&path)) {
            let allowed = import == module || rank(&import).is_none_or(|rank| rank > own);
            if !allowed {
                wrong.push(format!("{} imports {import}", shown(&path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn imports_are_found_in_groups_and_paths() {
    let text = "use crate::{tls::{A, B}, error::C};\nlet x = crate::http::y();\n// crate::main\n#[cfg(test)]\nuse crate::app;";
    let found: Vec<_> = imports(text).into_iter().collect();
    assert_eq!(found, ["error", "http", "tls"]);
}
