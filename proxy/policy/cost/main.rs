//! What finding a route costs: a program that makes a table and looks it up,
//! so that its instructions can be counted from outside.
//!
//! `route-cost SHAPE ROUTES...` makes a table of each size and says what that
//! took, as JSON. To each line `SIZE hit` or `SIZE miss` on its input, the size
//! counted from 0, it answers with how many of [`LOOKUPS`] requests found a
//! route, once all have been looked up.
#![allow(
    clippy::print_stdout,
    reason = "what it has to say goes to whoever runs it"
)]

mod shapes; // many routes, told apart by one thing

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::time::Instant;

use selvage_policy::route::{Asked, RouteTable};

use shapes::{Question, Shape};

/// Requests looked up for each line of input, over and over the same few.
const LOOKUPS: usize = 2_000;

/// A table of one size, and requests that it has routes for, and has none for.
struct Made {
    table: RouteTable,
    hits: Vec<Question>,
    misses: Vec<Question>,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let shape = arguments.next().and_then(|text| Shape::parse(&text));
    let sizes: Option<Vec<usize>> = arguments.map(|text| text.parse().ok()).collect();
    let (Some(shape), Some(sizes)) = (shape, sizes) else {
        println!("usage: route-cost SHAPE ROUTES...");
        return ExitCode::from(2);
    };
    match answer(shape, &sizes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn answer(shape: Shape, sizes: &[usize]) -> std::io::Result<()> {
    let made = sizes.iter().map(|routes| make(shape, *routes));
    let made = made.collect::<std::io::Result<Vec<Made>>>()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (size, what) = line.split_once(' ').unwrap_or_default();
        let made = size.parse().ok().and_then(|size: usize| made.get(size));
        let found = match (made, what) {
            (Some(made), "hit") => look_up(&made.table, &made.hits),
            (Some(made), "miss") => look_up(&made.table, &made.misses),
            _ => {
                return Err(std::io::Error::other(format!(
                    "`{line}`: not SIZE hit|miss"
                )));
            }
        };
        say(&found.to_string())?;
    }
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "the time it takes is what is asked"
)]
fn make(shape: Shape, routes: usize) -> std::io::Result<Made> {
    let decoded = shape.routes(routes);
    let (before, begin) = (resident_kib()?, Instant::now());
    let table = RouteTable::new(&decoded);
    let millis = begin.elapsed().as_millis();
    let kib = resident_kib()?.saturating_sub(before);
    let matches = table.len();
    say(&format!(
        r#"{{"matches": {matches}, "millis": {millis}, "kib": {kib}}}"#
    ))?;
    Ok(Made {
        table,
        hits: shape.hits(routes),
        misses: shape.misses(routes),
    })
}

fn say(line: &str) -> std::io::Result<()> {
    println!("{line}");
    std::io::stdout().flush()
}

fn look_up(table: &RouteTable, questions: &[Question]) -> usize {
    let asked = questions.iter().cycle().take(LOOKUPS).map(|it| Asked {
        host: Some(&it.host),
        method: &it.method,
        path: &it.path,
        query: it.query.as_deref(),
        headers: &it.headers,
    });
    asked
        .filter(|asked| black_box(table).find(black_box(asked)).is_some())
        .count()
}

/// Memory of this process that is in use.
fn resident_kib() -> std::io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|text| text.parse().ok())
        .ok_or_else(|| std::io::Error::other("the kernel tells no VmRSS"))
}
