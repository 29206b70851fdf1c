//! Which requests another service gets a copy of.
//!
//! Asked once per request that is sent, never for a copy, so that mirrors of
//! mirrors end there. It sends nothing. How many copies may be under way is
//! counted in [`crate::service`].

use crate::share::Share;
use crate::snapshot::Backend;

/// Who gets copies, and of how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorPolicy {
    /// Who gets them.
    pub to: Backend,
    /// Of how many requests.
    pub share: Share,
    /// Copies under way, those included that wait for their request's body; more are dropped.
    pub max_pending: u32,
    /// Appended to the name in `Host`; empty: `Host` stays.
    pub host_suffix: String,
}

/// The label `outcome` of `selvage_mirrors_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MirrorOutcome {
    /// Sent, and answered in whatever way.
    Sent,
    /// Not sent: too many are under way, or its body was not kept whole.
    Dropped,
    /// Not answered, or nobody was there to send it to.
    Failed,
}

impl MirrorOutcome {
    /// Every outcome.
    pub const ALL: [Self; 3] = [Self::Sent, Self::Dropped, Self::Failed];

    /// The label's value.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Dropped => "dropped",
            Self::Failed => "failed",
        }
    }
}

impl MirrorPolicy {
    /// The authority of a copy, where the policy asks for another than the request's.
    #[must_use]
    pub fn authority(&self, original: &str) -> Option<String> {
        if self.host_suffix.is_empty() {
            return None;
        }
        let (host, port) = match original.rsplit_once(':') {
            // The colons of an IPv6 address stand within brackets.
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (original, None),
        };
        let suffix = &self.host_suffix;
        Some(match port {
            Some(port) => format!("{host}{suffix}:{port}"),
            None => format!("{host}{suffix}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::ServiceName;

    #[test]
    fn the_host_is_suffixed_only_if_asked() {
        let policy = |suffix: &str| MirrorPolicy {
            to: Backend {
                service: ServiceName::new("shop", "next"),
                port: None,
            },
            share: Share::of_million(1).expect("a share"),
            max_pending: 64,
            host_suffix: suffix.to_owned(),
        };
        let shadow = policy("-shadow");
        assert_eq!(policy("").authority("ratings.shop"), None);
        assert_eq!(
            shadow.authority("ratings.shop").as_deref(),
            Some("ratings.shop-shadow")
        );
        assert_eq!(
            shadow.authority("ratings:80").as_deref(),
            Some("ratings-shadow:80")
        );
        assert_eq!(
            shadow.authority("[::1]:80").as_deref(),
            Some("[::1]-shadow:80")
        );
    }
}
