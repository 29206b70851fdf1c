//! The demo's own life: start the mesh, run load and schedule, keep everything alive, report, end.
//!
//! It stands above the mesh, the schedule and the screen, and calls them in turn. It refuses to know
//! how each of them does its part.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::fleet::Notice;
use crate::mesh::{CONTROL_PLANE, Mesh};
use crate::observe::Observer;
use crate::role::load::Seen;
use crate::schedule::{self, Mode};
use crate::screen::{Frame, Screen};
use crate::topology::{BROKEN, GRPC, HTTP};

/// The load's process among the others.
const LOAD: &str = "load-generator";
/// How long the load may take to see its last answers.
const FINISH: Duration = Duration::from_secs(15);
/// How long a service may take to follow an order.
const OBEY: Duration = Duration::from_secs(2);

/// The demo's command line.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// End by itself after this long (30s, 5m); otherwise it runs until Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasts: Option<Duration>,
    /// Write what happened as JSON to this file at the end
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Requests a second
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rate: u32,
    /// Of the load's random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Break nothing
    #[arg(long)]
    no_faults: bool,
    /// Keep the mesh's files and logs in this folder; otherwise they are temporary
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("expected a number and a unit, as in 30s, 5m or 1h".to_owned()),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| "expected a whole number before the unit".to_owned())?;
    number
        .checked_mul(unit)
        .filter(|&seconds| seconds > 0)
        .map(Duration::from_secs)
        .ok_or("out of range".to_owned())
}

/// Runs the demo to its end.
pub(crate) async fn run(options: Options) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let temporary = tempfile::Builder::new().prefix("selvage-demo-").tempdir()?;
    let folder = match &options.dir {
        Some(folder) => std::path::absolute(folder)?,
        None => temporary.path().to_owned(),
    };
    let mut screen = Screen::new();
    screen.progress("Starting a control plane, 8 services and 9 sidecars …");
    let began = Instant::now();
    let mesh = tokio::select! {
        mesh = Mesh::start(&folder) => mesh?,
        () = signals.next() => return Ok(()),
    };
    let mut running = mesh.running();
    running["startedInMs"] = json!(began.elapsed().as_millis() as u64);
    running["tokenFile"] = json!(folder.join("data/operator.token"));
    let telemetry = mesh.telemetry(&mesh.workloads[0], "/metrics")?;
    screen.running(&running, &telemetry);
    let mut demo = Demo {
        mesh,
        screen,
        observer: Observer::new(),
        options,
        mode: Mode::Healthy,
        totals: (0, 0),
    };
    let result = demo.live(&mut signals).await;
    let report = match result {
        Ok(()) => demo.report().await,
        Err(error) => Err(error),
    };
    demo.mesh.fleet.end().await;
    report
}

/// SIGINT and SIGTERM: both end the demo.
struct Signals(Signal, Signal);

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self(
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        ))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

struct Demo {
    mesh: Mesh,
    screen: Screen,
    observer: Observer,
    options: Options,
    mode: Mode,
    totals: (u64, u64),
}

impl Demo {
    /// Runs load and schedule until the time is over or a signal comes.
    async fn live(&mut self, signals: &mut Signals) -> anyhow::Result<()> {
        let args = [
            "load".to_owned(),
            format!("--http={}", self.mesh.entry(HTTP)?),
            format!("--grpc={}", self.mesh.entry(GRPC)?),
        ];
        let more = [
            format!("--rate={}", self.options.rate),
            format!("--seed={}", self.options.seed),
        ];
        self.mesh
            .fleet
            .start(LOAD, args.into_iter().chain(more).map(Into::into).collect())?;
        let start = Instant::now();
        let end = self.options.lasts.map(|lasts| start + lasts);
        let mut looked = start;
        loop {
            let (mode, next) = if self.options.no_faults {
                (Mode::Healthy, Duration::MAX)
            } else {
                schedule::at(start.elapsed())
            };
            if mode != self.mode {
                self.change(mode).await?;
                continue;
            }
            tokio::select! {
                () = signals.next() => return Ok(()),
                () = until(end) => return Ok(()),
                () = tokio::time::sleep(next.min(Duration::from_secs(3600))) => {}
                notice = self.mesh.fleet.next() => if let Some(seen) = self.heard(notice).await? {
                    let second = self.observer.look(&self.mesh, looked.elapsed()).await;
                    looked = Instant::now();
                    self.screen.frame(&Frame {
                        elapsed: start.elapsed().as_secs(),
                        mode: self.mode,
                        load: &seen,
                        totals: self.totals,
                        second: &second,
                        tally: &self.observer.tally,
                    });
                },
            }
        }
    }

    /// Does what a notice asks for; gives the second that the load has just told.
    async fn heard(&mut self, notice: Notice) -> anyhow::Result<Option<Seen>> {
        match notice {
            Notice::Exited { child, status } if child == LOAD => {
                anyhow::bail!(
                    "the load ended ({status}):\n{}",
                    self.mesh.fleet.last_words(LOAD)
                );
            }
            Notice::Exited { child, status } => {
                let died = Instant::now();
                self.mesh.revive(&child).await?;
                let pid = self.mesh.fleet.process(&child).map(|(pid, _)| pid);
                let after = died.elapsed().as_millis() as u64;
                self.screen.event(&json!({ "event": "restarted", "process": child, "status": status, "pid": pid, "afterMs": after }));
                if child == BROKEN {
                    self.mesh
                        .fleet
                        .order(BROKEN, &format!("mode {}", self.mode))
                        .await;
                }
            }
            Notice::Event { child, event } if child == LOAD && event["event"] == "second" => {
                let seen = Seen::read(&event)?;
                self.totals.0 += seen.all.requests;
                self.totals.1 += seen.all.failures;
                return Ok(Some(seen));
            }
            Notice::Event { child, event } if child == LOAD && event["event"] == "failure" => {
                self.screen.event(&event)
            }
            Notice::Event { child, event }
                if child == CONTROL_PLANE && event["event"] == "listening" =>
            {
                self.screen.event(&json!({ "event": "listening", "process": child, "name": event["name"], "address": event["address"] }));
            }
            Notice::Event { .. } => {}
        }
        Ok(None)
    }

    /// Changes the replica's mode. What the load sends while it may be broken counts as sent in that
    /// phase: the load hears of a fault before the replica does, and of its end after it.
    async fn change(&mut self, mode: Mode) -> anyhow::Result<()> {
        let healthy = mode == Mode::Healthy;
        let orders = [
            (LOAD, format!("phase {mode}"), "phase"),
            (BROKEN, format!("mode {mode}"), "mode"),
        ];
        let [first, second] = if healthy {
            let [a, b] = orders;
            [b, a]
        } else {
            orders
        };
        for (child, order, answer) in [first, second] {
            self.mesh.fleet.order(child, &order).await;
            // A replica that is just dead gets its mode when it is started again.
            let _ = tokio::time::timeout(OBEY, self.obeyed(child, answer))
                .await
                .unwrap_or(Ok(()));
        }
        self.mode = mode;
        self.screen
            .event(&json!({ "event": "fault", "workload": BROKEN, "mode": mode }));
        Ok(())
    }

    /// Hears until a child has answered an order; what else happens is dealt with on the way.
    async fn obeyed(&mut self, child: &str, answer: &str) -> anyhow::Result<()> {
        loop {
            let notice = self.mesh.fleet.next().await;
            if matches!(&notice, Notice::Event { child: name, event } if name == child && event["event"] == answer)
            {
                return Ok(());
            }
            self.heard(notice).await?;
        }
    }

    /// Ends the load, looks a last time, and writes what was asked for.
    async fn report(&mut self) -> anyhow::Result<()> {
        self.mesh.fleet.order(LOAD, "finish").await;
        let seen = tokio::time::timeout(FINISH, self.finished())
            .await
            .context("the load did not finish")??;
        self.observer.look(&self.mesh, Duration::from_secs(1)).await;
        let report = self.observer.tally.report(&seen, self.mesh.restarts);
        if let Some(path) = &self.options.report {
            let text = serde_json::to_string_pretty(&report)? + "\n";
            std::fs::write(path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.screen.finished(&serde_json::to_value(&report)?);
        Ok(())
    }

    async fn finished(&mut self) -> anyhow::Result<Seen> {
        loop {
            match self.mesh.fleet.next().await {
                Notice::Event { child, event }
                    if child == LOAD && event["event"] == "loadFinished" =>
                {
                    return Seen::read(&event);
                }
                // It ends after its last word.
                Notice::Event { child, event } if child == LOAD && event["event"] == "failure" => {
                    self.screen.event(&event)
                }
                Notice::Exited { child, status } if child == LOAD => {
                    anyhow::bail!("the load ended without a word ({status})")
                }
                _ => {}
            }
        }
    }
}

impl Seen {
    fn read(event: &Value) -> anyhow::Result<Self> {
        serde_json::from_value(event["seen"].clone())
            .context("the load told something else than it saw")
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_numbers_with_a_unit() {
        for (text, seconds) in [("30s", Some(30)), ("5m", Some(300)), ("1h", Some(3600))] {
            assert_eq!(duration(text).ok().map(|d| d.as_secs()), seconds, "{text}");
        }
        for text in [
            "",
            "30",
            "s",
            "0s",
            "-1s",
            "1d",
            "99999999999999999999h",
            "18446744073709551615h",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
