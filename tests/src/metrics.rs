//! What a proxy says it did: the text exposition, parsed.

use std::collections::BTreeMap;

/// One scrape.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// The exposition itself.
    pub text: String,
    series: Vec<Series>,
}

#[derive(Debug, Clone)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Metrics {
    /// Parses the text exposition of Prometheus.
    ///
    /// # Panics
    /// On a line that is none.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let lines = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self {
            text: text.to_owned(),
            series: lines.map(Series::parse).collect(),
        }
    }

    /// The sum over all series of `name` that carry these labels.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|series| series.value).sum()
    }

    /// The sum as a count.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counters are whole and not negative"
    )]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.sum(name, labels) as u64
    }

    /// How many series of `name` carry these labels.
    #[must_use]
    pub fn series(&self, name: &str, labels: &[(&str, &str)]) -> usize {
        self.matching(name, labels).count()
    }

    /// The lines of the exposition that begin with `name`, for messages.
    #[must_use]
    pub fn lines(&self, name: &str) -> String {
        self.text
            .lines()
            .filter(|line| line.starts_with(name))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = &Series> {
        self.series.iter().filter(move |series| {
            series.name == name
                && labels
                    .iter()
                    .all(|(key, value)| series.labels.get(*key).is_some_and(|known| known == value))
        })
    }
}

impl Series {
    fn parse(line: &str) -> Self {
        let (rest, value) = line
            .rsplit_once(' ')
            .unwrap_or_else(|| panic!("no value: {line}"));
        let value = value
            .parse()
            .unwrap_or_else(|_| panic!("no number: {line}"));
        let Some((name, labels)) = rest.split_once('{') else {
            return Self {
                name: rest.to_owned(),
                labels: BTreeMap::new(),
                value,
            };
        };
        let labels = labels
            .strip_suffix('}')
            .unwrap_or_else(|| panic!("labels without an end: {line}"));
        Self {
            name: name.to_owned(),
            labels: parse_labels(labels),
            value,
        }
    }
}

fn parse_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while let Some((key, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next() {
                Some((_, '\\')) => match characters.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => panic!("a label ends in a backslash: {text}"),
                },
                Some((place, '"')) => break place,
                Some((_, other)) => value.push(other),
                None => panic!("a label without an end: {text}"),
            }
        };
        labels.insert(key.trim_start_matches(',').to_owned(), value);
        text = &rest[end + 1..];
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_with_their_escapes() {
        let metrics = Metrics::parse(
            "# HELP a b\na_total{x=\"1,\\\"2\\\"\",y=\"\"} 3\na_total{x=\"z\",y=\"\"} 4\nb 1.5\n",
        );
        assert_eq!(metrics.count("a_total", &[]), 7);
        assert_eq!(metrics.count("a_total", &[("x", "1,\"2\"")]), 3);
        assert_eq!(metrics.series("a_total", &[("y", "")]), 2);
        assert!((metrics.sum("b", &[]) - 1.5).abs() < f64::EPSILON);
    }
}
