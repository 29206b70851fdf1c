//! Idle connections: each carried one request, and then nothing.

use std::io::Read;

use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use tokio::runtime::Builder;

use crate::Failure;
use crate::http1::{Connection, Target};
use crate::tally;

/// Room for the answer of one request.
const ROOM: usize = 1024;

#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    target: Target,
    /// How many.
    #[arg(long)]
    connections: usize,
}

/// Opens them one after the other, says `ready`, and holds them until stdin ends.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised)?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let target = options.target.target;
    let request = options.target.requests(false).concat();
    let held: Result<Vec<Connection>, Failure> = runtime.block_on(async {
        let mut held = Vec::with_capacity(options.connections);
        while held.len() < options.connections {
            let mut connection = Connection::open(target, ROOM).await?;
            connection.call(&request, |_| {}).await?;
            held.push(connection);
        }
        Ok(held)
    });
    let held = held?;
    tally::print(&json!({ "event": "ready", "connections": held.len() }))?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
