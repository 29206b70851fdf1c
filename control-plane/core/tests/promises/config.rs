//! Configuration files are refused with line, column, field and advice.

use std::collections::BTreeMap;

use selvage_core::config;
use selvage_core::scalar::{ByteSize, Duration};
use serde::Deserialize;

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Settings {
    workload: Workload,
    trust_domain: Option<String>,
    inbound: Inbound,
    access_log: AccessLog,
    replay: ByteSize,
    ports: BTreeMap<u16, u16>,
    store: Store,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Workload {
    name: String,
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Inbound {
    ports: Vec<Port>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    port: u16,
    idle: Option<Duration>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum AccessLog {
    #[default]
    Off,
    Text,
    Json,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Store {
    #[default]
    Embedded,
    Etcd(Vec<String>),
}

#[test]
fn words_and_numbers_are_what_their_field_asks_for() {
    let text = "
workload: { name: ratings-1, labels: {version: 1.10, on: yes, n: 007} }
inbound:
  ports: [{ port: 8080, idle: 5m }]
accessLog: off
replay: 64KiB
ports: {80: 8080}
store: {etcd: [https://a]}
";
    let settings: Settings = config::parse("sidecar.yaml", text).unwrap();
    let labels = [("version", "1.10"), ("on", "yes"), ("n", "007")];
    let labels = labels.map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(settings.workload.labels, BTreeMap::from(labels));
    assert_eq!(settings.inbound.ports[0].port, 8080);
    assert_eq!(settings.access_log, AccessLog::Off);
    assert_eq!(settings.replay, ByteSize(65_536));
    assert_eq!(settings.ports, BTreeMap::from([(80, 8080)]));
    assert_eq!(settings.store, Store::Etcd(vec!["https://a".to_owned()]));
}

#[test]
fn an_empty_file_is_all_defaults() {
    for text in ["", "\n# nothing\n", "---\n", "---\n...\n", "{}"] {
        let settings: Settings = config::parse("sidecar.yaml", text).unwrap();
        assert_eq!(settings, Settings::default(), "{text:?}");
    }
}

#[test]
fn refusals_name_place_field_and_advice() {
    let table = [
        (
            "trustDomian: x",
            "1:1 trustDomian: unknown key `trustDomian` / did you mean `trustDomain`?",
        ),
        (
            "inbound:\n  ports:\n  - { port: 70000 }",
            "3:13 inbound.ports[0].port: expected a whole number from 0 to 65535, found `70000`",
        ),
        (
            "inbound: { ports: [{ port: 1, idle: 5 }] }",
            "1:37 inbound.ports[0].idle: expected a duration such as `250ms`, `5s` or `1h30m`, found `5`",
        ),
        (
            "inbound: { ports: [{}] }",
            "1:20 inbound.ports[0]: the key `port` is missing",
        ),
        (
            "accessLog: jsn",
            "1:12 accessLog: unknown value `jsn` / did you mean `json`?",
        ),
        (
            "workload: 5",
            "1:11 workload: expected a mapping, found `5`",
        ),
        (
            "inbound: { ports: 5 }",
            "1:19 inbound.ports: expected a list, found `5`",
        ),
        (
            "ports: { x: 1 }",
            "1:10 ports.x: expected a whole number from 0 to 65535, found `x`",
        ),
        (
            "store: etcd",
            "1:8 store: `etcd` needs a value: write it as a mapping",
        ),
        ("[1]", "1:1 : expected a mapping, found a list"),
    ];
    for (text, expected) in table {
        let refused = config::parse::<Settings>("sidecar.yaml", text).unwrap_err();
        let first = &refused.as_slice()[0];
        let help = first
            .help
            .as_ref()
            .map(|help| format!(" / {help}"))
            .unwrap_or_default();
        let found = format!(
            "{}:{} {}: {}{help}",
            first.line, first.column, first.path, first.message
        );
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn every_unknown_key_is_reported_at_once() {
    let text = "workload: { nam: a, labls: {} }\ninbuond: {}\n";
    let refused = config::parse::<Settings>("sidecar.yaml", text).unwrap_err();
    let paths: Vec<_> = refused
        .as_slice()
        .iter()
        .map(|found| found.path.as_str())
        .collect();
    assert_eq!(paths, ["inbuond", "workload.nam", "workload.labls"]);
}

#[test]
fn a_refusal_reads_as_a_snippet() {
    let refused =
        config::parse::<Settings>("sidecar.yaml", "workload:\n  nmae: ratings\n").unwrap_err();
    let expected = "\
error: unknown key `nmae`
 --> sidecar.yaml:2:3
  |
2 |   nmae: ratings
  |   ^^^^ workload.nmae
  |
  = help: did you mean `name`?
";
    assert_eq!(refused.render(false), expected);
    assert!(refused.render(true).contains("\u{1b}["));
    let json = serde_json::to_value(&refused).unwrap();
    assert_eq!(json["diagnostics"][0]["line"], 2);
    assert_eq!(json["diagnostics"][0]["path"], "workload.nmae");
}

#[test]
fn checks_of_ones_own_report_at_the_field() {
    let text = "inbound:\n  ports:\n  - port: 0\n";
    let refused = config::parse_and_check::<Settings>("s.yaml", text, |settings, check| {
        check.require(
            settings.inbound.ports[0].port > 0,
            "inbound.ports[0].port",
            "not 0",
        );
    })
    .unwrap_err();
    let found = &refused.as_slice()[0];
    assert_eq!((found.line, found.column), (3, 11));
}

#[test]
fn what_is_not_yaml_is_refused_at_its_place() {
    for (text, line) in [("a: [1, 2\nb: 3", 2), ("a: 1\na: 2", 2), ("a: *x", 1)] {
        let refused = config::parse::<Settings>("s.yaml", text).unwrap_err();
        let found = &refused.as_slice()[0];
        assert_eq!(found.line, line, "{text:?}: {}", found.message);
        assert!(
            found.message.starts_with("not valid YAML: "),
            "{}",
            found.message
        );
        assert!(!found.message.contains(" line "), "{}", found.message);
    }
    let refused = config::parse::<Settings>("s.yaml", "{}\n---\n{}\n").unwrap_err();
    assert_eq!(
        refused.as_slice()[0].message,
        "expected one document, found more"
    );
    assert_eq!(refused.as_slice()[0].line, 2);
}
