//! Fault isolation side by side: the same replicas, broken in the same way at
//! the same moments, under the same load, behind Selvage and behind Envoy.
//!
//! Rounds are fixed beforehand. In each, every peer plays every scene; the eight
//! scenes with replicas go on at once, each with a proxy of its own, because most
//! of their time is waiting.

mod peers; // who is measured, and what it is told
mod report; // tables
mod scenes; // what is broken when

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use tokio::sync::Barrier;

use self::peers::Peer;
use self::report::{Run, tables, values};
use self::scenes::{Lengths, Scene, WITH_REPLICAS};
use crate::Failure;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often everything is played.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds for which something is broken.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Seconds for which a recovery is waited for at most.
    #[arg(long, default_value_t = 50)]
    recovery: u64,
    /// Who plays, in the order of the tables.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Peer::Selvage, Peer::Envoy, Peer::EnvoyTuned, Peer::Unprotected])]
    peers: Vec<Peer>,
    /// Only scenes whose name holds this.
    #[arg(long, default_value = "")]
    scenes: String,
    /// Receives results.json and table.md.
    #[arg(long)]
    out: PathBuf,
    /// Stands before the tables: when, where, with what.
    #[arg(long, default_value = "")]
    about: String,
    /// A page that receives the tables between its two marks.
    #[arg(long)]
    readme: Option<PathBuf>,
}

const BEGIN: &str = "<!-- results: begin -->";
const END: &str = "<!-- results: end -->";

/// Plays all rounds and writes what they showed.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    std::fs::create_dir_all(&options.out)?;
    let lengths = Lengths {
        broken: Duration::from_secs(options.seconds),
        recovery: Duration::from_secs(options.recovery),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let mut runs = Vec::new();
    for round in 1..=options.rounds {
        let mut peers = options.peers.clone();
        let shift = (round as usize - 1) % peers.len();
        peers.rotate_left(shift);
        for peer in peers {
            runs.extend(runtime.block_on(play(round, peer, &options.scenes, lengths)));
        }
        std::fs::write(options.out.join("results.json"), values(&runs).to_string())?;
    }
    let tables = tables(&runs, &options.peers, lengths);
    let text = format!("{}\n{tables}", options.about);
    std::fs::write(options.out.join("table.md"), &text)?;
    println!("{text}");
    options
        .readme
        .as_deref()
        .map_or(Ok(()), |page| insert(page, &text))
}

/// Puts the tables between the marks of a page.
fn insert(page: &Path, tables: &str) -> Result<(), Failure> {
    let old = std::fs::read_to_string(page)?;
    let marks = old
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = marks.ok_or_else(|| format!("{} lacks its marks", page.display()))?;
    std::fs::write(
        page,
        format!("{before}{BEGIN}\n{}\n{END}{after}", tables.trim_end()),
    )?;
    Ok(())
}

/// Every wanted scene with one peer.
async fn play(round: u32, peer: Peer, wanted: &str, lengths: Lengths) -> Vec<Run> {
    let is_wanted = |scene: &Scene| scene.name().contains(wanted);
    let together: Vec<Scene> = WITH_REPLICAS
        .into_iter()
        .filter(|scene| peer.calls() && is_wanted(scene))
        .collect();
    // Starting takes more of the machine than anything that follows.
    let started = Barrier::new(together.len().max(1));
    let started = &started;
    let played = |scene: Scene| async move {
        let figures = scene.play(peer, lengths, started).await;
        tell(round, scene, peer, &figures);
        Run {
            round,
            scene,
            peer,
            figures,
        }
    };
    let mut runs = join_all(together.into_iter().map(played)).await;
    if is_wanted(&Scene::Overload) {
        runs.push(played(Scene::Overload).await);
    }
    runs
}

#[expect(clippy::print_stderr, reason = "progress of some minutes")]
fn tell(round: u32, scene: Scene, peer: Peer, figures: &Result<scenes::Figures, String>) {
    let said = match figures {
        Ok(figures) => {
            let each = figures
                .iter()
                .map(|(name, value)| format!("{name} {value:.1}"));
            each.collect::<Vec<_>>().join(", ")
        }
        Err(why) => format!("not run: {why}"),
    };
    eprintln!("round {round}, {}, {}: {said}", peer.name(), scene.name());
}
