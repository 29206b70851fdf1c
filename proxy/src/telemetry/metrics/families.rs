//! Families of the `prometheus` crate, built in one call each. Knows no names and no cells' owners.

use std::time::Duration;

use prometheus::proto::{self, LabelPair, Metric, MetricFamily, MetricType};

use super::cells::{BUCKETS, Histogram};

/// Name, help, kind.
pub(super) type Family = (&'static str, &'static str, MetricType);

/// A family of one metric without labels.
pub(super) fn single(
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: f64,
) -> MetricFamily {
    let mut metric = Metric::default();
    match kind {
        MetricType::COUNTER => metric.set_counter(counter_of(value)),
        _ => metric.set_gauge(gauge_of(value)),
    }
    family((name, help, kind), vec![metric])
}

pub(super) fn family((name, help, kind): Family, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn label_pairs(labels: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    labels.iter().map(pair).collect()
}

pub(super) fn counter(labels: &[(&str, &str)], value: u64) -> Metric {
    let mut metric = Metric::from_label(label_pairs(labels));
    metric.set_counter(counter_of(value as f64));
    metric
}

pub(super) fn gauge(labels: &[(&str, &str)], value: f64) -> Metric {
    let mut metric = Metric::from_label(label_pairs(labels));
    metric.set_gauge(gauge_of(value));
    metric
}

fn counter_of(value: f64) -> proto::Counter {
    let mut counter = proto::Counter::default();
    counter.set_value(value);
    counter
}

fn gauge_of(value: f64) -> proto::Gauge {
    let mut gauge = proto::Gauge::default();
    gauge.set_value(value);
    gauge
}

pub(super) fn histogram(labels: &[(&str, &str)], durations: &Histogram) -> Metric {
    let sum = durations.sum();
    let bucket = |(bound, count): (&Duration, u64)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound.as_secs_f64());
        bucket.set_cumulative_count(count);
        bucket
    };
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(BUCKETS.iter().zip(sum.cumulative).map(bucket).collect());
    histogram.set_sample_count(sum.count);
    histogram.set_sample_sum(sum.seconds);
    let mut metric = Metric::from_label(label_pairs(labels));
    metric.set_histogram(histogram);
    metric
}
