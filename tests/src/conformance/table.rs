//! What came of it all, as rows: printed by every run, and written into the
//! README when asked to.

use std::fmt::Write as _;
use std::path::Path;

use super::case::{Mode, Profile};

/// Set to write the rows into the README.
pub const WRITE: &str = "SELVAGE_CONFORMANCE_WRITE";

/// One test in one profile and one mode.
#[derive(Debug, Clone)]
pub struct Row {
    /// What the suite calls it.
    pub name: String,
    /// Its profile.
    pub profile: Profile,
    /// Its mode.
    pub mode: Mode,
    /// How many expectations were checked.
    pub checked: usize,
    /// What was not as due.
    pub wrong: Vec<String>,
}

impl Row {
    fn profile(&self) -> &'static str {
        match self.profile {
            Profile::Gateway => "gateway",
            Profile::Mesh => "mesh",
        }
    }

    fn mode(&self) -> &'static str {
        match self.mode {
            Mode::Static => "static",
            Mode::ControlPlane => "control plane",
        }
    }

    fn pass(&self) -> &'static str {
        if self.wrong.is_empty() {
            "pass"
        } else {
            "FAIL"
        }
    }
}

/// Prints a row, and below it what was not as due.
pub fn print(row: &Row) {
    let (profile, mode, pass) = (row.profile(), row.mode(), row.pass());
    let (name, checked) = (&row.name, row.checked);
    println!("{name:<56} {profile:<8} {mode:<14} {checked:>4} {pass}");
    for wrong in &row.wrong {
        println!("    {wrong}");
    }
}

/// The rows as a table in Markdown.
#[must_use]
pub fn markdown(rows: &[Row]) -> String {
    let mut text = "| test | expectations | |\n| --- | --- | --- |\n".to_owned();
    for row in rows {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "| {} | {} | {} |", row.name, row.checked, row.pass());
    }
    text
}

/// Replaces one part of a page: what lies between the two comments of its name.
///
/// # Panics
/// When the page cannot be read or written, or has no such part.
pub fn write(page: &Path, part: &str, text: &str) {
    let old =
        std::fs::read_to_string(page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let (begin, end) = (
        format!("<!-- {part} -->\n"),
        format!("<!-- end of {part} -->\n"),
    );
    let (before, rest) = old
        .split_once(&begin)
        .unwrap_or_else(|| panic!("{}: no `{begin}`", page.display()));
    let (_, after) = rest
        .split_once(&end)
        .unwrap_or_else(|| panic!("{}: no `{end}`", page.display()));
    let new = format!("{before}{begin}{text}{end}{after}");
    std::fs::write(page, new).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
}
