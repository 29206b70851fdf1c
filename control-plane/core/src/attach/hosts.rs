//! Hosts of routes beside those of listeners, as Gateway API has it: an exact
//! name, or `*.` and the end of names of one label more or of several. No name
//! at all is every host. Refuses to know routes and listeners.

/// The hosts that a route serves on a listener: those of both, each as the
/// narrower of them says it. `None` where they share none; empty is every host.
#[must_use]
pub fn shared(listener: Option<&str>, route: &[String]) -> Option<Vec<String>> {
    let Some(listener) = listener else {
        return Some(route.to_vec());
    };
    if route.is_empty() {
        return Some(vec![listener.to_owned()]);
    }
    let mut shared: Vec<String> = Vec::new();
    for host in route {
        if let Some(host) = narrower(listener, host)
            && !shared.iter().any(|known| known == host)
        {
            shared.push(host.to_owned());
        }
    }
    (!shared.is_empty()).then_some(shared)
}

/// Whether some host is in both lists.
#[must_use]
pub fn overlap(one: &[String], other: &[String]) -> bool {
    let meets = |host: &String| other.iter().any(|it| narrower(host, it).is_some());
    one.is_empty() || other.is_empty() || one.iter().any(meets)
}

/// Of two that share a host the narrower one.
fn narrower<'h>(one: &'h str, other: &'h str) -> Option<&'h str> {
    match covers(one, other) {
        true => Some(other),
        false => covers(other, one).then_some(one),
    }
}

/// Whether every host of `narrow` is one of `wide`.
fn covers(wide: &str, narrow: &str) -> bool {
    match wide.strip_prefix('*') {
        // `.example.com`, and at least a label before it.
        Some(end) => wide == narrow || (narrow.len() > end.len() && narrow.ends_with(end)),
        None => wide == narrow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_those_of_both() {
        type Row = (
            Option<&'static str>,
            &'static [&'static str],
            Option<&'static [&'static str]>,
        );
        let table: [Row; 14] = [
            (None, &[], Some(&[])),
            (None, &["a.com", "*.b.com"], Some(&["a.com", "*.b.com"])),
            (Some("a.com"), &[], Some(&["a.com"])),
            (Some("a.com"), &["a.com", "b.com"], Some(&["a.com"])),
            (Some("a.com"), &["b.com"], None),
            (
                Some("very.specific.com"),
                &["*.specific.com"],
                Some(&["very.specific.com"]),
            ),
            (Some("specific.com"), &["*.specific.com"], None),
            (
                Some("*.wild.com"),
                &["a.wild.com", "a.b.wild.com"],
                Some(&["a.wild.com", "a.b.wild.com"]),
            ),
            (Some("*.wild.com"), &["wild.com"], None),
            (Some("*.wild.com"), &["*.wild.com"], Some(&["*.wild.com"])),
            (
                Some("*.wild.com"),
                &["*.a.wild.com"],
                Some(&["*.a.wild.com"]),
            ),
            (
                Some("*.a.wild.com"),
                &["*.wild.com"],
                Some(&["*.a.wild.com"]),
            ),
            (Some("*.wild.com"), &["*.notwild.com"], None),
            (
                Some("a.wild.com"),
                &["*.wild.com", "a.wild.com"],
                Some(&["a.wild.com"]),
            ),
        ];
        for (listener, route, expected) in table {
            let owned = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
            let route: Vec<String> = owned(route);
            let expected: Option<Vec<String>> = expected.map(owned);
            assert_eq!(shared(listener, &route), expected, "{listener:?} {route:?}");
        }
    }

    #[test]
    fn lists_overlap_where_one_host_is_in_both() {
        let owned = |hosts: &[&str]| {
            hosts
                .iter()
                .map(|host| (*host).to_owned())
                .collect::<Vec<_>>()
        };
        for (one, other, expected) in [
            (vec![], vec!["a.com"], true),
            (vec!["a.com"], vec!["b.com"], false),
            (vec!["*.com"], vec!["a.com"], true),
            (vec!["x.com", "a.com"], vec!["b.com", "a.com"], true),
        ] {
            assert_eq!(
                overlap(&owned(&one), &owned(&other)),
                expected,
                "{one:?} {other:?}"
            );
            assert_eq!(overlap(&owned(&other), &owned(&one)), expected);
        }
    }
}
