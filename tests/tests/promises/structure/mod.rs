//! How the source is laid out: the walls between packages, the order of the
//! proxy's modules, and what every folder and file begins with.

mod modules; // the proxy's modules import only from their right
mod packages; // the walls between packages

use std::path::{Path, PathBuf};

/// The folder of the workspace.
fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("tests/ lies in the workspace")
        .to_path_buf()
}

/// Every Rust source below `folder`, but for what is built; in a steady order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a folder of the workspace can be read");
        for entry in entries {
            let path = entry.expect("a folder of the workspace can be read").path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A path as it is spoken of: from the workspace on.
fn shown(path: &Path) -> String {
    path.strip_prefix(workspace())
        .unwrap_or(path)
        .display()
        .to_string()
}

#[test]
fn every_file_opens_by_saying_what_it_is() {
    let bare: Vec<_> = sources(&workspace())
        .into_iter()
        .filter(|path| !read(path).starts_with("//!"))
        .map(|path| shown(&path))
        .collect();
    assert!(bare.is_empty(), "these do not open with //!: {bare:#?}");
}

#[test]
fn every_folder_of_the_design_has_a_readme() {
    let folders = [
        "",
        "certs",
        "proxy",
        "proxy/policy",
        "control-plane",
        "control-plane/api",
        "control-plane/core",
        "control-plane/cli",
        "examples",
        "tests",
    ];
    let missing: Vec<_> = folders
        .iter()
        .filter(|folder| !workspace().join(folder).join("README.md").exists())
        .collect();
    assert!(missing.is_empty(), "these have no README.md: {missing:?}");
}

#[test]
fn the_top_level_holds_nothing_else() {
    let known = [
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "proxy",
        "control-plane",
        "certs",
        "examples",
        "tests",
    ];
    let listed = std::process::Command::new("git")
        .args(["ls-files", "--cached"])
        .current_dir(workspace())
        .output();
    let listed = listed.expect("git lists the files of a checkout");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut strangers: Vec<_> = text
        .lines()
        .map(|path| path.split('/').next().unwrap_or_default())
        .filter(|name| !known.contains(name) && !name.starts_with('.'))
        .collect();
    strangers.dedup();
    assert!(!text.is_empty(), "the workspace is a git checkout");
    assert!(
        strangers.is_empty(),
        "these do not belong at the top level: {strangers:?}"
    );
}

#[test]
fn policy_reads_no_clock() {
    let source = workspace().join("proxy/policy/src");
    let library = read(&source.join("lib.rs"));
    for path in sources(&source) {
        let module = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if library.contains(&format!("#[cfg(test)]\nmod {module};")) {
            continue;
        }
        let text = read(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let mut lines = code
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        let clock = |line: &&str| line.contains("Instant::now") || line.contains("SystemTime::now");
        assert_eq!(lines.find(clock), None, "{} reads a clock", shown(&path));
    }
}

#[test]
fn the_longest_files_and_functions_are_shown() {
    let mut files = Vec::new();
    let mut functions = Vec::new();
    for path in sources(&workspace()) {
        let text = read(&path);
        files.push((text.lines().count(), shown(&path)));
        functions.extend(
            function_lengths(&text)
                .into_iter()
                .map(|(lines, name)| (lines, name, shown(&path))),
        );
    }
    files.sort_unstable_by(|a, b| b.cmp(a));
    functions.sort_unstable_by(|a, b| b.cmp(a));
    println!("longest files: {:#?}", &files[..files.len().min(8)]);
    println!(
        "longest functions: {:#?}",
        &functions[..functions.len().min(8)]
    );
    // Twice what a reader is promised is no longer an exception but a second thing in one place.
    let (lines, name) = &files[0];
    assert!(*lines <= 800, "{name} has {lines} lines");
    let (lines, name, file) = &functions[0];
    assert!(*lines <= 140, "{name} in {file} has {lines} lines");
}

/// Each function with its length in lines, told by the indentation that rustfmt gives.
fn function_lengths(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(name) = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) fn ",
            "pub(crate) async fn ",
            "pub(super) fn ",
            "pub(super) async fn ",
        ]
        .iter()
        .find_map(|prefix| code.strip_prefix(prefix)) else {
            continue;
        };
        let close = format!("{}}}", " ".repeat(line.len() - code.len()));
        let Some(length) = lines[start..].iter().position(|line| *line == close) else {
            continue;
        };
        let name = name.split(['(', '<']).next().unwrap_or(name);
        found.push((length + 1, name.to_owned()));
    }
    found
}
