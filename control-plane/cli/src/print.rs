//! Answers on stdout, as a table, JSON or YAML; everything else that is said goes to stderr.
//!
//! It refuses to know what the answers mean.

use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Table, presets};
use serde_json::Value;

use crate::args::Format;

/// Writes an answer; `table` draws it for people.
pub(crate) fn answer(format: Format, value: &Value, table: impl FnOnce() -> String) {
    match format {
        Format::Table => text(&table()),
        Format::Json => text(&format!("{value:#}\n")),
        Format::Yaml => text(&yaml(value)),
    }
}

/// A value as YAML.
pub(crate) fn yaml(value: &Value) -> String {
    // JSON is YAML, should the writer ever refuse a value.
    serde_saphyr::to_string(value).unwrap_or_else(|_| format!("{value:#}\n"))
}

/// Writes on stdout as it is. A reader that has gone (`| head`) is no failure.
pub(crate) fn text(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes on stderr.
pub(crate) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", text.trim_end());
}

/// Whether diagnostics may be coloured: on a terminal, unless `NO_COLOR` is set (no-color.org).
pub(crate) fn colour() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Columns of text under headings, or a sentence where there are no rows.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>], none: &str) -> String {
    if rows.is_empty() {
        return format!("{none}\n");
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row);
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
    lines.join("\n") + "\n"
}

/// A value in a cell.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        // What a peer named must not steer the terminal.
        Value::String(text) => text
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c })
            .collect(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_aligns_and_an_empty_one_says_so() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["long".to_owned(), "22".to_owned()],
        ];
        assert_eq!(
            table(&["name", "n"], &rows, "none"),
            "NAME  N\na     1\nlong  22\n"
        );
        assert_eq!(table(&["name"], &[], "nothing here"), "nothing here\n");
    }

    #[test]
    fn a_cell_is_one_line_without_control_characters() {
        assert_eq!(cell(&json!("a\u{1b}[31m\n")), "a\u{fffd}[31m\u{fffd}");
        assert_eq!(cell(&json!(["a", 1, null])), "a,1,-");
        assert_eq!(cell(&json!("")), "-");
    }
}
