//! Finding a route costs hardly more of ten thousand than of ten, whatever
//! tells them apart; instructions are counted, not timed.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use selvage_tests::callgrind::{Callgrind, Executed};
use selvage_tests::process::binary;
use serde_json::Value;

const SIZES: [&str; 3] = ["10", "1000", "10000"];

/// As many requests the program looks up for each line.
const LOOKUPS: u64 = 2_000;

/// Ten thousand may cost as many times what ten cost: a search among them, by
/// halves, takes four times as many steps, and is a part of it.
const GROWTH: f64 = 2.0;

/// Of a table with ten thousand routes, beside the routes themselves. An
/// automaton of so many patterns takes most of it.
const KIB: u64 = 64 << 10;

/// What it may take to make one, under valgrind: 0.1 to 4 s were seen.
const MILLIS: u64 = 20_000;

/// The program, running; it ends with its input.
struct Tables {
    callgrind: Callgrind,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Tables {
    fn of(shape: &str) -> Self {
        let callgrind = Callgrind::new();
        let command = callgrind.later();
        let mut child = Command::new(&command[0])
            .args(&command[1..])
            .arg(binary("route-cost"))
            .arg(shape)
            .args(SIZES)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("valgrind starts");
        let input = child.stdin.take().expect("it is piped");
        let output = child.stdout.take().expect("it is piped");
        let mut tables = Self {
            callgrind,
            child,
            input,
            output: BufReader::new(output).lines(),
        };
        for size in SIZES {
            tables.made(shape, size);
        }
        tables.callgrind.begin(tables.child.id());
        tables
    }

    fn line(&mut self) -> String {
        let line = self.output.next().expect("it goes on");
        line.expect("it can be read")
    }

    fn made(&mut self, shape: &str, size: &str) {
        let line = self.line();
        let made: Value = serde_json::from_str(&line).expect("it says what it made");
        assert_eq!(made["matches"].to_string(), size, "{shape}");
        println!("{shape}, {size}: {line}");
        assert!(made["kib"].as_u64().is_some_and(|kib| kib <= KIB), "{line}");
        assert!(
            made["millis"].as_u64().is_some_and(|it| it <= MILLIS),
            "{line}"
        );
    }

    /// What [`LOOKUPS`] cost, of which `found` find a route.
    fn lookups(&mut self, size: usize, what: &str, found: u64) -> Executed {
        writeln!(self.input, "{size} {what}").expect("it reads");
        assert_eq!(self.line(), found.to_string(), "{what}");
        self.callgrind.part(self.child.id())
    }

    fn hardly_grow(&mut self, shape: &str, what: &str, found: u64) {
        let executed = [0, 1, 2].map(|size| self.lookups(size, what, found));
        let costs = executed.map(|executed| executed.instructions / LOOKUPS);
        println!("{shape}, {what}: {costs:?} instructions of {SIZES:?} routes");
        let growth = costs[2] as f64 / costs[0] as f64;
        assert!(growth <= GROWTH, "{shape}, {what}: {growth:.2} times");
        // The line itself, read and answered; none by a lookup.
        let allocations = executed.map(|executed| executed.c_allocations);
        let few = allocations.iter().all(|count| (1..50).contains(count));
        assert!(few, "{shape}, {what}: {allocations:?} allocations");
    }
}

impl Drop for Tables {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// What tells routes apart: a lookup among few and among many.
fn hardly_grow(shapes: &[&str]) {
    for shape in shapes {
        let mut tables = Tables::of(shape);
        for (what, found) in [("hit", LOOKUPS), ("miss", 0)] {
            tables.hardly_grow(shape, what, found);
        }
    }
}

#[test]
fn a_lookup_grows_with_the_logarithm_of_hosts_and_paths() {
    hardly_grow(&["hosts", "wildcards", "exact", "prefixes", "calls"]);
}

#[test]
fn a_lookup_grows_with_the_logarithm_of_conditions() {
    hardly_grow(&["headers", "query"]);
}

/// The steps that a text takes for the first time are computed, and remembered.
#[test]
fn a_lookup_grows_with_the_logarithm_of_patterns_that_were_met() {
    for shape in ["patterns", "endings"] {
        let mut tables = Tables::of(shape);
        for (what, found) in [("hit", LOOKUPS), ("miss", 0)] {
            let first = [0, 1, 2].map(|size| tables.lookups(size, what, found));
            let first = first.map(|executed| executed.instructions / LOOKUPS);
            println!("{shape}, {what}: {first:?} instructions of {SIZES:?} routes, at first");
            tables.hardly_grow(shape, what, found);
        }
    }
}
