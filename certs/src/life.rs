//! From when to when a certificate is valid: never beyond its issuer, at either end.
//!
//! Stands behind the CA; reads no clock, `now` is given.

use std::time::{Duration, SystemTime};

use crate::ca::CaError;
use crate::time;

/// How far `notBefore` is set back, for clocks that run behind.
pub const BACK_DATED: Duration = Duration::from_secs(60);
/// Longest life that may be asked for.
pub const LONGEST_TTL: Duration = Duration::from_secs(3650 * 24 * 3600);

/// First and last second of a certificate, both whole.
#[derive(Clone, Copy)]
pub(crate) struct Life {
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Life {
    /// From a minute ago for `ttl` from now, cut to the life of the issuer.
    pub(crate) fn starting(
        now: SystemTime,
        ttl: Duration,
        issuer: Option<Self>,
    ) -> Result<Self, CaError> {
        if ttl < Duration::from_secs(1) || ttl > LONGEST_TTL {
            return Err(CaError::Ttl);
        }
        let moment = |time: Option<SystemTime>| time.and_then(time::whole_seconds);
        let mut not_before = moment(now.checked_sub(BACK_DATED)).ok_or(CaError::Clock)?;
        let mut not_after = moment(now.checked_add(ttl)).ok_or(CaError::Clock)?;
        if let Some(issuer) = issuer {
            if now < issuer.not_before {
                return Err(CaError::Clock);
            }
            if now >= issuer.not_after {
                return Err(CaError::IssuerExpired);
            }
            not_before = not_before.max(issuer.not_before);
            not_after = not_after.min(issuer.not_after);
        }
        Ok(Self {
            not_before,
            not_after,
        })
    }
}
