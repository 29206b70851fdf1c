//! The control plane's metrics: what is counted as it happens, and what is
//! read when it is scraped. Every label is bounded. Knows no one who counts.

use std::collections::BTreeMap;

use prometheus::{
    Counter, Encoder, Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Services with a series of their own; what is over goes to `overflow`.
pub(crate) const SERVICE_SERIES: usize = 10_000;

/// From a push on one machine to a proxy that warms what it depends on.
const PUSH_SECONDS: [f64; 11] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];

/// Handles of all series; cheap to share behind an `Arc`.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    pub(crate) connected_proxies: IntGauge,
    pub(crate) push_duration: Histogram,
    /// By kind of resource refused. One label only: the library would merge
    /// series whose label values run together.
    pub(crate) nacks: IntCounterVec,
    pub(crate) certificates_issued: IntCounterVec,
    registered_endpoints: IntGaugeVec,
    registry_frozen: IntGauge,
    process: Process,
}

impl Metrics {
    /// Registers everything once.
    ///
    /// # Errors
    /// Never in practice: the names are distinct and valid.
    pub(crate) fn try_new() -> prometheus::Result<Self> {
        let registry = Registry::new();
        let build = Opts::new("selvage_build_info", "What this process was built from.")
            .const_label("version", env!("CARGO_PKG_VERSION"))
            .const_label("rustc", env!("SELVAGE_RUSTC"));
        let build = IntGauge::with_opts(build)?;
        build.set(1);
        registry.register(Box::new(build))?;
        let connected_proxies = IntGauge::new(
            "selvage_connected_proxies",
            "Proxies with an open discovery stream.",
        )?;
        let push_duration = Histogram::with_opts(
            HistogramOpts::new(
                "selvage_push_duration_seconds",
                "Time from a push to the proxy's answer.",
            )
            .buckets(PUSH_SECONDS.to_vec()),
        )?;
        let nacks = IntCounterVec::new(
            Opts::new(
                "selvage_nacks_total",
                "Resources refused by proxies, by kind.",
            ),
            &["kind"],
        )?;
        let certificates_issued = IntCounterVec::new(
            Opts::new(
                "selvage_certificates_issued_total",
                "Certificates signed, by kind.",
            ),
            &["kind"],
        )?;
        for kind in ["attest", "renew", "control-plane", "intermediate"] {
            certificates_issued.with_label_values(&[kind]);
        }
        for kind in ["workload", "service", "trust-bundle", "unknown"] {
            nacks.with_label_values(&[kind]);
        }
        let registered_endpoints = IntGaugeVec::new(
            Opts::new(
                "selvage_registered_endpoints",
                "Registered endpoints, by service.",
            ),
            &["service"],
        )?;
        let registry_frozen = IntGauge::new(
            "selvage_registry_frozen",
            "Whether no lease lapses, because too many workloads fell silent at once.",
        )?;
        registry.register(Box::new(registry_frozen.clone()))?;
        registry.register(Box::new(connected_proxies.clone()))?;
        registry.register(Box::new(push_duration.clone()))?;
        registry.register(Box::new(nacks.clone()))?;
        registry.register(Box::new(certificates_issued.clone()))?;
        registry.register(Box::new(registered_endpoints.clone()))?;
        let process = Process::try_new(&registry)?;
        Ok(Self {
            registry,
            connected_proxies,
            push_duration,
            nacks,
            certificates_issued,
            registered_endpoints,
            registry_frozen,
            process,
        })
    }

    /// The text exposition. `endpoints` counts registered endpoints by
    /// `namespace/service`; `frozen` is the registry's alarm.
    ///
    /// # Errors
    /// Never in practice: every family has series of one type.
    pub(crate) fn render(
        &self,
        endpoints: &BTreeMap<String, i64>,
        frozen: bool,
    ) -> prometheus::Result<Vec<u8>> {
        self.registry_frozen.set(i64::from(frozen));
        self.registered_endpoints.reset();
        for (index, (service, count)) in endpoints.iter().enumerate() {
            let label = if index < SERVICE_SERIES {
                service
            } else {
                "overflow"
            };
            self.registered_endpoints
                .with_label_values(&[label])
                .add(*count);
        }
        self.process.read();
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// The process as Linux shows it under `/proc/self`; elsewhere the figures stay 0.
#[derive(Debug)]
struct Process {
    cpu: Counter,
    resident: IntGauge,
    virtual_memory: IntGauge,
    open_files: IntGauge,
    start: Gauge,
}

/// Clock ticks per second in `/proc`: 100 on every Linux of today.
const TICKS_PER_SECOND: f64 = 100.0;
/// Of the sizes in `/proc/self/status`, which it calls kB; unlike pages they are of one size on every machine.
const KIB: i64 = 1024;

impl Process {
    fn try_new(registry: &Registry) -> prometheus::Result<Self> {
        let process = Self {
            cpu: Counter::new(
                "process_cpu_seconds_total",
                "User and system CPU time spent.",
            )?,
            resident: IntGauge::new("process_resident_memory_bytes", "Resident memory.")?,
            virtual_memory: IntGauge::new("process_virtual_memory_bytes", "Virtual memory.")?,
            open_files: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            start: Gauge::new(
                "process_start_time_seconds",
                "Start of the process since the epoch.",
            )?,
        };
        registry.register(Box::new(process.cpu.clone()))?;
        registry.register(Box::new(process.resident.clone()))?;
        registry.register(Box::new(process.virtual_memory.clone()))?;
        registry.register(Box::new(process.open_files.clone()))?;
        registry.register(Box::new(process.start.clone()))?;
        process
            .start
            .set(jiff::Timestamp::now().as_millisecond() as f64 / 1000.0);
        Ok(process)
    }

    fn read(&self) {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        self.virtual_memory.set(bytes(&status, "VmSize:"));
        self.resident.set(bytes(&status, "VmRSS:"));
        // Fields 14 and 15; counted after the name, which may hold spaces.
        let stat = read("/proc/self/stat");
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: f64 = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|n| n.parse::<f64>().unwrap_or(0.0))
            .sum();
        let spent = ticks / TICKS_PER_SECOND - self.cpu.get();
        if spent > 0.0 {
            self.cpu.inc_by(spent);
        }
        let files = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        self.open_files
            .set(i64::try_from(files).unwrap_or(i64::MAX));
    }
}

/// A size that the process's status names; 0 where it does not.
fn bytes(status: &str, name: &str) -> i64 {
    let said = status.lines().find_map(|line| line.strip_prefix(name));
    said.and_then(|rest| rest.split_whitespace().next()?.parse::<i64>().ok())
        .map_or(0, |kib| kib * KIB)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test may panic")]
    use super::*;

    #[test]
    fn memory_is_told_in_bytes_whatever_a_page_is() {
        let status = "Name:\tselvage\nVmPeak:\t 9000 kB\nVmSize:\t 8000 kB\nVmRSS:\t   12 kB\n";
        for (name, expected) in [
            ("VmSize:", 8_192_000),
            ("VmRSS:", 12_288),
            ("VmSwap:", 0),
            ("Name:", 0),
        ] {
            assert_eq!(bytes(status, name), expected, "{name}");
        }
    }

    #[test]
    fn services_are_counted_and_go_when_they_go() {
        let metrics = Metrics::try_new().unwrap();
        let one = BTreeMap::from([("shop/orders".to_owned(), 3)]);
        let text = String::from_utf8(metrics.render(&one, true).unwrap()).unwrap();
        assert!(
            text.contains("selvage_registered_endpoints{service=\"shop/orders\"} 3"),
            "{text}"
        );
        assert!(text.contains("selvage_registry_frozen 1"), "{text}");
        assert!(text.contains("selvage_build_info{"));
        assert!(text.contains("process_cpu_seconds_total"));
        let text = String::from_utf8(metrics.render(&BTreeMap::new(), false).unwrap()).unwrap();
        assert!(!text.contains("shop/orders"));
    }
}
