//! `mirror`: who gets copies of requests. Refuses to know what becomes of them.

use serde::Deserialize;

use super::backend::BackendRef;
use crate::config::Checker;
use crate::scalar::Fraction;

/// Copies of one service's requests under way.
const MAX_PENDING: u32 = 1024;
/// Bytes of `hostSuffix`.
const MAX_SUFFIX_BYTES: usize = 63;

/// Who gets copies of requests.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mirror {
    /// Who.
    pub service: BackendRef,
    /// Of how many requests; of all if left out.
    pub percent: Option<Fraction>,
    /// Copies under way; more are dropped.
    pub max_pending: Option<u32>,
    /// Appended to the name in `Host`.
    pub host_suffix: Option<String>,
}

impl Mirror {
    /// The same with the namespace of its service spelt out.
    #[must_use]
    pub fn within(&self, own_namespace: &str) -> Self {
        Self {
            service: self.service.within(own_namespace),
            ..self.clone()
        }
    }

    pub(crate) fn check(&self, base: &str, check: &mut Checker<'_>) {
        self.service.check(&format!("{base}.service"), check);
        check.require(
            self.max_pending
                .is_none_or(|most| (1..=MAX_PENDING).contains(&most)),
            format!("{base}.maxPending"),
            format!("expected 1 to {MAX_PENDING}"),
        );
        let is_name =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        let fits = |suffix: &str| {
            (1..=MAX_SUFFIX_BYTES).contains(&suffix.len()) && suffix.bytes().all(is_name)
        };
        check.require(
            self.host_suffix.as_deref().is_none_or(fits),
            format!("{base}.hostSuffix"),
            format!("expected 1 to {MAX_SUFFIX_BYTES} of a-z, 0-9, `-` and `.`, such as `-shadow`"),
        );
    }
}
