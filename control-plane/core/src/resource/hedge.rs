//! `hedge`: when a second try is sent beside one that takes long. Refuses to
//! know how the delay is measured: that is the proxy's.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::call_policy::{Merge, Timeouts};
use super::check_method;
use crate::config::Checker;
use crate::scalar::{Duration, Percent};

/// Hedging is on once `delay` is set, and `maxPercent` is not 0.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hedge {
    /// How long the first try is waited for.
    pub delay: Option<HedgeDelay>,
    /// Share of the requests that could be hedged; 0 turns hedging off.
    pub max_percent: Option<Percent>,
    /// Which methods; idempotent ones.
    pub methods: Option<Vec<String>>,
}

/// How long a try is waited for before another is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HedgeDelay {
    /// `p50` to `p99`: as long as this share of tries takes.
    Percentile(u8),
    /// Always the same.
    After(Duration),
}

/// A text is no delay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a quantile from `p50` to `p99`, or a duration such as `50ms`, found `{0}`")]
pub struct InvalidHedgeDelay(String);

/// Sent once or twice, they have the same effect (RFC 9110, 9.2.2).
const IDEMPOTENT: [&str; 6] = ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"];

impl FromStr for HedgeDelay {
    type Err = InvalidHedgeDelay;

    fn from_str(text: &str) -> Result<Self, InvalidHedgeDelay> {
        let invalid = || InvalidHedgeDelay(text.chars().take(40).collect());
        match text.strip_prefix('p') {
            Some(number) if number.len() == 2 => match number.parse() {
                Ok(percent @ 50..=99) => Ok(Self::Percentile(percent)),
                _ => Err(invalid()),
            },
            _ => text.parse().map(Self::After).map_err(|_| invalid()),
        }
    }
}

impl fmt::Display for HedgeDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percentile(percent) => write!(f, "p{percent}"),
            Self::After(delay) => delay.fmt(f),
        }
    }
}

impl<'de> Deserialize<'de> for HedgeDelay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

impl Merge for Hedge {
    fn over(&self, below: &Self) -> Self {
        Self {
            delay: self.delay.over(&below.delay),
            max_percent: self.max_percent.over(&below.max_percent),
            methods: self.methods.over(&below.methods),
        }
    }
}

impl Hedge {
    /// Reports what contradicts itself, or the `timeouts` beside it.
    pub(crate) fn check(&self, base: &str, timeouts: &Timeouts, check: &mut Checker<'_>) {
        let base = format!("{base}.hedge");
        if let Some(HedgeDelay::After(delay)) = self.delay {
            check_delay(delay, timeouts, &format!("{base}.delay"), check);
        }
        let empty = self.methods.as_ref().is_some_and(Vec::is_empty);
        check.require(
            !empty,
            format!("{base}.methods"),
            "expected at least one method; `maxPercent: 0` turns hedging off",
        );
        for (index, method) in self.methods.iter().flatten().enumerate() {
            let path = format!("{base}.methods[{index}]");
            let upper = method.to_ascii_uppercase();
            if IDEMPOTENT.contains(&upper.as_str()) {
                check_method(check, path, method);
            } else {
                let message = format!("`{method}` is not idempotent: sent twice, it is done twice");
                check.error_with_help(path, message, format!("any of {}", IDEMPOTENT.join(", ")));
            }
        }
    }
}

fn check_delay(delay: Duration, timeouts: &Timeouts, path: &str, check: &mut Checker<'_>) {
    let zero = Duration::default();
    check.require(
        delay > zero,
        path,
        "expected more than 0s: without a delay every request is sent twice",
    );
    for (name, limit) in [
        ("backendRequest", timeouts.backend_request),
        ("request", timeouts.request),
    ] {
        if let Some(limit) = limit.filter(|limit| *limit > zero && delay >= *limit) {
            let message =
                format!("a hedge after {delay} is never sent: `timeouts.{name}` is {limit}");
            return check.error(path, message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HedgeDelay;
    use crate::scalar::Duration;

    #[test]
    fn a_delay_is_a_quantile_or_a_duration() {
        let after = |millis| HedgeDelay::After(Duration(std::time::Duration::from_millis(millis)));
        let table = [
            ("p95", Some(HedgeDelay::Percentile(95))),
            ("p50", Some(HedgeDelay::Percentile(50))),
            ("50ms", Some(after(50))),
            ("1s", Some(after(1000))),
            ("p49", None),
            ("p100", None),
            ("p9", None),
            ("p+5", None),
            ("P95", None),
            ("95", None),
            ("", None),
        ];
        for (text, expected) in table {
            let parsed = text.parse::<HedgeDelay>().ok();
            assert_eq!(parsed, expected, "{text}");
            if let Some(delay) = parsed {
                assert_eq!(delay.to_string(), text);
            }
        }
    }
}
