//! Files of resources: from the names on the command line to one text for the control plane.
//!
//! It knows which line of that text came from which file. It refuses to know what the lines say.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// The largest input that is read, over all files: what the parser takes as one text.
pub(crate) const INPUT_LIMIT: u64 = 10 * 1024 * 1024;
/// Endings of the files in a folder that are resources.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];
/// What `-` is called in diagnostics.
const STDIN: &str = "<stdin>";

/// Why there is nothing to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("cannot read {name}: {cause}")]
    Read { name: String, cause: std::io::Error },
    #[error("{name} holds no file that ends in .yaml, .yml or .json")]
    Empty { name: String },
    #[error("the files are larger than {} MiB together", INPUT_LIMIT / 1024 / 1024)]
    TooLarge,
}

/// One text and what it is called.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Reads all files; those of a folder in the order of their names, folders in it left out.
pub(crate) fn read(paths: &[PathBuf]) -> Result<Vec<Source>, SourceError> {
    let mut sources = Vec::new();
    let mut left = INPUT_LIMIT;
    for path in paths {
        if path.as_os_str() == "-" {
            sources.push(read_one(
                STDIN.to_owned(),
                std::io::stdin().lock(),
                &mut left,
            )?);
            continue;
        }
        for file in files(path)? {
            let name = file.display().to_string();
            let open = std::fs::File::open(&file);
            let open = open.map_err(|cause| SourceError::Read {
                name: name.clone(),
                cause,
            })?;
            sources.push(read_one(name, open, &mut left)?);
        }
    }
    Ok(sources)
}

fn read_one(name: String, from: impl std::io::Read, left: &mut u64) -> Result<Source, SourceError> {
    let mut text = String::new();
    let read = from.take(*left + 1).read_to_string(&mut text);
    let read = read.map_err(|cause| SourceError::Read {
        name: name.clone(),
        cause,
    })? as u64;
    *left = left.checked_sub(read).ok_or(SourceError::TooLarge)?;
    Ok(Source { name, text })
}

fn files(path: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let name = || path.display().to_string();
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).map_err(|cause| SourceError::Read {
        name: name(),
        cause,
    })?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry
            .map_err(|cause| SourceError::Read {
                name: name(),
                cause,
            })?
            .path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        Err(SourceError::Empty { name: name() })
    } else {
        Ok(files)
    }
}

/// All sources as one stream of documents.
pub(crate) fn join(sources: &[Source]) -> String {
    let mut text = String::new();
    for source in sources {
        text.push_str(&source.text);
        if !source.text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str("---\n");
    }
    text
}

/// The file and its line of a line of the joined text, both from 1.
pub(crate) fn place(sources: &[Source], line: usize) -> Option<(&str, usize)> {
    let mut before = 0;
    for source in sources {
        let lines = source.text.lines().count().max(1) + 1;
        if line <= before + lines {
            return Some((&source.name, line.checked_sub(before)?));
        }
        before += lines;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str, text: &str) -> Source {
        Source {
            name: name.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_line_of_the_joined_text_is_found_in_its_file() {
        let sources = [
            source("a", "1\n2\n"),
            source("b", "1"),
            source("empty", ""),
            source("c", "1\n---\n3\n"),
        ];
        let joined = join(&sources);
        let found: Vec<(&str, usize)> = (1..=joined.lines().count())
            .filter_map(|line| place(&sources, line))
            .collect();
        assert_eq!(joined, "1\n2\n---\n1\n---\n\n---\n1\n---\n3\n---\n");
        let expected = [
            ("a", 1),
            ("a", 2),
            ("a", 3),
            ("b", 1),
            ("b", 2),
            ("empty", 1),
            ("empty", 2),
            ("c", 1),
            ("c", 2),
            ("c", 3),
            ("c", 4),
        ];
        assert_eq!(found, expected);
        assert_eq!(place(&sources, 100), None);
    }
}
