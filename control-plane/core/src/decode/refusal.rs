//! Why a node was not taken, in the words of the file rather than of Rust.

use std::fmt;

use serde::de::{self, Expected, Unexpected};

use super::Path;
use crate::diagnostic::{Diagnostic, Source, Span};
use crate::nearest::nearest;
use crate::yaml::Node;

/// Why a node was not taken.
#[derive(Debug)]
pub(super) struct Refusal(Box<Finding>);

/// On the heap, because every step of decoding returns room for it.
#[derive(Debug)]
struct Finding {
    message: String,
    help: Option<String>,
    /// The key of the mapping at hand that is meant.
    key: Option<String>,
    place: Option<(String, Span)>,
}

impl Refusal {
    pub(super) fn new(message: String, help: Option<String>) -> Self {
        Self(Box::new(Finding {
            message,
            help,
            key: None,
            place: None,
        }))
    }

    pub(super) fn unknown_key(name: &str, known: &[&str]) -> Self {
        let help = advise(name, known);
        Self::new(format!("unknown key `{name}`"), help).about_key(name)
    }

    /// Meant is a key of the mapping at hand, not the mapping.
    pub(super) fn about_key(mut self, key: &str) -> Self {
        self.0.key = Some(key.to_owned());
        self
    }

    /// The innermost place wins.
    pub(super) fn at(mut self, node: &Node, path: &Path<'_>) -> Self {
        if self.0.place.is_none() {
            let entry = self.0.key.take().and_then(|key| node.entry(&key));
            self.0.place = Some(match entry {
                Some(entry) => (Path::Key(path, &entry.key).to_string(), entry.span),
                None => (path.to_string(), node.span),
            });
        }
        self
    }

    pub(super) fn into_diagnostic(self, source: &Source, root: &Node) -> Diagnostic {
        let (path, span) = self.0.place.unwrap_or_else(|| (String::new(), root.span));
        Diagnostic::error(&source.place(span), path, self.0.message).with_help(self.0.help)
    }
}

/// "did you mean" the nearest, else the list of what there is.
pub(super) fn advise(name: &str, known: &[&str]) -> Option<String> {
    match nearest(name, known.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if known.is_empty() => None,
        None => {
            let list: Vec<String> = known.iter().map(|name| format!("`{name}`")).collect();
            Some(format!("known here: {}", list.join(", ")))
        }
    }
}

/// What a visitor expected, in the words of the file rather than of Rust.
fn expectation(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    let words = match text.as_str() {
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" | "u64" | "usize" => "a whole number",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number, which may be negative",
        "f32" | "f64" => "a number",
        "a sequence" => "a list",
        "a map" => "a mapping",
        "a string" => "text",
        "a boolean" => "true or false",
        other if other.starts_with("struct ") => "a mapping",
        other if other.starts_with("enum ") => "one of the known words",
        other => other,
    };
    words.to_owned()
}

fn encounter(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("`{value}`"),
        Unexpected::Unsigned(value) => format!("`{value}`"),
        Unexpected::Signed(value) => format!("`{value}`"),
        Unexpected::Float(value) => format!("`{value}`"),
        Unexpected::Str(value) => format!("`{}`", value.chars().take(80).collect::<String>()),
        Unexpected::Unit | Unexpected::Option => "nothing".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string(),
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string(), None)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(
            format!(
                "expected {}, found {}",
                expectation(expected),
                encounter(&found)
            ),
            None,
        )
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(
            format!("unknown value `{variant}`"),
            advise(variant, expected),
        )
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::unknown_key(field, expected)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("the key `{field}` is missing"), None)
    }
}
