//! Nearest names, for the "did you mean" of a refusal. Stands below every
//! module that speaks of names. Refuses to know what the names are of.

/// Longer names are not compared: nobody mistypes them, and the cost is the
/// product of both lengths.
const MAX_COMPARED_BYTES: usize = 128;

/// The candidate that `name` was most likely meant to be: the one with the
/// fewest edits (insertions, deletions, substitutions and swaps of neighbours,
/// case ignored), if there are few enough. Of equals, the first one given.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if name.is_empty() || name.len() > MAX_COMPARED_BYTES {
        return None;
    }
    let wanted: Vec<char> = name.to_lowercase().chars().collect();
    let tolerated = (wanted.len() / 3).clamp(1, 4);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate.len() > MAX_COMPARED_BYTES {
            continue;
        }
        let other: Vec<char> = candidate.to_lowercase().chars().collect();
        let distance = edits(&wanted, &other);
        if distance <= tolerated && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Optimal string alignment distance, by dynamic programming over three rows.
fn edits(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (row, a) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, b) in right.iter().enumerate() {
            let substituted = above[column] + usize::from(a != b);
            let mut least = substituted
                .min(above[column + 1] + 1)
                .min(current[column] + 1);
            let swapped = row > 0 && column > 0 && *a == right[column - 1] && left[row - 1] == *b;
            if swapped {
                least = least.min(before[column - 1] + 1);
            }
            current.push(least);
        }
        before = std::mem::replace(&mut above, current);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn finds_what_was_meant() {
        let table = [
            ("adress", &["address", "admin"][..], Some("address")),
            ("timeuots", &["timeouts", "retry"], Some("timeouts")),
            ("TARGETPORT", &["port", "targetPort"], Some("targetPort")),
            ("x", &["port", "name"], None),
            ("colour", &["limits", "retry"], None),
            ("", &["a"], None),
            ("retyr", &["retry", "retri"], Some("retry")),
        ];
        for (name, candidates, expected) in table {
            assert_eq!(
                nearest(name, candidates.iter().copied()),
                expected,
                "{name}"
            );
        }
    }
}
