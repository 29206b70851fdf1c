//! `timeouts` and `retry` of a rule of an HTTPRoute (GEP-1742, GEP-1731), as a
//! policy that is narrower than any other. Refuses to know what lies below it.
//!
//! Without codes a retry covers what cannot be told from a network that fails:
//! connections that are not made, resets before response headers, tries that
//! take too long; codes add to that. As everywhere, only idempotent methods
//! are repeated, unless a policy for the rule says otherwise by `methods`.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::config::Checker;
use crate::resource::call_policy::{Backoff, CallPolicy, Retry, Timeouts};
use crate::resource::retry_condition::RetryCondition;
use crate::scalar::Duration;

/// `timeouts` of a rule. `0s` disables one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteTimeouts {
    /// The whole exchange, with retries.
    pub request: Option<Duration>,
    /// One try.
    pub backend_request: Option<Duration>,
}

/// `retry` of a rule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct RouteRetry {
    /// Status codes that are retried besides.
    pub codes: Vec<u16>,
    /// Retries beyond the first try; 0 turns them off.
    pub attempts: Option<u32>,
    /// The wait before the first retry.
    pub backoff: Option<Duration>,
}

/// What is retried without codes.
const TRANSPORT: [RetryCondition; 3] = [
    RetryCondition::ConnectFailure,
    RetryCondition::Reset,
    RetryCondition::Timeout,
];

/// What a rule sets by itself.
pub(crate) fn policy(timeouts: Option<&RouteTimeouts>, retry: Option<&RouteRetry>) -> CallPolicy {
    let timeouts = timeouts.map(|it| Timeouts {
        request: it.request,
        backend_request: it.backend_request,
        ..Timeouts::default()
    });
    let retry = retry.map(|it| {
        let codes = it.codes.iter().copied().map(RetryCondition::Status);
        Retry {
            attempts: it.attempts,
            on: Some(TRANSPORT.into_iter().chain(codes).collect()),
            backoff: Backoff {
                base: it.backoff,
                max: None,
            },
            ..Retry::default()
        }
    });
    CallPolicy {
        timeouts: timeouts.unwrap_or_default(),
        retry: retry.unwrap_or_default(),
        ..CallPolicy::default()
    }
}

/// Checks both. `rule` is the path of the rule.
pub(crate) fn check(
    timeouts: Option<&RouteTimeouts>,
    retry: Option<&RouteRetry>,
    rule: &str,
    check: &mut Checker<'_>,
) {
    let CallPolicy {
        timeouts,
        retry: own,
        ..
    } = policy(timeouts, retry);
    timeouts.check(rule, check);
    let Some(retry) = retry else { return };
    let path = format!("{rule}.retry");
    let mut seen = BTreeSet::new();
    for (index, code) in retry.codes.iter().enumerate() {
        let path = format!("{path}.codes[{index}]");
        if !(400..=599).contains(code) {
            check.error(
                path,
                format!("expected a status from 400 to 599, found `{code}`"),
            );
        } else if !seen.insert(code) {
            check.error(path, format!("the status {code} is given twice"));
        }
    }
    own.check_attempts(&path, check);
    check.require(
        retry.backoff.is_none_or(Backoff::is_step),
        format!("{path}.backoff"),
        "expected more than 0s and at most 1h",
    );
}
