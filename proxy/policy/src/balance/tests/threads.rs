//! Workers that pick, fail and probe while Snapshots are swapped: whatever the
//! order, what the crowd says of its seats is in the end what they are.

use std::thread;

use super::*;

const WORKERS: u64 = 3;
const ROUNDS: u64 = 3_000;

/// A worker to which every third try fails, with a clock of its own.
fn work(rotation: &Rotation, start: Instant, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let policy = BreakerPolicy {
        consecutive_failures: 1,
        backoff: BackoffPolicy {
            base: millis(20),
            max: millis(40),
        },
        ..BreakerPolicy::default()
    };
    for round in 0..ROUNDS {
        let now = start + millis(round);
        let Ok(mut picked) = pick(rotation, &[], rng.bool(), now, &mut rng) else {
            continue;
        };
        let class = match rng.u8(..9) {
            0..3 => Class::HardFailure,
            3..8 => Class::Success,
            _ => continue,
        };
        let report = Report {
            class,
            could_not_connect: false,
            retry_after: None,
        };
        picked.in_flight.observe(&report, &policy, now, &mut rng);
    }
}

fn check(bench: &Bench) {
    assert!(bench.rotation.is_true());
    assert!(bench.states.iter().all(|state| state.pending() == 0));
}

#[test]
fn the_roll_is_true_when_all_is_quiet() {
    let mut bench = Bench::new(&[(1, true); 70]);
    for swap in 0..4 {
        let old = Arc::clone(&bench.rotation);
        let renewed = thread::scope(|scope| {
            for worker in 0..WORKERS {
                let (old, start) = (&old, bench.now);
                scope.spawn(move || work(old, start, swap * WORKERS + worker));
            }
            bench.another()
        });
        bench.rotation = renewed;
        check(&bench);
        bench.now += millis(ROUNDS);
    }
}
