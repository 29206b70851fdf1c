//! The control measurement: the same work each time, so that a change of its
//! time is a change of the machine's mood.

use std::hint::black_box;
use std::time::Instant;

/// About 0.1 s on a core of 2.6 GHz: a chain of steps that each need the last one's result, and
/// that no compiler folds into one.
const STEPS: u64 = 72_000_000;

/// Prints the seconds that the work took by the clock on the wall.
pub(crate) fn run() {
    let began = Instant::now();
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    for _ in 0..STEPS {
        state = (state ^ (state >> 29)).wrapping_mul(0x5851_f42d_4c95_7f2d);
    }
    black_box(state);
    println!("{:.6}", began.elapsed().as_secs_f64());
}
