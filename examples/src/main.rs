//! The demo: one command that shows a mesh at work, as separate processes of this one binary.
//!
//! Without a subcommand it is the demo itself; the hidden `role` is what it starts. It stands above
//! the libraries of the data plane and the control plane and refuses to know their insides: what it
//! shows, it reads from their ports.

mod demo;
mod exposition;
mod fleet;
mod grpc;
mod http;
mod mesh;
mod observe;
mod operator;
mod role;
mod schedule;
mod screen;
mod tally;
mod topology;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A mesh at work: a control plane, three services of several replicas, a sidecar beside each, steady
/// load, and one replica that breaks and heals.
#[derive(Debug, Parser)]
#[command(name = "demo", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Example:\n  demo --for 30s --report report.json")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    options: demo::Options,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One of the demo's own processes
    #[command(hide = true)]
    Role {
        #[command(subcommand)]
        role: Role,
    },
}

#[derive(Debug, Subcommand)]
enum Role {
    ControlPlane(Box<selvage_control_plane::ControlPlaneArgs>),
    Sidecar(Box<selvage_proxy::config::ProxyArgs>),
    Service(role::service::ServiceArgs),
    Load(role::load::LoadArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command {
        None => on_runtime(demo::run(cli.options)),
        Some(Command::Role { role }) => run(role),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(role: Role) -> anyhow::Result<ExitCode> {
    match role {
        Role::ControlPlane(args) => {
            role::end_with_parent();
            run_control_plane(*args)
        }
        Role::Sidecar(args) => {
            role::end_with_parent();
            selvage_proxy::run(&args, selvage_proxy::Role::Sidecar)
        }
        Role::Service(args) => on_runtime(role::service::run(args)),
        Role::Load(args) => on_runtime(role::load::run(args)),
    }
}

/// The store and the signing are not to stall the streams: this role has threads.
fn run_control_plane(args: selvage_control_plane::ControlPlaneArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(selvage_control_plane::main(args))?;
    Ok(ExitCode::SUCCESS)
}

/// Runs on one thread: each role is a process of its own, and there are many of them.
fn on_runtime(future: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(future)?;
    // What is still running belongs to children that are ended with the process.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}
