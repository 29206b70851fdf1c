//! Reads Prometheus' text exposition and sums it: the only thing the demo knows of the mesh's inside.
//!
//! It stands between the scraping and the table and report. It refuses to know where text comes from.

use std::collections::BTreeMap;

/// One line of exposition.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample {
    /// The metric, with the suffix of its kind (`_bucket`, `_sum`).
    pub(crate) name: String,
    /// Label values, unescaped.
    pub(crate) labels: BTreeMap<String, String>,
    /// The value.
    pub(crate) value: f64,
}

impl Sample {
    /// A label's value; empty where there is no such label.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// All samples of one scrape.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scrape(pub(crate) Vec<Sample>);

impl Scrape {
    /// Reads an exposition; a line that is none is passed over.
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(sample).collect())
    }

    /// The samples of one name.
    pub(crate) fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| sample.name == name)
    }

    /// The sum of one name over the samples that `keep` takes.
    pub(crate) fn sum(&self, name: &str, keep: impl Fn(&Sample) -> bool) -> f64 {
        self.of(name)
            .filter(|sample| keep(sample))
            .map(|sample| sample.value)
            .sum()
    }
}

fn sample(line: &str) -> Option<Sample> {
    if line.starts_with('#') {
        return None;
    }
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = value.split_whitespace().next()?.parse().ok()?;
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Reads `a="b",c="d"}` and gives what follows it.
fn labels(mut rest: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        loop {
            match characters.next()? {
                (at, '"') => {
                    rest = &after[at + 1..];
                    break;
                }
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        }
        labels.insert(name.to_owned(), value);
    }
}

/// The quantile `q` of cumulative buckets `(upper bound, count)`, linear inside a bucket, as
/// Prometheus' `histogram_quantile` estimates it. `None` where nothing was counted.
pub(crate) fn quantile(buckets: &[(f64, f64)], q: f64) -> Option<f64> {
    let total = buckets.last()?.1;
    if total <= 0.0 {
        return None;
    }
    let rank = q * total;
    let at = buckets.iter().position(|&(_, count)| count >= rank)?;
    let (upper, count) = buckets[at];
    let (lower, below) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    if upper.is_infinite() {
        return Some(lower);
    }
    let inside = count - below;
    Some(if inside > 0.0 {
        lower + (upper - lower) * (rank - below) / inside
    } else {
        upper
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_their_labels() {
        let scrape = Scrape::parse(
            "# HELP x y\n# TYPE x counter\nx{a=\"1\",b=\"q\\\"u\\\\o}\\n\"} 3\nx{a=\"2\"} 4 1700\nplain 2.5\nbroken{a=\"\n",
        );
        assert_eq!(scrape.0.len(), 3);
        assert_eq!(scrape.0[0].label("b"), "q\"u\\o}\n");
        assert_eq!(scrape.sum("x", |_| true), 7.0);
        assert_eq!(scrape.sum("x", |s| s.label("a") == "2"), 4.0);
        assert_eq!(scrape.sum("plain", |_| true), 2.5);
        assert_eq!(scrape.sum("absent", |_| true), 0.0);
    }

    #[test]
    fn quantiles_lie_inside_their_bucket() {
        let buckets = [(0.001, 50.0), (0.002, 100.0), (f64::INFINITY, 100.0)];
        assert_eq!(quantile(&buckets, 0.5), Some(0.001));
        assert_eq!(quantile(&buckets, 0.75), Some(0.0015));
        assert_eq!(
            quantile(&[(0.001, 0.0), (f64::INFINITY, 4.0)], 0.99),
            Some(0.001)
        );
        assert_eq!(quantile(&[(0.001, 0.0)], 0.5), None);
        assert_eq!(quantile(&[], 0.5), None);
    }
}
