//! The index chooses what the reference chooses.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use parking_lot::Mutex;
use proptest::prelude::*;
use selvage_policy::route::{RouteTable, Verdict};

use crate::chance::{request, routes};
use crate::reference::{Choice, Reference};

/// Requests for each table.
const REQUESTS: usize = 32;

/// Tables and requests together, where the environment does not say otherwise.
const CASES: u32 = 100_000;

static MET: LazyLock<Mutex<BTreeMap<&'static str, usize>>> = LazyLock::new(Mutex::default);

fn count(choice: Option<&Choice>) {
    let mut met = MET.lock();
    let kinds = match choice {
        None => vec!["no match"],
        Some(choice) if choice.conditions > 0 => vec![choice.kind, choice.host, "conditions"],
        Some(choice) => vec![choice.kind, choice.host],
    };
    for kind in kinds {
        *met.entry(kind).or_default() += 1;
    }
}

fn cases() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    let cases = asked.and_then(|text| text.parse().ok()).unwrap_or(CASES);
    ProptestConfig {
        cases: cases.div_ceil(REQUESTS as u32),
        // What fails is shrunk and printed; it then belongs into a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(cases())]

    fn alike(
        table in any::<u64>(),
        matches in prop::collection::vec(any::<u64>(), 1..32),
        requests in prop::collection::vec(any::<u64>(), REQUESTS),
    ) {
        let plain = routes(table, &matches);
        let reference = Reference::new(&plain);
        let decoded: Vec<_> = (0..).zip(&plain).map(|(at, route)| route.decoded(at)).collect();
        let table = RouteTable::new(&decoded);
        for (at, word) in requests.into_iter().enumerate() {
            let request = request(word);
            let expected = reference.choose(&request);
            count(expected.as_ref());
            request.ask(|asked| {
                let found = table.find(asked);
                let found = found.map(|it| (it.rule.label.to_string(), it.prefix));
                let expected = expected.as_ref().map(|it| (it.label.clone(), it.prefix.as_deref()));
                prop_assert_eq!(&found, &expected, "{:?} of {:?}", request, plain);
                if at == 0 {
                    let explained = table.explain(asked);
                    prop_assert_eq!(explained.len(), table.len());
                    let taken = explained.iter().filter(|it| it.verdict == Verdict::Taken);
                    let taken: Vec<&str> = taken.map(|it| &*it.rule.label).collect();
                    let found: Vec<&str> = found.iter().map(|(label, _)| label.as_str()).collect();
                    prop_assert_eq!(taken, found, "{:?} of {:?}", request, plain);
                }
                Ok(())
            })?;
        }
    }
}

#[test]
fn the_index_and_the_reference_choose_alike() {
    alike();
    let met = MET.lock();
    println!("met: {met:?}");
    // Only what is met was compared.
    for kind in [
        "any path",
        "exact path",
        "prefix",
        "regular expression",
        "gRPC",
        "every host",
        "wildcard",
        "exact host",
        "conditions",
        "no match",
    ] {
        assert!(
            met.get(kind).is_some_and(|count| *count > 0),
            "{kind}: {met:?}"
        );
    }
}
