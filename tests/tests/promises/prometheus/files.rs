//! The files as they are shipped: what promtool says of them, that no rule is left untested, and
//! that the dashboard is laid out.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::process::Command;

use super::{commands, read, said};

/// The values of `key` in a YAML file of the folder, one on a line.
pub(super) fn values(file: &str, key: &str) -> Vec<String> {
    let start = format!("- {key}: ");
    let text = read(file);
    let found = text.lines().filter_map(|line| {
        let value = line.trim_start().strip_prefix(&start)?;
        Some(value.to_owned())
    });
    found.collect()
}

#[tokio::test]
async fn promtool_takes_the_files_and_their_tests_hold() {
    let block = commands()
        .into_iter()
        .find(|block| block.starts_with("promtool "));
    let mut shell = Command::new("sh");
    shell
        .arg("-euc")
        .arg(block.expect("the README checks the files"));
    let said = said(shell).await;
    for (file, key) in [
        ("rules/recording.yml", "record"),
        ("rules/alerts.yml", "alert"),
    ] {
        let count = values(file, key).len();
        let line = format!("Checking examples/prometheus/{file}\n  SUCCESS: {count} rules found");
        assert!(count > 8 && said.contains(&line), "{said}");
    }
    for file in ["recording.yml", "alerts.yml"] {
        let line = format!("Unit Testing:  examples/prometheus/tests/{file}\n  SUCCESS");
        assert!(said.contains(&line), "{said}");
    }
}

#[test]
fn every_rule_is_tested() {
    for (rules, key, tests) in [
        ("rules/recording.yml", "record", "tests/recording.yml"),
        ("rules/alerts.yml", "alert", "tests/alerts.yml"),
    ] {
        let tests = read(tests);
        let untested: Vec<_> = values(rules, key)
            .into_iter()
            .filter(|rule| !tests.contains(rule.as_str()))
            .collect();
        assert!(untested.is_empty(), "no test names {untested:?}");
    }
}

#[test]
fn the_panels_of_the_dashboard_have_places_and_words() {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("it is JSON");
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("there are panels") {
        let title = panel["title"].as_str().unwrap_or_default();
        assert!(!title.is_empty(), "{panel}");
        assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is taken");
        if panel["type"] != "row" {
            let words = panel["description"].as_str().unwrap_or_default();
            assert!(!words.is_empty(), "{title} says nothing of itself");
            assert!(
                panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{title} has no unit"
            );
        }
        let number = |name: &str| {
            panel["gridPos"][name]
                .as_u64()
                .expect("a place in the grid")
        };
        let (left, top) = (number("x"), number("y"));
        assert!(left + number("w") <= 24, "{title} is too wide");
        for x in left..left + number("w") {
            for y in top..top + number("h") {
                assert!(cells.insert((x, y)), "{title} covers another panel");
            }
        }
    }
    assert!(ids.len() > 30, "{} panels and rows", ids.len());
}
