//! The regular expressions of routes. Both sides compile them with this, so
//! that what was taken at apply is taken by every proxy: matched whole, linear
//! in the length of the text, bounded in size. Knows no routes.

use regex::{Regex, RegexBuilder};

/// Bytes of one expression as it is written.
pub const MAX_PATTERN_BYTES: usize = 4096;
/// Bytes of one expression, compiled; and of what matching it keeps.
pub const MAX_COMPILED_BYTES: usize = 256 * 1024;

/// Why a text cannot be matched with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// It is no expression, or one that cannot be matched in linear time.
    #[error("not a regular expression: {0}")]
    Syntax(String),
    /// It is one, and too large.
    #[error("a regular expression that takes more than {MAX_COMPILED_BYTES} bytes")]
    TooLarge,
}

/// An expression that matches a text whole.
///
/// # Errors
/// It is none, or too large.
pub fn compile(pattern: &str) -> Result<Regex, InvalidPattern> {
    if pattern.len() > MAX_PATTERN_BYTES {
        return Err(InvalidPattern::TooLarge);
    }
    // Alone first: `a)|(b` is none, and would be one between the anchors.
    bounded(pattern)?;
    bounded(&format!(r"\A(?:{pattern})\z"))
}

fn bounded(pattern: &str) -> Result<Regex, InvalidPattern> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_COMPILED_BYTES)
        .dfa_size_limit(MAX_COMPILED_BYTES)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => InvalidPattern::TooLarge,
            // Its last line says what is wrong; those before draw where.
            other => {
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                InvalidPattern::Syntax(last.trim_start_matches("error: ").to_owned())
            }
        })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed compile fails the test")]
    use super::*;

    #[test]
    fn a_text_is_matched_whole() {
        let table = [
            ("/v[12]", "/v1", true),
            ("/v[12]", "/v10", false),
            ("/a|/b", "/b", true),
            ("/a|/b", "/ax", false),
            ("^/a$", "/a", true),
            ("(?i)/a", "/A", true),
            ("", "", true),
        ];
        for (pattern, text, matches) in table {
            let compiled = compile(pattern).unwrap();
            assert_eq!(compiled.is_match(text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_none_is_refused() {
        for pattern in ["(", "a)|(b", "[z-a]", r"(a)\1", "(?=a)", "(?x)a#"] {
            let refused = compile(pattern).unwrap_err();
            assert!(matches!(refused, InvalidPattern::Syntax(_)), "{pattern}");
        }
        let refused = compile(&"a".repeat(MAX_PATTERN_BYTES + 1)).unwrap_err();
        assert_eq!(refused, InvalidPattern::TooLarge);
        let refused = compile("(a{100}){100}(b{100}){100}").unwrap_err();
        assert_eq!(refused, InvalidPattern::TooLarge);
    }
}
