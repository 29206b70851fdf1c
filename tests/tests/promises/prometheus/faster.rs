//! The shipped files with time running faster, and otherwise as they are.
//!
//! Every duration is divided by [`FASTER`]: those of settings (`for`, `…_interval`, `…_timeout`) and
//! those in brackets of an expression. A minute becomes a second. Certificates live for hours, and
//! their hours, written `* 3600`, become seconds, so a mesh under test has `leafTtl: 24s`.

/// How much faster.
const FASTER: u64 = 60;

/// A file of Prometheus, faster.
pub(super) fn faster(text: &str) -> String {
    text.lines().map(|line| faster_line(line) + "\n").collect()
}

/// An expression, faster.
fn faster_ranges(text: &str) -> String {
    let mut parts = text.split('[');
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let range = part.split_once(']');
        let divided = range.and_then(|(range, rest)| Some((divide(range)?, rest)));
        whole += &match divided {
            Some((range, rest)) => format!("[{range}]{rest}"),
            None => format!("[{part}"),
        };
    }
    whole
}

fn faster_line(line: &str) -> String {
    if line.trim_start().starts_with('#') {
        return line.to_owned();
    }
    if let Some((key, value)) = line.split_once(": ") {
        let name = key.trim_start();
        let timed = name == "for" || name.ends_with("_interval") || name.ends_with("_timeout");
        if let (true, Some(value)) = (timed, divide(value)) {
            return format!("{key}: {value}");
        }
    }
    faster_ranges(line).replace("* 3600", "* 1")
}

/// A duration of Prometheus, of one unit, divided; `None` where it is none.
fn divide(text: &str) -> Option<String> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(format!(
        "{}ms",
        number.parse::<u64>().ok()? * milliseconds / FASTER
    ))
}

#[test]
fn durations_are_divided_and_nothing_else() {
    for (slow, fast) in [
        ("  scrape_interval: 15s", "  scrape_interval: 250ms"),
        ("        for: 2m", "        for: 2000ms"),
        ("# for: 2m, [5m]", "# for: 2m, [5m]"),
        (
            "rate(a{b=\"c\"}[5m]) / rate(d[6h])",
            "rate(a{b=\"c\"}[5000ms]) / rate(d[360000ms])",
        ),
        ("time() < 4 * 3600", "time() < 4 * 1"),
        ("- targets: [\"a:1\"]", "- targets: [\"a:1\"]"),
        (
            "- record: a:b:rate5m # [each",
            "- record: a:b:rate5m # [each",
        ),
    ] {
        assert_eq!(faster(slow), format!("{fast}\n"));
    }
}
