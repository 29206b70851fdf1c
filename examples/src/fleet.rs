//! The demo's processes: started from its own binary, heard, told, started again, ended.
//!
//! It knows processes and lines. It refuses to know what a role does, and when to start one again.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;

/// What children said and nobody has heard yet; beyond it a child waits for its next word.
const NOTICES: usize = 4096;
/// How long children may take to end after their stdin did.
const END: Duration = Duration::from_secs(2);
/// How long an order may take to be written: a child that reads nothing is broken.
const ORDER: Duration = Duration::from_secs(2);
/// Characters of a child's log that are shown when it ends unasked.
const LOG_TAIL: usize = 800;

/// Something that happened to a child.
#[derive(Debug)]
pub(crate) enum Notice {
    /// It wrote an event.
    Event {
        /// The child's name.
        child: String,
        /// The event.
        event: Value,
    },
    /// It ended.
    Exited {
        /// The child's name.
        child: String,
        /// How, in words.
        status: String,
    },
}

/// One process of the demo.
#[derive(Debug)]
struct Member {
    args: Vec<OsString>,
    pid: u32,
    /// Counts the starts: a notice of an earlier one is old.
    generation: u64,
    started: Instant,
    stdin: Option<ChildStdin>,
    addresses: BTreeMap<String, SocketAddr>,
}

/// All processes of the demo.
#[derive(Debug)]
pub(crate) struct Fleet {
    program: PathBuf,
    logs: PathBuf,
    members: BTreeMap<String, Member>,
    sender: mpsc::Sender<(u64, Notice)>,
    receiver: mpsc::Receiver<(u64, Notice)>,
}

impl Fleet {
    /// An empty fleet whose children log into `logs`.
    pub(crate) fn new(logs: PathBuf) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the demo cannot find its own binary")?;
        let (sender, receiver) = mpsc::channel(NOTICES);
        Ok(Self {
            program,
            logs,
            members: BTreeMap::new(),
            sender,
            receiver,
        })
    }

    /// Starts a role, or starts it again with new arguments.
    pub(crate) fn start(&mut self, name: &str, args: Vec<OsString>) -> anyhow::Result<()> {
        let log = self.log(name);
        let stderr = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log);
        let stderr = stderr.with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(&self.program);
        command
            .arg("role")
            .args(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr);
        // Ctrl-C reaches a whole process group: the children are ended by the demo, not by the key.
        command.process_group(0).kill_on_drop(true);
        for (key, _) in std::env::vars_os() {
            // What is set for the reader's own mesh must not reach the demo's.
            if key.to_string_lossy().starts_with("SELVAGE_") {
                command.env_remove(key);
            }
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        // Who is started again listens where it did: its addresses stay known meanwhile.
        let (generation, addresses) = self
            .members
            .remove(name)
            .map_or((0, BTreeMap::new()), |old| {
                (old.generation + 1, old.addresses)
            });
        let member = Member {
            args,
            pid: child
                .id()
                .context("a child that was just started has a pid")?,
            generation,
            started: Instant::now(),
            stdin: child.stdin.take(),
            addresses,
        };
        self.members.insert(name.to_owned(), member);
        let stdout = child.stdout.take().context("stdout is piped")?;
        tokio::spawn(hear(
            name.to_owned(),
            generation,
            child,
            stdout,
            self.sender.clone(),
        ));
        Ok(())
    }

    /// Starts a child again as it was started last.
    pub(crate) fn start_again(&mut self, name: &str) -> anyhow::Result<()> {
        let member = self
            .members
            .get(name)
            .with_context(|| format!("no child is called {name}"))?;
        self.start(name, member.args.clone())
    }

    /// The next thing that happens; addresses of `listening` events are noted on the way.
    pub(crate) async fn next(&mut self) -> Notice {
        loop {
            let (generation, notice) = self
                .receiver
                .recv()
                .await
                .expect("the fleet holds a sender itself");
            let child = match &notice {
                Notice::Event { child, .. } | Notice::Exited { child, .. } => child,
            };
            let Some(member) = self
                .members
                .get_mut(child)
                .filter(|member| member.generation == generation)
            else {
                continue;
            };
            if let Notice::Event { event, .. } = &notice
                && event["event"] == "listening"
                && let (Some(name), Some(Ok(address))) = (
                    event["name"].as_str(),
                    event["address"].as_str().map(str::parse),
                )
            {
                member.addresses.insert(name.to_owned(), address);
            }
            return notice;
        }
    }

    /// Hears until `child` has all `names` bound. A child that ends meanwhile is an error with the
    /// end of its log.
    pub(crate) async fn bound(
        &mut self,
        child: &str,
        names: &[String],
        within: Duration,
    ) -> anyhow::Result<()> {
        let wait = async {
            while let Some(missing) = names
                .iter()
                .find(|name| self.address(child, name).is_none())
            {
                let missing = missing.clone();
                if let Notice::Exited {
                    child: name,
                    status,
                } = self.next().await
                {
                    let why = self.last_words(&name);
                    bail!("{name} ended ({status}) before {child} listened as {missing}:\n{why}");
                }
            }
            Ok(())
        };
        match tokio::time::timeout(within, wait).await {
            Ok(result) => result,
            Err(_) => bail!(
                "{child} did not listen within {within:?}:\n{}",
                self.last_words(child)
            ),
        }
    }

    /// An address that a child said it has bound.
    pub(crate) fn address(&self, child: &str, name: &str) -> Option<SocketAddr> {
        self.members.get(child)?.addresses.get(name).copied()
    }

    /// A child's process id and how often it was started again.
    pub(crate) fn process(&self, child: &str) -> Option<(u32, u64)> {
        self.members
            .get(child)
            .map(|member| (member.pid, member.generation))
    }

    /// How long a child has been running since it was last started.
    pub(crate) fn age(&self, child: &str) -> Duration {
        self.members
            .get(child)
            .map_or(Duration::ZERO, |member| member.started.elapsed())
    }

    /// Writes an order to a child. A child that is just gone does not get it: whoever starts it
    /// again gives the orders that still matter.
    pub(crate) async fn order(&mut self, child: &str, order: &str) {
        let Some(stdin) = self
            .members
            .get_mut(child)
            .and_then(|member| member.stdin.as_mut())
        else {
            return;
        };
        let line = format!("{order}\n");
        let _ = tokio::time::timeout(ORDER, stdin.write_all(line.as_bytes())).await;
    }

    /// Ends every child: their stdin ends, and what still runs after [`END`] is killed.
    pub(crate) async fn end(mut self) {
        for member in self.members.values_mut() {
            member.stdin = None;
        }
        let mut running = self.members.len();
        let all = async {
            while running > 0 {
                if let Notice::Exited { .. } = self.next().await {
                    running -= 1;
                }
            }
        };
        // Those that are left over are killed when the runtime drops the tasks that hold them.
        let _ = tokio::time::timeout(END, all).await;
    }

    /// The end of a child's log, or where to find it.
    pub(crate) fn last_words(&self, child: &str) -> String {
        let log = self.log(child);
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let from = text.len().saturating_sub(LOG_TAIL);
        let from = (from..text.len())
            .find(|&at| text.is_char_boundary(at))
            .unwrap_or(text.len());
        text[from..].trim().to_owned()
    }

    fn log(&self, child: &str) -> PathBuf {
        Path::new(&self.logs).join(format!("{child}.log"))
    }
}

async fn hear(
    name: String,
    generation: u64,
    mut child: Child,
    stdout: ChildStdout,
    sender: mpsc::Sender<(u64, Notice)>,
) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(event) = serde_json::from_str(&line)
            && sender
                .send((
                    generation,
                    Notice::Event {
                        child: name.clone(),
                        event,
                    },
                ))
                .await
                .is_err()
        {
            return;
        }
    }
    let status = match child.wait().await {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    let _ = sender
        .send((
            generation,
            Notice::Exited {
                child: name,
                status,
            },
        ))
        .await;
}
