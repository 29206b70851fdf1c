//! The configuration of one proxy: sidecar.yaml, flags and environment, made into plain values.
//!
//! It is read once, before anything binds, and this is the one place that asks the environment. A
//! flag beats the environment, which beats the file. What is wrong is refused with its place and
//! what to do. It opens no socket and knows nothing of the mesh.

mod args; // flags
mod build; // defaults, and plain values
mod check; // what contradicts itself, or cannot work
mod file; // sidecar.yaml as it is written
mod gateway; // what makes it a gateway.yaml
mod health; // how the application's health is found out
mod tracing; // OpenTelemetry's variables
mod values; // what the rest of the proxy sees

use std::io::Read;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use selvage_core::config::parse_and_check;

use check::Finding;
use file::{File, SETTINGS};

pub use args::ProxyArgs;
pub use tracing::{Batch, OtlpProtocol, Tracing};
pub use values::{
    AccessLogFormat, Config, Drain, Gateway, HostPort, IdentityFiles, Inbound, InboundPort,
    InboundTls, Limits, LogFormat, Outbound, OutboundListener, Source, Token, Traces, Workload,
};

/// Longest configuration file in bytes.
pub const CONFIG_BYTES: u64 = 1024 * 1024;
/// Most workers; more would be a mistake.
pub const MAX_WORKERS: usize = 256;
/// Fewest bytes of headers a connection can be given: what reading HTTP/1 needs.
pub const MIN_HEADER_BYTES: usize = 8 * 1024;

/// Why there is no configuration. Each renders as what is wrong where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file is wrong, at the places shown.
    #[error("{0}")]
    File(String),
    /// A flag or a variable is wrong.
    #[error("{origin}: {reason}")]
    Override {
        /// The flag or the variable.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Settings that are missing or contradict each other, one per line.
    #[error("{}", lines(.0))]
    Refused(Vec<String>),
}

fn lines(findings: &[String]) -> String {
    findings.join("\n")
}

/// Reads the configuration: `args` over `env` over the file that `args` or `env` name.
///
/// # Errors
/// Everything that is wrong with the file, or the first flag or variable that is wrong.
pub fn load(args: &ProxyArgs, env: impl Fn(&str) -> Option<String>) -> Result<Config, ConfigError> {
    let overrides = overrides(args, &env)?;
    let path = args
        .config
        .clone()
        .or_else(|| env("SELVAGE_CONFIG").map(PathBuf::from));
    let mut file = match path {
        Some(path) => read(&path, &overrides)?,
        None => File::default(),
    };
    overrides.apply(&mut file);
    let findings = check::findings(&file);
    if !findings.is_empty() {
        return Err(ConfigError::Refused(
            findings.iter().map(|f| overrides.explain(f)).collect(),
        ));
    }
    let log_format = match (args.log_format, env("SELVAGE_LOG_FORMAT")) {
        (Some(format), _) => format,
        (None, Some(text)) => text.parse().map_err(|reason| ConfigError::Override {
            origin: "SELVAGE_LOG_FORMAT".to_owned(),
            reason,
        })?,
        (None, None) => LogFormat::default(),
    };
    let traces = file.telemetry.traces.unwrap_or_default();
    let mut config = build::build(file, log_format);
    if traces == Traces::Otel {
        config.tracing = tracing::read(&env, &config.workload)?;
    }
    Ok(config)
}

/// Settings that flags and variables make, tried on once: their texts are good.
struct Overrides(Vec<Override>);

struct Override {
    path: &'static str,
    set: fn(&mut File, &str) -> Result<(), String>,
    text: String,
    origin: String,
}

fn overrides(
    args: &ProxyArgs,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<Overrides, ConfigError> {
    let mut overrides = Vec::new();
    for setting in SETTINGS {
        let variable = setting.variable();
        let (origin, text) = match (args.flag(setting.path), env(&variable)) {
            (Some((flag, text)), _) => (flag.to_owned(), text.to_owned()),
            (None, Some(text)) => (variable, text),
            (None, None) => continue,
        };
        if let Err(reason) = (setting.set)(&mut File::default(), &text) {
            return Err(ConfigError::Override { origin, reason });
        }
        overrides.push(Override {
            path: setting.path,
            set: setting.set,
            text,
            origin,
        });
    }
    Ok(Overrides(overrides))
}

impl Overrides {
    fn apply(&self, file: &mut File) {
        for Override { set, text, .. } in &self.0 {
            set(file, text).expect("the same text was good before");
        }
    }

    fn origin(&self, path: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|with| with.path == path)
            .map(|with| with.origin.as_str())
    }

    fn explain(&self, finding: &Finding) -> String {
        let at = self.origin(&finding.path).unwrap_or(&finding.path);
        match (&finding.help, at.is_empty()) {
            (Some(help), true) => format!("{} ({help})", finding.message),
            (Some(help), false) => format!("{at}: {} ({help})", finding.message),
            (None, true) => finding.message.clone(),
            (None, false) => format!("{at}: {}", finding.message),
        }
    }
}

/// Reads and checks the file, as it is with the overrides, so that what it leaves to them is not
/// missed. What is wrong in the file is shown there; what is wrong in an override is left for later.
fn read(path: &Path, overrides: &Overrides) -> Result<File, ConfigError> {
    let unreadable = |reason: String| ConfigError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(CONFIG_BYTES + 1).read_to_string(&mut text))
        .map_err(|error| unreadable(error.to_string()))?;
    if text.len() as u64 > CONFIG_BYTES {
        return Err(unreadable(format!(
            "it is longer than {CONFIG_BYTES} bytes"
        )));
    }
    let name = path.display().to_string();
    let mut file = parse_and_check(&name, &text, |file: &File, checker| {
        let mut whole = file.clone();
        overrides.apply(&mut whole);
        for finding in check::findings(&whole) {
            if overrides.origin(&finding.path).is_some() {
                continue;
            }
            match finding.help {
                Some(help) => checker.error_with_help(finding.path, finding.message, help),
                None => checker.error(finding.path, finding.message),
            }
        }
    })
    .map_err(|diagnostics| ConfigError::File(diagnostics.render(false).trim_end().to_owned()))?;
    file.rebase(path.parent().unwrap_or(Path::new("")));
    Ok(file)
}

/// What `workers: 0` means: two, or one where the process has a single core.
fn default_workers() -> usize {
    std::thread::available_parallelism()
        .map_or(1, NonZeroUsize::get)
        .min(2)
}

#[cfg(test)]
mod tests;
