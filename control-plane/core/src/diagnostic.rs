//! Findings about what a person wrote: where, what, and what to do, rendered
//! as rustc renders its own or given as JSON. Stands between the parsers and
//! whoever shows the findings. Refuses to know terminals and files.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// More findings than these are counted, not kept.
pub const MAX_DIAGNOSTICS: usize = 100;

/// Bytes of a source line that are shown.
const MAX_EXCERPT_BYTES: usize = 2048;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing was taken.
    Error,
    /// It was taken, and something is likely not as meant.
    Warning,
}

/// A named text, as it was given.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) name: Arc<str>,
    pub(crate) text: Arc<str>,
}

impl Source {
    pub(crate) fn new(name: &str, text: &str) -> Self {
        Self {
            name: name.into(),
            text: text.into(),
        }
    }

    /// The same without its text: findings say where, and show nothing.
    pub(crate) fn unseen(&self) -> Self {
        Self {
            name: self.name.clone(),
            text: "".into(),
        }
    }

    /// The same, without its text where a document of it may hold a secret,
    /// however it is written or misspelt.
    pub(crate) fn guarded(&self, document: &str) -> Self {
        let tells = ["Secret", "secret", "tls.key", "PRIVATE KEY", "LS0t"];
        match tells.iter().any(|tell| document.contains(tell)) {
            true => self.unseen(),
            false => self.clone(),
        }
    }

    /// The place of a span in this source.
    pub(crate) fn place(&self, span: Span) -> Place {
        Place {
            source: self.clone(),
            span: Some(span),
        }
    }
}

/// Where a node stands in its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
    /// Bytes of the source.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A place in a source that can be shown: `file:line:column` and its line.
/// Keeps the text of the source alive.
#[derive(Debug, Clone)]
pub struct Place {
    source: Source,
    span: Option<Span>,
}

impl Place {
    /// A source without a position in it.
    #[must_use]
    pub fn of_source(name: &str) -> Self {
        Self {
            source: Source::new(name, ""),
            span: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.span {
            None => f.write_str(&self.source.name),
            Some(span) => write!(f, "{}:{}:{}", self.source.name, span.line, span.column),
        }
    }
}

/// One line of a source, and what of it is meant.
#[derive(Debug, Clone)]
struct Excerpt {
    line: Arc<str>,
    marked: Range<usize>,
}

impl Excerpt {
    fn of(text: &str, span: Span) -> Option<Self> {
        let before = text.get(..span.start)?;
        let first = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = &text[first..];
        let mut length = rest
            .find(['\n', '\r'])
            .unwrap_or(rest.len())
            .min(MAX_EXCERPT_BYTES);
        while !rest.is_char_boundary(length) {
            length -= 1;
        }
        let start = span.start - first;
        if start > length {
            return None;
        }
        let mut end = span.end.saturating_sub(first).clamp(start, length);
        while !rest.is_char_boundary(end) {
            end += 1;
        }
        Some(Self {
            line: rest[..length].into(),
            marked: start..end,
        })
    }
}

/// One finding.
#[derive(Debug, Clone, Serialize)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the source: a file, or what stands for one.
    pub source: String,
    /// From 1; 0 where the source as a whole is meant.
    pub line: usize,
    /// In characters, from 1; 0 where the source as a whole is meant.
    pub column: usize,
    /// The field, as `spec.ports[0].port`; empty for the document as a whole.
    pub path: String,
    /// What is wrong, and what was expected.
    pub message: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    #[serde(skip)]
    excerpt: Option<Excerpt>,
}

impl Diagnostic {
    /// An error at a place.
    #[must_use]
    pub fn error(place: &Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            source: place.source.name.to_string(),
            line: place.span.map_or(0, |span| span.line),
            column: place.span.map_or(0, |span| span.column),
            path: path.into(),
            message: message.into(),
            help: None,
            excerpt: place
                .span
                .and_then(|span| Excerpt::of(&place.source.text, span)),
        }
    }

    /// A warning at a place.
    #[must_use]
    pub fn warning(place: &Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(place, path, message)
        }
    }

    /// The same with advice.
    #[must_use]
    pub fn with_help(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    fn render(&self, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let message = printable(&self.message);
        let mut group = level
            .primary_title(message.as_str())
            .elements(Vec::<Origin<'_>>::new());
        let label = (!self.path.is_empty()).then(|| printable(&self.path));
        match &self.excerpt {
            Some(excerpt) => {
                let marked = AnnotationKind::Primary
                    .span(excerpt.marked.clone())
                    .label(label.as_deref());
                group = group.element(
                    Snippet::source(excerpt.line.as_ref())
                        .line_start(self.line)
                        .path(self.source.as_str())
                        .annotation(marked),
                );
            }
            None if self.line > 0 => {
                let origin = Origin::path(self.source.as_str());
                group = group.element(origin.line(self.line).char_column(self.column));
            }
            None => group = group.element(Origin::path(self.source.as_str())),
        }
        let help = self.help.as_deref().map(printable);
        if let Some(help) = &help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        renderer.render(&[group])
    }
}

/// Control characters of what was given never reach a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

/// Findings, in the order in which they were made.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Diagnostics {
    diagnostics: Vec<Diagnostic>,
    /// How many more there were than [`MAX_DIAGNOSTICS`].
    #[serde(skip_serializing_if = "is_zero")]
    left_out: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl Diagnostics {
    /// Adds a finding; past [`MAX_DIAGNOSTICS`] it is only counted.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if self.diagnostics.len() < MAX_DIAGNOSTICS {
            self.diagnostics.push(diagnostic);
        } else {
            self.left_out += 1;
        }
    }

    /// Adds all findings of another.
    pub fn append(&mut self, other: Self) {
        self.left_out += other.left_out;
        for diagnostic in other.diagnostics {
            self.push(diagnostic);
        }
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// The findings.
    #[must_use]
    pub fn as_slice(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Every warning becomes an error.
    #[must_use]
    pub fn strict(mut self) -> Self {
        for diagnostic in &mut self.diagnostics {
            diagnostic.severity = Severity::Error;
        }
        self
    }

    /// As a person reads them: a snippet each, with or without the escape
    /// sequences of a terminal. Ends with a line end, unless empty.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for diagnostic in &self.diagnostics {
            out.push_str(&diagnostic.render(&renderer));
            out.push('\n');
        }
        if self.left_out > 0 {
            out.push_str(&format!("and {} more\n", self.left_out));
        }
        out
    }
}

impl From<Diagnostic> for Diagnostics {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            diagnostics: vec![diagnostic],
            left_out: 0,
        }
    }
}

/// The plain rendering.
impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Diagnostics {}
