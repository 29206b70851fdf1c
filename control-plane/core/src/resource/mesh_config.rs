//! `MeshConfig`: settings of the whole mesh. Refuses to know that there is
//! only one: the world sees to that.

use serde::Deserialize;

use super::call_policy::{CallPolicy, CircuitBreaker, Retry, Timeouts};
use crate::config::Checker;

/// Least and largest bound of the exposition, in lines.
pub const SERIES_LIMITS: std::ops::RangeInclusive<u32> = 100..=10_000_000;

/// The bound of the exposition where nobody sets one, in lines.
pub const DEFAULT_SERIES_LIMIT: u32 = 10_000;

/// `spec` of a `MeshConfig`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshConfigSpec {
    /// The one trust domain; must be that of the control plane or sidecar that reads it.
    pub trust_domain: Option<String>,
    /// Whether inbound sides accept plaintext.
    pub mtls: MutualTls,
    /// Authorization where no policy speaks.
    pub authorization: Authorization,
    /// Bounds of what is exported.
    pub telemetry: Telemetry,
    /// Below every `TrafficPolicy`.
    pub defaults: Defaults,
}

/// Whether inbound sides accept plaintext.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MutualTls {
    /// Only mutual TLS.
    #[default]
    Strict,
    /// Also plaintext, without an identity.
    Permissive,
}

/// Authorization where no policy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Authorization {
    /// The answer.
    pub default: DefaultAnswer,
}

/// The answer where no policy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DefaultAnswer {
    /// Let it pass.
    #[default]
    Allow,
    /// Refuse it.
    Deny,
}

/// Bounds of what is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Telemetry {
    /// Lines of exposition of one proxy.
    pub series_limit: u32,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            series_limit: DEFAULT_SERIES_LIMIT,
        }
    }
}

/// Below every `TrafficPolicy`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Defaults {
    timeouts: Timeouts,
    retry: Retry,
    circuit_breaker: CircuitBreaker,
}

impl MeshConfigSpec {
    /// What lies below every `TrafficPolicy`.
    #[must_use]
    pub fn policy(&self) -> CallPolicy {
        CallPolicy {
            timeouts: self.defaults.timeouts.clone(),
            retry: self.defaults.retry.clone(),
            circuit_breaker: self.defaults.circuit_breaker.clone(),
            ..CallPolicy::default()
        }
    }

    pub(crate) fn check(&self, check: &mut Checker<'_>) {
        if let Some(text) = &self.trust_domain
            && let Err(invalid) = selvage_certs::TrustDomain::parse(text)
        {
            check.error("spec.trustDomain", format!("not a trust domain: {invalid}"));
        }
        let limit = self.telemetry.series_limit;
        check.require(
            SERIES_LIMITS.contains(&limit),
            "spec.telemetry.seriesLimit",
            format!(
                "expected {} to {} lines, found `{limit}`",
                SERIES_LIMITS.start(),
                SERIES_LIMITS.end()
            ),
        );
        self.policy().check("spec.defaults", check);
    }
}
