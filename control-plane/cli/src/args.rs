//! The command line: every command, its options and one example each.
//!
//! It stands at the very front and refuses to know what the commands do.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use selvage_core::scalar;

/// A service mesh for any place a process can run.
#[derive(Debug, Parser)]
#[command(
    name = "selvage",
    version,
    propagate_version = true,
    max_term_width = 100
)]
#[command(
    after_help = "Example:\n  selvage control-plane\n  selvage token create --workload shop/orders\n  \
    selvage proxy --config sidecar.yaml\n\nExit codes: 0 it holds, 1 a finding or a failure, 2 wrong usage."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a sidecar
    #[command(after_help = "Example:\n  selvage proxy --config sidecar.yaml")]
    Proxy(Box<selvage_proxy::config::ProxyArgs>),
    /// Run a gateway: the listeners of one Gateway, for callers outside the mesh
    #[command(after_help = "Example:\n  selvage gateway --config gateway.yaml")]
    Gateway(Box<selvage_proxy::config::ProxyArgs>),
    /// Run a command beside its sidecar: begun once that is ready, drained when it ends
    #[command(after_help = "Example:\n  selvage run --config sidecar.yaml -- ./orders --port 8080")]
    Run(Box<RunArgs>),
    /// Run a control plane
    #[command(after_help = "Example:\n  selvage control-plane --data-dir ./selvage-data")]
    ControlPlane(Box<selvage_control_plane::ControlPlaneArgs>),
    /// Create or change resources: all that is given, or nothing
    #[command(after_help = "Example:\n  selvage apply -f policy/")]
    Apply(FileArgs),
    /// Show what apply would change; exit code 1 if it would change anything
    #[command(after_help = "Example:\n  selvage diff -f policy/")]
    Diff(FileArgs),
    /// Check resources without a control plane
    #[command(after_help = "Example:\n  selvage validate -f policy/ --strict")]
    Validate(ValidateArgs),
    /// Show resources
    #[command(after_help = "Example:\n  selvage get TrafficPolicy/ratings -n shop -o yaml")]
    Get(GetArgs),
    /// Delete a resource
    #[command(after_help = "Example:\n  selvage delete TrafficPolicy/ratings -n shop")]
    Delete(GetArgs),
    /// Join tokens, with which workloads get their first certificate
    #[command(
        subcommand,
        after_help = "Example:\n  selvage token create --workload shop/orders"
    )]
    Token(TokenCommand),
    /// Look for what is wrong in the mesh; exit code 1 if anything is
    #[command(after_help = "Example:\n  selvage check")]
    Check(OperatorArgs),
    /// Say what would become of something, and why
    #[command(
        subcommand,
        after_help = "Example:\n  selvage explain request --from shop/web --url http://ratings.shop/v1"
    )]
    Explain(ExplainCommand),
    /// Show services and proxies as the control plane sees them
    #[command(after_help = "Example:\n  selvage status")]
    Status(OperatorArgs),
    /// The certificate authority
    #[command(subcommand, after_help = "Example:\n  selvage ca show")]
    Ca(CaCommand),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  selvage completions bash > ~/.local/share/bash-completion/completions/selvage"
    )]
    Completions {
        /// bash, elvish, fish, powershell or zsh
        shell: Shell,
    },
    /// Capture traffic (not supported yet)
    #[command(hide = true, after_help = "Example:\n  selvage capture")]
    Capture(Anything),
}

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) proxy: selvage_proxy::config::ProxyArgs,
    /// How long the sidecar may take until it is ready; the command is not begun without it
    #[arg(long, default_value = "30s", value_name = "TIME")]
    pub(crate) ready_within: scalar::Duration,
    /// The command, and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a join token and print it
    #[command(
        after_help = "Example:\n  selvage token create --workload shop/orders --ttl 10m --uses 3 > token"
    )]
    Create(TokenArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum ExplainCommand {
    /// Which service, route, rule, policies and endpoints a request would meet; exit code 1 if it
    /// would be refused
    #[command(
        after_help = "Example:\n  selvage explain request --from shop/web --url http://ratings.shop/v1 \\\n    \
        --method POST -H 'x-canary: yes' -f policy/\n\nWithout -f it asks the control plane what is applied and who is registered."
    )]
    Request(Box<RequestArgs>),
}

#[derive(Debug, Args)]
pub(crate) struct RequestArgs {
    /// The caller's service account [with --gateway: the gateway's, of its own name by default]
    #[arg(long, value_name = "NS/SA", required_unless_present = "gateway")]
    pub(crate) from: Option<String>,
    /// The Gateway that the request comes to, instead of the caller's sidecar
    #[arg(long, value_name = "NS/NAME")]
    pub(crate) gateway: Option<String>,
    /// Its method
    #[arg(long, default_value = "GET", value_name = "METHOD")]
    pub(crate) method: String,
    /// Where to
    #[arg(long, value_name = "URL")]
    pub(crate) url: String,
    /// A header; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE")]
    pub(crate) headers: Vec<String>,
    /// Resources instead of what is applied: a file, a folder, or - for stdin; may be repeated
    #[arg(short, long = "file", value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
    /// Of the mesh that the files are meant for [default: their MeshConfig's, else mesh.local]
    #[arg(
        long,
        env = "SELVAGE_TRUST_DOMAIN",
        value_name = "NAME",
        requires = "files"
    )]
    pub(crate) trust_domain: Option<String>,
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaCommand {
    /// Show the certificates that sign
    #[command(after_help = "Example:\n  selvage ca show")]
    Show(OperatorArgs),
    /// Bring a root of one's own (not supported yet)
    #[command(hide = true, after_help = "Example:\n  selvage ca init")]
    Init(Anything),
    /// Replace the root (not supported yet)
    #[command(hide = true, after_help = "Example:\n  selvage ca rotate")]
    Rotate(Anything),
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For programs
    Json,
    /// As it was applied
    Yaml,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Output {
    /// How the answer is printed
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub(crate) output: Format,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct OperatorArgs {
    /// The control plane's operator API
    #[arg(
        long,
        env = "SELVAGE_SERVER",
        default_value = "http://127.0.0.1:15014",
        value_name = "URL"
    )]
    pub(crate) server: String,
    /// The operator's token [default: operator.token in the data folder]
    #[arg(long, env = "SELVAGE_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The control plane's data folder
    #[arg(
        long,
        env = "SELVAGE_DATA_DIR",
        default_value = "./selvage-data",
        value_name = "FOLDER"
    )]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct Files {
    /// A file, a folder of .yaml, .yml and .json files, or - for stdin; may be repeated
    #[arg(short, long = "file", required = true, value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
    /// Refuse what is otherwise a warning
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    #[command(flatten)]
    pub(crate) files: Files,
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Of the mesh that they are meant for [default: their MeshConfig's, else mesh.local]
    #[arg(long, env = "SELVAGE_TRUST_DOMAIN", value_name = "NAME")]
    pub(crate) trust_domain: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// A kind, or one resource of it: TrafficPolicy, TrafficPolicy/ratings
    #[arg(value_name = "KIND[/NAME]")]
    pub(crate) target: String,
    /// The namespace; without it and without a name, all of them
    #[arg(short, long, value_name = "NS")]
    pub(crate) namespace: Option<String>,
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
}

#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// The service account that the token is for
    #[arg(long, value_name = "NS/NAME")]
    pub(crate) workload: String,
    /// A service that its workloads may register [default: NAME]; may be repeated
    #[arg(long = "service", value_name = "NAME")]
    pub(crate) services: Vec<String>,
    /// How long the token may be used
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    pub(crate) ttl: scalar::Duration,
    /// How often the token may be used
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
}

/// Whatever is given to a command that does not exist yet.
#[derive(Debug, Args)]
pub(crate) struct Anything {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        fn check(command: &clap::Command) {
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                help.contains("Example:\n  selvage"),
                "{}",
                command.get_name()
            );
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
