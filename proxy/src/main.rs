//! The lean binary: one sidecar, and the question whether it is well.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use selvage_proxy::Role;
use selvage_proxy::config::ProxyArgs;
use selvage_proxy::probe::{Question, ask};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A Selvage sidecar: mutual TLS, routing, retries, circuit breaking and
/// metrics beside one service.
#[derive(Debug, Parser)]
#[command(
    name = "selvage-proxy",
    version,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    proxy: ProxyArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Ask a running sidecar; exit code 0 where it says yes, 1 where it does not
    #[command(after_help = "Example:\n  selvage-proxy probe ready")]
    Probe(ProbeArgs),
}

#[derive(Debug, Args)]
struct ProbeArgs {
    /// What to ask
    #[arg(value_enum)]
    question: Asked,
    /// The sidecar's telemetry port
    #[arg(
        long,
        env = "SELVAGE_TELEMETRY_ADDRESS",
        default_value = "127.0.0.1:15020",
        value_name = "ADDRESS"
    )]
    address: SocketAddr,
    /// How many milliseconds to wait for the answer
    #[arg(long, default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Asked {
    /// Whether it serves at all
    Live,
    /// Whether traffic is welcome
    Ready,
}

fn main() -> ExitCode {
    let Arguments { command, proxy } = Arguments::parse();
    let result = match command {
        Some(Command::Probe(args)) => probe(&args).map_err(anyhow::Error::from),
        None => selvage_proxy::run(&proxy, Role::Either),
    };
    result.unwrap_or_else(|error| {
        tell(&error);
        ExitCode::FAILURE
    })
}

fn probe(args: &ProbeArgs) -> Result<ExitCode, selvage_proxy::probe::No> {
    let question = match args.question {
        Asked::Live => Question::Live,
        Asked::Ready => Question::Ready,
    };
    let limit = Duration::from_millis(args.timeout_ms);
    ask(question, args.address, limit).map(|()| ExitCode::SUCCESS)
}

#[expect(
    clippy::print_stderr,
    reason = "the one line that says why there is no proxy, or none that is well"
)]
fn tell(error: &anyhow::Error) {
    eprintln!("selvage-proxy: {error:#}");
}
