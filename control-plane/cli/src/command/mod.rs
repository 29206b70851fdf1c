//! The commands: each asks the libraries or the operator API and prints what they say.
//!
//! A command refuses to know how requests travel and how tables are drawn.

pub(crate) mod check;
pub(crate) mod explain;
pub(crate) mod objects;
pub(crate) mod resources;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod token;

use std::process::ExitCode;

/// How a command ended; an error is a finding too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done, or nothing wrong.
    Holds,
    /// Something was found: a difference, a fault, an invalid document.
    Finding,
    /// The command line asks for what there is not.
    WrongUsage,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Holds => 0,
            Outcome::Finding => 1,
            Outcome::WrongUsage => 2,
        })
    }
}
