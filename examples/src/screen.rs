//! What the demo shows: a table that is drawn anew each second on a terminal, JSON lines elsewhere.
//!
//! It refuses to know where figures come from.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};

use comfy_table::{Cell, CellAlignment, Color, Table, presets};
use serde_json::{Value, json};

use crate::observe::{Second, States};
use crate::role::load::Seen;
use crate::schedule::Mode;
use crate::tally::Tally;
use crate::topology::BROKEN;

/// Cursor to the top left; then, after the frame, clear what the last frame had more.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K\n";
const CLEAR_BELOW: &str = "\x1b[J";
const CLEAR_ALL: &str = "\x1b[2J";
/// News shown below the table.
const NEWS: usize = 6;

/// Where the demo writes.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    header: String,
    news: Vec<String>,
}

/// What one second's frame is drawn from.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Whole seconds since the load began.
    pub(crate) elapsed: u64,
    /// What the schedule does to [`BROKEN`].
    pub(crate) mode: Mode,
    /// The last second as the load saw it.
    pub(crate) load: &'a Seen,
    /// Requests and failures since the start.
    pub(crate) totals: (u64, u64),
    /// The mesh from outside.
    pub(crate) second: &'a Second,
    /// Sums since the start.
    pub(crate) tally: &'a Tally,
}

impl Screen {
    /// A screen for stdout as it is.
    pub(crate) fn new() -> Self {
        Self {
            terminal: std::io::stdout().is_terminal(),
            header: String::new(),
            news: Vec::new(),
        }
    }

    /// Says what is going on before there is anything to show.
    pub(crate) fn progress(&self, what: &str) {
        if self.terminal {
            write(&format!("{what}\n"));
        }
    }

    /// Says what runs: the first line of JSON, or the head of the table.
    pub(crate) fn running(&mut self, running: &Value, telemetry: &str) {
        if !self.terminal {
            return write(&format!("{running}\n"));
        }
        self.header = format!(
            "Selvage demo: load → gateway → orders, inventory, all over mutual TLS. Ctrl-C ends it.\n\
             operator  {}  (token in SELVAGE_TOKEN_FILE {})\nmetrics   {telemetry}\n",
            running["operator"]["url"].as_str().unwrap_or("-"),
            running["tokenFile"].as_str().unwrap_or("-"),
        );
        write(CLEAR_ALL);
    }

    /// Tells something that happened.
    pub(crate) fn event(&mut self, event: &Value) {
        if !self.terminal {
            return write(&format!("{event}\n"));
        }
        let mut line = String::new();
        for (key, value) in event.as_object().into_iter().flatten() {
            let text = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            let _ = if key == "event" {
                write!(line, "{text}:")
            } else {
                write!(line, " {key} {text}")
            };
        }
        self.news.push(line);
        let old = self.news.len().saturating_sub(NEWS);
        self.news.drain(..old);
    }

    /// Says how it all went.
    pub(crate) fn finished(&self, report: &Value) {
        if self.terminal {
            write(&format!("\n{report:#}\n"));
        } else {
            let mut report = report.clone();
            report["event"] = json!("finished");
            write(&format!("{report}\n"));
        }
    }

    /// Shows one second.
    pub(crate) fn frame(&self, frame: &Frame<'_>) {
        if !self.terminal {
            return write(&format!("{}\n", tick(frame)));
        }
        let mut text = format!("{}\n{}\n{}\n", self.header, summary(frame), table(frame));
        for line in &self.news {
            text.push_str(line);
            text.push('\n');
        }
        write(&format!(
            "{HOME}{}{CLEAR_BELOW}",
            text.replace('\n', CLEAR_LINE)
        ));
    }
}

fn write(text: &str) {
    let mut out = std::io::stdout().lock();
    // A reader that went away is no reason to stop: a report may be wanted.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn tick(frame: &Frame<'_>) -> Value {
    json!({
        "event": "second",
        "second": frame.elapsed,
        "fault": { "workload": BROKEN, "mode": frame.mode },
        "rps": frame.load.all.requests,
        "p50Ms": frame.load.p50_ms,
        "p99Ms": frame.load.p99_ms,
        "requests": frame.totals.0,
        "failures": frame.totals.1,
        "retries": frame.tally.retries(),
        "breakerTransitions": frame.tally.transitions(),
        "endpoints": frame.second.breakers,
        "breakers": frame.second.replicas,
    })
}

fn summary(frame: &Frame<'_>) -> String {
    let load = frame.load;
    let good = load.all.requests.saturating_sub(load.all.failures);
    let percent = 100.0 * good as f64 / (load.all.requests.max(1)) as f64;
    format!(
        "{:>4} s   {:>4} rps   {percent:>6.2} % success   p50 {:.1} ms   p99 {:.1} ms   since start: {} requests, {} failures, {} retries",
        frame.elapsed,
        load.all.requests,
        load.p50_ms,
        load.p99_ms,
        frame.totals.0,
        frame.totals.1,
        frame.tally.retries(),
    )
}

fn table(frame: &Frame<'_>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "replica",
        "state",
        "rps",
        "success",
        "p50 ms",
        "p99 ms",
        "its callers' breakers",
    ]);
    for row in &frame.second.rows {
        let broken = row.workload == BROKEN && frame.mode != Mode::Healthy;
        let state = match (row.seen, broken) {
            (false, _) => Cell::new("sidecar away").fg(Color::Red),
            (true, true) => Cell::new(frame.mode).fg(Color::Red),
            (true, false) => Cell::new("healthy").fg(Color::Green),
        };
        let figure = |value: Option<f64>| {
            Cell::new(value.map_or("-".to_owned(), |value| format!("{value:.1}")))
                .set_alignment(CellAlignment::Right)
        };
        let breakers = states(frame.second.replicas.get(&row.workload));
        table.add_row([
            Cell::new(&row.workload),
            state,
            figure(Some(row.rps)),
            figure(row.success),
            figure(row.p50_ms),
            figure(row.p99_ms),
            Cell::new(breakers),
        ]);
    }
    table
}

fn states(states: Option<&States>) -> String {
    let mut text = String::new();
    for (state, count) in states
        .into_iter()
        .flatten()
        .filter(|(_, count)| **count > 0)
    {
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{count} {state}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::observe::Row;
    use crate::role::load::Counts;

    fn row(workload: &str, seen: bool) -> Row {
        Row {
            workload: workload.to_owned(),
            rps: 7.0,
            success: Some(50.0),
            p50_ms: None,
            p99_ms: Some(1.25),
            seen,
        }
    }

    #[test]
    fn a_frame_tells_of_the_fault_the_load_and_the_breakers() {
        let second = Second {
            rows: vec![row("inventory-1", false), row("inventory-2", true)],
            replicas: BTreeMap::from([(
                "inventory-2".to_owned(),
                BTreeMap::from([("closed".to_owned(), 2), ("open".to_owned(), 5)]),
            )]),
            breakers: BTreeMap::from([(
                "inventory",
                BTreeMap::from([("closed".to_owned(), 2), ("open".to_owned(), 1)]),
            )]),
        };
        let seen = Seen {
            all: Counts {
                requests: 200,
                failures: 1,
            },
            p50_ms: 2.0,
            p99_ms: 9.0,
            by_kind: BTreeMap::new(),
            by_phase: BTreeMap::new(),
        };
        let frame = Frame {
            elapsed: 5,
            mode: Mode::Hang,
            load: &seen,
            totals: (1000, 3),
            second: &second,
            tally: &Tally::default(),
        };
        let drawn = table(&frame).to_string();
        for words in [
            "inventory-1",
            "sidecar away",
            "hang",
            "50.0",
            "2 closed, 5 open",
        ] {
            assert!(drawn.contains(words), "{words} in\n{drawn}");
        }
        assert!(
            summary(&frame).contains("99.50 % success"),
            "{}",
            summary(&frame)
        );
        let tick = tick(&frame);
        assert_eq!(tick["fault"], json!({ "workload": BROKEN, "mode": "hang" }));
        assert_eq!(
            (&tick["failures"], &tick["endpoints"]["inventory"]["open"]),
            (&json!(3), &json!(1))
        );
    }
}
