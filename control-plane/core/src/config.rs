//! Configuration files (sidecar.yaml, control-plane.yaml) with the same
//! diagnostics as resources: unknown keys are errors that name line, column
//! and the nearest known key. Refuses to know the settings, files and the
//! environment.

use serde::de::DeserializeOwned;

use crate::decode::decode;
use crate::diagnostic::{Diagnostic, Diagnostics, Source, Span};
use crate::yaml::{self, Node, Value};

/// Reads one YAML or JSON document into any type. `source_name` is shown in
/// the diagnostics; an empty text is an empty mapping. Unknown keys of structs
/// are refused whether or not the type says so.
///
/// # Errors
/// All that was found to be wrong.
pub fn parse<T: DeserializeOwned>(source_name: &str, text: &str) -> Result<T, Diagnostics> {
    parse_and_check(source_name, text, |_: &T, _| {})
}

/// As [`parse`], followed by checks of one's own, which report at the place of
/// the field they name.
///
/// # Errors
/// All that was found to be wrong; what does not parse is not checked further.
pub fn parse_and_check<T: DeserializeOwned>(
    source_name: &str,
    text: &str,
    check: impl FnOnce(&T, &mut Checker<'_>),
) -> Result<T, Diagnostics> {
    let source = Source::new(source_name, text);
    let empty = Span {
        line: 1,
        column: 1,
        start: 0,
        end: 0,
    };
    let node = yaml::document(&source)?.unwrap_or(Node {
        value: Value::Map(Vec::new()),
        span: empty,
    });
    let value = decode(&source, &node)?;
    let mut checker = Checker::new(&source, &node);
    check(&value, &mut checker);
    let found = checker.finish();
    if found.is_empty() {
        Ok(value)
    } else {
        Err(found)
    }
}

/// Collects what is wrong with a document beyond its types.
#[derive(Debug)]
pub struct Checker<'n> {
    source: &'n Source,
    node: &'n Node,
    found: Diagnostics,
}

impl<'n> Checker<'n> {
    pub(crate) fn new(source: &'n Source, node: &'n Node) -> Self {
        Self {
            source,
            node,
            found: Diagnostics::default(),
        }
    }

    /// Reports an error at a field, such as `inbound.ports[0].port`. A field
    /// that is not there is shown at the nearest one around it.
    pub fn error(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.report(path.into(), message.into(), None);
    }

    /// The same with advice.
    pub fn error_with_help(
        &mut self,
        path: impl Into<String>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.report(path.into(), message.into(), Some(help.into()));
    }

    /// Reports an error unless the condition holds.
    pub fn require(&mut self, holds: bool, path: impl Into<String>, message: impl Into<String>) {
        if !holds {
            self.error(path, message);
        }
    }

    fn report(&mut self, path: String, message: String, help: Option<String>) {
        let place = self.source.place(self.node.at(&path).span);
        self.found
            .push(Diagnostic::error(&place, path, message).with_help(help));
    }

    pub(crate) fn finish(self) -> Diagnostics {
        self.found
    }
}
