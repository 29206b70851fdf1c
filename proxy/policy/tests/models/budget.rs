//! The retry budget: never over its share of any interval that ends with a
//! retry, and never stricter than its slices make it.

use proptest::prelude::*;
use selvage_policy::budget::Budget;
use selvage_policy::snapshot::BudgetPolicy;

use crate::chance::{Word, sequence, sequences};
use crate::{millis, reference, start};

fn some_policy(word: &mut Word) -> BudgetPolicy {
    BudgetPolicy {
        percent: word.one_of(&[20, 0, 100, 1, 50]),
        interval: millis(word.one_of(&[10_000, 1_000, 3_570])),
        min_per_second: word.one_of(&[1, 0, 10]),
    }
}

proptest! {
    #![proptest_config(sequences())]

    #[test]
    fn a_budget_grants_what_the_rule_grants((policy, _, events) in sequence(80)) {
        let mut now = start();
        let policy = some_policy(&mut policy.clone());
        let (machine, mut model) = (Budget::new(policy, now), reference::Budget::new(policy, now));
        for mut event in events {
            match event.below(16) {
                0..=2 => now += event.wait(),
                3..=6 => for _ in 0..event.below(12) {
                    machine.request(now);
                    model.request(now);
                },
                7 if event.one_in(4) => {
                    let policy = some_policy(&mut event);
                    machine.set_policy(policy);
                    model.set_policy(policy);
                }
                _ => {
                    let granted = machine.try_spend(now);
                    prop_assert_eq!(granted, model.try_spend(now));
                    prop_assert!(!granted || model.is_kept(now), "over the share of the interval");
                }
            }
        }
    }
}
