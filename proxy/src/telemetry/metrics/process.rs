//! The `process_*` metrics every Prometheus client has, read from `/proc/self`.
//!
//! Where there is no `/proc`, they are absent. A file that does not read as expected leaves out its
//! metrics and nothing else.

use std::fs;

use prometheus::proto::{MetricFamily, MetricType};

use super::families::single;

/// Unit of CPU times in `/proc`: fixed to 100 per second in the kernel's interface (`USER_HZ`),
/// whatever the kernel's own tick.
const TICKS_PER_SECOND: f64 = 100.0;
/// `VmSize` and `VmRSS` are in KiB, which `/proc` calls kB.
const KIB: f64 = 1024.0;

/// Names, help and kinds, in the order of their values.
pub(super) const FAMILIES: [(&str, &str, MetricType); 7] = [
    (
        "process_cpu_seconds_total",
        "CPU time spent, user and system",
        MetricType::COUNTER,
    ),
    (
        "process_open_fds",
        "Open file descriptors",
        MetricType::GAUGE,
    ),
    (
        "process_max_fds",
        "Most file descriptors that may be open",
        MetricType::GAUGE,
    ),
    (
        "process_virtual_memory_bytes",
        "Virtual memory",
        MetricType::GAUGE,
    ),
    (
        "process_resident_memory_bytes",
        "Resident memory",
        MetricType::GAUGE,
    ),
    (
        "process_threads",
        "Threads of the process",
        MetricType::GAUGE,
    ),
    (
        "process_start_time_seconds",
        "When the process started, since 1970",
        MetricType::GAUGE,
    ),
];

pub(super) fn families() -> Vec<MetricFamily> {
    let stat = fs::read_to_string("/proc/self/stat").ok();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let values = [
        stat.as_deref().and_then(cpu_seconds),
        // The directory that is being listed is open itself.
        fs::read_dir("/proc/self/fd")
            .ok()
            .map(|entries| entries.count().saturating_sub(1) as f64),
        max_fds(&limits),
        status_value(&status, "VmSize:").map(|kib| kib * KIB),
        status_value(&status, "VmRSS:").map(|kib| kib * KIB),
        status_value(&status, "Threads:"),
        stat.as_deref().and_then(|stat| {
            start_time(stat, &fs::read_to_string("/proc/stat").unwrap_or_default())
        }),
    ];
    FAMILIES
        .into_iter()
        .zip(values)
        .filter_map(|((name, help, kind), value)| Some(single(name, help, kind, value?)))
        .collect()
}

/// Field `number` of `/proc/self/stat` as proc(5) counts them: from 1, with the command's name,
/// which may hold spaces and parentheses, as field 2.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_time(stat: &str, system: &str) -> Option<f64> {
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?;
    Some(boot.trim().parse::<f64>().ok()? + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

fn status_value(status: &str, key: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn max_fds(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok() // `unlimited` leaves it out
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "7 (a) b (c) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 3 0 12345 1 2";

    #[test]
    fn a_command_name_with_parentheses_is_one_field() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(start_time(STAT, "cpu 1 2\nbtime 1000\n"), Some(1123.45));
    }

    #[test]
    fn what_does_not_read_as_expected_is_left_out() {
        assert_eq!(cpu_seconds("7 (a"), None);
        assert_eq!(cpu_seconds("7 (a) S"), None);
        assert_eq!(start_time(STAT, ""), None);
        assert_eq!(status_value("Threads:\n", "Threads:"), None);
        assert_eq!(
            max_fds("Max open files            unlimited  unlimited files"),
            None
        );
        assert_eq!(
            max_fds("Max open files            1024       4096      files"),
            Some(1024.0)
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_them() {
        assert_eq!(families().len(), FAMILIES.len());
    }
}
