//! The tables: for each scene and peer the median over the rounds, with the
//! least and the greatest.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::isolation::peers::Peer;
use crate::isolation::scenes::{Figures, Lengths, Scene, WITH_REPLICAS};

/// One run of a scene.
pub(crate) struct Run {
    /// From 1.
    pub(crate) round: u32,
    pub(crate) scene: Scene,
    pub(crate) peer: Peer,
    /// What it showed, or why it could not be played.
    pub(crate) figures: Result<Figures, String>,
}

/// A column: the figure, its title, and what stands there where it was not seen.
type Column = (&'static str, &'static str, &'static str);

const REPLICA_COLUMNS: [Column; 6] = [
    ("failed", "callers that failed, %", "–"),
    ("healthyP99", "p99 before, ms", "–"),
    ("p99", "p99 while broken, ms", "–"),
    ("got", "requests the broken got", "–"),
    ("back", "its share again after, s", "not seen"),
    ("failedFor", "last failure after, s", "–"),
];
const OVERLOAD_COLUMNS: [Column; 6] = [
    ("goodput", "goodput, % of capacity", "–"),
    ("got", "reached the application, % of capacity", "–"),
    ("healthyP99", "p99 before, ms", "–"),
    ("goodP99", "p99 of good answers, ms", "–"),
    ("refusedP99", "p99 of a refusal or failure, ms", "–"),
    ("failedFor", "last failure after, s", "–"),
];

/// Everything, for a file.
pub(crate) fn values(runs: &[Run]) -> Value {
    let value = |run: &Run| {
        let figures = match &run.figures {
            Ok(figures) => figures
                .iter()
                .map(|(name, value)| ((*name).to_owned(), json!(value)))
                .collect(),
            Err(_) => serde_json::Map::new(),
        };
        json!({
            "round": run.round, "scene": run.scene.name(), "peer": run.peer.name(),
            "missing": run.figures.as_ref().err(), "figures": figures,
        })
    };
    runs.iter().map(value).collect()
}

/// The tables in Markdown.
pub(crate) fn tables(runs: &[Run], peers: &[Peer], lengths: Lengths) -> String {
    let mut text = String::new();
    for scene in WITH_REPLICAS {
        table(
            &mut text,
            &scene.name(),
            &REPLICA_COLUMNS,
            runs,
            scene,
            peers,
            lengths,
        );
    }
    let title = "three times what the application can do";
    table(
        &mut text,
        title,
        &OVERLOAD_COLUMNS,
        runs,
        Scene::Overload,
        peers,
        lengths,
    );
    text
}

fn table(
    text: &mut String,
    title: &str,
    columns: &[Column],
    runs: &[Run],
    scene: Scene,
    peers: &[Peer],
    lengths: Lengths,
) {
    let played: Vec<&Run> = runs.iter().filter(|run| run.scene == scene).collect();
    if played.is_empty() {
        return;
    }
    let titles: Vec<_> = columns.iter().map(|(_, title, _)| *title).collect();
    let rule = "| --- ".repeat(columns.len() + 1);
    let _ = writeln!(
        text,
        "\n**{title}**\n\n| | {} |\n{rule}|",
        titles.join(" | ")
    );
    for peer in peers {
        let of_peer: Vec<&Run> = played
            .iter()
            .copied()
            .filter(|run| run.peer == *peer)
            .collect();
        let Some(first) = of_peer.first() else {
            continue;
        };
        if let Err(why) = &first.figures {
            let _ = writeln!(
                text,
                "| {} | not run: {why} {} |",
                peer.name(),
                "| ".repeat(columns.len() - 1)
            );
            continue;
        }
        let cells = columns
            .iter()
            .map(|(figure, _, absent)| cell(&of_peer, figure, absent, lengths));
        let _ = writeln!(
            text,
            "| {} | {} |",
            peer.name(),
            cells.collect::<Vec<_>>().join(" | ")
        );
    }
}

fn cell(runs: &[&Run], figure: &str, absent: &str, lengths: Lengths) -> String {
    let figures = runs.iter().filter_map(|run| run.figures.as_ref().ok());
    let value = |figures: &Figures| {
        figures
            .iter()
            .find(|(name, _)| *name == figure)
            .map(|(_, value)| *value)
    };
    let mut values: Vec<f64> = figures.filter_map(value).collect();
    let unseen = runs.len() - values.len();
    values.sort_by(f64::total_cmp);
    let (Some(least), Some(greatest)) = (values.first(), values.last()) else {
        return match absent {
            "not seen" => format!("> {}", lengths.recovery.as_secs()),
            other => other.to_owned(),
        };
    };
    // The median of the rounds that saw it; how many did not is said.
    let beyond = if unseen > 0 {
        format!(", {unseen} not seen")
    } else {
        String::new()
    };
    format!(
        "{} ({}–{}{beyond})",
        shown(values[values.len() / 2]),
        shown(*least),
        shown(*greatest)
    )
}

fn shown(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        value if value.abs() < 10.0 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}
