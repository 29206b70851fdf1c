//! Word to the service manager that started us (systemd, `Type=notify`), as
//! sd_notify(3) has it: ready, stopping, alive. Without `NOTIFY_SOCKET` nobody
//! is told anything.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// The ports are bound and the state is loaded; from now on tells that the process lives.
pub(crate) fn ready() {
    tell("READY=1\nSTATUS=ready");
    if let Some(limit) = watchdog() {
        tokio::spawn(async move {
            // Twice in the time allowed, as sd_watchdog_enabled(3) advises.
            let mut turns = tokio::time::interval(limit / 2);
            loop {
                turns.tick().await;
                tell("WATCHDOG=1");
            }
        });
    }
}

/// It was asked to end.
pub(crate) fn stopping() {
    tell("STOPPING=1\nSTATUS=stopping");
}

/// How long we may be silent, where that is limited and we are the one who is watched.
fn watchdog() -> Option<Duration> {
    let watched = std::env::var("WATCHDOG_PID").ok();
    let own = std::process::id().to_string();
    if watched.is_some_and(|watched| watched != own) {
        return None;
    }
    let micros = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    Some(Duration::from_micros(micros)).filter(|limit| !limit.is_zero())
}

fn tell(lines: &str) {
    if let Err(error) = send(lines) {
        tracing::warn!(%error, "the service manager was not told");
    }
}

fn send(lines: &str) -> io::Result<()> {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return Ok(());
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read is not waited for.
    socket.set_nonblocking(true)?;
    #[cfg(target_os = "linux")]
    if let Some(name) = address.as_bytes().strip_prefix(b"@") {
        use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
        socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        return socket.send(lines.as_bytes()).map(drop);
    }
    socket.send_to(lines.as_bytes(), address).map(drop)
}
