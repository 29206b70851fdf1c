//! A command beside its sidecar: begun once the sidecar is ready, told what
//! the sidecar is told, and outlived by the sidecar's drain.

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::anyhow;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// The variable that tells the command where its sidecar takes HTTP by authority.
pub const OUTBOUND: &str = "SELVAGE_OUTBOUND_LISTENER";
/// The sidecar did not become ready, or failed: nothing of the command's own.
pub const NO_SIDECAR: u8 = 125;
/// The command is there and cannot be run, as shells say it.
const NOT_RUNNABLE: u8 = 126;
/// There is no such command.
const NOT_FOUND: u8 = 127;
/// What a shell adds to the number of the signal that ended a command.
const BY_SIGNAL: i32 = 128;

/// What to run beside a sidecar.
#[derive(Debug, Clone)]
pub struct Beside {
    /// The command.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// How long the sidecar may take until it is ready.
    pub ready_within: Duration,
}

/// Why a command was not run to its end, and the exit code that stands for it.
#[derive(Debug)]
pub struct Failed {
    /// 125: the sidecar; 126: the command cannot be run; 127: there is no such command.
    pub code: u8,
    /// In one line.
    pub error: anyhow::Error,
}

impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self {
            code: NO_SIDECAR,
            error,
        }
    }
}

/// A command that runs.
pub(super) struct Running {
    child: Child,
    pid: Option<Pid>,
}

impl Running {
    /// Starts it, with our own input and output.
    pub(super) fn start(beside: &Beside, outbound: Option<SocketAddr>) -> Result<Self, Failed> {
        let mut command = Command::new(&beside.program);
        // Should this end without a farewell, the command is not to run on without its sidecar.
        command.args(&beside.arguments).kill_on_drop(true);
        // The service manager started us: what is ready, alive or stopping is for us to say.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        if let Some(outbound) = outbound {
            command.env(OUTBOUND, outbound.to_string());
        }
        let child = command.spawn().map_err(|error| Failed {
            code: match error.kind() {
                io::ErrorKind::NotFound => NOT_FOUND,
                _ => NOT_RUNNABLE,
            },
            error: anyhow!("cannot run {}: {error}", beside.program.display()),
        })?;
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Ok(Self { child, pid })
    }

    /// Waits for its end.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Passes a signal on. What a terminal says, it says to the command as well.
    pub(super) fn tell(&self, signal: Signal) {
        let by_terminal = matches!(signal, Signal::INT | Signal::QUIT) && io::stdin().is_terminal();
        if let Some(pid) = self.pid.filter(|_| !by_terminal)
            && let Err(error) = kill_process(pid, signal)
        {
            tracing::debug!(?signal, %error, "the command was not told");
        }
    }

    /// Ends it, because it has no sidecar any more: asked first, then not.
    pub(super) async fn stop(mut self, patience: Duration) {
        self.tell(Signal::TERM);
        if tokio::time::timeout(patience, self.ended()).await.is_err() {
            tracing::warn!("the command did not end when it was asked to");
            let _ = self.child.kill().await;
        }
    }
}

/// The exit code that stands for how a command ended.
pub(super) fn code_of(status: ExitStatus) -> u8 {
    let code = match (status.code(), status.signal()) {
        (Some(code), _) => code,
        (None, Some(signal)) => BY_SIGNAL + signal,
        (None, None) => i32::from(NO_SIDECAR),
    };
    u8::try_from(code).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_kept_and_signals_told_as_shells_do() {
        // A wait status: the code in its second byte, a signal in its first.
        for (status, code) in [(0, 0), (7 << 8, 7), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(code_of(ExitStatus::from_raw(status)), code);
        }
    }
}
