//! What this package promises, one module a promise.
#![allow(
    clippy::unwrap_used,
    reason = "what is not there fails the test that asks for it"
)]

mod attachment;
mod balancing;
mod config;
mod gateways;
mod health;
mod hostile;
mod isolation;
mod overlap;
mod parsing;
mod registry;
mod routes;
mod secrets;
mod server_policy;
mod views;
mod world;

use std::collections::BTreeSet;

use selvage_certs::TrustDomain;
use selvage_core::diagnostic::Diagnostics;
use selvage_core::parse::parse;
use selvage_core::world::{Apply, Change, World};

const LENIENT: Apply<'static> = Apply {
    first_stamp: 1,
    registered: &BTreeSet::new(),
    strict: false,
};

fn mesh() -> World {
    World::new(TrustDomain::parse("mesh.local").unwrap())
}

fn apply(world: &mut World, text: &str) -> Result<Change, Diagnostics> {
    let first_stamp = 1 + world
        .resources()
        .map(|stored| stored.stamp)
        .max()
        .unwrap_or(0);
    world.apply(
        parse("test.yaml", text)?,
        Apply {
            first_stamp,
            ..LENIENT
        },
    )
}

fn world_of(text: &str) -> World {
    let mut world = mesh();
    apply(&mut world, text).unwrap();
    world
}

/// `line:column path: message / help` of each finding.
fn told(found: &Diagnostics) -> Vec<String> {
    found
        .as_slice()
        .iter()
        .map(|found| {
            let help = found
                .help
                .as_ref()
                .map(|help| format!(" / {help}"))
                .unwrap_or_default();
            format!(
                "{}:{} {}: {}{help}",
                found.line, found.column, found.path, found.message
            )
        })
        .collect()
}
