//! The lean binary: one sidecar, nothing else.

use std::process::ExitCode;

use clap::Parser;
use selvage_proxy::config::ProxyArgs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Selvage sidecar: mutual TLS, routing, retries, circuit breaking and
/// metrics beside one service.
#[derive(Debug, Parser)]
#[command(name = "selvage-proxy", version)]
struct Arguments {
    #[command(flatten)]
    proxy: ProxyArgs,
}

fn main() -> ExitCode {
    let Arguments { proxy } = Arguments::parse();
    match selvage_proxy::run(&proxy) {
        Ok(code) => code,
        Err(error) => {
            tell(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the one line that says why there is no proxy"
)]
fn tell(error: &anyhow::Error) {
    eprintln!("selvage-proxy: {error:#}");
}
