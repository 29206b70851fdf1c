//! What a sidecar executes, counted by callgrind instead of timed: the same on
//! a busy machine as on an idle one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Entry points of the allocator, as the linker names them.
const ALLOCATING: [&str; 4] = [
    "mi_malloc_aligned",
    "mi_zalloc_aligned",
    "mi_realloc_aligned",
    "mi_malloc",
];

/// The same of the C library, for programs that have no other.
const C_ALLOCATING: [&str; 6] = [
    "malloc",
    "calloc",
    "realloc",
    "__libc_malloc",
    "__libc_calloc",
    "__libc_realloc",
];

/// Counts for one process.
pub struct Callgrind {
    folder: TempDir,
}

/// What was executed between two dumps.
#[derive(Debug, Clone, Copy)]
pub struct Executed {
    /// Instructions, of user code.
    pub instructions: u64,
    /// Calls of the allocator.
    pub allocations: u64,
    /// Calls of the C library's.
    pub c_allocations: u64,
}

impl Callgrind {
    /// A folder for its dumps.
    ///
    /// # Panics
    /// When none can be made, or valgrind is missing.
    #[must_use]
    pub fn new() -> Self {
        for tool in ["valgrind", "callgrind_control"] {
            let found = Command::new(tool).arg("--version").output();
            assert!(found.is_ok(), "{tool} is missing: apt-get install valgrind");
        }
        Self {
            folder: tempfile::tempdir().expect("a temporary folder can be made"),
        }
    }

    fn dumps(&self) -> PathBuf {
        self.folder.path().join("dump")
    }

    /// The command to run the process under.
    #[must_use]
    pub fn command(&self) -> Vec<String> {
        vec![
            "valgrind".to_owned(),
            "--tool=callgrind".to_owned(),
            format!("--callgrind-out-file={}", self.dumps().display()),
        ]
    }

    /// The same for a process that counts nothing until [`Callgrind::begin`],
    /// and is that much faster before.
    #[must_use]
    pub fn later(&self) -> Vec<String> {
        let mut command = self.command();
        command.push("--instr-atstart=no".to_owned());
        command
    }

    /// Counts from now on.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn begin(&self, pid: u32) {
        let done = Command::new("callgrind_control")
            .args(["--instr=on", &pid.to_string()])
            .output()
            .expect("callgrind_control starts");
        assert!(done.status.success(), "{done:?}");
    }

    /// Ends a part: what process `pid` executed since the last one.
    ///
    /// # Panics
    /// When callgrind writes none.
    #[must_use]
    pub fn part(&self, pid: u32) -> Executed {
        let before = self.parts();
        let done = Command::new("callgrind_control")
            .arg("--dump")
            .arg(pid.to_string())
            .output()
            .expect("callgrind_control starts");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success(), "callgrind_control: {said}");
        let part = self.folder.path().join(format!("dump.{}", before + 1));
        let text = std::fs::read_to_string(&part)
            .unwrap_or_else(|error| panic!("{}: {error}; {said}", part.display()));
        parse(&text)
    }

    fn parts(&self) -> usize {
        (1..)
            .take_while(|number| {
                let part: &Path = &self.folder.path().join(format!("dump.{number}"));
                part.exists()
            })
            .count()
    }
}

impl Default for Callgrind {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads a dump in callgrind's format: `totals:`, and a `calls=` line after
/// each `cfn=`, whose names are written out at their first mention alone.
fn parse(text: &str) -> Executed {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let mut callee = "";
    let mut executed = Executed {
        instructions: 0,
        allocations: 0,
        c_allocations: 0,
    };
    for line in text.lines() {
        if let Some(total) = line.strip_prefix("totals: ") {
            executed.instructions = total.trim().parse().expect("a count");
        } else if let Some(name) = line.strip_prefix("fn=").or(line.strip_prefix("cfn=")) {
            let (id, written) = name.split_once(' ').unwrap_or((name, ""));
            if !written.is_empty() {
                names.insert(id, written);
            }
            if line.starts_with('c') {
                callee = names.get(id).copied().unwrap_or_default();
            }
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let count = calls.split(' ').next().unwrap_or_default();
            let count: u64 = count.parse().expect("a count");
            if ALLOCATING.contains(&callee) {
                executed.allocations += count;
            } else if C_ALLOCATING.contains(&callee) {
                executed.c_allocations += count;
            }
        }
    }
    executed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_allocator_are_summed_over_their_callers() {
        let dump = "fn=(1) work\n10 3\ncfn=(2) mi_malloc_aligned\ncalls=2 1\n10 9\n\
                    fn=(3) more\ncfn=(2)\ncalls=5 1\n7 8\ncfn=(1)\ncalls=9 1\n1 1\n\
                    fn=(2)\ncfn=(4) mi_page\ncalls=7 1\n1 1\n\
                    cfn=(5) malloc\ncalls=3 1\n1 1\ntotals: 4711\n";
        let executed = parse(dump);
        assert_eq!((executed.instructions, executed.allocations), (4711, 7));
        assert_eq!(executed.c_allocations, 3);
    }
}
