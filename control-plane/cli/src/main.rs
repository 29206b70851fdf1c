//! `selvage`: the one binary for people.
//!
//! It has no logic of its own. `proxy`, `gateway`, `run` and `control-plane` are the libraries' own `run`, `validate`
//! asks `selvage-core`, and every other command is a call of the operator API and a way to print it.

mod args;
mod client;
mod command;
mod print;
mod source;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use args::{CaCommand, Cli, Command, ExplainCommand, TokenCommand};
use command::Outcome;
use selvage_proxy::Role;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            print::say(&format!("error: {error:#}"));
            ExitCode::from(1)
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let outcome = match command {
        Command::Proxy(args) => return selvage_proxy::run(&args, Role::Sidecar),
        Command::Gateway(args) => return selvage_proxy::run(&args, Role::Gateway),
        Command::Run(args) => return Ok(command::run::run(*args)),
        Command::ControlPlane(args) => return run_control_plane(*args),
        Command::Validate(args) => command::resources::validate(&args)?,
        Command::Apply(args) => wait(command::resources::apply(&args))?,
        Command::Diff(args) => wait(command::resources::diff(&args))?,
        Command::Get(args) => wait(command::objects::get(&args))?,
        Command::Delete(args) => wait(command::objects::delete(&args))?,
        Command::Token(TokenCommand::Create(args)) => wait(command::token::create(&args))?,
        Command::Check(args) => wait(command::check::check(&args))?,
        Command::Status(args) => wait(command::status::status(&args))?,
        Command::Explain(ExplainCommand::Request(args)) => wait(command::explain::request(&args))?,
        Command::Ca(CaCommand::Show(args)) => wait(command::status::ca(&args))?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "selvage", &mut script);
            print::text(&String::from_utf8_lossy(&script));
            Outcome::Holds
        }
        Command::Capture(_) => not_yet("capture"),
        Command::Ca(CaCommand::Init(_)) => not_yet("ca init"),
        Command::Ca(CaCommand::Rotate(_)) => not_yet("ca rotate"),
    };
    Ok(outcome.into())
}

/// A runtime of its own kind: the store and the signing are not to stall the streams.
fn run_control_plane(args: selvage_control_plane::ControlPlaneArgs) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(selvage_control_plane::main(args))?;
    Ok(ExitCode::SUCCESS)
}

fn not_yet(command: &str) -> Outcome {
    print::say(&format!("error: `selvage {command}` is not supported yet"));
    Outcome::WrongUsage
}

fn wait(command: impl Future<Output = anyhow::Result<Outcome>>) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(command)
}
