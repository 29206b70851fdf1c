//! Text to a tree of nodes that know where they stand. The only module that
//! knows the YAML library. JSON is read by it too, being a subset. Refuses to
//! know what the keys mean.

mod raw;

use std::ops::Range;

use serde_saphyr::{Options, Spanned};

use crate::diagnostic::{Diagnostic, Diagnostics, Place, Source, Span};
use raw::{Raw, RawValue};

/// Larger texts are refused unread.
pub(crate) const MAX_TEXT_BYTES: usize = 10 * 1024 * 1024;

/// More documents in one text are refused.
pub(crate) const MAX_DOCUMENTS: usize = 10_000;

/// Deepest nesting of lists and mappings.
const MAX_DEPTH: usize = 32;

/// Nodes of one document, those repeated by aliases included.
const MAX_NODES: usize = 100_000;

/// A value, and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Null,
    Scalar { kind: Kind, text: String },
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// What a scalar would be if nobody asked for a type.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) span: Span,
    pub(crate) node: Node,
}

impl Node {
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    pub(crate) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The node at a path such as `spec.ports[0].port`, or the deepest one on
    /// the way to it.
    pub(crate) fn at(&self, path: &str) -> &Self {
        let mut node = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let next = match (&node.value, step.strip_suffix(']')) {
                (Value::List(nodes), Some(index)) => {
                    index.parse().ok().and_then(|index: usize| nodes.get(index))
                }
                _ => node.entry(step).map(|entry| &entry.node),
            };
            match next {
                Some(next) => node = next,
                None => return node,
            }
        }
        node
    }

    /// The same without places, as it is kept and given back.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Null => serde_json::Value::Null,
            Value::Scalar { kind, text } => match *kind {
                Kind::Bool(value) => value.into(),
                Kind::Unsigned(value) => value.into(),
                Kind::Signed(value) => value.into(),
                // A label such as `1.10` stays what it was.
                Kind::Float(value) if value.to_string() == *text => value.into(),
                Kind::Float(_) | Kind::Text => text.clone().into(),
            },
            Value::List(nodes) => nodes.iter().map(Self::to_json).collect(),
            Value::Map(entries) => serde_json::Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.node.to_json()))
                    .collect(),
            ),
        }
    }
}

/// A document as YAML.
pub(crate) fn write(document: &serde_json::Value) -> String {
    // JSON is YAML, should the writer ever refuse a document.
    serde_saphyr::to_string(document).unwrap_or_else(|_| format!("{document:#}\n"))
}

/// Every document of a text, each read or refused on its own. Documents
/// without content are left out.
pub(crate) fn documents(source: &Source) -> Vec<Result<Node, Diagnostics>> {
    if let Err(refused) = check_size(source) {
        return vec![Err(refused)];
    }
    let chunks = split(&source.text);
    if chunks.len() > MAX_DOCUMENTS {
        let message = format!("more than {MAX_DOCUMENTS} documents in one text");
        return vec![Err(refuse(&source.place(whole()), message))];
    }
    chunks
        .into_iter()
        .map(|chunk| read(source, &chunk))
        .collect()
}

/// The only document of a text; `None` if it has no content.
pub(crate) fn document(source: &Source) -> Result<Option<Node>, Diagnostics> {
    check_size(source)?;
    let mut chunks = split(&source.text).into_iter();
    let first = chunks
        .next()
        .map(|chunk| read(source, &chunk))
        .transpose()?;
    match chunks.next() {
        None => Ok(first),
        Some(second) => {
            let span = Span {
                line: second.lines_before + 1,
                column: 1,
                start: second.bytes.start,
                end: second.bytes.start,
            };
            Err(refuse(
                &source.place(span),
                "expected one document, found more",
            ))
        }
    }
}

fn refuse(place: &Place, message: impl Into<String>) -> Diagnostics {
    Diagnostic::error(place, "", message).into()
}

fn whole() -> Span {
    Span {
        line: 1,
        column: 1,
        start: 0,
        end: 0,
    }
}

fn check_size(source: &Source) -> Result<(), Diagnostics> {
    if source.text.len() <= MAX_TEXT_BYTES {
        return Ok(());
    }
    let message = format!(
        "the text has {} bytes, which is more than the {MAX_TEXT_BYTES} that are read",
        source.text.len()
    );
    Err(refuse(&source.place(whole()), message))
}

/// One document of a text.
struct Chunk {
    bytes: Range<usize>,
    lines_before: usize,
}

/// Cuts a text at its `---` lines: these separate documents wherever they
/// stand at the start of a line, also inside of quotes and blocks (YAML 1.2,
/// 9.1.2), so that an error in one document leaves the others readable.
fn split(text: &str) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let mut chunk = Chunk {
        bytes: 0..0,
        lines_before: 0,
    };
    let mut content = false;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let rest = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with(|c: char| c.is_ascii_whitespace()));
        if rest.is_some() {
            let start = chunk.bytes.end;
            let next = Chunk {
                bytes: start..start,
                lines_before: number,
            };
            let done = std::mem::replace(&mut chunk, next);
            if std::mem::take(&mut content) {
                chunks.push(done);
            }
        }
        let visible = rest.unwrap_or(line).trim_start_matches('\u{feff}').trim();
        content |= !(visible.is_empty() || visible.starts_with(['#', '%']) || visible == "...");
        chunk.bytes.end += line.len();
    }
    if content {
        chunks.push(chunk);
    }
    chunks
}

fn read(source: &Source, chunk: &Chunk) -> Result<Node, Diagnostics> {
    let options: Options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
    };
    let text = &source.text[chunk.bytes.clone()];
    let reader = Reader {
        source,
        text,
        chunk,
    };
    match serde_saphyr::from_str_with_options::<Raw>(text, options) {
        Ok(raw) => reader.node(raw),
        Err(error) => Err(reader.refusal(&error)),
    }
}

/// Turns places of one document into places of its source.
struct Reader<'s> {
    source: &'s Source,
    text: &'s str,
    chunk: &'s Chunk,
}

impl Reader<'_> {
    fn span(&self, location: serde_saphyr::Location) -> Span {
        let line = usize::try_from(location.line())
            .unwrap_or(usize::MAX)
            .max(1);
        let column = usize::try_from(location.column())
            .unwrap_or(usize::MAX)
            .max(1);
        let range = self.range(location).unwrap_or_else(|| {
            let start = self.offset(line, column);
            start..start
        });
        Span {
            line: line.saturating_add(self.chunk.lines_before),
            column,
            start: range.start + self.chunk.bytes.start,
            end: range.end + self.chunk.bytes.start,
        }
    }

    fn range(&self, location: serde_saphyr::Location) -> Option<Range<usize>> {
        let start = usize::try_from(location.span().byte_offset()?).ok()?;
        let length = usize::try_from(location.span().byte_len()?).ok()?;
        self.text.get(start..start.checked_add(length)?)?;
        Some(start..start + length)
    }

    fn offset(&self, line: usize, column: usize) -> usize {
        let before: usize = self
            .text
            .split_inclusive('\n')
            .take(line - 1)
            .map(str::len)
            .sum();
        let within: usize = self.text[before..]
            .chars()
            .take(column - 1)
            .map(char::len_utf8)
            .sum();
        (before + within).min(self.text.len())
    }

    fn node(&self, raw: Raw) -> Result<Node, Diagnostics> {
        let Spanned {
            value,
            referenced,
            defined,
        } = raw.0;
        let span = self.span(referenced);
        let value = match value {
            RawValue::Null => Value::Null,
            RawValue::Scalar(kind, Some(text)) => Value::Scalar { kind, text },
            RawValue::Scalar(kind, None) => Value::Scalar {
                kind,
                text: self.written(kind, defined),
            },
            RawValue::List(nodes) => Value::List(
                nodes
                    .into_iter()
                    .map(|node| self.node(node))
                    .collect::<Result<_, _>>()?,
            ),
            RawValue::Map(entries) => Value::Map(
                entries
                    .into_iter()
                    .map(|entry| self.entry(entry))
                    .collect::<Result<_, _>>()?,
            ),
        };
        Ok(Node { value, span })
    }

    fn entry(&self, (key, node): (Raw, Raw)) -> Result<Entry, Diagnostics> {
        let key = self.node(key)?;
        match key.value {
            Value::Scalar { text, .. } => Ok(Entry {
                key: text,
                span: key.span,
                node: self.node(node)?,
            }),
            _ => Err(refuse(
                &self.source.place(key.span),
                "expected a name as key",
            )),
        }
    }

    /// A number or boolean as it was written, so that a place for text can take it.
    fn written(&self, kind: Kind, defined: serde_saphyr::Location) -> String {
        let written = self.range(defined).map(|range| self.text[range].trim());
        match (written, kind) {
            (Some(text), _) if !text.is_empty() => text.to_owned(),
            (_, Kind::Bool(value)) => value.to_string(),
            (_, Kind::Unsigned(value)) => value.to_string(),
            (_, Kind::Signed(value)) => value.to_string(),
            (_, Kind::Float(value)) => value.to_string(),
            (_, Kind::Text) => String::new(),
        }
    }

    fn refusal(&self, error: &serde_saphyr::Error) -> Diagnostics {
        let span = match error.location() {
            Some(location) => self.span(location),
            None => Span {
                line: self.chunk.lines_before + 1,
                column: 1,
                start: self.chunk.bytes.start,
                end: self.chunk.bytes.start,
            },
        };
        let source = &self.source.guarded(self.text);
        let text = error.without_snippet().to_string();
        let first = text.lines().next().unwrap_or("not readable");
        // The place is shown beside the message already.
        let message = first.split(" at line ").next().unwrap_or(first);
        let message = match message.strip_prefix("error: line ") {
            Some(rest) => rest.split_once(": ").map_or(rest, |(_, message)| message),
            None => message,
        };
        refuse(&source.place(span), format!("not valid YAML: {message}"))
    }
}
