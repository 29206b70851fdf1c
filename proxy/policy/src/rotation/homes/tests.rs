//! How evenly keys are at home, and how few of them move.

use super::*;
use crate::hash::hash;
use crate::snapshot::Hashing;

const KEYS: u64 = 100_000;

fn algorithms() -> [Algorithm; 2] {
    let hashing = Hashing {
        on: Vec::new(),
        bounded_load: None,
    };
    let ring = Algorithm::RingHash {
        hashing: hashing.clone(),
        virtual_nodes: 4096,
    };
    [ring, Algorithm::Maglev(hashing)]
}

fn seated(weights: &[u32]) -> Box<[(Arc<str>, u32)]> {
    let named = |(n, weight): (usize, &u32)| (format!("shop/orders-{n}").into(), *weight);
    weights.iter().enumerate().map(named).collect()
}

fn homes(algorithm: &Algorithm, seated: &[(Arc<str>, u32)]) -> Arc<Homes> {
    Homes::among(algorithm, seated.into(), None).expect("somebody is seated")
}

fn home(homes: &Homes, key: u64) -> Arc<str> {
    let seat = homes.walk(key).next().expect("a key has a home");
    Arc::clone(&homes.seated[seat].0)
}

fn key(n: u64) -> u64 {
    hash(format!("user-{n}").as_bytes())
}

#[test]
fn keys_are_shared_by_weight() {
    // The more are on a ring, the further off is the one that is furthest.
    let table = [
        (vec![1; 3], 0.05),
        (vec![1; 10], 0.05),
        (vec![7; 50], 0.06),
        (vec![1, 2, 3, 4], 0.05),
    ];
    for algorithm in algorithms() {
        for (weights, bound) in &table {
            let homes = homes(&algorithm, &seated(weights));
            // Of the whole circle, which no number of keys can tell as exactly.
            let mut shares = vec![0.0; weights.len()];
            match &homes.plan {
                Plan::Maglev(places) => {
                    (places.iter()).for_each(|seat| shares[*seat as usize] += 1.0 / 65_537.0);
                }
                Plan::Ring { points, .. } => {
                    let mut from = 0;
                    for point in points {
                        shares[ring_hash::seat(*point)] += (point - from) as f64 / 2f64.powi(64);
                        from = *point;
                    }
                }
            }
            let all: u32 = weights.iter().sum();
            let off = |(share, weight): (&f64, &u32)| {
                (share * f64::from(all) / f64::from(*weight) - 1.0).abs()
            };
            let worst = shares.iter().zip(weights).map(off).fold(0.0, f64::max);
            let kind = if homes.is_of(&algorithms()[0]) {
                "ring"
            } else {
                "maglev"
            };
            println!(
                "{kind} of {}: at most {:.2} % off",
                weights.len(),
                worst * 100.0
            );
            assert!(worst < *bound, "{kind} {weights:?}: {shares:?}");
        }
    }
}

#[test]
fn hardly_more_keys_move_than_must() {
    for algorithm in algorithms() {
        for count in [3, 10, 50] {
            let all = seated(&vec![1; count]);
            let before = homes(&algorithm, &all);
            let mut worst = 0.0;
            for gone in [0, count / 2, count - 1] {
                let mut left = all.to_vec();
                left.remove(gone);
                let after = homes(&algorithm, &left);
                let moves = |n: &u64| home(&before, key(*n)) != home(&after, key(*n));
                let moved = (0..KEYS / 5).filter(moves).count() as f64 / (KEYS / 5) as f64;
                worst = f64::max(worst, moved);
            }
            let must = 1.0 / count as f64;
            let kind = if before.is_of(&algorithms()[0]) {
                "ring"
            } else {
                "maglev"
            };
            println!(
                "{kind}: one of {count} leaves, {:.2} % move, {:.2} % must",
                worst * 100.0,
                must * 100.0
            );
            assert!(worst <= must + 0.05, "{kind} {count}: {worst}");
        }
    }
}

#[test]
fn on_a_ring_only_the_keys_of_the_one_that_left_move() {
    let [ring, _] = algorithms();
    let all = seated(&[1, 3, 2, 3]);
    let left: Vec<_> = all
        .iter()
        .filter(|(id, _)| !id.ends_with("-2"))
        .cloned()
        .collect();
    let (before, after) = (homes(&ring, &all), homes(&ring, &left));
    for n in 0..KEYS / 5 {
        let was = home(&before, key(n));
        assert!(was.ends_with("-2") || was == home(&after, key(n)));
    }
}

#[test]
fn a_ring_is_bounded_and_everybody_is_on_it() {
    let hashing = Hashing {
        on: Vec::new(),
        bounded_load: None,
    };
    let ring = Algorithm::RingHash {
        hashing,
        virtual_nodes: 4096,
    };
    let mut weights = vec![1_000; 1_000];
    weights[7] = 1;
    let homes = homes(&ring, &seated(&weights));
    let Plan::Ring { points, .. } = &homes.plan else {
        panic!("a ring");
    };
    assert!(
        points.len() as u64 <= ring_hash::MOST_POINTS,
        "{}",
        points.len()
    );
    let on: std::collections::HashSet<_> =
        points.iter().map(|point| ring_hash::seat(*point)).collect();
    assert_eq!(on.len(), 1_000);
}

#[test]
fn a_walk_begins_at_home_and_meets_everybody() {
    for algorithm in algorithms() {
        let homes = homes(&algorithm, &seated(&[1; 5]));
        for n in 0..50 {
            let met: std::collections::HashSet<_> = homes.walk(key(n)).take(200).collect();
            assert_eq!(met.len(), 5);
            assert_eq!(homes.walk(key(n)).next(), homes.walk(key(n)).next());
        }
        assert!(homes.walk(u64::MAX).next().is_some());
    }
}

#[test]
fn the_same_endpoints_keep_their_homes() {
    let [ring, maglev] = algorithms();
    let all = seated(&[1, 2]);
    let before = homes(&ring, &all);
    let again = |algorithm, seated| Homes::among(algorithm, seated, Some(&before)).expect("seated");
    assert!(Arc::ptr_eq(&before, &again(&ring, all.clone())));
    assert!(!Arc::ptr_eq(&before, &again(&maglev, all.clone())));
    assert!(!Arc::ptr_eq(&before, &again(&ring, seated(&[2, 1]))));
    assert!(Homes::among(&ring, Box::default(), Some(&before)).is_none());
    assert!(Homes::among(&Algorithm::Random, all, Some(&before)).is_none());
}
