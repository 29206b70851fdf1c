//! Text that peers sent, made harmless for a line of log.
//!
//! Neither a terminal nor a line-wise reader nor a JSON parser may be led to see anything but one
//! field. Knows no fields.

use std::fmt::Write;

use super::told::FIELD_BYTES;

/// Appends `text` within double quotes: a JSON string that is plain to see, in which control
/// characters, line separators and characters that turn the direction of writing are `\u` escapes.
pub(super) fn quoted(text: &str, line: &mut String) {
    line.push('"');
    let shown = &text[..text.floor_char_boundary(FIELD_BYTES)];
    for character in shown.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            _ if is_hidden(character) => {
                // None of them is beyond the basic plane, where JSON would want two escapes.
                let _ = write!(line, "\\u{:04x}", u32::from(character));
            }
            _ => line.push(character),
        }
    }
    if shown.len() < text.len() {
        line.push('…');
    }
    line.push('"');
}

/// Appends `text` bare if it is one plain word, else quoted.
pub(super) fn word(text: &str, line: &mut String) {
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'=');
    let is_word = !text.is_empty() && text != "-" && text.bytes().all(plain);
    if is_word && text.len() <= FIELD_BYTES {
        line.push_str(text);
    } else {
        quoted(text, line);
    }
}

/// Lets go of what [`quoted`] would not show, but for what tells it that there was more.
pub(super) fn cut(text: &mut String) {
    if text.len() > FIELD_BYTES {
        text.truncate(text.ceil_char_boundary(FIELD_BYTES + 1));
        text.shrink_to_fit();
    }
}

fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quote(text: &str) -> String {
        let mut line = String::new();
        quoted(text, &mut line);
        line
    }

    #[test]
    fn what_could_mislead_is_escaped() {
        for (text, expected) in [
            ("plain", r#""plain""#),
            ("a\nb\r\u{0}", r#""a\u000ab\u000d\u0000""#),
            ("\u{1b}[31m\u{7f}\u{9b}", r#""\u001b[31m\u007f\u009b""#),
            ("a\"b\\", r#""a\"b\\""#),
            ("\u{2028}\u{202e}", r#""\u2028\u202e""#),
            ("größe", r#""größe""#),
        ] {
            assert_eq!(quote(text), expected);
        }
    }

    #[test]
    fn a_long_text_is_cut_and_the_cut_is_marked() {
        let mut text = "ä".repeat(FIELD_BYTES);
        let whole = quote(&text);
        assert!(whole.ends_with("ä…\""));
        assert!(whole.len() <= FIELD_BYTES + 5);
        cut(&mut text);
        assert!(text.len() <= FIELD_BYTES + 4);
        assert_eq!(quote(&text), whole, "cutting before changes nothing");
    }

    #[test]
    fn only_plain_words_stand_bare() {
        for (text, expected) in [
            ("/v1", "/v1"),
            ("", "\"\""),
            ("-", "\"-\""),
            ("a b", "\"a b\""),
            ("a=b", "\"a=b\""),
        ] {
            let mut line = String::new();
            word(text, &mut line);
            assert_eq!(line, expected);
        }
    }

    proptest! {
        #[test]
        fn quoted_text_is_one_line_that_json_reads_back(text in any::<String>()) {
            let line = quote(&text);
            prop_assert!(!line.chars().any(is_hidden));
            if text.len() <= FIELD_BYTES {
                prop_assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
            }
        }
    }
}
