//! `selvage run`: a command beside its sidecar.

use std::process::ExitCode;

use selvage_proxy::app::{Beside, Failed, NO_SIDECAR};

use crate::args::RunArgs;
use crate::print;

/// Runs it; the exit code is the command's own, unless it had no sidecar.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    let mut words = args.command.into_iter();
    let Some(program) = words.next() else {
        // The command line asks for one.
        return ExitCode::from(NO_SIDECAR);
    };
    let beside = Beside {
        program,
        arguments: words.collect(),
        ready_within: args.ready_within.0,
    };
    match selvage_proxy::run_beside(&args.proxy, &beside) {
        Ok(code) => code,
        Err(Failed { code, error }) => {
            print::say(&format!("error: {error:#}"));
            ExitCode::from(code)
        }
    }
}
