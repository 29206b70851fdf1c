//! What a pick may answer, by going over all endpoints: the rules of the
//! balancer without its means. Whatever is drawn must be in that set.

use proptest::prelude::*;

use super::*;

/// How an endpoint stands when it is picked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Closed,
    Open,
    /// Its slot is vacant, for longer than a request that cannot be retried waits, or not.
    Vacant {
        long: bool,
    },
    Probed,
}

type Described = (u32, bool, Kind);

fn described() -> impl Strategy<Value = Described> {
    let kind = prop_oneof![
        4 => Just(Kind::Closed),
        2 => Just(Kind::Open),
        1 => any::<bool>().prop_map(|long| Kind::Vacant { long }),
        1 => Just(Kind::Probed),
    ];
    let weight = prop_oneof![4 => Just(1u32), 1 => 0u32..4, 1 => Just(1000u32)];
    (weight, prop::bool::weighted(0.8), kind)
}

/// Few or many, mixed or nearly all of one kind: what a pick does differs.
fn crowds() -> impl Strategy<Value = Vec<Described>> {
    let nearly = |kind| {
        let odd = prop_oneof![30 => Just((1, true, kind)), 1 => described()];
        prop::collection::vec(odd, 60..150)
    };
    prop_oneof![
        4 => prop::collection::vec(described(), 0..12),
        1 => prop::collection::vec(described(), 50..150),
        1 => nearly(Kind::Open),
        1 => nearly(Kind::Closed),
        1 => nearly(Kind::Probed),
    ]
}

/// When the rotation that is picked from was made.
#[derive(Debug, Clone, Copy)]
enum Made {
    /// At first, and it is the one of now.
    Before,
    /// When all stood as described.
    After,
    /// At first, and another was made before breakers changed.
    OverSince,
    /// At first, and another was made when all stood as described.
    JustOver,
}

fn made() -> impl Strategy<Value = Made> {
    use Made::{After, Before, JustOver, OverSince};
    prop_oneof![Just(Before), Just(After), Just(OverSince), Just(JustOver)]
}

impl Bench {
    fn become_as(&mut self, kinds: &[Described]) -> Vec<InFlight> {
        let mut probes = Vec::new();
        for (index, (_, _, kind)) in kinds.iter().enumerate() {
            match kind {
                Kind::Closed => {}
                Kind::Open => self.break_for(index, seconds(60)),
                Kind::Vacant { .. } | Kind::Probed => self.break_for(index, millis(1)),
            }
        }
        self.now += seconds(2);
        for (state, (_, _, kind)) in self.states.iter().zip(kinds) {
            // One that is dropped leaves its slot vacant since now.
            if matches!(kind, Kind::Vacant { long: false } | Kind::Probed) {
                let probe = state.admit_probe(self.now).expect("the backoff is over").0;
                probes.extend(Some(probe).filter(|_| *kind == Kind::Probed));
            }
        }
        self.now += millis(500);
        probes
    }
}

/// Every endpoint that may be picked, and whether as a probe.
fn admissible(kinds: &[Described], tried: &[usize], retryable: bool) -> (Vec<usize>, bool) {
    let those = |was_tried: bool, fits: &dyn Fn(Kind) -> bool| -> Vec<usize> {
        let offered = |index: &usize| kinds[*index].0 > 0 && kinds[*index].1;
        (0..kinds.len())
            .filter(offered)
            .filter(|index| tried.contains(index) == was_tried && fits(kinds[*index].2))
            .collect()
    };
    let closed = |kind| kind == Kind::Closed;
    let vacant = |kind| matches!(kind, Kind::Vacant { .. });
    let volunteers = retryable && tried.is_empty();
    let wanted = |kind| kind == Kind::Vacant { long: true } || (volunteers && vacant(kind));
    [
        (those(false, &wanted), true),
        (those(false, &closed), false),
        (those(false, &vacant), true),
        (those(true, &closed), false),
        (those(true, &vacant), true),
    ]
    .into_iter()
    .find(|(indices, _)| !indices.is_empty())
    .unwrap_or_default()
}

proptest! {
    #[test]
    fn picks_as_if_it_went_over_all(
        mut kinds in crowds(),
        made in made(),
        balancer in prop::sample::select(algorithms::all()),
        tried in prop::collection::vec(0usize..12, 0..4),
        retryable: bool,
        seed: u64,
    ) {
        let offered: Vec<_> = kinds.iter().map(|(weight, healthy, _)| (*weight, *healthy)).collect();
        let mut bench = Bench::by(balancer, &offered);
        bench.rng = fastrand::Rng::with_seed(seed);
        if matches!(made, Made::OverSince) {
            bench.another();
        }
        let _probes = bench.become_as(&kinds);
        match made {
            Made::After => bench.rotation = bench.another(),
            Made::JustOver => drop(bench.another()),
            Made::Before | Made::OverSince => {}
        }
        let mut held = Vec::new();
        for key in 0..6 {
            bench.key = Some(seed.wrapping_add(key)).filter(|_| key % 3 > 0);
            let (expected, as_probe) = admissible(&kinds, &tried, retryable);
            match bench.pick(&tried, retryable) {
                Ok(picked) => {
                    prop_assert!(expected.contains(&picked.index), "{} of {expected:?}", picked.index);
                    prop_assert_eq!(picked.in_flight.is_probe(), as_probe);
                    if as_probe {
                        kinds[picked.index].2 = Kind::Probed;
                    }
                    held.push(picked);
                }
                Err(NoHealthyEndpoint) => prop_assert!(expected.is_empty(), "none of {expected:?}"),
            }
        }
    }
}
