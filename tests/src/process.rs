//! One binary under test: started, listened to, signalled, and killed when the
//! test lets go of it. Knows nothing of what the binary does beyond the JSON
//! lines it prints on stdout.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::wait;

/// Lines of stderr that are kept to be shown when a test fails.
const LOG_LINES: usize = 2000;

/// Lines of stderr that are shown when a test fails.
const SHOWN_LINES: usize = 40;

/// Events that are shown when a test fails.
const SHOWN_EVENTS: usize = 10;

/// What a process has printed on stdout so far.
#[derive(Default)]
struct Output {
    events: Vec<Value>,
    ended: bool,
}

/// A running binary; dropped, it is killed.
pub struct Process {
    name: String,
    child: Child,
    pid: Pid,
    output: watch::Receiver<Output>,
    log: Arc<Mutex<VecDeque<String>>>,
    reading_log: AbortHandle,
}

/// Where a binary of this workspace is: in `SELVAGE_BIN_DIR`, else `target/shipped`.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let folder =
        std::env::var_os("SELVAGE_BIN_DIR").map_or_else(|| target().join("shipped"), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.exists(),
        "{} is not there: run `tests/release build --workspace` first, or set SELVAGE_BIN_DIR",
        path.display()
    );
    path
}

/// The target folder that this test was built into.
#[must_use]
pub fn target() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    // target[/TRIPLE]/PROFILE/deps/e2e-HASH; cargo marks the uppermost.
    let marked = test
        .ancestors()
        .filter(|folder| folder.join("CACHEDIR.TAG").exists());
    marked
        .last()
        .expect("a test lies in cargo's target folder")
        .to_path_buf()
}

impl Process {
    /// Starts `command` with its output captured; `name` is for messages.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let pid = child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
            .expect("a new child has an id");
        let (sender, output) = watch::channel(Output::default());
        let log = Arc::new(Mutex::new(VecDeque::new()));
        tokio::spawn(read_events(
            child.stdout.take().expect("stdout is piped"),
            sender,
        ));
        let reading_log = tokio::spawn(read_log(
            child.stderr.take().expect("stderr is piped"),
            Arc::clone(&log),
        ));
        Self {
            name: name.to_owned(),
            child,
            pid,
            output,
            log,
            reading_log: reading_log.abort_handle(),
        }
    }

    /// Closes the other end of its stderr: whoever read its log has gone.
    pub fn close_log(&self) {
        self.reading_log.abort();
    }

    /// Waits for the first event that `wanted` accepts.
    ///
    /// # Panics
    /// When the process ends first, or none comes.
    pub async fn event(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let name = self.name.clone();
        let found = wait::soon(&format!("{name}: {what}"), async {
            let output = self
                .output
                .wait_for(|output| output.ended || output.events.iter().any(&wanted))
                .await
                .ok();
            output.and_then(|output| output.events.iter().find(|event| wanted(event)).cloned())
        })
        .await;
        match found {
            Some(event) => event,
            None => panic!("{name} ended before {what}\n{}", self.log_tail()),
        }
    }

    /// All events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.output.borrow().events.clone()
    }

    /// The address that the listener called `name` is bound to.
    ///
    /// # Panics
    /// When the process ends first, or never says so.
    pub async fn listening(&mut self, name: &str) -> SocketAddr {
        let event = self
            .event(&format!("the address of `{name}`"), |event| {
                event["event"] == "listening" && event["name"] == name
            })
            .await;
        let address = event["address"]
            .as_str()
            .and_then(|address| address.parse().ok());
        address.unwrap_or_else(|| panic!("no address in {event}"))
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal)
            .unwrap_or_else(|error| panic!("{} is gone: {error}", self.name));
    }

    /// Waits for its end, for at most `limit`.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn exit(&mut self, limit: Duration) -> ExitStatus {
        wait::within(
            &format!("the end of {}", self.name),
            limit,
            self.child.wait(),
        )
        .await
        .expect("the child is ours to wait for")
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    /// What it wrote on stderr so far, the last `LOG_LINES` lines.
    #[must_use]
    pub fn log(&self) -> String {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// Resident memory now, in bytes.
    ///
    /// # Panics
    /// When it is gone.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|rest| {
            rest.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()
        });
        kibibytes.expect("a process has a VmRSS in kB") * 1024
    }

    fn log_tail(&self) -> String {
        let lines = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let skipped = lines.len().saturating_sub(SHOWN_LINES);
        lines
            .iter()
            .skip(skipped)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- the last lines of {}:\n{}", self.name, self.log_tail());
            for event in self
                .output
                .borrow()
                .events
                .iter()
                .rev()
                .take(SHOWN_EVENTS)
                .rev()
            {
                println!("{event}");
            }
        }
    }
}

async fn read_events(stdout: impl AsyncRead + Unpin, sender: watch::Sender<Output>) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(event) = serde_json::from_str(&line) {
            sender.send_modify(|output| output.events.push(event));
        }
    }
    sender.send_modify(|output| output.ended = true);
}

async fn read_log(stderr: impl AsyncRead + Unpin, log: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LINES {
            log.pop_front();
        }
        log.push_back(line);
    }
}
